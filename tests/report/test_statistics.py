"""Means, intervals and their coverage, measured by simulation."""

import numpy as np
import pytest
from studies import ratio_rows
from toy import slow

from negint.report import drawing, statistics
from negint.report.drawing import Bar
from negint.report.statistics import EXAMPLES, PRETRAINING, TUNING, Sample, estimate, holm


def examples(values) -> np.ndarray:
  """[examples, 2] of a mean."""
  values = np.asarray(values, float)
  return np.stack([values, np.ones_like(values)], axis=1)


def sample(*runs, sign=1, over=PRETRAINING) -> Sample:
  """The sample of several runs' answers to the same examples."""
  every = np.stack([examples(run) for run in runs])
  values = np.array([statistics.score(each) for each in every])
  return Sample(sign * values, sign * statistics.resampled_scores(every), over)


def difference(ours, theirs, **fields):
  return estimate([sample(*ours, **fields), sample(*theirs, sign=-1, **fields)])


def test_mean_and_sample_deviation_of_seeds():
  assert statistics.pool([1.0, 2.0, 6.0]) == statistics.Pooled(3.0, pytest.approx(7**0.5), 3)
  assert statistics.pool([4.0]) == statistics.Pooled(4.0, None, 1)


def test_equal_systems_differ_by_nothing():
  one = np.arange(50) % 2
  found = difference([one], [one.copy()])
  assert (found.value, found.interval) == (0.0, statistics.Interval(0.0, 0.0, 1.0))
  found = difference([one, one], [one, one])
  assert (found.interval.low, found.interval.high, found.interval.p) == (0.0, 0.0, 1.0)


def test_a_system_better_on_every_example_has_the_smallest_p_and_the_other_sign_mirrors_it():
  one, other = np.full(60, 0.75), np.full(60, 0.5)
  found = difference([one], [other])
  assert (found.value, found.interval.low, found.interval.high) == pytest.approx((25, 25, 25))
  assert found.interval.p == pytest.approx(2 / (statistics.RESAMPLES + 1))
  mirror = difference([other], [one])
  ends = (mirror.value, mirror.interval.low, mirror.interval.p)
  assert ends == pytest.approx((-25, -25, found.interval.p))


def test_one_seed_is_as_uncertain_as_its_examples_and_says_so():
  random = np.random.default_rng(0)
  covered = 0
  for _ in range(40):
    one, other = random.random(200) < 0.8, random.random(200) < 0.7
    found = difference([one], [other])
    assert found.over == EXAMPLES
    covered += found.interval.low <= 10 <= found.interval.high
    error = 100 * np.std(one.astype(float) - other) / 200**0.5
    width = found.interval.high - found.interval.low
    assert width == pytest.approx(2 * 1.96 * error, rel=0.05)
  assert covered >= 34


def test_one_seed_beside_several_leaves_the_interval_to_the_examples():
  random = np.random.default_rng(1)
  runs = [random.random(100) < 0.7 for _ in range(4)]
  assert difference(runs[:3], runs[3:]).over == EXAMPLES
  assert difference(runs[:2], runs[2:]).over == PRETRAINING
  assert difference(runs[:2], runs[2:], over=TUNING).over == TUNING
  label = sample(runs[3], sign=-1, over="")  # has no seeds: the majority label
  assert estimate([sample(*runs[:3]), label]).over == PRETRAINING


def test_seeds_see_the_same_resampled_examples():
  values = np.arange(40) % 2
  runs = np.stack([examples(values), examples(1 - values)])  # always right half of the time
  assert np.ptp(statistics.resampled_scores(runs).mean(axis=1)) == pytest.approx(0)


def test_the_interval_of_two_means_is_welchs():
  """Values and interval of scipy.stats.ttest_ind(equal_var=False) and its confidence_interval."""
  stats = pytest.importorskip("scipy.stats")
  ours, theirs = [71.0, 74.5, 73.2, 70.1], [69.0, 71.5, 66.0]
  reference = stats.ttest_ind(ours, theirs, equal_var=False)
  found = estimate(
    [Sample(np.array(ours), None, PRETRAINING), Sample(-np.array(theirs), None, PRETRAINING)],
    without_examples=True,
  )
  ends = reference.confidence_interval(0.95)
  assert (found.interval.low, found.interval.high) == pytest.approx((ends.low, ends.high))
  assert found.interval.p == pytest.approx(reference.pvalue)


def test_the_band_of_a_curve_is_the_interval_of_each_mean():
  values = np.array([[71.0, 1.0], [74.5, 3.0], [73.2, 2.0]])
  for column, half in zip(values.T, statistics.half_width(values), strict=True):
    found = estimate([Sample(column, None, PRETRAINING)], without_examples=True)
    assert found.interval.high - found.value == pytest.approx(half)


