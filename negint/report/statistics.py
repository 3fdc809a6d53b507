"""Means over seeds, and the paired bootstrap over test examples.

Every score is a ratio: each example gives a numerator and a denominator, and the score is
100 * sum(numerators) / sum(denominators). For chunk F1 an example gives (2 * correct, predicted +
gold); for a mean it gives (value, 1).
"""

import functools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000  # bootstrap resamples of the test examples
SEED = 2010  # of the resamples: the same runs give the same report
_CHUNK = 500  # resamples multiplied at a time; bounds the memory


@dataclass(frozen=True)
class Pooled:
  """Several values in three numbers."""

  mean: float  # of the values
  deviation: float | None  # sample standard deviation; None for a single value
  count: int  # of the values; of all fine-tuning runs where the values are means over some of them
  over: str = ""  # the seeds that the deviation is over: "pretraining" | "fine-tuning"


@dataclass(frozen=True)
class Interval:
  """A score or a difference, with its uncertainty."""

  value: float  # points
  low: float  # lower end of the 95 % interval
  high: float  # upper end of the 95 % interval
  p: float  # two-sided, of the value being zero


def pool(values: Iterable[float], over: str = "") -> Pooled:
  """Returns mean, deviation and count of one or more values; `over` names the seeds that differ."""
  values = list(values)
  deviation = statistics.stdev(values) if len(values) > 1 else None
  return Pooled(statistics.fmean(values), deviation, len(values), over)


def score(examples: np.ndarray) -> float:
  """Returns the mean over seeds of a score, in per cent.

  Args:
    examples: [seeds, examples, 2], numerators and denominators.
  """
  return float(_ratios(examples.sum(axis=1)).mean())


def resampled_scores(examples: np.ndarray) -> np.ndarray:
  """Returns the `score` of each resample of the test examples, [RESAMPLES].

  All seeds see the same resampled examples, and so do all test sets of one size. So the difference
  of two calls is the difference of two systems on the same examples.
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
  """Returns the difference of two systems on one test set.

  Args:
    ours: [seeds, examples, 2], numerators and denominators.
    theirs: the same of the other system; entry k of both belongs to the same seeds.

  Returns:
    (ours - theirs in points, the same for every resample [RESAMPLES]).

  Raises:
    ValueError: the shapes differ.
  """
  if ours.shape != theirs.shape:
    raise ValueError(f"pairs need equal shapes, not {ours.shape} and {theirs.shape}")
  return score(ours) - score(theirs), resampled_scores(ours) - resampled_scores(theirs)


def interval(value: float, resampled: np.ndarray) -> Interval:
  """Returns the percentile interval.

  p counts the value itself among the resamples, so it is never 0.
  """
  resampled = np.round(resampled, 9)  # ties stay ties, whatever the order of a machine's sums
  low, high = np.quantile(resampled, [0.025, 0.975])
  tail = min(np.sum(resampled <= 0), np.sum(resampled >= 0))
  p = min(1.0, 2 * (1 + int(tail)) / (1 + len(resampled)))
  return Interval(value, float(low), float(high), p)


@functools.lru_cache(maxsize=2)
def _counts(size: int) -> np.ndarray:
  """Returns how often each resample draws each example, [RESAMPLES, size]."""
  random = np.random.default_rng(SEED)
  counts = np.empty((RESAMPLES, size), np.uint8)
  for start in range(0, RESAMPLES, _CHUNK):
    drawn = random.integers(size, size=(_CHUNK, size)) + size * np.arange(_CHUNK)[:, None]
    found = np.bincount(drawn.ravel(), minlength=_CHUNK * size)
    counts[start : start + _CHUNK] = found.reshape(_CHUNK, size)
  return counts


def _ratios(sums: np.ndarray) -> np.ndarray:
  """Returns 100 * numerators / denominators of the last axis; 0 where the denominator is 0."""
  numerators, denominators = sums[..., 0], sums[..., 1]
  return 100 * numerators / np.where(denominators > 0, denominators, 1)
