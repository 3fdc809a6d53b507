"""What a plan says, and how it is printed."""

import dataclasses
import pathlib
from collections.abc import Sequence

from negint.method.memory import Limit, Need
from negint.out_of_memory import amount
from negint.run.progress import duration


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of a run's time."""

  what: str  # such as "start"; in the plural where times can be more than 1
  times: int
  seconds: float | None  # of each; None: not measured, and counted as 0

  def __str__(self) -> str:
    """Returns the part as it is printed."""
    what = f"{self.times:,} {self.what}" if self.times > 1 else self.what
    if self.seconds is None:
      return f"{what} (not measured: the temporary folder has no room)"
    return f"{what} {duration(self.times * self.seconds)}"


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a run would take."""

  title: str
  facts: tuple[tuple[str, str], ...]  # (name, what it says)
  parts: tuple[Part, ...] = ()  # () where the run does not fit
  need: int = 0  # bytes of the largest program on one device

  @property
  def seconds(self) -> float:
    """From the start of the command to its end."""
    return sum(part.times * (part.seconds or 0.0) for part in self.parts)


def text(plan: Plan) -> str:
  """Returns the plan as it is printed."""
  rows = list(plan.facts)
  if plan.parts:
    parts = ", ".join(str(part) for part in plan.parts if part.times)
    rows.append(("time", f"{duration(plan.seconds)}: {parts}"))
  width = max(len(name) for name, _ in rows) + 2
  return "\n".join([plan.title, *(f"{name:<{width}}{says}" for name, says in rows)])


def memory_fact(
  need: Need, limit: Limit | None, remedy: str = "", more: str = ""
) -> tuple[str, str]:
  """Returns the line about memory.

  Args:
    need: of the largest program.
    limit: of the device; None: not known.
    remedy: a sentence that says what would fit, where it does not.
    more: a further sentence.
  """
  says = f"a step needs {amount(need.total)} ({amount(need.temporaries)} of them temporaries) on each device"
  if limit is None:
    says += "; the memory of this device is not known"
  else:
    fits = "it fits" if limit.holds(need) else "it DOES NOT FIT"
    says += f", and there are {limit}: {fits}"
  return "memory", " ".join(filter(None, [f"{says}.", remedy, more]))


def speed_fact(
  seconds: float, flops: float, rate: float, dtype: str, devices: int
) -> tuple[str, str]:
  """Returns the line about speed.

  Args:
    seconds: of a step.
    flops: of a step.
    rate: FLOPs per second of a large matrix product on one device.
    dtype: of the matrix product.
    devices: that share a step.
  """
  reached = flops / seconds / devices
  return "speed", (
    f"{1000 * seconds:,.3g} ms per step; {reached:.3g} FLOP/s on each device, {reached / rate:.0%} of the "
    f"{rate:.3g} of a large {dtype} matrix product"
  )


def size_of(folders: Sequence[pathlib.Path]) -> int:
  """Returns the bytes of the files in folders."""
  return sum(
    path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()
  )
