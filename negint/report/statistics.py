"""Means over seeds, and the paired bootstrap over test examples.

Test statistics are ratios: every example gives a numerator and a denominator, and the score is
100 * sum(numerators) / sum(denominators). Chunk F1 has (2 * correct, predicted + gold); a mean has
(value, 1).
"""

import functools
import statistics
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000  # bootstrap resamples of the test examples
SEED = 2010  # of the resamples: a report is a function of its runs
_CHUNK = 500  # resamples multiplied at a time; bounds the memory


@dataclass(frozen=True)
class Pooled:
  """Mean and sample standard deviation (None of a single value) of `count` values."""

  mean: float
  deviation: float | None
  count: int


@dataclass(frozen=True)
class Interval:
  """A score or a difference in points, its 95 % interval and two-sided p (of being zero)."""

  value: float
  low: float
  high: float
  p: float


def pool(values) -> Pooled:
  """Of at least one value."""
  values = list(values)
  deviation = statistics.stdev(values) if len(values) > 1 else None
  return Pooled(statistics.fmean(values), deviation, len(values))


def score(examples: np.ndarray) -> float:
  """Mean over seeds of the score in per cent.

  Args:
    examples: [seeds, examples, 2], numerators and denominators.
  """
  return float(_ratios(examples.sum(axis=1)).mean())


def resampled_scores(examples: np.ndarray) -> np.ndarray:
  """`score` of RESAMPLES resamples, [RESAMPLES]; all seeds see the same resampled examples.

  Test sets of one size are resampled alike, so calls can be subtracted as pairs.
  """
  seeds, size, _ = examples.shape
  flat = examples.transpose(1, 0, 2).reshape(size, -1)
  counts = _counts(size)
  sums = [
    counts[start : start + _CHUNK].astype(np.float64) @ flat
    for start in range(0, RESAMPLES, _CHUNK)
  ]
  return _ratios(np.concatenate(sums).reshape(RESAMPLES, seeds, 2)).mean(axis=1)


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, np.ndarray]:
  """(ours - theirs in points, the same of every resample) of two systems on one test set.

  Args:
    ours, theirs: [seeds, examples, 2]; entry k of both belongs to the same seeds.
  """
  if ours.shape != theirs.shape:
    raise ValueError(f"pairs need equal shapes, not {ours.shape} and {theirs.shape}")
  return score(ours) - score(theirs), resampled_scores(ours) - resampled_scores(theirs)


def interval(value: float, resampled: np.ndarray) -> Interval:
  """The percentile interval; p counts the value itself among the resamples, so it is never 0."""
  resampled = np.round(resampled, 9)  # ties stay ties in whatever order a machine sums
  low, high = np.quantile(resampled, [0.025, 0.975])
  tail = min(np.sum(resampled <= 0), np.sum(resampled >= 0))
  p = min(1.0, 2 * (1 + int(tail)) / (1 + len(resampled)))
  return Interval(value, float(low), float(high), p)


@functools.lru_cache(maxsize=2)
def _counts(size: int) -> np.ndarray:
  """[RESAMPLES, size]: how often each example is drawn."""
  random = np.random.default_rng(SEED)
  counts = np.empty((RESAMPLES, size), np.uint8)
  for start in range(0, RESAMPLES, _CHUNK):
    drawn = random.integers(size, size=(_CHUNK, size)) + size * np.arange(_CHUNK)[:, None]
    found = np.bincount(drawn.ravel(), minlength=_CHUNK * size)
    counts[start : start + _CHUNK] = found.reshape(_CHUNK, size)
  return counts


def _ratios(sums: np.ndarray) -> np.ndarray:
  """100 * numerators / denominators along the last axis; 0 where there is nothing to find."""
  numerators, denominators = sums[..., 0], sums[..., 1]
  return 100 * numerators / np.where(denominators > 0, denominators, 1)
