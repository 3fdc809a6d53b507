"""Timing steps against each other: warm-up, then turns in a new order each round."""

import math
import random
import time

import numpy as np

TURN_SECONDS = 0.2  # a turn has as many steps as last this long
MAX_TURN = 50  # steps


def race(contenders, rounds: int, say) -> list[dict]:
  """Warms all up, then times them in turns.

  Args:
    contenders: objects with the face that benchmark_steps describes.

  Returns:
    their rows with `seconds` (of one step, a number a round), `steps_a_turn`, and `over_plain`.
  """
  for contender in contenders:
    say(f"compiling {label(contender.row)}")
    contender.compile()
  # By rising temporaries, so that each step raises the highest mark of the allocator.
  size = lambda c: c.row["memory"]["temporaries"] if "memory" in c.row else math.inf  # noqa: E731
  for contender in sorted(contenders, key=size):
    contender.first_step()
  counts = [turn_length(contender) for contender in contenders]
  for contender, count in zip(contenders, counts, strict=True):
    contender.row.update(seconds=[], steps_a_turn=count)
  order = list(range(len(contenders)))
  for number in range(rounds):
    say(f"round {number + 1} of {rounds}")
    random.Random(number).shuffle(order)
    for k in order:
      contenders[k].row["seconds"].append(timed(contenders[k], counts[k]))
  rows = [contender.row for contender in contenders]
  add_ratios(rows)
  return rows


def turn_length(contender) -> int:
  return max(1, min(MAX_TURN, math.ceil(TURN_SECONDS / timed(contender, 1))))


def timed(contender, count: int) -> float:
  """Seconds a step of `count` steps in a row, the last of them waited for."""
  start = time.perf_counter()
  contender.take(count)
  return (time.perf_counter() - start) / count


def add_ratios(rows):
  """Adds `over_plain`, round by round: seconds over those of the plain step of the same make."""
  plain = {make(row): row for row in rows if row["step"] == "plain"}
  for row in rows:
    base = plain.get(make(row))
    if base and row is not base:
      row["over_plain"] = list(np.divide(row["seconds"], base["seconds"]))


def make(row) -> tuple:
  return row["dtype"], row["by"], row.get("remat")


def label(row) -> str:
  return f"{row['size']} {row['step']}, {row['dtype']}, {row['by']}"
