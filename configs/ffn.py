"""+ ffn: JointPair with separate feed-forward layers for each language (Tables 2, 3, 6, 7).

phi, the parameters of one language, holds the feed-forward layers. The ordinary gradient trains it.

  python -m negint.main --config=configs/ffn.py:ar          # bundled sample
  python -m negint.main --config=configs/ffn.py:lab         # artificial languages
  python -m negint.main --config=configs/ffn.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("ffn", arg)
