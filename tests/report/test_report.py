"""The report of a small fixed study, its statistics, and what it says of runs that it cannot use.

The expected files are in tests/report/expected/. After a change that is meant to change them:

  PYTHONPATH=.:tests:tests/report python -c "import test_report; test_report.write_expected()"

and read the difference.
"""

import csv
import json
import math
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from studies import make_study, pretrain, tune, write

import negint
from negint.errors import UserError
from negint.report import cells as report_cells
from negint.report import (
  figures,
  pruning_figures,
  published,
  statistics,
  training_figures,
)
from negint.report.cells import Cells, Column, Key, Row
from negint.report.document import write_report
from negint.report.drawing import spread
from negint.report.layout import Section
from negint.report.records import read_study
from negint.report.score_tables import deviations

EXPECTED = pathlib.Path(__file__).with_name("expected")
FIGURES = ["figure1_base", "figure1_lab", "figure2_base", "figure2_lab", "figure3_lab"]
FIGURES += ["figure4a_lab", "figure4b_lab", "figure4c_lab", "figure5_lab"]


def texts(folder: pathlib.Path) -> dict[str, str]:
  """The files that are compared with the expected ones: Markdown and CSV."""
  paths = [folder / "report.md", *sorted((folder / "tables").glob("*.csv"))]
  return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in paths}


def write_expected():
  """Writes the expected files again."""
  import tempfile

  with tempfile.TemporaryDirectory() as folder:
    runs, out = pathlib.Path(folder) / "runs", pathlib.Path(folder) / "report"
    write_report(read_study(make_study(runs)), out)
    shutil.rmtree(EXPECTED, ignore_errors=True)
    for name, text in texts(out).items():
      (EXPECTED / name).parent.mkdir(parents=True, exist_ok=True)
      (EXPECTED / name).write_text(text, "utf-8")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
  """(runs, report folder) of the study."""
  folder = tmp_path_factory.mktemp("study")
  runs = make_study(folder / "runs")
  write_report(read_study(runs), folder / "report")
  return runs, folder / "report"


@pytest.fixture
def copy(report, tmp_path):
  """A copy of the study, which a test may change."""
  return shutil.copytree(report[0], tmp_path / "runs")


def changed_report(runs: pathlib.Path, out: pathlib.Path, monkeypatch) -> str:
  """The text of another study's report, without its figures."""
  monkeypatch.setattr(figures, "draw_all", lambda *_: [])
  write_report(read_study(runs), out)
  return (out / "report.md").read_text("utf-8")


def table(text: str, title: str) -> list[list[str]]:
  """The cells of a Markdown table, header first."""
  lines = text.split(f"### {title}\n\n")[1].split("\n\n")[0].splitlines()
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
  return rows[:1] + rows[2:]


def test_the_report_is_the_expected_one_byte_for_byte(report):
  found, expected = texts(report[1]), texts(EXPECTED)
  assert found.keys() == expected.keys()
  for name, text in expected.items():
    assert found[name] == text, f"{name} differs; see the first lines of this file"


@pytest.mark.slow
def test_a_report_of_the_same_runs_over_an_earlier_one_is_the_same_to_the_byte(
  report, copy, tmp_path
):
  (tmp_path / "report" / "tables").mkdir(parents=True)
  for name in ("report.md", "tables/table9.csv"):
    (tmp_path / "report" / name).write_text("of an earlier report")
  write_report(read_study(copy), tmp_path / "report")
  assert not (tmp_path / "report" / "tables" / "table9.csv").exists()
  names = ["report.html", *(f"figures/{name}.svg" for name in FIGURES), *texts(report[1])]
  for name in names:
    assert (tmp_path / "report" / name).read_bytes() == (report[1] / name).read_bytes(), name


