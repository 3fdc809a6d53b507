"""GradVac: JointPair that turns languages' gradients to their usual angle (not in the paper).

Gradient vaccine (Wang et al. 2020, arXiv 2010.05874). A step takes the gradient of one batch of every
language. A moving average of each pair's cosine is the target of this pair. Where the cosine of two
gradients is below its target, a multiple of the one is added to the other until it reaches the target.
The sum of the gradients then moves the model. The targets start at zero and follow the cosines at the
rate config.surgery.ema_rate.

A step sees one JointPair batch per language, so steps=450 sees as many tokens as 900 steps of
JointPair. data.sampling_exponent has no effect on the batches.

  python -m negint.main --config=configs/gradvac.py:ar          # bundled sample
  python -m negint.main --config=configs/gradvac.py:lab         # artificial languages
  python -m negint.main --config=configs/gradvac.py:ar,paper    # the paper's setting
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,<scale>][,key=value...]`, see configs/base.py."""
  return base.pretrain("gradvac", arg)
