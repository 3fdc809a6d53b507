"""Mono as a yardstick: at equal steps, tokens or FLOPs, and as equivalent monolingual tokens.

Mono's runs of several lengths give a curve of each score over the tokens of the target language. A model's
score on this curve is worth as many tokens of the target alone. m < n, the tokens that the model saw of
it: other languages interfere; m > n: they help (Chang et al. 2023, arXiv 2311.09205).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from negint.report.cells import MAIN_SCORES, PERPLEXITY, Cells, Key
from negint.report.comparisons import Comparer, Term
from negint.report.statistics import Estimate

MATCHINGS = {
  "steps": (
    "Equal steps, as in the paper: which model is better after as many updates? A part of JointPair's "
    "updates is another language's."
  ),
  "tokens": "Equal tokens: does text of another language harm when the text of this one is the same?",
  "flops": "Equal FLOPs: on which languages is the same arithmetic spent best, for this one?",
}
NAMES = {"steps": "steps", "tokens": "tokens of the language", "flops": "FLOPs"}
_NEAR = 0.02  # relative distance at which two budgets are equal
_PARTS = 4  # of each gap of the curve that are searched for the ends of an interval
_HALVINGS = 6  # of the part that holds an end

Weights = list[tuple[float, Key]]  # a weighted sum of Mono's cells


def sign(task: str) -> int:
  """Returns 1 where more is better, and -1 for perplexities."""
  return -1 if task == PERPLEXITY else 1


def mono_minus(cells: Cells, key: Key, matching: str) -> tuple[Term, ...] | None:
  """Returns the terms of Mono minus a model at an equal budget; None where Mono has no such run.

  Args:
    cells: of the study.
    key: the model's cell within the language.
    matching: "steps", "tokens" or "flops".
  """
  mono = _mono_at(cells, key, matching)
  if not mono or key not in cells.cells:
    return None
  score, side = MAIN_SCORES[key.task], sign(key.task)
  return (*(Term(side * weight, k, score) for weight, k in mono), Term(-side, key, score))


def _mono_at(cells: Cells, key: Key, matching: str) -> Weights | None:
  """Returns Mono at the budget of a model, interpolated where no run has it."""
  if matching == "steps":
    steps = {tested.run.origin.steps for tested in cells.cells.get(key, {}).values()}
    rows = {k for k in cells.cells if k[:3] == key[:3] and k.column == key.column.alone}
    for mono in sorted(k for k in rows if k.row.system == "mono"):
      if {tested.run.origin.steps for tested in cells.cells[mono].values()} == steps:
        return [(1.0, mono)]
    return None
  size: Callable[[Key], float | None] = cells.tokens if matching == "tokens" else cells.flops
  points = [(x, k) for _, k in cells.curve(key) if (x := size(k)) is not None]
  budget = size(key)
  return read_off(points, budget) if points and budget else None


def read_off(points: Sequence[tuple[float, Key]], x: float) -> Weights | None:
  """Returns the weights of a curve's points at x, linear in log x; None outside the curve.

  Args:
    points: (budget, key), ascending.
    x: the budget; one that is within 2 % of a point is that point.
  """
  nearest = min(points, key=lambda point: abs(math.log(point[0] / x)))
  if abs(nearest[0] / x - 1) <= _NEAR:
    return [(1.0, nearest[1])]
  for (low, left), (high, right) in zip(points, points[1:], strict=False):
    if low < x < high:
      share = math.log(x / low) / math.log(high / low)
      return [(1 - share, left), (share, right)]
  return None


@dataclass(frozen=True)
class Worth:
  """How many tokens of the language alone a score is worth."""

  tokens: float  # m; the end of the curve where the score is beyond it
  beyond: int  # -1: less than `tokens`; 1: more than `tokens`; 0: on the curve
  seen: float  # n: tokens of the language that the model saw
  low: float | None  # lower end of the 95 % interval of m; None: below the curve, or no interval
  high: float | None  # upper end; None: above the curve, or no interval
  has_interval: bool  # whether low and high come from an interval
  seeds: int  # the smallest number of seeds of a point
  over: str  # what the interval covers: `statistics.Estimate.over`
  curve: tuple[float, ...]  # tokens of Mono's runs, ascending
  is_whole: bool  # whether Mono saw all text, and the model only a part of it

  @property
  def ratio(self) -> float:
    """The factor m / n."""
    return self.tokens / self.seen

  @property
  def text(self) -> str:
    """Such as "0.82 [0.70, 0.95] (5)"; ">" and "<" where the score is beyond the curve, "…" open ends."""
    text = f"{('<', '', '>')[self.beyond + 1]}{self.ratio:.2f}"
    if self.has_interval:
      ends = ("…" if end is None else f"{end / self.seen:.2f}" for end in (self.low, self.high))
      text += f" [{', '.join(ends)}]"
    return f"{text} ({self.seeds})"


@dataclass(frozen=True)
class _Curve:
  """Mono's mean scores over tokens, made monotone: pooled adjacent violators, then straight lines."""

  terms: list[Term]  # Mono's cells, by their tokens, with the seeds that all of them have
  logs: list[float]  # of their tokens, ascending
  fitted: list[float]  # ascending; more is better
  members: list[list[int]]  # of each point: the places whose mean its fitted value is

  def at(self, x: float) -> list[Term]:
    """Returns the weighted sum of Mono's cells that the curve is at x = log tokens."""
    right = min(max(1, int(np.searchsorted(self.logs, x))), len(self.logs) - 1)
    share = (x - self.logs[right - 1]) / (self.logs[right] - self.logs[right - 1])
    return [
      self.terms[member]._replace(weight=part / len(self.members[place]))
      for part, place in ((1 - share, right - 1), (share, right))
      for member in self.members[place]
    ]

  def where(self, value: float) -> float:
    """Returns x = log tokens at which the curve has a value; its nearer end where it has not.

    Where the curve is level at the value, x is the middle of that stretch.
    """
    level = [x for x, fit in zip(self.logs, self.fitted, strict=True) if fit == value]
    return float(np.mean(level) if level else np.interp(value, self.fitted, self.logs))


