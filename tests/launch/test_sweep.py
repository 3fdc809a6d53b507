"""Sweeps: their settings and jobs, what they say of results, and one from end to end."""

import csv
import io
import pathlib
import statistics
import subprocess
import sys

import pytest

from launch.sweep import grid, plots, results
from launch.sweep.results import Measure
from negint import config_file
from negint.errors import UserError

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
    (["seed=one"], "invalid literal"),
    (["train.learning_rate=1e-3,0.001"], "learning_rate=0.001 and .*=1e-3 are the same run"),
    (["train.steps=0"], "train.steps is 0; it must be at least 1"),
  ],
)
def test_mistakes_are_one_sentence(grids, words):
  with pytest.raises(UserError, match=words):
    grid.make_jobs(SPEC, [], grid.parse(grids), "runs")


def pretrained(xb, xa):
  return {"perplexity": {"xb": xb, "xa": xa}, "bits_per_character": {"xb": xb / 4, "xa": xa / 4}}


def found(**by_rate):
  """Results of runs: {rate: perplexities of xb over the seeds}."""
  return {
    (("train.learning_rate", rate), ("seed", str(seed))): pretrained(value, 9.0)
    for rate, values in by_rate.items()
    for seed, value in enumerate(values, 1)
  }


def test_a_setting_is_the_mean_over_its_seeds_and_the_lowest_perplexity_is_best():
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
    "Best perplexity of xb: 6.25 ± 0.35 at train.learning_rate=fast."
  )
  missing = (("train.learning_rate", "none"), ("seed", "1"))
  text = results.as_markdown(SPEC, table, [missing])
  assert "| slow | 3 | 7.00 ± 2.65 |" in text and "| fast | 2 | **6.25 ± 0.35** |" in text
  assert "Without a result: train.learning_rate=none, seed=1." in text
  lines = list(csv.DictReader(io.StringIO(results.comma_separated(table))))
  chosen = [line for line in lines if line["measure"] == first.name and line["best"] == "1"]
  assert [(line["train.learning_rate"], line["mean"], line["runs"]) for line in chosen] == [
    ("fast", "6.25", "2")
  ]


def test_the_best_of_a_task_is_its_highest_main_score_on_the_target():
  def result(f1, english):
    return {
      "language": "xb",
      "main_score": "f1",
      "test": {"xa": {"f1": english}, "xb": {"precision": 50.0, "f1": f1}},
    }

  table = results.rows(
    {(("route", "mean"),): result(60.0, 90.0), (("route", "target"),): result(70.0, 80.0)}
  )
  names = [measure.name for measure in table[0].found]
  assert names == ["f1 on xb", "precision on xb", "f1 on xa"]
  assert results.summary(table) == "Best f1 on xb: 70.00 at route=target."


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
