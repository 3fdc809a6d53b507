"""Which runs share a row, which are variants of it, and what each is compared with."""

import json
import pathlib
import shutil

import pytest
from studies import analyses, lab, pretrain, simulate, tune, write

from configs import base
from launch.study import ablation
from negint import config_file
from negint.report import budgets, claims, models, run_tables, worth
from negint.report.cells import Column, Key, Row, collect
from negint.report.comparisons import Comparer
from negint.report.records import Origin, Run, read_study
from negint.report.variants import split_by_place, split_variants

pytestmark = pytest.mark.usefixtures("few_resamples")
XB = Column("xb", similarity=0.5)
NER = ("ner", "within")


def key(system, variant="", setting="within"):
  return Key("lab", "ner", setting, Row(system, variant), XB)


def read(folder):
  study = read_study(folder)
  cells = collect(study)
  return study, cells, Comparer(cells, study)


def test_runs_whose_settings_differ_do_not_share_a_row():
  settings = [{"steps": 5, "route": "mean"}, {"steps": 5, "route": "target"}, {"route": "target"}]
  texts, main = split_variants(["cell"] * 3, ["adpt"] * 3, settings)
  assert texts == ["route=mean", "", ""] and main == {"route": ["target"]}
  assert split_variants(["one", "two", "two"], ["adpt"] * 3, settings)[0] == ["", "", ""]


def test_joint_pair_keeps_its_main_row_whatever_steps_the_others_have():
  """Most runs have other steps; the main settings are the commonest that JointPair has."""
  steps = [600, 1200, 300, 300, 300, 600]
  systems = ["joint_pair", "joint_pair", "adpt", "ffn", "mono", "adpt"]
  settings = [{"steps": each} for each in steps]
  texts, main = split_by_place(["xb"] * 6, systems, systems, settings)
  assert main == {"steps": [600]}
  assert texts == ["", "steps=1200", "steps=300", "steps=300", "steps=300", ""]
  others = ["attn" if system == "joint_pair" else system for system in systems]
  assert split_variants(systems, others, settings)[1] == {"steps": [300]}  # the commonest of all

  # The commonest value of each setting alone would be (1, 1), which no run has.
  settings = [{"a": 1, "b": 2}, {"a": 2, "b": 1}, {"a": 1, "b": 3}, {"a": 3, "b": 1}]
  texts, main = split_variants(["joint_pair"] * 4, ["joint_pair"] * 4, settings)
  assert texts.count("") == 1 and {name: value for name, (value,) in main.items()} in settings


def test_each_column_has_main_settings_of_its_own():
  settings = [{"steps": each} for each in (600, 1200, 1200, 600, 600)]
  systems = ["joint_pair", "adpt", "joint_pair", "adpt", "joint_pair"]
  texts, main = split_by_place(["ar", "ru", "ru", "ru", "fr"], systems, systems, settings)
  assert texts == ["", "", "", "steps=600", ""] and main == {"steps": [1200]}


def settings_of(spec: str, flags=()) -> dict:
  """The settings of a pretraining command as the report reads them."""
  config = config_file.load(spec, flags)
  origin = Origin("", config.system, tuple(config.languages), "lab", 1, config.train.steps, 0, 0.3)
  fields = dict(config_file.flatten(config.to_dict()))
  return Run("", pathlib.Path(), "", "pretrain", {}, fields, origin).pretraining_settings


def test_the_ablation_leaves_the_main_rows_of_its_systems_alone():
  """JointPair's config has a rate of phi, too, which it does not read: 1, where meta adapters have 1/4."""
  runs = [
    (run.system, settings_of(f"configs/{run.system}.py:lab", run.flags)) for run in ablation.RUNS
  ]
  runs.append(("joint_pair", settings_of("configs/joint_pair.py:lab")))
  runs += runs[:3] * 2  # these have five seeds, the others three
  systems = [system for system, _ in runs]
  texts, main = split_by_place(["xb"] * len(runs), systems, systems, [each for _, each in runs])
  labels = [run.label for run in ablation.RUNS]
  variants = dict(zip(labels, texts, strict=False))
  main_rows = ("adpt", "meta adpt, exact", "adpt, meta adpt's FLOPs")  # the last has other steps
  assert {label for label, text in variants.items() if not text} == set(main_rows)
  assert variants["phi's rate of adpt"] == "pretraining train.phi_rate=1.0"
  assert variants["adpt, phi's rate of meta adpt"] == "pretraining train.phi_rate=0.25"
  assert main["pretraining train.phi_rate"] == [1.0, 0.25]


