"""Times training steps against each other: warm-up, then turns in a new order each round.

Other work on the machine slows all steps alike, because they take turns.
"""

import math
import random
import time
from collections.abc import Callable, Sequence

import numpy as np

TURN_SECONDS = 0.2  # a turn takes as many steps as fill this time
MAX_TURN = 50  # steps


class Contender:
  """Something that is timed. `row` holds all that is known of it, as the JSON file keeps it."""

  row: dict

  def compile(self) -> None:
    """Compiles what has to be compiled."""

  def first_step(self) -> None:
    """Takes the first step, which may be slow."""
    self.take(1)

  def take(self, count: int) -> None:
    """Takes steps and waits for the device to finish them."""
    raise NotImplementedError


def race(contenders: Sequence[Contender], rounds: int, say: Callable[[str], None]) -> list[dict]:
  """Warms all contenders up, then times them in turns.

  Args:
    contenders: what is timed.
    rounds: each contender is timed once per round.
    say: is told of the progress.

  Returns:
    Their rows with `seconds` (of one step, one number per round), `steps_per_turn` and `over_plain`.
  """
  for contender in contenders:
    say(f"compiling {label(contender.row)}")
    contender.compile()
  # Steps with the smallest temporaries first, so that each one raises the allocator's highest mark.
  for contender in sorted(contenders, key=temporaries):
    contender.first_step()
  counts = [turn_length(contender) for contender in contenders]
  for contender, count in zip(contenders, counts, strict=True):
    contender.row.update(seconds=[], steps_per_turn=count)
  order = list(range(len(contenders)))
  for number in range(rounds):
    say(f"round {number + 1} of {rounds}")
    random.Random(number).shuffle(order)
    for k in order:
      contenders[k].row["seconds"].append(timed(contenders[k], counts[k]))
  rows = [contender.row for contender in contenders]
  add_ratios(rows)
  return rows


def temporaries(contender: Contender) -> float:
  """Returns the bytes of a contender's temporaries; infinite where they are not known."""
  memory = contender.row.get("memory")
  return memory["temporaries"] if memory else math.inf


def turn_length(contender: Contender) -> int:
  """Returns how many steps fill a turn."""
  return max(1, min(MAX_TURN, math.ceil(TURN_SECONDS / timed(contender, 1))))


def timed(contender: Contender, count: int) -> float:
  """Returns the seconds per step over `count` steps in a row."""
  start = time.perf_counter()
  contender.take(count)
  return (time.perf_counter() - start) / count


def add_ratios(rows: list[dict]) -> None:
  """Adds `over_plain`: in each round, the time over that of the plain step of the same kind."""
  plain = {kind(row): row for row in rows if row["step"] == "plain"}
  for row in rows:
    base = plain.get(kind(row))
    if base and row is not base:
      row["over_plain"] = list(np.divide(row["seconds"], base["seconds"]))


def kind(row: dict) -> tuple:
  """Returns what a step and the plain step that it is compared with have in common."""
  return row["dtype"], row["by"], row.get("remat")


def label(row: dict) -> str:
  """Returns the name of a step in messages."""
  return f"{row['size']} {row['step']}, {row['dtype']}, {row['by']}"