def test_a_language_without_results_has_empty_cells_and_is_listed(report):
  text = (report[1] / "report.md").read_text("utf-8")
  rows = table(text, "Table 2, NER, scale base (F1)")
  assert rows[0] == ["system", "ar", "fr", "ru", "hi", "sw", "te", "avg"]
  mono = next(row for row in rows if row[0] == "Mono")
  assert mono[2] == "– [88.0]"
  of_three = (89.2 + 87.8 + 85.1) / 3  # the paper's in the languages that were run: ar, ru, sw
  assert mono[7] == f"– [{of_three:.1f}]", "Mono has no Russian"
  pair = next(row for row in rows if row[0] == "JointPair")
  assert pair[7].endswith(f" [{(86.9 + 84.2 + 86.1) / 3:.1f}]")
  *ours, mean = (float(pair[column].split()[0]) for column in (1, 3, 5, 7))
  assert mean == pytest.approx(sum(ours) / 3, abs=0.1), "each is rounded"
  assert mono[1].endswith("(1) [89.2]")
  missing = table(text, "Not run")
  where = "Table 2, NER, scale base, within-language"
  assert [where, "Mono: ru"] in missing
  everything = "Tables 2 to 7, scale base"
  assert [everything, "any run in fr, hi, te"] in missing
  assert not any(row[1] == "JointPair: fr, hi, te" for row in missing), "said once"
  assert ["Table 3, QA, scale lab", "no run"] in missing
  assert not any("XLM" in row[1] for row in missing if "scale lab" in row[0])


def test_one_altered_score_changes_exactly_its_cell(report, copy, tmp_path, monkeypatch):
  path = copy / "ner-within-ar-mono-ar-base-0-seed1" / "result.json"
  result = json.loads(path.read_text())
  result["seeds"][0]["test"]["ar"]["f1"] = 12.3
  path.write_text(json.dumps(result))
  (path.parent / "seed1" / "per_example" / "ar.json").unlink()
  text = changed_report(copy, tmp_path / "report", monkeypatch)
  name = "Table 2, NER, scale base (F1)"
  before = table((report[1] / "report.md").read_text("utf-8"), name)
  after = table(text, name)
  changed = [
    (old, new)
    for row, other in zip(before, after, strict=True)
    for old, new in zip(row, other, strict=True)
    if old != new
  ]
  assert len(changed) == 1 and changed[0][1] == "12.3 (1) [89.2]"


def test_runs_that_cannot_be_used_are_listed_with_their_reason(report):
  rows = table((report[1] / "report.md").read_text("utf-8"), "Not used")
  reasons = dict(rows[1:])
  assert reasons.keys() == {"cut", "lacking", "unfinished"}
  assert reasons["cut"].startswith("result.json is not JSON")
  assert reasons["lacking"] == "result.json has no field source_language"
  assert reasons["unfinished"].startswith("unfinished: no result.json yet")


def test_runs_of_another_task_are_rows_and_have_no_table(copy, tmp_path, monkeypatch):
  folder = copy / "ner-within-ar-mono-ar-base-0-seed1"
  text = (folder / "result.json").read_text().replace('"ner"', '"retrieval"')
  (folder / "result.json").write_text(text.replace('"f1"', '"recall"'))
  rows = {row["run"]: row for row in negint.runs(copy)}
  row = rows[str(folder)]
  assert (row["task"], row["main_score"]) == ("retrieval", "recall")
  assert row["test.ar.recall"] > 90
  text = changed_report(copy, tmp_path / "report", monkeypatch)
  reasons = dict(table(text, "Not used")[1:])
  assert "not 'retrieval'; see negint.runs" in reasons[folder.name]
  ner = table(text, "Table 2, NER, scale base (F1)")
  assert len(ner) > 3, "the others are there"


def test_example_statistics_that_contradict_the_score_give_no_interval(copy, tmp_path, monkeypatch):
  folder = copy / "ner-within-ar-mono-ar-base-0-seed1" / "seed1" / "per_example"
  write(folder / "ar.json", {"columns": ["correct", "predicted", "gold"], "rows": [[1, 1, 1]] * 40})
  text = changed_report(copy, tmp_path / "report", monkeypatch)
  assert "per_example/ar.json gives f1 100.00, result.json" in text
  mono = next(row for row in table(text, "NER, F1, scale base") if row[0] == "Mono")
  assert "[" not in mono[1] and "[" in mono[5]  # Arabic; Swahili keeps its interval


