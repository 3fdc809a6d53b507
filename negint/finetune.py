"""Fine-tuning a pretrained model on a task: trials, selection on dev, scores on test.

A run is a list of seeds, each a list of trials (one, or the grid of Appendix A). A trial trains for
some epochs and keeps the weights of its best epoch on the source language's dev set; the best trial
of a seed is tested. The test sets are read after everything has been selected.
"""

import pathlib
import shutil
import statistics

import jax
import numpy as np

from negint import finetune_options, interrupt, parallel, pretrained, tasks
from negint.errors import Interrupted, UserError
from negint.finetune_options import FinetuneOptions, Trial
from negint.tuning import Tuner
from negint.workdir import check_workdir, claim_workdir, read_json
from negint.writers import write_json


def finetune(config, workdir: pathlib.Path, say=print) -> dict:
  """Runs or resumes a fine-tuning run to its end and returns its result.

  Raises:
    UserError: what was asked for cannot run.
    Interrupted: SIGTERM or Ctrl-C; the last epoch is saved.
    NonFiniteLoss: a trial diverged.
  """
  run = finetune_options.from_config(config, parallel.num_devices())
  model = pretrained.load(run.init_from, scratch=run.baseline == "scratch")
  check_fits(run, model)
  data = {
    split: tasks.load(run.task, model.lab, run.source_language, split) for split in ("train", "dev")
  }
  finished = check_workdir(workdir, config)
  if finished:
    say(f"{workdir} holds this run, finished. Its result:")
    say(summary(finished, workdir))
    return finished
  claim_workdir(workdir, config)
  with interrupt.caught() as interruption:
    try:
      if run.baseline == "majority":
        result = majority_result(run, model, data)
      else:
        result = tuned_result(run, model, data, workdir, interruption, say)
    except Interrupted as error:
      raise Interrupted(
        f"{error}; the last finished epoch is saved in {workdir}: start the same command again to "
        "go on."
      ) from None
  write_json(workdir / "result.json", result)
  say(summary(result, workdir))
  return result


def check_fits(run: FinetuneOptions, model: pretrained.Pretrained):
  """UserError where the pretrained model lacks a language or a position that the run needs."""
  model.language_index(run.source_language)
  if run.route == "target":
    model.language_index(run.language)
  if run.task.max_length > model.model.max_length:
    raise UserError(
      f"data.max_length is {run.task.max_length}, but the pretrained model has "
      f"{model.model.max_length} positions; use --config.data.max_length={model.model.max_length} or "
      "less."
    )


def describe(trial: Trial) -> str:
  head = "" if trial.head_learning_rate == trial.learning_rate else f"-{trial.head_learning_rate:g}"
  return f"batch{trial.batch_size}-rate{trial.learning_rate:g}{head}"


def tuned_result(run, model, data, workdir, interruption, say) -> dict:
  """All seeds and trials; every trial is recorded, the best on dev is tested."""
  tuner = Tuner(run, model, data, interruption)
  seeds = []
  for seed in range(run.seed, run.seed + run.seeds):
    seed_folder = workdir / f"seed{seed}"
    record = seed_folder / "seed.json"
    if not record.exists():
      write_seed(tuner, seed, seed_folder, say)
    seeds.append(read_json(record))
  tuner.reports |= {f"test/{code}": r for code, r in seeds[-1].pop("test_reports").items()}
  for entry in seeds[:-1]:
    entry.pop("test_reports")
  return make_result(run, model, [entry["test"] for entry in seeds], tuner.reports, seeds)


def write_seed(tuner: Tuner, seed: int, folder: pathlib.Path, say):
  """Trains the seed's trials, selects by dev score, tests the selected one, writes seed.json."""
  run, best, trials = tuner.run, None, []
  for trial in run.trials:
    label = f"seed {seed} {describe(trial)}"
    path = folder / describe(trial)
    state = tuner.train(trial, seed, path, say, label)
    dev = [float(value) for value in state.dev]
    trials.append({"trial": describe(trial), "dev": dev})
    if best is None or max(dev) > best[0]:
      best = (max(dev), describe(trial), int(np.argmax(dev)) + 1, jax.device_get(state.best))
  dev, name, epoch, tuned = best
  predictions = folder / "predictions"
  test = {code: tuner.test(tuned, code, predictions) for code in run.test_languages}
  reports = {code: tuner.reports[f"test/{code}"] for code in run.test_languages}
  write_json(
    folder / "seed.json",
    {
      "seed": seed,
      "selected": name,
      "selected_epoch": epoch,
      "dev": dev,
      "test": test,
      "trials": trials,
      "test_reports": reports,
    },
  )
  for trial in run.trials:  # the selected weights of a seed are reproducible; disks are not endless
    if describe(trial) != name:
      shutil.rmtree(folder / describe(trial) / "checkpoints", ignore_errors=True)


def majority_result(run, model, data) -> dict:
  """The row of a classifier that always gives the most frequent training label or answer."""
  training, reports, test = data["train"][0], {}, {}
  for code in run.test_languages:
    examples, reports[f"test/{code}"] = tasks.load(run.task, model.lab, code, "test")
    test[code] = tasks.score(run.task, examples, tasks.majority(run.task, training, examples))
  return make_result(run, model, [test], reports, [])


def make_result(run, model, tests: list[dict], reports: dict, seeds: list[dict]) -> dict:
  """The contents of result.json; scores in per cent, mean and standard deviation over seeds."""
  mean, deviation = {}, {}
  for code in run.test_languages:
    values = {name: [test[code][name] for test in tests] for name in tests[0][code]}
    mean[code] = {name: statistics.fmean(each) for name, each in values.items()}
    if len(tests) > 1:
      deviation[code] = {name: statistics.stdev(each) for name, each in values.items()}
  return {
    "task": run.task.name,
    "setting": run.setting,
    "language": run.language,
    "source_language": run.source_language,
    "init_from": run.init_from,
    "system": model.run.system,
    "pretraining_steps": model.result["steps"] if run.baseline == "none" else 0,
    "baseline": run.baseline,
    "route": run.route,
    "main_score": tasks.MAIN_SCORE[run.task.name],
    "test": mean,
    "standard_deviation": deviation,
    "data": reports,
    "seeds": seeds,
  }


def summary(result: dict, workdir: pathlib.Path) -> str:
  """The table at the end of a run."""
  row = {"none": result["system"]}.get(result["baseline"], result["baseline"])
  lines = [
    "",
    f"{result['task']}, {result['setting']}: {row} ({result['pretraining_steps']:,} pretraining "
    f"steps), fine-tuned on {result['source_language']}",
  ]
  for code, scores in result["test"].items():
    deviation = result["standard_deviation"].get(code, {})
    parts = [
      f"{name} {value:.1f}" + (f" +- {deviation[name]:.1f}" if deviation else "")
      for name, value in scores.items()
    ]
    lines.append(f"  test {code}: {', '.join(parts)}")
  for part, report in result["data"].items():
    for what, times in report.items():
      lines.append(f"  {part}: {what}: {times}")
  lines.append(f"in {workdir}: result.json, seed*/ (trials, dev scores, predictions)")
  return "\n".join(lines)
