"""+ adpt: JointPair with separate adapters for each language (Tables 2, 3, 6, 7).

phi, the parameters of one language, holds two bottleneck adapters per layer (Eqs. 6-7). The ordinary
gradient trains it.

  python -m negint.main --config=configs/adpt.py:ar          # bundled sample
  python -m negint.main --config=configs/adpt.py:lab         # artificial languages
  python -m negint.main --config=configs/adpt.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("adpt", arg)
