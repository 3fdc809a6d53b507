"""Verdicts on simulated studies whose answers are known."""

import json
from statistics import NormalDist

import numpy as np
import pytest
from studies import lab, pretrain, simulate, write

from negint.report import claims, evidence, published
from negint.report.cells import collect
from negint.report.claims import CLAIMS, CONTRADICTED, NOT_RUN, REPEATED, UNDECIDED, verdict
from negint.report.comparisons import Comparer
from negint.report.evidence import Finding
from negint.report.records import read_study
from negint.report.statistics import EXAMPLES, PRETRAINING, Estimate, Interval

pytestmark = pytest.mark.usefixtures("few_resamples")
WITHIN = [("ner", "within"), ("pos", "within")]
ZERO = [("ner", "zero_shot"), ("pos", "zero_shot")]
BY_NAME = {claim.name: claim for claim in CLAIMS}


def truth(within, zero_shot=None):
  found = dict.fromkeys(WITHIN, within)
  return found if zero_shot is None else found | dict.fromkeys(ZERO, zero_shot)


def verdicts(folder) -> dict[str, str]:
  study = read_study(folder)
  whole, _ = claims.sections(study, Comparer(collect(study), study))
  header = claims.DATA_HEADER
  return {row[header.index("claim")]: row[header.index("verdict")] for row in whole.data}


def estimate(low, high, over=PRETRAINING):
  value, error = (low + high) / 2, (high - low) / 2 / 1.96
  p = 2 * NormalDist().cdf(-abs(value) / error)
  return Estimate(value, Interval(low, high, p), 3, over)


@pytest.mark.parametrize(
  ("low", "high", "above", "below", "same"),
  [
    (0.5, 3, REPEATED, CONTRADICTED, UNDECIDED),
    (-3, -0.5, CONTRADICTED, REPEATED, UNDECIDED),
    (-1, 1.5, UNDECIDED, UNDECIDED, REPEATED),
    (2.5, 4, REPEATED, CONTRADICTED, CONTRADICTED),
    (-9, 9, UNDECIDED, UNDECIDED, UNDECIDED),
  ],
)
def test_the_rule(low, high, above, below, same):
  finding = Finding([estimate(low, high)])
  assert [verdict(finding, expected) for expected in (1, -1, 0)] == [above, below, same]
  one_seed = Finding([estimate(low, high, EXAMPLES)])
  assert {verdict(one_seed, expected) for expected in (1, -1, 0)} == {UNDECIDED}


def test_a_claim_of_several_parts_needs_all_of_them():
  good, open_, bad = estimate(1, 2), estimate(-1, 2), estimate(-2, -1)
  assert verdict(Finding([]), 1) == NOT_RUN
  assert verdict(Finding([good, good]), 1) == REPEATED
  assert verdict(Finding([good, open_]), 1) == UNDECIDED
  assert verdict(Finding([good, open_, bad]), 1) == CONTRADICTED
  assert claims.shown(Finding([good, bad, open_]), 1) == bad
  assert claims.shown(Finding([good, bad, open_]), -1) == good
  assert claims.shown(Finding([open_, bad]), 0) == bad


def test_one_part_of_many_contradicts_only_if_it_would_by_bonferroni():
  """Of five equal systems one would otherwise be worse by chance in 12 % of studies."""
  good, barely, surely = estimate(1, 2), estimate(-4.1, -0.1), estimate(-2, -1)
  assert barely.p < 0.05 < 2 * barely.p
  assert verdict(Finding([barely]), 1) == CONTRADICTED
  assert verdict(Finding([barely, good]), 1) == UNDECIDED
  assert claims.shown(Finding([barely, good]), 1) == barely
  assert verdict(Finding([barely, surely]), 1) == CONTRADICTED
  assert claims.shown(Finding([barely, surely]), 1) == surely, "its value is larger, its p smaller"


def test_the_number_shown_is_the_one_that_decides():
  wide, sure = estimate(-9, 3), estimate(-2.5, -1.5)  # the first is lower, the second is sure
  finding = Finding([wide, sure])
  assert verdict(finding, 1) == CONTRADICTED and claims.shown(finding, 1) == sure
  assert verdict(finding, 0) == UNDECIDED and claims.shown(finding, 0) == wide
  parts = [
    Estimate(v, Interval(v - 1, v + 1, p), 3, PRETRAINING) for v, p in ((2, 0.04), (3, 0.01))
  ]
  held = Finding(parts)
  one, none = (claims.Claim("a", "", "", sign, lambda *_: held) for sign in (1, 0))
  for claim, found in ((one, {"a": pytest.approx(0.04)}), (none, {})):
    shown = {"a": claims.shown(held, claim.expected)}
    assert claims._holm([claim], {"a": held}, shown) == found, "the largest p; none for ≈ 0"
  opposite = claims.Claim("a", "", "", -1, lambda *_: held)
  shown = {"a": claims.shown(held, -1)}
  found = claims._holm([opposite], {"a": held}, shown)
  assert found["a"] == pytest.approx(2 * shown["a"].p), "one of two parts is enough to contradict"