def test_repeated_seeds_are_counted_once(copy, tmp_path, monkeypatch):
  name = "ner-within-ar-mono-ar-base-0-seed1"
  shutil.copytree(copy / name, copy / "again")
  text = changed_report(copy, tmp_path / "report", monkeypatch)
  assert "repeats seeds (1, 1) (pretraining, tuning)" in text
  mono = next(row for row in table(text, "Table 2, NER, scale base (F1)") if row[0] == "Mono")
  assert "(1)" in mono[1]


def test_figures_are_drawn_and_inside_the_page(report):
  folder = report[1] / "figures"
  assert sorted(path.stem for path in folder.glob("*.png")) == FIGURES
  assert all(path.stat().st_size > 10_000 for path in folder.iterdir())
  page = (report[1] / "report.html").read_text("utf-8")
  assert page.count("<svg") == len(FIGURES) and "<?xml" not in page and "src=" not in page


def test_numbers_of_the_tables_are_in_the_csv(report):
  with (report[1] / "tables" / "table2.csv").open(encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  row = next(r for r in rows if (r["scale"], r["system"], r["language"]) == ("base", "Mono", "ar"))
  assert float(row["mean"]) == pytest.approx(100 * 148 / 154.5, abs=5)
  assert (row["runs"], row["published"], row["standard_deviation"]) == ("1", "89.2", "")


def run_main(*arguments) -> subprocess.CompletedProcess:
  command = [sys.executable, "-m", "negint.report", *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True)


def test_mistakes_are_one_sentence_and_code_2(report, tmp_path):
  done = run_main(f"--runs={tmp_path / 'none'}", f"--out={tmp_path / 'out'}")
  assert done.returncode == 2 and done.stdout == ""
  assert (
    done.stderr.count("\n") == 1 and "is not a folder; name the folder of your runs" in done.stderr
  )
  done = run_main("runs")
  assert done.returncode == 2 and "'runs' is not a flag" in done.stderr


@pytest.mark.parametrize("damaged", [False, True])
def test_a_folder_without_a_readable_run_says_what_to_run(tmp_path, damaged):
  if damaged:
    write(tmp_path / "a" / "config.json", [])
    write(tmp_path / "a" / "result.json", {})
  with pytest.raises(UserError, match="make a first run with `python -m negint.main") as error:
    read_study(tmp_path)
  assert ("a: config.json is not a JSON object" in str(error.value)) == damaged


def test_a_folder_that_holds_something_else_is_not_written_to(report, tmp_path):
  (tmp_path / "thesis.txt").write_text("x")
  with pytest.raises(UserError, match="holds no report"):
    write_report(read_study(report[0]), tmp_path)
  with pytest.raises(UserError, match="is a file"):
    write_report(read_study(report[0]), tmp_path / "thesis.txt")
  assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_of_mixed_steps_keeps_the_difference_from_joint_pair(
  report, copy, tmp_path, monkeypatch
):
  for seed in range(10, 30):  # more runs than all others together
    origin = pretrain(copy, "adpt", ["xb", "xa"], seed=seed, steps=300)
    tune(copy, origin, language="xb", source="xb", errors=2)
  pair = pretrain(copy, "joint_pair", ["xb", "xa"], seed=7, steps=400)
  tune(copy, pair, language="xb", source="xb", errors=3)
  text = changed_report(copy, tmp_path / "report", monkeypatch)
  rows: dict[str, list[str]] = {}
  for row in table(text, "Table 2, NER, scale lab (F1)")[2:]:
    rows.setdefault(row[0], row)  # the first is within-language
  assert rows["JointPair"][2].endswith("(2)"), "at 600 steps, seeds 1 and 2"
  assert rows["JointPair (pretraining train.steps=400)"][2].endswith("(1)")
  before = (report[1] / "report.md").read_text("utf-8")
  title = "Interference, scale lab"
  assert table(text, title) == table(before, title), "interference needs the main rows"


def test_a_deviation_is_over_independent_seeds():
  """Scores of one pretrained model are no repeats of pretraining."""

  def cell(scores):
    return {seeds: report_cells.Tested(None, {"f1": f1}, None) for seeds, f1 in scores.items()}

  def pooled(scores):
    key = Key("lab", "ner", "within", Row("adpt"), Column("xb"))
    return Cells({key: cell(scores)}, ["lab"], {}).pooled(key, "f1")

  several = pooled({(1, 1): 10.0, (1, 2): 30.0, (2, 1): 20.0, (2, 2): 24.0})
  assert several == statistics.Pooled(21.0, pytest.approx(2**0.5), 4, "pretraining")  # of 20 and 22
  one = pooled({(1, 1): 10.0, (1, 2): 30.0})
  assert one == statistics.Pooled(20.0, pytest.approx(200**0.5), 2, "fine-tuning")
  assert pooled({(None, 1): 10.0, (None, 2): 30.0}).over == "fine-tuning"
  assert pooled({(1, 1): 10.0, (2, 1): 30.0}).deviation == pytest.approx(200**0.5)


def test_the_note_of_a_table_says_which_seeds_its_deviations_are_over(report):
  text = (report[1] / "report.md").read_text("utf-8")
  note = text.split("## Table 2: NER and POS\n\n")[1].split("\n\n")[0]
  assert note.endswith(
    " Deviations are over pretraining seeds, each with the mean over its fine-tuning seeds."
  )
  note = text.split("## Table 3: question answering\n\n")[1].split("\n\n")[0]
  assert note.endswith("One run in each cell: nothing says what other seeds would give.")
  rows = [
    ("t", "lab", "ner", "within", "adpt", "xb", "f1", 1.0, 0.5, over, 2, None)
    for over in ("pretraining", "fine-tuning")
  ]
  assert "Where there is one pretrained model" in deviations(Section("t", "T", data=rows))
  assert "of one pretrained model" in deviations(Section("t", "T", data=rows[1:]))


def test_a_mask_of_saturated_gates_is_said_in_words_and_leaves_its_run_in_the_report(
  copy, tmp_path, monkeypatch
):
  path = copy / "masks" / "result.json"
  result = json.loads(path.read_text())
  for entry in result["similarity"]:
    if entry["scope"] == "layer1/ffn":
      entry |= {"cosine": 1.0, "centred": None, "saturation": 1.0}
    if entry["scope"] == "layer2/attention":
      entry |= {"cosine": 0.97, "saturation": 0.95}
  path.write_text(json.dumps(result))
  study = read_study(copy)
  assert not [problem for problem in study.problems if problem.workdir == "masks"]
  curves = pruning_figures.mask_curves(study.of("pruning"))
  for languages in (("ffn", "xb-xa", False), ("ffn", "xa-xa", True)):
    assert math.isnan(curves[languages][1][0]["cosine"]), "saturated"
    assert math.isnan(curves[languages][1][0]["centred"]), "undefined"
    assert curves[languages][2][0] | {"rank_correlation": 0} == {
      "cosine": 0.45,
      "centred": 0.25,
      "rank_correlation": 0,
    }, "before rank correlations"
  attention = curves["attention", "xb-xa", False][2][0]
  assert math.isnan(attention["cosine"]) and attention["centred"] == 0.25
  assert pruning_figures.figure4a(study, "lab", tmp_path).name == "figure4a_lab"
  text = changed_report(copy, tmp_path / "report", monkeypatch)
  assert "more than 90% of the gates of one of two masks stand at the same limit" in text
  rows = table(text, "Saturated parts")
  assert ["JointPair, xb-xa @0.5, lab, seed 2", "xb seed 1 and xa seed 2",
          "layer1/ffn, layer2/attention"] in rows  # fmt: skip


def test_masks_that_are_all_saturated_give_a_figure_that_says_so(copy, tmp_path):
  path = copy / "masks" / "result.json"
  result = json.loads(path.read_text())
  for entry in result["similarity"]:
    entry |= {"cosine": 1.0, "centred": None}
  path.write_text(json.dumps(result))
  assert pruning_figures.figure4a(read_study(copy), "lab", tmp_path)


def log_cosines(runs, records):
  """Adds logged cosines {step: (xb-xb, xa-xa, xb-xa)} to a run of the study; returns the run."""
  name = "joint_pair-xb-xa-lab-0.5-seed2"
  lines = [
    {"step": step}
    | {
      f"gradient_cosine/all/{p}": v for p, v in zip(("xb-xb", "xa-xa", "xb-xa"), each, strict=True)
    }
    for step, each in records.items()
  ]
  path = runs / name / "metrics.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return next(run for run in read_study(runs).runs if run.workdir == name)


def test_logged_cosines_are_corrected_by_the_ratio_of_means(copy):
  """As the checkpoints are: a noisy denominator of one measurement neither drops nor blows up a point."""
  logged = {
    10: (0.5, 0.5, 0.1),
    300: (0.1, 0.5, 0.2),
    320: (-0.1, 0.5, 0.1),  # undefined alone
    340: (0.6, 0.5, 0.3),
  }
  run = log_cosines(copy, logged)
  found = dict(training_figures.logged_estimates([run], ["xb-xa", "xb-xb", "xa-xa"]))
  assert list(found) == [10, 300, 320, 340]
  assert found[10]["corrected"]["xb-xa"]["mean"] == pytest.approx(
    0.2
  )  # no neighbour blurs the start
  means = [float(np.mean([logged[s][k] for s in (300, 320, 340)])) for k in range(3)]
  expected = means[2] / (means[0] * means[1]) ** 0.5
  assert found[320]["corrected"]["xb-xa"]["mean"] == pytest.approx(expected)
  assert found[300]["corrected"]["xb-xa"]["mean"] is None  # -0.1 and 0.1: no agreement on average
  assert found[300]["cosine"]["xb-xa"]["mean"] == pytest.approx(0.15)


def test_figure_3_draws_the_log_and_the_checkpoints_and_says_what_is_undefined(copy, tmp_path):
  log_cosines(copy, {10: (0.5, 0.5, 0.1), 300: (-0.1, 0.5, 0.2), 600: (0.6, 0.5, 0.3)})
  study = read_study(copy)
  pair = [r for r in study.pretraining if r.workdir == "joint_pair-xb-xa-lab-0.5-seed2"]
  curves = training_figures.cosine_curves(pair, study.of("gradient_similarity"), "xb", "xa")
  found = {(curve.name, curve.is_log): curve for curve in curves}
  assert list(found["xb-xa", True].steps) == [10, 300, 600]
  assert list(found["xb-xa", False].steps) == [300, 600]
  np.testing.assert_allclose(found["xb-xa, corrected", True].means[[0, 2]], [0.2, 0.3 / 0.3**0.5])
  assert math.isnan(found["xb-xa, corrected", True].means[1])
  figure = training_figures.figure3(study, "lab", tmp_path)
  assert figure.caption.endswith("xb @0.5, xb-xa, corrected: 1 of 3 in the log.")


def test_published_averages_agree_with_their_entries():
  wrong = []
  for name, tasks in published._tables().items():
    for task, scores in tasks.items() if name != "table1" else ():
      for score, settings in scores.items():
        for setting, block in settings.items():
          columns = block["columns"]
          for system in published.rows(name, task, score, setting):
            assert len(block[system]) == len(columns)
            *entries, average = block[system]
            if columns[-1] == "avg" and abs(np.mean(entries) - average) > 0.06:
              wrong.append((name, score, setting, system))
  assert wrong == [("table7", "exact_match", "within", "meta_adpt")]  # printed 36.4, is 46.9


def test_published_tables_agree_with_one_another():
  for name, task in (("table4", "ner"), ("table4", "pos"), ("table5", "ner"), ("table5", "pos")):
    for language in published.columns(name, task, "f1", "within"):
      here = published.value(name, task, "f1", "within", "joint_pair", language)
      there = published.value("table2", task, "f1", "within", "joint_pair", language)
      assert here == there or language.endswith("_l")
  for setting in ("within", "zero_shot"):
    assert published.block("table3", "qa", "f1", setting) == published.block(
      "table7", "qa", "f1", setting
    )
  assert published.value("table2", "ner", "f1", "within", "mono", "xb") is None


def test_labels_that_would_touch_are_moved_apart_and_keep_their_order():
  placed = spread(np.array([0.1, 0.50, 0.51, 0.9]), 0.05)
  assert placed == pytest.approx([0.1, 0.48, 0.53, 0.9])
  assert spread(np.array([0.5, 0.5, 0.5]), 0.1) == pytest.approx([0.4, 0.5, 0.6])
