"""JointTri: JointPair with a third, similar language (Table 4).

Marathi joins English and Hindi; Kannada joins English and Telugu.

  python -m negint.main --config=configs/joint_tri.py:hi          # bundled sample
  python -m negint.main --config=configs/joint_tri.py:lab         # artificial languages
  python -m negint.main --config=configs/joint_tri.py:hi,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("joint_tri", arg)