@pytest.fixture(scope="module")
def as_in_the_paper(tmp_path_factory):
  """Scores with the paper's pattern, and effects far above the noise."""
  folder = tmp_path_factory.mktemp("paper")
  lab(folder, "mono", truth(90))
  lab(folder, "mono", truth(84), steps=300)
  lab(folder, "joint_pair", truth(80, 50))
  lab(folder, "ffn", truth(88, 10))
  lab(folder, "attn", truth(83.5, 10))
  lab(folder, "adpt", truth(84, 44))
  lab(folder, "share_adpt", truth(84, 54))
  lab(folder, "meta_adpt", truth(88, 70))
  lab(folder, "joint_tri", truth(80, 60), seeds=range(1, 4), spread=0.2)
  lab(folder, "joint_tri", truth(80, 62), seeds=range(1, 4), spread=0.2, steps=900)
  for similarity, mono in ((0.1, 94), (0.9, 82)):
    lab(folder, "mono", truth(mono), similarity=similarity, seeds=range(3))
    lab(folder, "joint_pair", truth(80), similarity=similarity, seeds=range(3))
  lab(folder, "mono", truth(40), subsample=500, seeds=range(3))
  lab(folder, "joint_pair", truth(50), subsample=500, seeds=range(3))
  return folder


def test_the_papers_pattern_repeats_its_claims(as_in_the_paper):
  found = verdicts(as_in_the_paper)
  expected = {claim.name for claim in CLAIMS if claim.unit == "points" and claim.lab}
  expected -= {"size_of_the_other"}
  assert {name: found[name] for name in expected} == dict.fromkeys(expected, REPEATED)
  assert found["gradients"] == found["masks_layers"] == found["size_of_the_other"] == NOT_RUN
  assert "low_resource" not in found, "the lab has no low-resource language"


def test_the_opposite_pattern_contradicts_them(tmp_path):
  lab(tmp_path, "mono", truth(80))
  lab(tmp_path, "joint_pair", truth(90, 50))
  lab(tmp_path, "ffn", truth(80, 60))
  lab(tmp_path, "meta_adpt", truth(80, 30))
  found = verdicts(tmp_path)
  for name in ("interference", "ffn_within", "ffn_zero_shot", "meta_adpt_best"):
    assert found[name] == CONTRADICTED, name
  assert found["meta_adpt_within"] == found["meta_adpt_zero_shot"] == CONTRADICTED
  assert found["adpt_within"] == NOT_RUN


def test_no_effect_is_rarely_decided(tmp_path):
  """24 comparisons of equal systems: about one of 20 intervals misses zero."""
  decided = []
  for trial in range(4):
    folder = tmp_path / str(trial)
    for system in ("joint_pair", "ffn", "attn", "adpt"):
      lab(folder, system, truth(80, 50), seeds=range(10 * trial, 10 * trial + 3), spread=2)
    found = verdicts(folder)
    names = ("ffn_within", "ffn_zero_shot", "attn_within", "attn_zero_shot", "adpt_within")
    decided += [found[name] in (REPEATED, CONTRADICTED) for name in (*names, "adpt_zero_shot")]
  assert sum(decided) <= 4


def test_one_seed_decides_nothing(tmp_path):
  lab(tmp_path, "mono", truth(95), seeds=(1,))
  lab(tmp_path, "joint_pair", truth(60), seeds=(1,))
  assert verdicts(tmp_path)["interference"] == UNDECIDED
  lab(tmp_path, "meta_adpt", {("ner", "within"): 70.0, ("pos", "within"): 50.0}, seeds=(1,))
  assert shown_verdicts(tmp_path)["interference"] == "undecided (2 of 2 parts as claimed)"
  assert shown_verdicts(tmp_path)["meta_adpt_within"] == "undecided (1 of 2 parts as claimed)"
  assert shown_verdicts(tmp_path)["ffn_within"] == NOT_RUN
  lab(tmp_path, "attn", {("ner", "within"): 20.0}, seeds=(1,))
  assert shown_verdicts(tmp_path)["attn_within"] == "undecided (not as claimed)"


def shown_verdicts(folder) -> dict[str, str]:
  study = read_study(folder)
  whole, _ = claims.sections(study, Comparer(collect(study), study))
  names = {claim.text: claim.name for claim in CLAIMS}
  return {names[row[0]]: row[-1] for row in whole.tables[0].rows if len(row) > 1}


