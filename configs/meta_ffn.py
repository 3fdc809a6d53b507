"""Feed-forward layers of its own for each language, trained by the meta-gradient (not in the paper).

What the paper leaves to future work: Algorithm 1 with phi = the feed-forward layers.

Cost: 6.1e19 FLOPs at scale paper; the sample takes three to seven minutes on two idle CPU cores, the
lab as long. At these small scales --config.meta.gradient=forward_over_reverse, which base and paper
take by default, gives the same gradient with less memory.

  python -m negint.main --config=configs/meta_ffn.py:ar          # bundled sample
  python -m negint.main --config=configs/meta_ffn.py:lab         # artificial languages
  python -m negint.main --config=configs/meta_ffn.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("meta_ffn", arg)
