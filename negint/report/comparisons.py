"""Differences between two rows of a table, with paired bootstrap intervals over test examples."""

import functools
from dataclasses import dataclass

import numpy as np

from negint.report import statistics
from negint.report.cells import Cell, Cells, Key, Row, Tested
from negint.report.problems import Damaged, Problem
from negint.report.records import Study, read_examples
from negint.report.statistics import Interval


@dataclass(frozen=True)
class Difference:
  """The difference between two cells, over the seeds that both have."""

  value: float  # points
  seeds: int  # how many seeds both have
  resampled: np.ndarray | None  # [RESAMPLES], points; None without example statistics

  @property
  def interval(self) -> Interval | None:
    """The 95 % interval and p; None without example statistics."""
    return None if self.resampled is None else statistics.interval(self.value, self.resampled)


class Comparer:
  """Compares cells; adds damaged files of example statistics to `study.problems`.

  `difference(ours, theirs, score)` and `score(key, score)` compute each answer once.
  """

  def __init__(self, cells: Cells, study: Study):
    self._cells = cells.cells
    self._study = study
    self.difference = functools.cache(self._difference)
    self.score = functools.cache(self._score)

  def baseline(self, key: Key) -> Key:
    """Returns JointPair's cell in the key's column, of the same variant if there is one."""
    same = key._replace(row=Row("joint_pair", key.row.variant))
    return same if same in self._cells else key._replace(row=Row("joint_pair"))

  def _difference(self, ours: Key, theirs: Key, score: str) -> Difference | None:
    """Returns ours - theirs; None where a cell is empty or the two have no seeds in common."""
    left, right = paired(self._cells.get(ours, {}), self._cells.get(theirs, {}))
    seeds = [s for s in left if score in left[s].scores and score in right[s].scores]
    if not seeds:
      return None
    value = float(np.mean([left[s].scores[score] - right[s].scores[score] for s in seeds]))
    one, other = self._examples(left, seeds, score), self._examples(right, seeds, score)
    if one is None or other is None:
      return Difference(value, len(seeds), None)
    if one.shape != other.shape:
      sizes = f"{one.shape[1]} test examples, {right[seeds[0]].run.workdir} {other.shape[1]}"
      self._problem(left[seeds[0]], f"has {sizes}: no interval of their difference")
      return Difference(value, len(seeds), None)
    value, resampled = statistics.paired_difference(one, other)
    return Difference(value, len(seeds), resampled)

  def _score(self, key: Key, score: str) -> Difference | None:
    """Returns a cell's mean over seeds, with its spread over resampled test examples."""
    cell = self._cells.get(key, {})
    seeds = sorted(seed for seed in cell if score in cell[seed].scores)
    if not seeds:
      return None
    value = float(np.mean([cell[seed].scores[score] for seed in seeds]))
    examples = self._examples(cell, seeds, score)
    resampled = None if examples is None else statistics.resampled_scores(examples)
    return Difference(value, len(seeds), resampled)

  def _examples(self, cell: Cell, seeds: list, score: str) -> np.ndarray | None:
    """Returns [seeds, examples, 2]; None where a file is missing, damaged or contradicts its score."""
    found = [self._read(cell[seed], score) for seed in seeds]
    arrays = [array for array in found if array is not None]
    if len(arrays) < len(found) or len({array.shape for array in arrays}) > 1:
      return None
    return np.stack(arrays)

  def _read(self, tested: Tested, score: str) -> np.ndarray | None:
    if not tested.examples.exists():
      return None
    name = tested.examples.relative_to(tested.run.path).as_posix()
    try:
      examples = read_examples(tested.examples, score)
    except Damaged as error:
      self._problem(tested, f"{name}: {error}; no intervals from it")
      return None
    found = statistics.score(examples[None])
    if abs(found - tested.scores[score]) > 0.01:
      there = tested.scores[score]
      self._problem(tested, f"{name} gives {score} {found:.2f}, result.json {there:.2f}; not used")
      return None
    return examples

  def _problem(self, tested: Tested, reason: str) -> None:
    problem = Problem(tested.run.workdir, reason)
    if problem not in self._study.problems:
      self._study.problems.append(problem)


def paired(ours: Cell, theirs: Cell) -> tuple[Cell, Cell]:
  """Returns the entries of both cells that have equal seeds.

  An entry without a pretraining seed (None) pairs with every pretraining seed of the other cell.
  """
  left, right = {}, {}
  for seed in sorted((s for s in ours.keys() | theirs.keys() if s[0] is not None), key=_seeds):
    without = (None, seed[1])
    one, other = ours.get(seed) or ours.get(without), theirs.get(seed) or theirs.get(without)
    if one and other:
      left[seed], right[seed] = one, other
  return left, right


def _seeds(seed: tuple[int | None, int]) -> tuple[int, int]:
  """Returns a sort key of (pretraining seed, fine-tuning seed)."""
  return seed[0] or 0, seed[1]


def average(differences: list[Difference | None]) -> Difference | None:
  """Returns the mean of differences, one per language; None if one is missing."""
  found = [each for each in differences if each is not None]
  if not found or len(found) < len(differences):
    return None
  arrays = [each.resampled for each in found if each.resampled is not None]
  resampled = np.mean(arrays, axis=0) if len(arrays) == len(found) else None
  value = float(np.mean([each.value for each in found]))
  return Difference(value, min(each.seeds for each in found), resampled)
