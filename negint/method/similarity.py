"""Cosines of gradients from repeated measurements, freed of sampling noise; when masks say nothing.

Plain arithmetic without JAX, which the analyses and the report share.

A measurement is a dict of raw cosines by pair of languages: {"ar-ar": 0.4, "en-en": 0.5, "ar-en": 0.1},
where "ar-ar" is the cosine of two gradients of one language. An estimate is
{"mean": ..., "standard_error": ...}, with None where a number is undefined, because JSON has no NaN.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

import numpy as np

# Share of a mask's gates at one limit above which its plain cosines say nothing. Two masks that have 90 %
# of their gates at one limit, and nothing else in common, already have a cosine of 0.64 or more.
SATURATED = 0.9

Estimate = dict[str, float | None]


def estimates(repeats: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Estimate]]:
  """Returns {"cosine": {pair: estimate}, "corrected": {pair of two languages: estimate}}.

  The corrected cosine is computed from the means over the repeats, because the denominator of a
  single repeat is noisy. Its standard error is the jackknife's.

  Args:
    repeats: one or more measurements with the same pairs.
  """
  values = {pair: [each[pair] for each in repeats] for pair in repeats[0]}
  means = {pair: statistics.fmean(each) for pair, each in values.items()}
  left_out = [
    corrected({p: (sum(v) - v[k]) / (len(v) - 1) for p, v in values.items()})
    for k in range(len(repeats) if len(repeats) > 1 else 0)
  ]
  return {
    "cosine": {
      pair: entry(means[pair], statistics.stdev(v) / len(v) ** 0.5 if len(v) > 1 else math.nan)
      for pair, v in values.items()
    },
    "corrected": {
      pair: entry(value, jackknife([each[pair] for each in left_out]))
      for pair, value in corrected(means).items()
    },
  }


def corrected(cosine: Mapping[str, float]) -> dict[str, float]:
  """Returns the cosines between languages as they would be without sampling noise.

  The value is cos(x, e) / sqrt(cos(x, x') cos(e, e')), where x and x' are the gradients of one
  language, e and e' those of the other. Noise lowers the numerator by the same factors as the
  denominator. The value is NaN where the two gradients of one language have a cosine of 0 or below.

  Args:
    cosine: raw cosines by pair, or their means over repeats.
  """
  own = {first: value for pair, value in cosine.items() if (first := language_of(pair))}
  result = {}
  for pair, value in cosine.items():
    if not language_of(pair):
      first, second = split_pair(pair, own)
      product = own[first] * own[second]
      result[pair] = value / product**0.5 if min(own[first], own[second]) > 0 else math.nan
  return result


def language_of(pair: str) -> str:
  """Returns "ar" for "ar-ar", and "" for a pair of two languages. A code may have a hyphen, too."""
  half = len(pair) // 2
  return pair[:half] if pair[:half] == pair[half + 1 :] and pair[half] == "-" else ""


def split_pair(pair: str, codes: Collection[str]) -> tuple[str, str]:
  """Returns the two languages of a pair such as "zh-yue-en", given the codes that there are."""
  for place, letter in enumerate(pair):
    if letter == "-" and pair[:place] in codes and pair[place + 1 :] in codes:
      return pair[:place], pair[place + 1 :]
  raise ValueError(f"{pair!r} is no pair of {', '.join(codes)}")


def jackknife(left_out: Sequence[float]) -> float:
  """Returns the standard error of an estimate.

  Args:
    left_out: the estimate without the first repeat, without the second, and so on. NaN if empty.
  """
  if not left_out:
    return math.nan
  count = len(left_out)
  return float(np.sqrt((count - 1) / count * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)))


def entry(mean: float, standard_error: float) -> Estimate:
  """Returns the record of an estimate, with None where a number is not finite."""
  return {
    "mean": mean if math.isfinite(mean) else None,
    "standard_error": standard_error if math.isfinite(standard_error) else None,
  }


def is_saturated(comparison: Mapping) -> bool:
  """Returns whether the plain cosine of two masks is high for any two languages.

  Args:
    comparison: of two masks, with `saturation` (the share of gates at one limit) and `centred` (None
      where a mask is constant).
  """
  return comparison["centred"] is None or comparison.get("saturation", 0.0) > SATURATED
