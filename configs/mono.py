"""Mono: one language alone (Tables 2, 3, 5, 7).

This is the monolingual baseline. Mono's score minus JointPair's is what sharing costs a language. At
equal steps it has two causes: interference, and less text of the language. The encoder has no language
embedding, as in XLM.

  python -m negint.main --config=configs/mono.py:ar          # bundled sample
  python -m negint.main --config=configs/mono.py:lab         # artificial languages
  python -m negint.main --config=configs/mono.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("mono", arg)
