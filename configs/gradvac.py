"""GradVac: JointPair whose languages' gradients are turned to the angle that they usually have.

Not in the paper: gradient vaccine (Wang et al. 2020, arXiv 2010.05874). A step takes the gradient of
one batch of every language. Where two are further apart than a moving average of their cosine, the
one is moved towards the other until they are not; their sum moves the model. The average starts at
zero and follows at config.surgery.ema_rate. data.sampling_exponent plays no part.

Cost: a step is one of JointPair's for each language, in tokens and in arithmetic: 2.7e19 FLOPs at scale
paper; the sample and the lab take three minutes each on two CPU cores. steps=600 sees as many tokens as
JointPair's 1,200 steps.

  python -m negint.main --config=configs/gradvac.py:ar          # bundled sample
  python -m negint.main --config=configs/gradvac.py:lab         # artificial languages
  python -m negint.main --config=configs/gradvac.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """Config of `<language>[,<scale>][,key=value...]` (configs/base.py)."""
  return base.pretrain("gradvac", arg)
