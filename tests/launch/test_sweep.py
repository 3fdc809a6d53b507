"""Sweeps: their settings and jobs, what they say of results, and one from end to end."""

import csv
import io
import pathlib
import statistics
import subprocess
import sys
import types

import pytest
from toy import toy_model

from launch.study import cost, finished, sharing
from launch.sweep import grid, plots, results
from launch.sweep.results import Measure
from negint import config_file, options
from negint.errors import UserError
from negint.pretrained import start
from negint.run.files import write_json
from negint.run.workdir import run_name

ROOT = pathlib.Path(__file__).parents[2]
SPEC = "configs/joint_pair.py:lab"
RATES = {"train.learning_rate": ["1e-3", "4e-3"]}


def test_every_combination_is_a_job_of_its_own_named_by_what_differs():
  swept = grid.parse(["train.learning_rate=1e-3, 4e-3", "config.seed=1,2,3"])
  assert swept == {**RATES, "seed": ["1", "2", "3"]}
  jobs = grid.make_jobs(SPEC, ["--config.train.steps=60"], swept, "runs")
  assert len(jobs) == 6 == len({job.name for job in jobs.values()})
  for setting, job in jobs.items():
    config, values = job.config, dict(setting)
    assert config.train.steps == 60 and config.seed == int(values["seed"])
    assert config.train.learning_rate == float(values["train.learning_rate"])
    assert job.name == (
      f"joint_pair-xb-xa-lab-learning_rate={config.train.learning_rate}-steps=60-seed{config.seed}"
    )


@pytest.mark.parametrize(
  "grids, words",
  [
    (["train.steps"], "--grid=train.steps is not <field>=<value>,<value>"),
    (["train.steps=1,,2"], "is not <field>=<value>,<value>"),
    (["seed=1,1"], "names a field or a value twice"),
    (["seed=1", "seed=2"], "names a field or a value twice"),
    (["train.step=1"], "config.train has no field 'step'.*Did you mean steps"),
    (["seed=one"], "seed is 'one'; it must be a whole number"),
    (["train.learning_rate=1e-3,0.001"], "learning_rate=0.001 and .*=1e-3 are the same run"),
    (["train.steps=0"], "train.steps is 0; it must be at least 1"),
  ],
)
def test_mistakes_are_one_sentence(grids, words):
  with pytest.raises(UserError, match=words):
    grid.make_jobs(SPEC, [], grid.parse(grids), "runs")


def test_a_mistake_in_a_sweep_of_a_task_is_found_before_anything_runs():
  flags = ["--config.init_from=runs/adpt"]
  made = grid.make_jobs("configs/ner.py:lab,zero_shot", flags, {"route": ["mean"]}, "runs")
  assert len(made) == 1
  with pytest.raises(UserError, match="route is 'best'"):
    grid.make_jobs("configs/ner.py:lab,zero_shot", flags, {"route": ["mean", "best"]}, "runs")


def test_a_sweep_in_an_imported_model_is_sized_and_finished_by_its_shape(tmp_path, monkeypatch):
  write_json(tmp_path / "xlm" / "config.json", {"model_type": "xlm"})
  loaded, model = [], toy_model(num_layers=1, max_length=128)

  def load(folder):
    loaded.append(folder)
    return types.SimpleNamespace(model=model)

  monkeypatch.setattr(start, "load_pretrained", load)
  spec, flags = "configs/adpt.py:ar,base", [f"--config.init_from={tmp_path / 'xlm'}"]
  jobs = list(grid.make_jobs(spec, flags, RATES, str(tmp_path)).values())
  assert loaded == [str(tmp_path / "xlm")], "once for all settings"
  for job in jobs:
    raw = config_file.load(job.spec, job.arguments[1:])
    assert job.name == run_name(raw, config_file.defaults(spec), str(tmp_path))
    run_s = start.complete(raw, config_file.defaults(spec))
    assert job.config.to_dict() == run_s.to_dict() != raw.to_dict()
    assert job.seconds < cost.seconds(raw, None) / 3
    run_s.model.dtype = "float32"  # as the run decides
    write_json(tmp_path / job.name / "config.json", run_s.to_dict())
    write_json(tmp_path / job.name / "result.json", {})
  assert finished.in_folder(tmp_path, jobs) == {job.name for job in jobs}
  largest = options.from_config(sharing.largest_job(jobs).config, num_devices=1).model
  assert (largest.num_layers, largest.model_dim) == (model.num_layers, model.model_dim)