def test_only_systems_of_the_paper_can_contradict_that_meta_adapters_are_best(tmp_path):
  lab(tmp_path, "joint_pair", truth(80, 50))
  lab(tmp_path, "meta_adpt", truth(80, 60))
  lab(tmp_path, "pcgrad", truth(80, 90))
  assert verdicts(tmp_path)["meta_adpt_best"] == REPEATED
  lab(tmp_path, "adpt", truth(80, 90))
  assert verdicts(tmp_path)["meta_adpt_best"] == CONTRADICTED


def test_a_third_language_is_also_compared_at_equal_text(tmp_path):
  """JointTri of 600 updates reads two thirds of the target's text; of 900 as much as JointPair."""
  lab(tmp_path, "joint_pair", truth(80, 50))
  lab(tmp_path, "joint_tri", truth(70, 40))
  found = verdicts(tmp_path)
  assert found["third_within"] == found["third_zero_shot"] == CONTRADICTED
  assert found["third_within_tokens"] == found["third_zero_shot_tokens"] == NOT_RUN
  lab(tmp_path, "joint_tri", truth(80, 60), steps=900)
  found = verdicts(tmp_path)
  assert found["third_within_tokens"] == found["third_zero_shot_tokens"] == REPEATED
  assert found["third_within"] == found["third_zero_shot"] == CONTRADICTED


def test_the_papers_numbers_are_those_of_its_tables(tmp_path):
  simulate(tmp_path, "mono", ["fr"], truth(90), scale="base", seeds=(1, 2))
  simulate(tmp_path, "joint_pair", ["fr", "en"], truth(85), scale="base", seeds=(1, 2))
  study = read_study(tmp_path)
  known = evidence.Evidence(study, Comparer(collect(study), study))
  found = BY_NAME["interference"].find(known, "base")
  ner, pos = (
    published.value("table2", task, "f1", "within", "mono", "fr")
    - published.value("table2", task, "f1", "within", "joint_pair", "fr")
    for task in ("ner", "pos")
  )
  assert found.paper == pytest.approx((ner + pos) / 2), "of the languages that were run"
  assert [part for part, _ in found.parts] == ["NER, fr", "POS, fr"]
  whole = BY_NAME["interference"].find(known, "lab").paper  # of all languages and tasks
  assert whole == pytest.approx(
    np.mean([
      published.value(table, task, "f1", "within", "mono", code)
      - published.value(table, task, "f1", "within", "joint_pair", code)
      for table, task in (("table2", "ner"), ("table2", "pos"), ("table3", "qa"))
      for code in published.columns(table, task, "f1", "within")
    ])
  )  # fmt: skip
  assert BY_NAME["interference_tokens"].find(known, "lab").paper is None, "not tested in the paper"
  assert BY_NAME["distance"].find(known, "lab").paper == pytest.approx((2.8 + 1.8) / 2)


def log(runs, origin, records):
  folder = runs / origin["workdir"].removeprefix("runs/")
  (folder / "metrics.jsonl").write_text("\n".join(json.dumps(record) for record in records))


def test_gradients_conflict_by_seed(tmp_path):
  for similarity, cross in ((0.1, -0.3), (0.9, 0.4)):
    for seed in (1, 2, 3):
      pair = pretrain(tmp_path, "joint_pair", ["xb", "xa"], seed, similarity=similarity)
      records = []
      for step in (10, 50, 100, 300, 600):
        late = 0.2 * (step > 150) + 0.01 * seed
        prefix = "gradient_cosine/all/"
        cosines = {"xb-xa": cross + late, "xb-xb": 0.9, "xa-xa": 0.9}
        records.append({"step": step} | {prefix + k: v for k, v in cosines.items()})
      log(tmp_path, pair, records)
  found = verdicts(tmp_path)
  names = ("gradients", "gradients_early", "gradients_distance", "gradients_negative")
  assert [found[name] for name in names] == [REPEATED] * 4


def test_noise_that_grows_is_no_early_conflict():
  """Later batches are noisier: all cosines halve. The languages agree as much as before."""

  def curve(late_agreement):
    early = [evidence.Cosines(share, 0.1, 0.4, 0.8, 0.8) for share in (0.1, 0.2)]
    return early + [evidence.Cosines(0.7, 0.5, late_agreement * 0.4, 0.4, 0.4)]

  assert evidence.early_loss(curve(0.5)) == pytest.approx(0)
  assert evidence.early_loss(curve(0.8)) == pytest.approx(0.3)
  assert np.isnan(evidence.agreement([evidence.Cosines(0.1, 0.1, 0.2, -0.1, 0.5)])), "only noise"


