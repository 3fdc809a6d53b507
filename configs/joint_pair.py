"""JointPair: one encoder for two languages (Tables 2-7).

Everything is shared; only the language embedding tells the languages apart.

Cost: 1.35e19 FLOPs at scale paper; the sample and the lab take about a minute and a half each on two CPU
cores.

  python -m negint.main --config=configs/joint_pair.py:ar          # bundled sample
  python -m negint.main --config=configs/joint_pair.py:lab         # artificial languages
  python -m negint.main --config=configs/joint_pair.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("joint_pair", arg)
