"""Mono's curve, matchings, and what a score is worth in tokens, on studies whose answers are known."""

import math

import pytest
from studies import lab, pretrain, tune

from negint.report import budgets, statistics, worth
from negint.report.cells import Column, Key, Row, collect
from negint.report.comparisons import Comparer, Term
from negint.report.difference_tables import interference, interference_section
from negint.report.records import read_study

pytestmark = pytest.mark.usefixtures("few_resamples")
NER, POS = ("ner", "within"), ("pos", "within")
XB = Column("xb", similarity=0.5)


def key(system="joint_pair", task="ner", column=XB):
  return Key("lab", task, "within", Row(system), column)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Mono at four lengths; JointPair that is worth twice the tokens in NER, half of them in POS."""
  folder = tmp_path_factory.mktemp("budgets")
  # JointPair sees 300 steps' tokens of xb in 600 steps: n is that of Mono's 300 steps.
  few = dict(size=200, seeds=(1, 2, 3))
  scores = {75: (40, 60), 150: (50, 70), 300: (60, 80), 600: (70, 90)}
  for steps, (ner, pos) in scores.items():
    lab(folder, "mono", {NER: ner, POS: pos}, 5 - math.log2(steps) / 10, steps=steps, **few)
  lab(folder, "joint_pair", {NER: 70, POS: 70}, 5 - math.log2(150) / 10, **few)
  lab(folder, "adpt", {NER: 85, POS: 30}, 3.0, size=200, seeds=(1,))
  return folder


@pytest.fixture(scope="module")
def comparer(runs):
  study = read_study(runs)
  return Comparer(collect(study), study)


def test_lengths_of_mono_are_one_curve_and_one_row(comparer):
  cells = comparer.cells
  mono = [k for k in cells.find("lab", "ner") if k.row.system == "mono"]
  assert [k.row for k in mono] == [Row("mono")], "the run with JointPair's steps"
  curve = cells.curve(key())
  assert [tokens for tokens, _ in curve] == [steps * 2048 for steps in (75, 150, 300, 600)]
  assert [round(comparer.score(k).value, -1) for _, k in curve] == [40, 50, 60, 70]
  assert curve[-1][1].row == Row("mono") and cells.tokens(key()) == 300 * 2048


def test_matchings_compare_with_mono_at_the_same_budget(comparer):
  steps, tokens, flops = (
    interference(comparer, "lab", "ner", XB, matching) for matching in budgets.MATCHINGS
  )
  assert steps.value == pytest.approx(0, abs=2) and flops.value == steps.value
  assert tokens.value == pytest.approx(-10, abs=2) and tokens.interval.high < 0
  assert tokens.over == statistics.PRETRAINING and tokens.seeds == 3
  rows = [row[0] for row in interference_section(comparer.cells, comparer, []).tables[0].rows]
  assert rows == ["xb @0.5", "steps, FLOPs", "tokens of the language"], "the same run of Mono"
  bits = interference(comparer, "lab", "perplexity", XB, "tokens")
  assert bits.value == pytest.approx(0.1), "JointPair needs more bits: positive, as for scores"


@pytest.mark.parametrize(("task", "ratio"), [("ner", 2.0), ("pos", 0.5), ("perplexity", 0.5)])
def test_a_score_is_worth_the_tokens_at_which_mono_has_it(comparer, task, ratio):
  found = budgets.worth(comparer, key(task=task))
  assert found.seen == 300 * 2048
  assert found.ratio == pytest.approx(ratio, rel=0.15)
  if task != "ner":  # whose score is at the end of the curve
    assert found.low <= found.tokens * 1.001 and found.high >= found.tokens * 0.999


def test_scores_beyond_the_curve_are_more_or_less_than_its_ends(comparer):
  more, less = (budgets.worth(comparer, key("adpt", task)) for task in ("ner", "pos"))
  assert (more.beyond, more.tokens, more.high) == (1, pytest.approx(600 * 2048), None)
  assert (less.beyond, less.tokens, less.low) == (-1, pytest.approx(75 * 2048), None)
  assert more.text.startswith(">2.00 [") and more.text.endswith(", …] (1)")
  assert less.text.startswith("<0.25 […, ")
  assert more.over == statistics.EXAMPLES, "one seed"


@pytest.mark.slow
def test_an_interval_of_tokens_covers_the_truth(tmp_path):
  """In 20 studies of three seeds, at most a few intervals miss 150 steps' tokens."""
  covered = 0
  for trial in range(20):
    folder = tmp_path / str(trial)
    size = 100 + trial  # other test sets, and other seeds of the simulation
    for steps, ner in {75: 50, 150: 60, 300: 70, 600: 80}.items():
      lab(folder, "mono", {NER: ner}, steps=steps, size=size, spread=2, seeds=range(3))
    lab(folder, "joint_pair", {NER: 60}, size=size, spread=2, seeds=range(3))
    study = read_study(folder)
    found = budgets.worth(Comparer(collect(study), study), key())
    low, high = found.low or 0, found.high or math.inf
    covered += low <= 150 * 2048 <= high
  assert 17 <= covered <= 20