def test_a_geometric_band_never_reaches_what_perplexities_cannot_be():
  values = np.array([[4.0, 400.0], [9.0, 100.0], [6.0, 200.0]])
  axes = drawing.panels(1, 3, 2.0)[1][0]
  assert drawing.mean_line(
    axes, np.arange(2), values, colour="C0", geometric=True
  ) == pytest.approx(200)
  line = axes.lines[0].get_ydata()
  ends = axes.collections[0].get_paths()[0].vertices[:, 1]
  assert line == pytest.approx([6, 200]) and ends.min() > 0
  values[0, 1] = 4000.0
  drawing.mean_line(axes, np.arange(2), values, colour="C1")  # the arithmetic one does
  assert axes.collections[1].get_paths()[0].vertices[:, 1].min() < 0


def test_scores_without_their_examples_have_no_interval():
  values = Sample(np.array([1.0, 2.0]), None, PRETRAINING)
  assert estimate([values]).interval is None
  assert estimate([values], without_examples=True).interval is not None


# Of (pretraining seeds of both systems): simulated studies with a known difference. Seeds move a score by
# `spread` (log-odds); a test set is shared by all runs, and its examples differ in difficulty.
@pytest.mark.parametrize(
  ("seeds", "spread"),
  [
    *(((3, 3), 0.15), ((5, 5), 0.15), ((3, 5), 0.5)),
    *(slow((3, 3), 0.0), slow((5, 5), 0.0), slow((3, 5), 0.0), slow((3, 5), 0.15)),
    *(slow((3, 3), 0.5), slow((5, 5), 0.5), slow((2, 2), 0.15)),
  ],
)
def test_intervals_over_seeds_and_examples_cover_the_truth(seeds, spread, few_resamples):
  random = np.random.default_rng([*seeds, int(100 * spread)])
  bases = (1.6, 1.2)
  hard = random.normal(0, 1.2, 400_000)

  def chance(base, noise):
    return 1 / (1 + np.exp(-(base + spread * noise + hard)))

  noise = random.normal(size=(2, hard.size))
  truth = 100 * float(np.mean(chance(bases[0], noise[0]) - chance(bases[1], noise[1])))
  covered = []
  percentile = []
  for _ in range(400):
    difficulty = random.normal(0, 1.2, 200)
    samples = []
    for base, count, sign in zip(bases, seeds, (1, -1), strict=True):
      logits = base + spread * random.normal(size=(count, 1)) + difficulty
      runs = random.random((count, 200)) < 1 / (1 + np.exp(-logits))
      samples.append(sample(*runs, sign=sign))
    found = estimate(samples)
    assert found.over == PRETRAINING
    covered.append(found.interval.low <= truth <= found.interval.high)
    drawn = [
      s.values[random.integers(len(s.values), size=(500, len(s.values)))].mean(axis=1)
      for s in samples
    ]
    low, high = np.quantile(sum(drawn), [0.025, 0.975])
    percentile.append(low <= truth <= high)
  assert 0.92 <= np.mean(covered) <= 0.99
  if spread > 0.2:
    assert np.mean(percentile) < 0.91, "a percentile bootstrap of few seeds covers too little"


def test_an_interval_over_seeds_holds_the_noise_of_examples_once(few_resamples):
  """With seeds that differ by nothing but which examples they happen to know, both parts are known."""
  random = np.random.default_rng(5)
  widths = []
  for _ in range(60):
    found = estimate([sample(*(random.random(300) < 0.7 for _ in range(30)))])
    widths.append(found.interval.high - found.interval.low)
  theory = 2 * 2.045 * 100 * (0.7 * 0.3 / 300 / 30) ** 0.5  # no example is harder than another
  assert np.mean(widths) == pytest.approx(theory, rel=0.08)


def test_holm_keeps_the_order_and_multiplies_the_smallest_most():
  assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
  assert holm([0.02]) == [0.02]


def test_chunk_f1_is_the_f1_of_all_sentences_and_not_their_mean():
  rows = [[1, 1, 1], [0, 9, 1]]
  assert statistics.score(ratio_rows(rows)) == pytest.approx(100 * 2 / 12)
  assert statistics.score(ratio_rows([[0, 0, 0]])) == 0


FAR = Bar(-80.0, -95.0, -60.0)


def test_one_row_that_lies_far_out_does_not_hide_the_others():
  others = [Bar(x, x - 1, x + 1) for x in (-3.0, -1.0, 0.0, 2.0)]
  everything = drawing.limits_of(others, log=False)
  assert drawing.limits_of_most(others) == everything
  assert drawing.limits_of_most([*others, FAR]) == everything
  assert drawing.limits_of([*others, FAR], log=False)[0] < -95
  axes = drawing.panels(1, 3, 2.0)[1][0]
  axes.set_xlim(everything)
  drawing.bars(axes, np.arange(2), [others[0], FAR], colour="C0", upright=False)
  arrows = [line for line in axes.lines if line.get_marker() in "<>"]
  assert [(*line.get_xdata(), line.get_marker()) for line in arrows] == [(everything[0], "<")]
