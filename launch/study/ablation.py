"""Stand-in until the branch of the ablation is merged."""

from typing import NamedTuple


class Run(NamedTuple):
  """One row."""

  label: str
  system: str
  flags: tuple[str, ...] = ()
  seeds: int = 3


RUNS = (
  Run("adpt", "adpt", (), 5),
  Run("meta_adpt", "meta_adpt", (), 5),
  Run("first order", "meta_adpt", ("--config.meta.gradient=first_order",)),
)
