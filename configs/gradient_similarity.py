r"""Gradient conflict over the checkpoints of a pretraining run (Section 3.3, Figure 3).

Cosines between the gradients of two languages and, because sampling noise lowers them, between two
independent gradients of one language. They are raw and corrected for the noise: over all that the
languages share of theta, without the vocabulary, and by layer and module.

A run keeps its last two checkpoints (six in the lab). To see the whole training, measure while it trains:
`--config.gradient_similarity.every=1000` measures at 10, 20, 40, 80, ..., 640, 1000, 2000, ... updates.

  python -m negint.main --config=configs/gradient_similarity.py:lab \
    --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/gradient_similarity.py --config.init_from=runs/<run>

Each repeat computes two gradients per language. launch/benchmarks/README.md says what steps cost.
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
  c.sentences = 4096  # sequences per gradient, at most half of the smallest corpus
  c.batch_size = 64  # sequences at once; a multiple of the devices
  c.repeats = 4  # independent measurements, for standard errors
  if arg == "lab":
    c.sentences = 512
  return c
