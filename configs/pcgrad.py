"""PCGrad: JointPair whose languages' gradients are projected off each other where they conflict.

Not in the paper: gradient surgery (Yu et al. 2020, arXiv 2001.06782). A step takes the gradient of
one batch of every language; each is projected off those of the others that it has a negative inner
product with, and their sum moves the model. data.sampling_exponent plays no part.

Cost: a step is one of JointPair's for each language, in tokens and in arithmetic: 2.7e19 FLOPs at scale
paper; the sample and the lab take three minutes each on two CPU cores. steps=600 sees as many tokens as
JointPair's 1,200 steps.

  python -m negint.main --config=configs/pcgrad.py:ar          # bundled sample
  python -m negint.main --config=configs/pcgrad.py:lab         # artificial languages
  python -m negint.main --config=configs/pcgrad.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("pcgrad", arg)