def test_a_sweep_that_adds_a_language_has_the_shape_of_the_old_run(tmp_path):
  old = config_file.load("configs/adpt.py:lab", ["--config.model.num_layers=1"])
  write_json(tmp_path / "old" / "config.json", old.to_dict())
  write_json(tmp_path / "old" / "result.json", {})
  (tmp_path / "old" / "tokenizer.model").touch()
  flags = [f"--config.init_from={tmp_path / 'old'}"]
  for job in grid.make_jobs("configs/add_language.py:xc", flags, RATES, "runs").values():
    assert job.config.model.num_layers == 1 and job.config.languages == ("xc", "xb", "xa")


def test_a_flag_of_the_config_needs_its_value_in_the_same_word():
  for words, is_enabled in (
    (["--config.meta.enabled", "--config.train.steps=60"], True),
    (["--noconfig.meta.enabled", "--config.train.steps=60"], False),
  ):
    jobs = grid.make_jobs(
      "configs/adpt.py:lab", config_file.fields_among(["--dry_run", *words]), RATES, "runs"
    )
    for job in jobs.values():
      assert (job.config.meta.enabled, job.config.train.steps) == (is_enabled, 60)
  with pytest.raises(UserError, match="--config.train.steps has no value; write --config.train"):
    grid.make_jobs(SPEC, config_file.fields_among(["--config.train.steps", "60"]), RATES, "runs")


def test_a_run_of_another_config_is_no_result(tmp_path):
  jobs = grid.make_jobs(SPEC, [], RATES, str(tmp_path))
  first, second = jobs
  for setting, job in jobs.items():
    config = job.config
    if setting == second:
      config.model.model_dim = 32  # as if a default had changed, which no name shows
    write_json(tmp_path / job.name / "config.json", config.to_dict())
    write_json(tmp_path / job.name / "result.json", {"of": job.name})
  assert results.read(jobs, tmp_path) == {first: {"of": jobs[first].name}}


def pretrained(xb, xa):
  return {"perplexity": {"xb": xb, "xa": xa}, "bits_per_character": {"xb": xb / 4, "xa": xa / 4}}


def found(**by_rate):
  """Results of runs: {rate: perplexities of xb over the seeds}."""
  return {
    (("train.learning_rate", rate), ("seed", str(seed))): pretrained(value, 9.0)
    for rate, values in by_rate.items()
    for seed, value in enumerate(values, 1)
  }


def test_a_setting_is_the_mean_over_its_seeds_and_the_fewest_bits_are_best():
  table = results.rows(found(slow=[5.0, 6.0, 10.0], fast=[6.0, 6.5]))
  first = Measure("perplexity of xb", True)
  assert [row.setting for row in table] == [
    (("train.learning_rate", "slow"),),
    (("train.learning_rate", "fast"),),
  ]
  assert table[0].found[first].mean == 7.0 and table[0].found[first].count == 3
  assert table[0].found[first].deviation == pytest.approx(statistics.stdev([5, 6, 10]))
  assert results.best(table, first) == 6.25
  assert results.summary(table) == (
    "Best bits per character of xb: 1.56 ± 0.09 at train.learning_rate=fast."
  )
  missing = (("train.learning_rate", "none"), ("seed", "1"))
  text = results.as_markdown(SPEC, table, [missing])
  assert "| slow | 3 |" in text and "| 7.00 ± 2.65 |" in text and "| **6.25 ± 0.35** |" in text
  assert "Without a result: train.learning_rate=none, seed=1." in text
  lines = list(csv.DictReader(io.StringIO(results.comma_separated(table))))
  chosen = [line for line in lines if line["measure"] == first.name and line["best"] == "1"]
  assert [(line["train.learning_rate"], line["mean"], line["runs"]) for line in chosen] == [
    ("fast", "6.25", "2")
  ]


def tuned(f1, dev=None, language="xb"):
  """The result of a fine-tuning on xa, without seeds where it is a majority label."""
  return {
    "language": language,
    "source_language": "xa",
    "main_score": "f1",
    "test": {"xa": {"f1": 80.0}, language: {"precision": 50.0, "f1": f1}},
    "seeds": [] if dev is None else [{"dev": dev - 1}, {"dev": dev + 1}],
  }


