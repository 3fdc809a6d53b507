"""+ adpt: JointPair with adapters of its own for each language (Tables 2, 3, 6, 7).

phi holds two bottleneck adapters a layer (Eqs. 6-7), trained by the ordinary gradient.

Cost: 1.45e19 FLOPs at scale paper; the sample and the lab take about a minute and a half each on two CPU
cores.

  python -m negint.main --config=configs/adpt.py:ar          # bundled sample
  python -m negint.main --config=configs/adpt.py:lab         # artificial languages
  python -m negint.main --config=configs/adpt.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("adpt", arg)
