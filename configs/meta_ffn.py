"""Feed-forward layers of its own for each language, trained by the meta-gradient (not in the paper).

What the paper leaves to future work: Algorithm 1 with phi = the feed-forward layers.

Cost: 6.1e19 FLOPs at scale paper, 2.5e13 in the lab, 2.2e13 in the sample; two idle CPU cores take
three to seven minutes for the 2.3e13 of meta_adpt's sample. At these small scales
--config.meta.gradient=forward_over_reverse, which base and paper take by default, gives the same
gradient with less memory.

  python -m negint.main --config=configs/meta_ffn.py:ar          # bundled sample
  python -m negint.main --config=configs/meta_ffn.py:lab         # artificial languages
  python -m negint.main --config=configs/meta_ffn.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("meta_ffn", arg)
