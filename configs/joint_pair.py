"""JointPair: one encoder for two languages (Tables 2-7), or for more.

The languages share all parameters. Only the language embedding tells them apart.

  python -m negint.main --config=configs/joint_pair.py:ar          # bundled sample
  python -m negint.main --config=configs/joint_pair.py:lab         # artificial languages
  python -m negint.main --config=configs/joint_pair.py:ar,paper    # the paper's setting
  python -m negint.main --config=configs/joint_pair.py:fr-ru-te-en # four languages of the sample
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("joint_pair", arg)