def test_systems_share_a_table_only_if_what_they_share_is_the_same():
  """All systems have main rows with the defaults; a system of another size or rate has none."""
  systems = [system for system in base.SYSTEMS if system != "joint_tri"]
  settings = [settings_of(f"configs/{system}.py:ar,small") for system in systems]
  assert split_variants(systems, systems, settings)[0] == [""] * len(systems)
  for field, value in (("model.model_dim", 80), ("train.learning_rate", 1e-3)):
    changed = {**settings[0], f"pretraining {field}": value}
    texts, _ = split_variants(systems, systems, [changed, *settings[1:]])
    assert texts == [f"pretraining {field}={value}", *[""] * (len(systems) - 1)]


def test_a_tokenizer_is_named_by_its_languages():
  """The same pieces under two names are one setting, and other pieces are another row."""
  own, of_pair = (settings_of("configs/mono.py:lab", flags) for flags in (
    (), ("--config.data.tokenizer_from=xb-xa",)))  # fmt: skip
  pair = settings_of("configs/joint_pair.py:lab")
  name = "pretraining data.tokenizer_from"
  assert (own[name], of_pair[name], pair[name]) == ("xb", "xb-xa", "xb-xa")
  systems = ["mono", "mono", "joint_pair"]
  texts, _ = split_variants(systems, systems, [own, of_pair, pair])
  assert texts == [f"{name}=xb", "", ""]


def test_models_of_more_languages_have_rows_of_their_own(tmp_path):
  """They join no pair's row, and are compared with a JointPair of the same languages."""
  for languages, scores in ((["xb", "xa"], (60, 70)), (["xb", "xc", "xa"], (50, 55))):
    for system, score in zip(("joint_pair", "adpt"), scores, strict=True):
      simulate(tmp_path, system, languages, {NER: score}, seeds=(1, 2))
  study, cells, comparer = read(tmp_path)
  assert not study.problems
  rows = {k.row.label for k in cells.find("lab", "ner")}
  of_three = "(pretraining languages=xb-xc-xa)"
  assert rows == {"JointPair", "+ adpt", f"JointPair {of_three}", f"+ adpt {of_three}"}
  for system, gain in (("+ adpt", 10), (f"+ adpt {of_three}", 5)):
    (found,) = [k for k in cells.find("lab", "ner") if k.row.label == system]
    difference = comparer.difference(found, comparer.baseline(found))
    assert difference.value == pytest.approx(gain, abs=2)
  (drawn,) = models.by_model(study, "lab", ("adpt",)).values()
  assert {run.origin.languages for run in drawn["adpt"]} == {("xb", "xa")}


def test_systems_of_other_lengths_are_no_main_rows_and_equal_flops_are_compared(tmp_path):
  lab(tmp_path, "joint_pair", {NER: 60}, seeds=(1, 2))
  lab(tmp_path, "adpt", {NER: 80}, seeds=(1, 2), steps=1200)
  lab(tmp_path, "pcgrad", {NER: 70}, seeds=(1, 2), steps=300)  # two gradients in each step
  lab(tmp_path, "pcgrad", {NER: 75}, seeds=(1, 2))
  lab(tmp_path, "ffn", {NER: 75}, seeds=(1, 2))
  study, cells, comparer = read(tmp_path)
  rows = {row.system: row for row in {k.row for k in cells.find("lab", "ner")} if row.variant}
  longer, shorter = (f"pretraining train.steps={steps}" for steps in (1200, 300))
  assert rows == {"adpt": Row("adpt", longer), "pcgrad": Row("pcgrad", shorter)}
  assert comparer.baseline(key("pcgrad", shorter)) == key("joint_pair"), "equal FLOPs"
  found = comparer.difference(key("pcgrad", shorter), comparer.baseline(key("pcgrad", shorter)))
  assert found.value == pytest.approx(10, abs=2)
  assert comparer.baseline(key("adpt", longer)) == key("joint_pair", longer), "was not run"
  whole, _ = claims.sections(study, comparer)
  verdicts = {row[1]: row[-1] for row in whole.data}
  assert (verdicts["ffn_within"], verdicts["adpt_within"]) == (claims.REPEATED, claims.NOT_RUN)


