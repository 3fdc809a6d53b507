"""JointTri: JointPair with a third, similar language (Table 4).

Marathi joins English-Hindi, Kannada joins English-Telugu.

Cost: 1.35e19 FLOPs at scale paper; the sample and the lab take about a minute and a half each on two CPU
cores.

  python -m negint.main --config=configs/joint_tri.py:hi          # bundled sample
  python -m negint.main --config=configs/joint_tri.py:lab         # artificial languages
  python -m negint.main --config=configs/joint_tri.py:hi,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("joint_tri", arg)
