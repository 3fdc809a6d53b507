"""Separate feed-forward layers for each language, trained by the meta-gradient (not in the paper).

The paper leaves this to future work: Algorithm 1 where phi, the parameters of one language, holds the
feed-forward layers.

The sample and the lab take --config.meta.gradient=grad_of_grad by default. forward_over_reverse, the
default of base and paper, gives the same gradient with less memory.

  python -m negint.main --config=configs/meta_ffn.py:ar          # bundled sample
  python -m negint.main --config=configs/meta_ffn.py:lab         # artificial languages
  python -m negint.main --config=configs/meta_ffn.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("meta_ffn", arg)
