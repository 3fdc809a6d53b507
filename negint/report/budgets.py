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


def worth(comparer: Comparer, key: Key) -> Worth | None:
  """Returns what a model's score is worth in tokens of its target alone.

  The curve is made monotone (pooled adjacent violators) and linear in the logarithm of the tokens. The
  interval holds all m at which the 95 % interval of score - curve(m) holds zero.

  Args:
    comparer: of the study.
    key: a cell within the target language.

  Returns:
    None where Mono has fewer than two lengths or learns nothing from more text, or it is not known what
    the model saw.
  """
  cells, side, score = comparer.cells, sign(key.task), MAIN_SCORES[key.task]
  curve, seen = cells.curve(key), cells.tokens(key)
  is_whole = len(curve) < 2 and key.column.subsample > 0
  if is_whole:  # worth so much text of the whole corpus
    curve = cells.curve(key._replace(column=key.column._replace(subsample=0)))
  own = comparer.score(key)
  means = [comparer.score(each) for _, each in curve]
  if len(curve) < 2 or not seen or own is None or any(mean is None for mean in means):
    return None
  logs = [math.log(tokens) for tokens, _ in curve]
  blocks = monotone([side * mean.value for mean in means if mean])
  fitted = [fit for fit, members in blocks for _ in members]
  members = [each for _, each in blocks for _ in each]
  if fitted[0] == fitted[-1]:  # a curve that does not rise tells nothing
    return None

  def difference(x: float) -> tuple[Term, ...]:
    """Returns the terms of score - curve at x = log tokens."""
    right = min(max(1, int(np.searchsorted(logs, x))), len(logs) - 1)
    share = (x - logs[right - 1]) / (logs[right] - logs[right - 1])
    weights = [Term(side, key, score)]
    for part, place in ((1 - share, right - 1), (share, right)):
      weights += [
        Term(-side * part / len(members[place]), curve[each][1], score) for each in members[place]
      ]
    return tuple(weights)

  def bounds(x: float) -> tuple[float, float] | None:
    found = comparer.estimate(difference(x))
    return (found.interval.low, found.interval.high) if found and found.interval else None

  value = side * own.value
  beyond = -1 if value < fitted[0] else int(value > fitted[-1])
  m = math.exp(float(np.interp(value, *_strictly(fitted, logs))))
  whole = comparer.estimate(difference(logs[0]))
  yardstick = tuple(tokens for tokens, _ in curve), is_whole
  if whole is None or whole.interval is None:
    return Worth(m, beyond, seen, None, None, False, own.seeds, "", *yardstick)
  low, high = (None if end is None else math.exp(end) for end in _ends(bounds, logs))
  return Worth(m, beyond, seen, low, high, True, whole.seeds, whole.over, *yardstick)


def _strictly(fitted: list[float], logs: list[float]) -> tuple[list[float], list[float]]:
  """Returns the corners of a monotone curve with each value once, at the middle of its flat part."""
  values = list(dict.fromkeys(fitted))
  places = [[x for x, fit in zip(logs, fitted, strict=True) if fit == value] for value in values]
  return values, [float(np.mean(each)) for each in places]


def _ends(
  bounds: Callable[[float], tuple[float, float] | None], logs: list[float]
) -> tuple[float | None, float | None]:
  """Returns the lowest and highest x at which the interval of score - curve holds zero.

  None: the end lies beyond the curve. score - curve falls as x rises.
  """

  def is_below(x: float) -> bool:  # the score is surely better than the curve at x: m is larger
    found = bounds(x)
    return found is not None and found[0] > 0

  def is_above(x: float) -> bool:
    found = bounds(x)
    return found is not None and found[1] < 0

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