def lengths(cells: Cells, key: Key) -> tuple[list[tuple[float, Key]], bool]:
  """Returns ((tokens, key) of Mono's runs that a cell is compared with, whether they had all text).

  A model of a subsampled corpus is compared with Mono on all text where Mono has only one length on the
  subsample.
  """
  points = cells.curve(key)
  if len(points) > 1 or not key.column.subsample:
    return points, False
  return cells.curve(key._replace(column=key.column._replace(subsample=0))), True


def scores_by_tokens(
  comparer: Comparer, points: Sequence[tuple[float, Key]]
) -> list[tuple[float, Term, Estimate]]:
  """Returns (tokens, cell, its mean) of Mono's cells; empty where one has no score.

  All means are over the pretraining seeds that all cells have, if there are any.

  Args:
    comparer: of the study.
    points: (tokens, key), ascending.
  """
  terms = [Term(1, key, MAIN_SCORES[key.task]) for _, key in points]
  shared = comparer.origins(*terms) if terms else frozenset()
  terms = [term._replace(seeds=shared or None) for term in terms]
  means = [comparer.estimate((term,)) for term in terms]
  found = [
    (tokens, term, mean)
    for (tokens, _), term, mean in zip(points, terms, means, strict=True)
    if mean
  ]
  return found if len(found) == len(points) else []


def _curve_of(comparer: Comparer, points: list[tuple[float, Key]], side: int) -> _Curve | None:
  """Returns the curve of (tokens, key) points; None where it has one point or does not rise."""
  found = scores_by_tokens(comparer, points)
  blocks = monotone([side * mean.value for _, _, mean in found])
  if len(blocks) < 2:
    return None
  return _Curve(
    [term for _, term, _ in found],
    [math.log(tokens) for tokens, _, _ in found],
    [level for level, places in blocks for _ in places],
    [places for _, places in blocks for _ in places],
  )


