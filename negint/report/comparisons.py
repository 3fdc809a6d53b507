"""Sums and differences of cells, with intervals over seeds and test examples.

Runs of one set of pretraining runs (`Key.model`) are paired by their seeds: two tasks of one model are
not independent. Runs of two systems on the same languages are paired, too: with one seed they have the
same first weights and the same order of batches, and in the lab's study one seed's models were good or
bad at question answering together. Other sets, such as Mono and JointPair, are independent.
"""

import collections
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from negint.report import statistics
from negint.report.cells import MAIN_SCORES, PERPLEXITY, Cells, Key, Row, Tested
from negint.report.problems import Damaged
from negint.report.records import Study, read_examples
from negint.report.statistics import Estimate, Sample

UNTRAINED = ("majority", "scratch")  # rows that are paired with no system of the same seed
SAME_FLOPS = 0.1  # relative difference below which two models cost equally much
Seed = tuple[int | None, int]  # (of pretraining, of fine-tuning)


class Term(NamedTuple):
  """One cell in a sum of cells."""

  weight: float  # +1 and -1 in a difference
  key: Key  # of the cell
  score: str  # of the cell
  seeds: frozenset[int | None] | None = None  # pretraining seeds that count; None: all


class Comparer:
  """Compares cells; adds damaged files of example statistics to `study.problems`."""

  def __init__(self, cells: Cells, study: Study):
    self.cells = cells
    self._study = study
    self._examples = functools.cache(self._read)
    self._resampled = functools.cache(self._resample)

  def baseline(self, key: Key) -> Key:
    """Returns JointPair's cell in the key's column, of the same settings; it may be empty.

    Where JointPair has no run of these updates, it is the main one, if that cost as many FLOPs.
    """
    same = key._replace(row=key.row.joint_pair)
    main = same._replace(row=same.row.without_steps)
    ours, theirs = self.cells.flops(key), self.cells.flops(main)
    if same not in self.cells.cells and ours and theirs and abs(ours / theirs - 1) < SAME_FLOPS:
      return main
    return same

  def difference(self, ours: Key, theirs: Key, score: str = "") -> Estimate | None:
    """Returns ours - theirs in a score (empty: the task's main one); None where a cell is empty."""
    name = score or MAIN_SCORES[ours.task]
    return self.estimate((Term(1, ours, name), Term(-1, theirs, name)))

  def score(self, key: Key, score: str = "") -> Estimate | None:
    """Returns a cell's mean; None where it is empty."""
    return self.estimate((Term(1, key, score or MAIN_SCORES[key.task]),))

  def estimate(self, terms: tuple[Term, ...]) -> Estimate | None:
    """Returns the weighted sum of cells; None where one is empty or seeds of one model do not meet."""
    samples = self._samples(terms)
    if samples is None:
      return None
    return statistics.estimate(samples, without_examples=terms[0].key.task == PERPLEXITY)

  def _samples(self, terms: Sequence[Term]) -> list[Sample] | None:
    """Returns what each group of pretraining runs adds to the sum; None where a cell is empty."""
    same_examples = self._same_examples(terms)
    samples = [self._sample(group, same_examples) for group in self._groups(terms)]
    found = [sample for sample in samples if sample is not None]
    return found if len(found) == len(samples) else None

  def _groups(self, terms: Sequence[Term]) -> list[list[Term]]:
    """Returns the terms in groups that are independent of each other."""
    by_model, by_draws = collections.defaultdict(list), collections.defaultdict(list)
    for term in terms:
      by_model[term.key.model].append(term)
    for model, group in by_model.items():
      by_draws[self._draws(model, group[0])].append(group)
    groups = []
    for each in by_draws.values():
      together = [term for group in each for term in group]
      groups += [together] if len(self.origins(*together)) > 1 else each
    return groups

  def _draws(self, model: Key, term: Term) -> tuple:
    """Returns what decides, with the seed, the first weights and the order of batches of a model."""
    cell = self.cells.cells.get(term.key)
    if not cell or model.row.system.partition("/")[0] in UNTRAINED:
      return model, ()
    origin = next(iter(cell.values())).run.origin
    return model._replace(row=Row("")), origin.languages

  def origins(self, *terms: Term) -> frozenset[int | None]:
    """Returns the pretraining seeds that all terms have."""
    return frozenset.intersection(
      *(frozenset(origin for origin, _ in self._seeds(term)) for term in terms)
    )

  def _sample(self, terms: list[Term], with_examples: bool) -> Sample | None:
    """Returns what one group adds: one value per seed that all terms have."""
    seeds = [self._seeds(term) for term in terms]
    origins = self.origins(*terms)
    if not origins:
      return None
    units: list[list[list[Seed]]]  # per value, per term: the runs whose mean it takes
    if len(origins) > 1 or all(term.key.row.system == "majority" for term in terms):
      units = [
        [[s for s in each if s[0] == o] for each in seeds] for o in sorted(origins, key=_rank)
      ]
      over = statistics.PRETRAINING if len(origins) > 1 else ""
    else:
      (origin,) = origins
      tunings = set.intersection(*({t for o, t in each if o == origin} for each in seeds))
      units = [[[(origin, tuning)] for _ in terms] for tuning in sorted(tunings)]
      over = statistics.TUNING
    if not units:
      return None
    parts = [list(zip(terms, unit, strict=True)) for unit in units]
    values = [sum(t.weight * self._mean(t, each) for t, each in unit) for unit in parts]
    resampled = [self._resampled_sum(unit) for unit in parts] if with_examples else [None]
    arrays = [array for array in resampled if array is not None]
    whole = np.stack(arrays, axis=1) if len(arrays) == len(units) else None
    return Sample(np.array(values), whole, over)

  def _mean(self, term: Term, seeds: list[Seed]) -> float:
    cell = self.cells.cells[term.key]
    return float(np.mean([cell[seed].scores[term.score] for seed in seeds]))

  def _resampled_sum(self, parts: list[tuple[Term, list[Seed]]]) -> np.ndarray | None:
    """Returns the weighted sum on each resample, [RESAMPLES]; None where a run has no examples."""
    found = [
      (term.weight / len(seeds), self._resampled(term.key, term.score).get(seed))
      for term, seeds in parts
      for seed in seeds
    ]
    arrays = [weight * array for weight, array in found if array is not None]
    return np.sum(arrays, axis=0) if len(arrays) == len(found) else None

  def _seeds(self, term: Term) -> list[Seed]:
    cell = self.cells.cells.get(term.key, {})
    found = [seed for seed in cell if term.score in cell[seed].scores]
    return sorted((s for s in found if term.seeds is None or s[0] in term.seeds), key=_ranks)

  def _same_examples(self, terms: Sequence[Term]) -> bool:
    """Returns whether the runs of each test set that have example statistics have equally many."""
    sizes: dict[tuple, dict[int, Tested]] = collections.defaultdict(dict)
    for term in terms:
      for seed in self._seeds(term):
        tested = self.cells.cells[term.key][seed]
        examples = self._examples(term.key, seed, term.score)
        if examples is not None:
          sizes[term.key.task, term.key.column.language].setdefault(len(examples), tested)
    same = True
    for each in sizes.values():
      (size, first), *others = each.items()
      for other, tested in others:
        there = f"{size} test examples, {tested.run.workdir} {other}"
        self._study.add_problem(first.run.workdir, f"has {there}: no interval of their difference")
        same = False
    return same

  def _resample(self, key: Key, score: str) -> dict[Seed, np.ndarray]:
    """Returns the resampled score, [RESAMPLES], of each run of a cell that has usable examples."""
    found = {seed: self._examples(key, seed, score) for seed in self.cells.cells[key]}
    usable = {seed: examples for seed, examples in found.items() if examples is not None}
    sizes = {examples.shape for examples in usable.values()}
    result: dict[Seed, np.ndarray] = {}
    for size in sizes:
      same = [seed for seed, examples in usable.items() if examples.shape == size]
      scores = statistics.resampled_scores(np.stack([usable[seed] for seed in same]))
      result |= dict(zip(same, scores.T, strict=True))
    return result

  def _read(self, key: Key, seed: Seed, score: str) -> np.ndarray | None:
    """Returns [examples, 2]; None where the file is missing, damaged or contradicts its score."""
    tested = self.cells.cells[key][seed]
    if tested.examples is None or not tested.examples.exists():
      return None
    name = tested.examples.relative_to(tested.run.path).as_posix()
    try:
      examples = read_examples(tested.examples, score)
    except Damaged as error:
      self._study.add_problem(tested.run.workdir, f"{name}: {error}; no intervals from it")
      return None
    found, there = statistics.score(examples), tested.scores[score]
    if abs(found - there) > 0.01:
      reason = f"{name} gives {score} {found:.2f}, result.json {there:.2f}; not used"
      self._study.add_problem(tested.run.workdir, reason)
      return None
    return examples


def _rank(origin: int | None) -> int:
  return -1 if origin is None else origin


def _ranks(seed: Seed) -> tuple[int, int]:
  return _rank(seed[0]), seed[1]


def mean_of(differences: Sequence[tuple[Term, ...]]) -> tuple[Term, ...]:
  """Returns the terms of the mean of several sums of cells."""
  count = len(differences)
  return tuple(term._replace(weight=term.weight / count) for terms in differences for term in terms)