def test_a_curve_that_falls_is_made_monotone():
  assert budgets.monotone([1, 3, 2, 4]) == [(1, [0]), (2.5, [1, 2]), (4, [3])]
  assert budgets.monotone([3, 2, 1]) == [(2, [0, 1, 2])]
  assert budgets.monotone([1, 2]) == [(1, [0]), (2, [1])]


def test_a_score_is_read_off_the_same_curve_as_its_interval():
  """A level stretch, of pooled scores, begins and ends where its points lie."""
  keys = [key(), key("adpt"), key("ffn"), key("attn")]
  terms = [Term(1, each, "f1") for each in keys]
  curve = budgets._Curve(terms, [0.0, 1.0, 2.0, 3.0], [10, 20, 20, 30], [[0], [1, 2], [1, 2], [3]])

  def level(x):
    scores = dict(zip(keys, (10, 22, 18, 30), strict=True))
    return sum(term.weight * scores[term.key] for term in curve.at(x))

  for value in (10, 12.5, 19, 21, 27.5, 30):
    assert level(curve.where(value)) == pytest.approx(value)
  assert curve.where(20) == 1.5, "the middle of the stretch"
  assert (curve.where(5), curve.where(35)) == (0.0, 3.0), "its ends"


def test_a_budget_between_two_lengths_is_interpolated_in_its_logarithm():
  points = [(100.0, "a"), (400.0, "b")]
  assert budgets.read_off(points, 200.0) == [(pytest.approx(0.5), "a"), (pytest.approx(0.5), "b")]
  assert budgets.read_off(points, 401.0) == [(1.0, "b")], "within 2 %"
  assert budgets.read_off(points, 50.0) is None and budgets.read_off(points, 900.0) is None


def test_without_lengths_or_tokens_nothing_is_worth_anything(tmp_path):
  for system, languages in (("mono", ["xb"]), ("joint_pair", ["xb", "xa"])):
    for steps in (300, 600):
      origin = pretrain(
        tmp_path, system, languages, steps=steps
      )  # does not know its tokens by language
      tune(tmp_path, origin, language="xb", source="xb", errors=4)
  study = read_study(tmp_path)
  comparer = Comparer(collect(study), study)
  assert budgets.worth(comparer, key()) is None
  assert interference(comparer, "lab", "ner", XB, "tokens") is None
  missing = []
  assert not worth.section(study, worth.Worths(comparer.cells, comparer), missing).tables
  assert "two or more lengths" in missing[0].what


def test_a_task_that_mono_does_not_learn_is_worth_nothing(tmp_path):
  for steps in (150, 600):
    origin = pretrain(tmp_path, "mono", ["xb"], steps=steps)
    tune(tmp_path, origin, language="xb", source="xb", errors=40)
  pair = pretrain(tmp_path, "joint_pair", ["xb", "xa"], bits={"xb": 3.0, "xa": 3.0})
  tune(tmp_path, pair, language="xb", source="xb", errors=39)
  study = read_study(tmp_path)
  assert budgets.worth(Comparer(collect(study), study), key()) is None


def test_a_variant_is_compared_only_with_joint_pair_of_its_settings(tmp_path):
  for steps in (600, 900):
    for system in ("adpt", "joint_pair"):
      origin = pretrain(tmp_path, system, ["xb", "xa"], steps=steps)
      tune(tmp_path, origin, language="xb", source="xb", errors=steps // 100)
  origin = pretrain(tmp_path, "adpt", ["xb", "xa"], steps=1200)
  tune(tmp_path, origin, language="xb", source="xb", errors=1)
  study = read_study(tmp_path)
  comparer = Comparer(collect(study), study)
  rows = {k.row: k for k in comparer.cells.find("lab", "ner")}
  with_other_steps = Row("adpt", "pretraining train.steps=900")
  assert comparer.baseline(rows[with_other_steps]).row == Row(
    "joint_pair", with_other_steps.variant
  )
  alone = rows[Row("adpt", "pretraining train.steps=1200")]
  assert comparer.difference(alone, comparer.baseline(alone)) is None


def test_settings_that_joint_pair_does_not_read_do_not_keep_a_row_from_it():
  variant = "pretraining meta.gradient=first_order, pretraining train.steps=9, route=mean"
  assert Row("meta_adpt", variant).joint_pair == Row("joint_pair", "pretraining train.steps=9")
  assert Row("adpt", "batch_size=4").joint_pair == Row("joint_pair", "batch_size=4")
  parts = ["pretraining a=(1, 2)", "b=x"]
  assert Row("adpt", ", ".join(parts)).settings == parts, "a value may have a comma"
