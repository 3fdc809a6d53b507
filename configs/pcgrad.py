"""PCGrad: JointPair that projects away what conflicts between languages' gradients (not in the paper).

Gradient surgery (Yu et al. 2020, arXiv 2001.06782). A step takes the gradient of one batch of every
language. Where the inner product of two gradients is negative, each loses its component along the
other. The sum of the gradients then moves the model.

A step sees one JointPair batch per language, so steps=450 sees as many tokens as 900 steps of
JointPair. data.sampling_exponent has no effect on the batches.

  python -m negint.main --config=configs/pcgrad.py:ar          # bundled sample
  python -m negint.main --config=configs/pcgrad.py:lab         # artificial languages
  python -m negint.main --config=configs/pcgrad.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("pcgrad", arg)
