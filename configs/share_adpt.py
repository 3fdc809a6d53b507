"""+ share adpt: JointPair with adapters that all languages share (Tables 2, 3, 6, 7).

The ablation that separates extra capacity from language-specific capacity: the adapters are part
of theta.

Cost: 1.45e19 FLOPs at scale paper; the sample and the lab take about a minute and a half each on two CPU
cores.

  python -m negint.main --config=configs/share_adpt.py:ar          # bundled sample
  python -m negint.main --config=configs/share_adpt.py:lab         # artificial languages
  python -m negint.main --config=configs/share_adpt.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("share_adpt", arg)
