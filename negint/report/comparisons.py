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
  """Points between two cells, over the seeds that both have."""

  value: float
  seeds: int
  resampled: np.ndarray | None  # [RESAMPLES]; None without example statistics

  @property
  def interval(self) -> Interval | None:
    return None if self.resampled is None else statistics.interval(self.value, self.resampled)


class Comparer:
  """Compares cells and remembers what it has compared; damaged files go to `study.problems`."""

  def __init__(self, cells: Cells, study: Study):
    self._cells = cells.cells
    self._study = study
    self.difference = functools.cache(self._difference)
    self.score = functools.cache(self._score)

  def baseline(self, key: Key) -> Key:
    """JointPair's cell in the key's column: of the same variant if there is one."""
    same = key._replace(row=Row("joint_pair", key.row.variant))
    return same if same in self._cells else key._replace(row=Row("joint_pair"))

  def _difference(self, ours: Key, theirs: Key, score: str) -> Difference | None:
    """ours - theirs; None where a cell is empty or the two have no seeds in common."""
    left, right = paired(self._cells.get(ours, {}), self._cells.get(theirs, {}))
    seeds = [s for s in left if score in left[s].scores and score in right[s].scores]
    if not seeds:
      return None
    value = np.mean([left[s].scores[score] - right[s].scores[score] for s in seeds])
    pair = self._examples(left, seeds, score), self._examples(right, seeds, score)
    if pair[0] is None or pair[1] is None:
      return Difference(float(value), len(seeds), None)
    if pair[0].shape != pair[1].shape:
      sizes = f"{pair[0].shape[1]} test examples, {right[seeds[0]].run.workdir} {pair[1].shape[1]}"
      self._problem(left[seeds[0]], f"has {sizes}: no interval of their difference")
      return Difference(float(value), len(seeds), None)
    value, resampled = statistics.paired_difference(*pair)
    return Difference(value, len(seeds), resampled)

  def _score(self, key: Key, score: str) -> Difference | None:
    """A cell against nothing: its mean, and the spread over resampled test examples."""
    cell = self._cells.get(key, {})
    seeds = sorted(seed for seed in cell if score in cell[seed].scores)
    if not seeds:
      return None
    value = float(np.mean([cell[seed].scores[score] for seed in seeds]))
    examples = self._examples(cell, seeds, score)
    resampled = None if examples is None else statistics.resampled_scores(examples)
    return Difference(value, len(seeds), resampled)

  def _examples(self, cell: Cell, seeds: list, score: str) -> np.ndarray | None:
    """[seeds, examples, 2]; None where a file is missing, damaged or disagrees with its score."""
    arrays = [self._read(cell[seed], score) for seed in seeds]
    if any(array is None for array in arrays) or len({array.shape for array in arrays}) > 1:
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

  def _problem(self, tested: Tested, reason: str):
    problem = Problem(tested.run.workdir, reason)
    if problem not in self._study.problems:
      self._study.problems.append(problem)


def paired(ours: Cell, theirs: Cell) -> tuple[Cell, Cell]:
  """The entries of equal seeds; what has no pretraining seed goes with each of the other's."""

  def find(cell: Cell, seed) -> Tested | None:
    return cell.get(seed) or cell.get((None, seed[1]))

  seeds = sorted(s for s in ours.keys() | theirs.keys() if s[0] is not None)
  seeds = [seed for seed in seeds if find(ours, seed) and find(theirs, seed)]
  return {s: find(ours, s) for s in seeds}, {s: find(theirs, s) for s in seeds}


def average(differences: list[Difference | None]) -> Difference | None:
  """The mean over languages; None if one is missing."""
  if not differences or any(each is None for each in differences):
    return None
  arrays = [each.resampled for each in differences]
  resampled = None if any(array is None for array in arrays) else np.mean(arrays, axis=0)
  value = float(np.mean([each.value for each in differences]))
  return Difference(value, min(each.seeds for each in differences), resampled)
