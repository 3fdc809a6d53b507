"""Parameter sharing by L0 masks over a frozen model (Section 3.3, Figures 4a and 4b).

Trains hard-concrete gates for each language and seed, compares them between languages and, as the
ceiling, between seeds of one language, and reports what each mask keeps and what it does to the
perplexity of every language.

  python -m negint.main --config=configs/pruning.py:lab --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/pruning.py --config.init_from=runs/<run> --config.target_kept=0.5

A sweep over fixed penalties: --config.target_kept=0 --config.penalty=0.5 (then 1, 2, ...). A step
costs a little more than a plain pretraining step.
"""

import ml_collections

from negint.errors import UserError


def get_config(arg=None):
  """Config of no argument, or of `lab`, whose models are small."""
  if arg not in (None, "lab"):
    raise UserError(
      f"config argument {arg!r}: configs/pruning.py takes none, or lab. Example: "
      "--config=configs/pruning.py:lab"
    )
  c = ml_collections.ConfigDict()
  c.task = "pruning"
  c.init_from = ""  # workdir of the pretraining run
  c.seed = 1  # of the first mask of each language; the next masks have consecutive seeds
  c.seeds = 2  # masks per language; two show how alike two masks of one language are
  c.granularity = "row"  # unit (head, neuron) | row (output neuron of a projection) | weight
  c.steps = 2000  # updates of each mask
  c.batch_size = 64  # sequences; a multiple of the devices
  # Adam moves a gate by at most about learning_rate x steps / 2 in all. At 6, almost no gate reaches the
  # limits of log_alpha, -4.6 and 4.6. Where many gates reach one, their order is chance.
  c.learning_rate = 0.006  # of log_alpha at the start; falls to zero at `steps`
  c.penalty = 0.0  # lambda of Eq. 1 at the start: nats per token for keeping everything
  c.target_kept = 0.6  # expected share of weights to keep, by moving lambda; 0: lambda stays
  c.penalty_rate = 0.015  # change of lambda per step and unit of share above the target
  c.checkpoint_every = 500  # updates
  if arg == "lab":
    c.steps = 600
    c.batch_size = 16
    c.learning_rate = 0.02
    c.penalty_rate = 0.05
  return c
