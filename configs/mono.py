"""Mono: one language alone (Tables 2, 3, 5, 7).

The monolingual baseline against which negative interference is measured: Mono minus JointPair
in a language. No language embedding, as in XLM.

Cost: 1.35e19 FLOPs at scale paper; the sample and the lab take about a minute and a half each on two CPU
cores.

  python -m negint.main --config=configs/mono.py:ar          # bundled sample
  python -m negint.main --config=configs/mono.py:lab         # artificial languages
  python -m negint.main --config=configs/mono.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("mono", arg)
