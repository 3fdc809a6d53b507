"""+ meta adpt: adapters trained by the meta-gradient (Section 4, Algorithm 1; Tables 2, 3, 6, 7).

phi holds two bottleneck adapters a layer. Each step moves phi_i by the exact gradient of the
held-out loss of all languages after a look-ahead of theta, then theta at the new phi_i.

Cost: 6.5e19 FLOPs at scale paper; the sample takes three to seven minutes on two idle CPU cores, the
lab as long. At these small scales --config.meta.gradient=forward_over_reverse, which base and paper
take by default, gives the same gradient with less memory.

  python -m negint.main --config=configs/meta_adpt.py:ar          # bundled sample
  python -m negint.main --config=configs/meta_adpt.py:lab         # artificial languages
  python -m negint.main --config=configs/meta_adpt.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("meta_adpt", arg)
