"""The ablation on the lab: what makes meta adapters work.

Each row changes one thing in adpt or in meta_adpt. All rows make as many updates as the config says,
but for those with `flops_of`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from configs import base
from negint import config_file, options
from negint.method import flops

_TWICE = 2 * base.pretrain("adpt", "lab").train.batch_size


class Run(NamedTuple):
  """One row of the ablation."""

  label: str  # in words
  system: str  # adpt or meta_adpt
  flags: tuple[str, ...] = ()  # of its pretraining
  seeds: int = 3  # pretraining seeds 1 ... n
  flops_of: str = ""  # the system whose FLOPs it spends; empty: it makes the config's updates


# The first rows answer the main question; each row below them costs three more runs.
RUNS = (
  Run("adpt", "adpt", seeds=5),
  Run("meta adpt, exact", "meta_adpt", seeds=5),
  Run("release's step", "meta_adpt", ("--config.meta.variant=release",), seeds=5),
  Run("first order", "meta_adpt", ("--config.meta.gradient=first_order",), seeds=5),
  Run("adpt, phi from held-out text", "adpt", ("--config.train.phi_split=meta",), seeds=5),
  Run(
    "adpt, phi's rate of meta adpt",
    "adpt",
    (f"--config.train.phi_rate={base.META_PHI_RATE}",),
    seeds=5,
  ),
  Run("phi's rate of adpt", "meta_adpt", ("--config.train.phi_rate=1.0",)),
  Run("adpt, twice the batch", "adpt", (f"--config.train.batch_size={_TWICE}",)),
  Run("adpt, meta adpt's FLOPs", "adpt", flops_of="meta_adpt"),
  Run("inner rate 0.1", "meta_adpt", ("--config.meta.inner_learning_rate=0.1",)),
  Run("inner step by Adam", "meta_adpt", ("--config.meta.inner_optimiser=adam",)),
  Run("one random held-out language", "meta_adpt", ("--config.meta.languages_per_step=1",)),
  Run("inner rate 1", "meta_adpt", ("--config.meta.inner_learning_rate=1.0",)),
  Run("inner rate 0.01", "meta_adpt", ("--config.meta.inner_learning_rate=0.01",)),
  Run("finite difference", "meta_adpt", ("--config.meta.gradient=finite_difference",)),
)


def updates(run: Run, flags: Sequence[str] = ()) -> int:
  """Returns the updates of a row.

  Args:
    run: the row.
    flags: further flags of all rows, such as those of --pretrain_flags.

  Raises:
    UserError: the flags do not fit the configs.
  """

  def options_of(system: str, own: Sequence[str]) -> options.RunOptions:
    config = config_file.load(f"configs/{system}.py:lab", [*own, *flags])
    return options.from_config(config, num_devices=1)

  own = options_of(run.system, run.flags)
  if not run.flops_of:
    return own.schedule.steps
  budget = options_of(run.flops_of, ())
  return max(round(budget.schedule.steps * flops.step(budget) / flops.step(own)), 1)
