r"""Gradient conflict over the checkpoints of a pretraining run (Section 3.3, Figure 3).

Cosines between the gradients of the languages and, for the noise, between two independent gradients
of one language: over all of theta, without the vocabulary, by layer and module, raw and corrected.
While pretraining the same is had by `--config.gradient_similarity.every=10`; for more than the
last two checkpoints afterwards, pretrain with `--config.checkpoint.keep=50`.

  python -m negint.main --config=configs/gradient_similarity.py:lab \
    --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/gradient_similarity.py --config.init_from=runs/<run>

Cost: a repeat is 2 gradients a language of 4,096 sequences each; on the lab, half a minute a
checkpoint on two CPU cores.
"""

import ml_collections

from negint.errors import UserError


def get_config(arg=None):
  """Config of no argument, or of `lab`, whose corpora are small."""
  if arg not in (None, "lab"):
    raise UserError(
      f"config argument {arg!r}: configs/gradient_similarity.py takes none, or lab. Example: "
      "--config=configs/gradient_similarity.py:lab"
    )
  c = ml_collections.ConfigDict()
  c.task = "gradient_similarity"
  c.init_from = ""  # workdir of the pretraining run
  c.seed = 1  # of the sentences and masks
  c.checkpoints = "all"  # all | last
  c.sentences = 4096  # sequences a gradient, at most half the smallest corpus
  c.batch_size = 64  # sequences at once; a multiple of the devices
  c.repeats = 4  # independent measurements, for standard errors
  if arg == "lab":
    c.sentences = 512
  return c
