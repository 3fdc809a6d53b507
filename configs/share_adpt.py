"""+ share adpt: JointPair with adapters that all languages share (Tables 2, 3, 6, 7).

This ablation separates extra capacity from language-specific capacity. The adapters are part of
theta, the parameters shared by all languages.

  python -m negint.main --config=configs/share_adpt.py:ar          # bundled sample
  python -m negint.main --config=configs/share_adpt.py:lab         # artificial languages
  python -m negint.main --config=configs/share_adpt.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("share_adpt", arg)
