"""Means over seeds, and intervals that cover pretraining seeds, fine-tuning seeds and test examples.

Every score is a ratio: each example gives a numerator and a denominator, and the score is
100 * sum(numerators) / sum(denominators). For chunk F1 an example gives (2 * correct, predicted +
gold); for a mean it gives (value, 1).

With two or more seeds an interval is Student's t on the means of the seeds. A percentile bootstrap over
three seeds covers far less than it says. The test examples that all seeds share add their own variance,
from a bootstrap; Welch and Satterthwaite's formula gives the degrees of freedom. With one seed the
interval is the percentile bootstrap over test examples. A test measures the coverage by simulation.
"""

import functools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

RESAMPLES = 10_000  # bootstrap resamples of the test examples
SIGNIFICANT = 0.05  # a p below it is that
SEED = 2010  # of the resamples: the same runs give the same report
_CHUNK = 500  # resamples multiplied at a time; bounds the memory
_MANY = 1e9  # degrees of freedom of a variance that is known
PRETRAINING, TUNING, EXAMPLES = "pretraining seeds", "fine-tuning seeds", "test examples"


@dataclass(frozen=True)
class Pooled:
  """Several values in three numbers."""

  mean: float  # of the values
  deviation: float | None  # sample standard deviation; None for a single value
  count: int  # of the values; of all fine-tuning runs where the values are means over some of them
  over: str = ""  # the seeds that the deviation is over: "pretraining" | "fine-tuning"


@dataclass(frozen=True)
class Interval:
  """A 95 % interval of a score or of a difference."""

  low: float  # lower end
  high: float  # upper end
  p: float  # two-sided, of the value being zero


@dataclass(frozen=True)
class Sample:
  """What one group of pretraining runs adds to a number; groups are independent of each other."""

  values: np.ndarray  # one per seed, [seeds]
  resampled: (
    np.ndarray | None
  )  # the values on each resample of the test examples, [RESAMPLES, seeds]
  over: str  # what the seeds are: PRETRAINING | TUNING | "", which has no seeds (a majority label)


@dataclass(frozen=True)
class Estimate:
  """A score or a difference, with its uncertainty."""

  value: float  # points, or bits
  interval: Interval | None  # None where nothing tells how uncertain the value is
  seeds: int  # the smallest number of seeds in a group
  over: (
    str  # what the interval covers besides test examples: PRETRAINING | TUNING | EXAMPLES; "": none
  )

  @property
  def p(self) -> float | None:
    """The two-sided p over pretraining seeds; None where the interval does not cover them."""
    return self.interval.p if self.interval and self.over == PRETRAINING else None


def pool(values: Iterable[float], over: str = "") -> Pooled:
  """Returns mean, deviation and count of one or more values; `over` names the seeds that differ."""
  values = list(values)
  deviation = statistics.stdev(values) if len(values) > 1 else None
  return Pooled(statistics.fmean(values), deviation, len(values), over)


def score(examples: np.ndarray) -> float:
  """Returns a score in per cent.

  Args:
    examples: [examples, 2], numerators and denominators.
  """
  return float(_ratios(examples.sum(axis=0)))


def resampled_scores(examples: np.ndarray) -> np.ndarray:
  """Returns the `score` of each run on each resample of the test examples, [RESAMPLES, runs].

  All runs see the same resamples, and so do all test sets of one size. So the difference of two calls is
  the difference of two systems on the same examples.

  Args:
    examples: [runs, examples, 2], numerators and denominators.
  """
  runs, size, _ = examples.shape
  flat = examples.transpose(1, 0, 2).reshape(size, -1)
  counts = _counts(size)
  sums = [
    counts[start : start + _CHUNK].astype(np.float64) @ flat
    for start in range(0, RESAMPLES, _CHUNK)
  ]
  return _ratios(np.concatenate(sums).reshape(RESAMPLES, runs, 2))


def estimate(samples: Sequence[Sample], *, without_examples: bool = False) -> Estimate:
  """Returns the sum of the samples' means with its 95 % interval.

  Args:
    samples: the groups of pretraining runs.
    without_examples: the values do not come from test examples (perplexities, counts of updates).
  """
  value = float(sum(sample.values.mean() for sample in samples))
  seeded = [sample for sample in samples if sample.over]
  seeds = min((len(sample.values) for sample in seeded), default=1)
  means = [s.resampled.mean(axis=1) for s in samples if s.resampled is not None]
  total = np.sum(means, axis=0) if len(means) == len(samples) else None
  if total is None and not without_examples:
    return Estimate(value, None, seeds, "")
  if seeds < 2 or not seeded:
    found = None if total is None else percentile_interval(total)
    return Estimate(value, found, seeds, EXAMPLES if found else "")
  own = [float(np.var(s.values, ddof=1)) / len(s.values) for s in seeded]
  shared = 0.0 if total is None else max(0.0, float(np.var(total)) - sum(map(_own_noise, seeded)))
  found = t_interval(value, own, [len(s.values) - 1 for s in seeded], shared)
  over = PRETRAINING if {s.over for s in seeded} == {PRETRAINING} else TUNING
  return Estimate(value, found, seeds, over)


def t_interval(
  value: float, variances: Sequence[float], degrees: Sequence[int], known: float = 0.0
) -> Interval:
  """Returns Welch's interval of a sum of independent means.

  Args:
    value: the sum.
    variances: of each mean, estimated.
    degrees: degrees of freedom of each variance.
    known: a further variance, with very many degrees of freedom.
  """
  variance = sum(variances) + known
  if variance <= 0:
    return Interval(value, value, float(value == 0))
  uncertain = sum(each**2 / n for each, n in zip(variances, degrees, strict=True))
  freedom = min(_MANY, variance**2 / uncertain) if uncertain > 0 else _MANY
  error = variance**0.5
  half = float(special.stdtrit(freedom, 0.975)) * error
  p = 2 * float(special.stdtr(freedom, -abs(value) / error))
  return Interval(value - half, value + half, p)


def half_width(values: np.ndarray) -> np.ndarray:
  """Returns half the length of Student's 95 % interval of the mean over the first axis, of 2 or more."""
  count = len(values)
  return special.stdtrit(count - 1, 0.975) * np.std(values, axis=0, ddof=1) / count**0.5


def percentile_interval(resampled: np.ndarray) -> Interval:
  """Returns the percentile interval of resampled values, [RESAMPLES].

  p counts the value itself among the resamples, so it is never 0.
  """
  resampled = np.round(resampled, 9)  # ties stay ties, whatever the order of a machine's sums
  low, high = np.quantile(resampled, [0.025, 0.975])
  tail = min(np.sum(resampled <= 0), np.sum(resampled >= 0))
  p = min(1.0, 2 * (1 + int(tail)) / (1 + len(resampled)))
  return Interval(float(low), float(high), p)


def holm(ps: Sequence[float]) -> list[float]:
  """Returns Holm's adjusted p of each p: the chance of one false finding among all is below it."""
  adjusted, largest = [0.0] * len(ps), 0.0
  for place, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
    largest = max(largest, min(1.0, ps[index] * (len(ps) - place)))
    adjusted[index] = largest
  return adjusted


def _own_noise(sample: Sample) -> float:
  """Returns the variance of the mean that test examples give to each seed alone.

  The spread of the seeds' values contains it already.
  """
  if sample.resampled is None or len(sample.values) < 2:
    return 0.0
  covariance = np.cov(sample.resampled.T)
  count = len(covariance)
  own = np.trace(covariance) / count
  shared = (covariance.sum() - np.trace(covariance)) / (count * (count - 1))
  return float(own - shared) / count


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