def worth(comparer: Comparer, key: Key) -> Worth | None:
  """Returns what a model's score is worth in tokens of its target alone.

  The interval holds all m at which the 95 % interval of score - curve(m) holds zero.

  Args:
    comparer: of the study.
    key: a cell within the target language.

  Returns:
    None where Mono has fewer than two lengths or learns nothing from more text, or it is not known what
    the model saw.
  """
  cells, side, score = comparer.cells, sign(key.task), MAIN_SCORES[key.task]
  (points, is_whole), seen, own = lengths(cells, key), cells.tokens(key), comparer.score(key)
  curve = _curve_of(comparer, points, side)
  if curve is None or not seen or own is None:
    return None

  def surplus(x: float) -> Estimate | None:
    """Returns score - curve at x = log tokens, positive where the score is better."""
    mono = (term._replace(weight=-side * term.weight) for term in curve.at(x))
    return comparer.estimate((Term(side, key, score), *mono))

  value = side * own.value
  m = math.exp(curve.where(value))
  beyond = -1 if value < curve.fitted[0] else int(value > curve.fitted[-1])
  start = surplus(curve.logs[0])
  yardstick = tuple(tokens for tokens, _ in points), is_whole
  if start is None or start.interval is None:
    return Worth(m, beyond, seen, None, None, False, own.seeds, "", *yardstick)
  low, high = (None if end is None else math.exp(end) for end in _ends(surplus, curve.logs))
  return Worth(m, beyond, seen, low, high, True, start.seeds, start.over, *yardstick)


def _ends(
  surplus: Callable[[float], Estimate | None], logs: list[float]
) -> tuple[float | None, float | None]:
  """Returns the lowest and highest x at which the interval of score - curve holds zero.

  Args:
    surplus: score - curve at x, which falls as x rises.
    logs: of the curve's points.

  Returns:
    (low, high); None: the end lies beyond the curve.
  """

  def is_below(x: float) -> bool:
    """Whether the score is surely better than the curve at x, so that m is larger."""
    found = surplus(x)
    return bool(found and found.interval and found.interval.low > 0)

  def is_above(x: float) -> bool:
    found = surplus(x)
    return bool(found and found.interval and found.interval.high < 0)

  grid = [
    left + (right - left) * part / _PARTS
    for left, right in zip(logs, logs[1:], strict=False)
    for part in range(_PARTS)
  ] + [logs[-1]]
  below = [is_below(x) for x in grid]
  above = [is_above(x) for x in grid]
  low, high = None, None
  if any(below):
    place = max(k for k, found in enumerate(below) if found)
    low = grid[-1] if place == len(grid) - 1 else _edge(is_below, grid[place], grid[place + 1])
  if any(above):
    place = min(k for k, found in enumerate(above) if found)
    high = grid[0] if place == 0 else _edge(is_above, grid[place], grid[place - 1])
  return low, high


def _edge(holds: Callable[[float], bool], inside: float, outside: float) -> float:
  """Returns where a property that holds at `inside` and not at `outside` ends."""
  for _ in range(_HALVINGS):
    middle = (inside + outside) / 2
    inside, outside = (middle, outside) if holds(middle) else (inside, middle)
  return (inside + outside) / 2


def monotone(values: Sequence[float]) -> list[tuple[float, list[int]]]:
  """Returns the ascending step function nearest to the values: (level, places) of each step."""
  blocks: list[tuple[float, list[int]]] = []
  for place, value in enumerate(values):
    blocks.append((value, [place]))
    while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
      right, left = blocks.pop()[1], blocks.pop()[1]
      together = left + right
      blocks.append((float(np.mean([values[k] for k in together])), together))
  return blocks


def systems(cells: Cells, scale: str) -> list[Key]:
  """Returns one key per model within its target language that is not Mono, by task and column."""
  tasks = ("ner", "pos", "qa", PERPLEXITY)
  return [
    key
    for task in tasks
    for key in cells.find(scale, task, "within")
    if cells.is_own(key) and key.row.system != "mono" and not key.column.pair
  ]