def test_points_that_stand_close_together_count_for_few_updates(tmp_path):
  """The cosine is 0.5 in the first 100 of 1,000 updates, -0.5 in the next 100, then 0."""
  pair = pretrain(tmp_path, "joint_pair", ["xb", "xa"], steps=1000)
  cosines = {10: 0.5, 20: 0.5, 100: 0.5, 200: -0.5} | dict.fromkeys(range(300, 1001, 100), 0.0)
  prefix = "gradient_cosine/all/"
  own = {f"{prefix}{code}-{code}": 0.8 for code in ("xb", "xa")}
  log(tmp_path, pair, [{"step": s, f"{prefix}xb-xa": c} | own for s, c in cosines.items()])
  (run,) = read_study(tmp_path).pretraining
  curve = evidence.cosines_of(run, "xb", "xa", 1000)
  assert evidence.start(curve) == pytest.approx(0.5)
  assert evidence.between_languages(curve) == pytest.approx(0)
  assert evidence.gap(curve) == pytest.approx(0.8)
  assert evidence.early_loss(curve) == pytest.approx(0)
  assert np.mean([each.between for each in curve]) > 0.05, "the plain mean of the points is another"


def test_updates_saved_are_paired_by_seed():
  """Seeds differ by hundreds of updates, the systems by ten."""
  theirs = [(1, 100.0), (2, 500.0), (3, 900.0)]
  ours = [(seed, updates - 10 - seed) for seed, updates in theirs]
  paired = evidence.saved(theirs, ours)
  assert paired.value == pytest.approx(12) and paired.interval.low > 5
  apart = evidence.saved(theirs, ours[:2])
  assert apart.interval.low < -100


def test_masks_by_layer_and_module(tmp_path):
  """Also beside a mask at similarity 1, where two languages are one."""
  value = {"attention": 0.8, "ffn": 0.6}
  for seed in (1, 2, 3):
    pair = pretrain(tmp_path, "joint_pair", ["xb", "xa"], seed)
    lab(tmp_path, "adpt", truth(80), seeds=(seed,))  # makes 0.5 the similarity with most results
    rows = [
      {"languages": codes, "seeds": [1, 2], "scope": f"layer{layer}/{module}", "cosine": 0.9}
      | {"centred": 0.5, "rank_correlation": value[module] - 0.1 * layer + 0.01 * seed + ceiling}
      for layer in (1, 2)
      for module in value
      for codes, ceiling in ((["xb", "xa"], 0.0), (["xa", "xa"], 0.15 + 0.01 * seed))
    ]
    result = {"task": "pruning", "pretraining": pair, "masks": [], "unpruned_perplexity": {}}
    if seed == 1:
      same = pretrain(tmp_path, "joint_pair", ["xb", "xa"], similarity=1.0)
      alike = [row | {"rank_correlation": 0.9} for row in rows]
      write(tmp_path / "alike" / "config.json", {"task": "pruning"})
      every = result | {"pretraining": same, "similarity": alike, "extreme": []}
      write(tmp_path / "alike" / "result.json", every)
    write(tmp_path / f"masks{seed}" / "config.json", {"task": "pruning"})
    write(tmp_path / f"masks{seed}" / "result.json", result | {"similarity": rows, "extreme": []})
  found = verdicts(tmp_path)
  assert [found[name] for name in ("masks", "masks_layers", "masks_attention")] == [REPEATED] * 3


def test_convergence_counts_the_updates_that_a_system_saves(tmp_path):
  for system, halving in (("joint_pair", 200), ("meta_adpt", 100), ("adpt", 260)):
    for seed in (1, 2, 3):
      run = pretrain(tmp_path, system, ["xb", "xa"], seed)
      records = [
        {"step": step} | {f"loss/{code}": 3 + 3 * 2 ** (-step / halving) for code in ("xb", "xa")}
        for step in range(20, 601 + seed, 20)
      ]
      log(tmp_path, run, records)
  study = read_study(tmp_path)
  known = evidence.Evidence(study, Comparer(collect(study), study))
  found = BY_NAME["meta_adpt_faster"].find(known, "lab")
  # JointPair reaches the loss that it has after 300 updates; the others halve faster or slower.
  assert found.estimates[0].value == pytest.approx(150, abs=5)
  assert found.estimates[0].seeds == 3
  slower = BY_NAME["adpt_slower"].find(known, "lab").estimates[0]
  assert slower.value == pytest.approx(300 * 200 / 260 - 300, abs=5) or slower.value < -50
  assert verdicts(tmp_path)["meta_adpt_faster"] == REPEATED


def test_a_curve_reaches_a_level_between_its_points():
  steps, losses = np.array([10.0, 20.0, 30.0]), np.array([5.0, 4.0, 2.0])
  assert evidence.reach(steps, losses, 3.0) == 25.0
  assert evidence.reach(steps, losses, 6.0) == 10.0


def test_every_claim_has_a_name_and_a_paper_number_where_its_tables_have_one():
  assert len(BY_NAME) == len(CLAIMS)
  assert {claim.unit for claim in CLAIMS} == {"points", "cosine", "similarity", "updates"}