def test_an_analysis_with_other_settings_is_in_no_figure_and_is_listed(tmp_path):
  for seed in (1, 2):
    pair = pretrain(tmp_path, "joint_pair", ["xb", "xa"], seed)
    analyses(tmp_path, pair)
    for penalty in (0.5, 2.0) if seed == 1 else (0.5,):
      folder = shutil.copytree(tmp_path / "masks", tmp_path / f"masks{seed}-{penalty}")
      write(folder / "config.json", {"task": "pruning", "penalty": penalty})
    shutil.rmtree(tmp_path / "masks")
  other = pretrain(tmp_path, "joint_pair", ["xb", "xa"], steps=900)
  analyses(tmp_path, other)  # of another length
  study = read_study(tmp_path)
  found = models.analyses_by_model(study, "pruning", "lab")
  assert [run.workdir for runs in found.values() for run in runs] == ["masks1-0.5", "masks2-0.5"]
  reasons = {problem.workdir: problem.reason for problem in study.problems}
  assert reasons["masks1-2.0"].startswith("has penalty=2.0;")
  assert "train.steps=900" in reasons["masks"]


def test_a_pretraining_that_was_made_twice_counts_once(tmp_path):
  for seed in (1, 2, 3):
    pretrain(tmp_path, "joint_pair", ["xb", "xa"], seed)
  first = "joint_pair-xb-xa-lab-0.5-seed1"
  shutil.copytree(tmp_path / first, tmp_path / "z")
  tune(tmp_path, {**json.loads((tmp_path / "z" / "result.json").read_text()), "workdir": "runs/z",
    "subsample": 0, "similarity": 0.5}, language="xb", source="xb", errors=3)  # fmt: skip
  study = read_study(tmp_path)
  assert [(p.workdir, p.reason) for p in study.problems] == [
    ("z", f"repeats the pretraining of {first}; left out")
  ]
  (systems,) = models.by_model(study, "lab", ("joint_pair",)).values()
  assert len(systems["joint_pair"]) == 3
  (table,) = run_tables.compute_section(study).tables
  assert [row[2] for row in table.rows] == ["1, 2, 3"] and "52.00 ± 1.00" in table.rows[0][-3]
  assert study.source_of(study.tuning[0].origin).workdir == "z", "its tasks are read as before"


def test_small_corpora_alone_have_a_first_figure(tmp_path):
  for steps in (300, 600):
    lab(tmp_path, "mono", {NER: steps / 10}, seeds=(1,), steps=steps, subsample=500)
  lab(tmp_path, "joint_pair", {NER: 50}, seeds=(1,), subsample=500)
  _, cells, comparer = read(tmp_path)
  drawn = worth.figure(worth.Worths(cells, comparer), "lab", tmp_path)
  assert (tmp_path / f"{drawn.name}.png").stat().st_size > 10_000


def test_lengths_of_mono_are_compared_over_the_seeds_that_all_have(tmp_path):
  """Seed 9 alone is far better, and only the longest run has it."""
  fields = dict(spread=0.1, size=200)
  for steps, mean in {150: 40, 300: 50, 600: 60}.items():
    lab(tmp_path, "mono", {NER: mean}, seeds=(1, 2), steps=steps, **fields)
  lab(tmp_path, "mono", {NER: 95}, seeds=(9,), **fields)
  lab(tmp_path, "joint_pair", {NER: 60}, seeds=(1, 2), **fields)
  _, cells, comparer = read(tmp_path)
  points, is_whole = budgets.lengths(cells, key("joint_pair"))
  means = [mean.value for _, _, mean in budgets.scores_by_tokens(comparer, points)]
  assert means == [pytest.approx(each, abs=2) for each in (40, 50, 60)] and not is_whole
  assert budgets.worth(comparer, key("joint_pair")).ratio == pytest.approx(2, rel=0.1)