def test_the_best_of_a_task_is_chosen_by_dev_and_not_by_the_test_set():
  table = results.rows(
    {(("route", "mean"),): tuned(60.0, 90.0), (("route", "target"),): tuned(70.0, 85.0)}
  )
  names = [measure.name for measure in results.columns(table)]
  assert names == ["f1 on dev of xa", "f1 on xb", "precision on xb", "f1 on xa"]
  assert results.summary(table) == "Best f1 on dev of xa: 90.00 at route=mean."


def test_fewer_bits_win_where_pieces_differ():
  """A model of a small vocabulary has the lower perplexity per token and more bits per character."""
  table = results.rows(
    {
      (("data.vocab_size", "200"),): {"perplexity": {"xb": 3.0}, "bits_per_character": {"xb": 1.5}},
      (("data.vocab_size", "800"),): {"perplexity": {"xb": 9.0}, "bits_per_character": {"xb": 1.2}},
    }
  )
  assert results.summary(table) == "Best bits per character of xb: 1.20 at data.vocab_size=800."


def test_settings_may_have_other_languages_and_no_dev_score(tmp_path):
  table = results.rows(
    {
      (("language", "xb"), ("baseline", "none")): tuned(60.0, 90.0),
      (("language", "xc"), ("baseline", "none")): tuned(70.0, 85.0, "xc"),
      (("language", "xb"), ("baseline", "majority")): tuned(20.0),
    }
  )
  text = results.as_markdown("configs/ner.py:lab,zero_shot", table, [])
  rows = [line for line in text.splitlines() if line.startswith("| x")]
  assert rows[0] == "| xb | none | 1 | **90.00** | **60.00** | **50.00** | **80.00** | – | – |"
  assert rows[1] == "| xc | none | 1 | 85.00 | – | – | **80.00** | **70.00** | **50.00** |"
  assert rows[2] == "| xb | majority | 1 | – | 20.00 | **50.00** | **80.00** | – | – |"
  assert plots.draw(table, tmp_path) == ["sweep_language", "sweep_baseline"]


def test_each_swept_field_has_a_plot_and_the_seed_has_none(tmp_path):
  runs = {
    (("train.learning_rate", rate), ("model.init", init), ("seed", seed)): pretrained(5.0, 6.0)
    for rate in ("1e-4", "1e-3", "1e-2")
    for init in ("local", "xlm")
    for seed in ("1", "2")
  }
  names = plots.draw(results.rows(runs), tmp_path / "both")
  assert names == ["sweep_train_learning_rate", "sweep_model_init"]
  assert len(list((tmp_path / "both").iterdir())) == 4
  only = {key: value for key, value in runs.items() if dict(key)["model.init"] == "xlm"}
  for folder in ("one", "two"):
    assert plots.draw(results.rows(only), tmp_path / folder) == names[:1]
  svg, again = (tmp_path / folder / f"{names[0]}.svg" for folder in ("one", "two"))
  assert svg.read_bytes() == again.read_bytes()


def call(*flags):
  command = [sys.executable, "-m", "launch.sweep", *flags]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_a_sweep_from_the_command_line(tmp_path):
  flags = [
    f"--config={SPEC}",
    "--grid=train.learning_rate=1e-5,4e-3",
    "--grid=seed=1,2",
    f"--runs={tmp_path / 'runs'}",
    f"--out={tmp_path / 'out'}",
    "--config.train.steps=20",
    "--config.train.warmup_steps=2",
    "--config.model.model_dim=16",
    "--config.model.head_dim=4",
    "--config.model.ffn_dim=32",
    "--config.data.vocab_size=200",
    "--config.data.lab.documents=200",
    f"--config.data.dir={tmp_path / 'data'}",
  ]
  printed = call(*flags, "--dry_run")
  assert printed.returncode == 0 and len(printed.stdout.splitlines()) == 4
  for line in printed.stdout.splitlines():
    words = line.split()
    spec = words[3].removeprefix("--config=")
    assert config_file.load(spec, words[4:]).train.steps == 20
  done = call(*flags)
  assert done.returncode == 0, done.stdout + done.stderr
  assert "at train.learning_rate=4e-3." in done.stdout, "the other one hardly learns"
  written = {path.name for path in (tmp_path / "out").iterdir()}
  plot = "sweep_train_learning_rate"
  assert written == {"sweep.md", "sweep.csv", f"{plot}.svg", f"{plot}.png"}
  again = call(*flags)
  assert "4 of 4 jobs are finished already." in again.stdout
  wrong = call(*flags, "--grid=seed=3")
  assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
