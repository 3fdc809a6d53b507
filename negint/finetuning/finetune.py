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

from negint.errors import NonFiniteLoss, UserError
from negint.finetuning import options as finetune_options
from negint.finetuning.options import FinetuneOptions, Trial
from negint.finetuning.trial import Tuner
from negint.method import parallel
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run.files import read_json, write_json
from negint.run.workdir import check_workdir, claimed
from negint.tasks import table as tasks


def finetune(config, workdir: pathlib.Path, say=print) -> dict:
  """Runs or resumes a fine-tuning run to its end and returns its result.

  Raises:
    UserError: what was asked for cannot run.
    Interrupted: SIGTERM or Ctrl-C; the state is saved.
    NonFiniteLoss: every trial of a seed diverged.
  """
  run = finetune_options.from_config(config, parallel.num_devices())
  finished = check_workdir(workdir, config)
  if finished:
    say(f"{workdir} holds this run, finished. Its result:")
    say(summary(finished, workdir))
    return finished
  model = load_pretrained(run.init_from, scratch=run.baseline == "scratch")
  check_fits(run, model, say)
  data = {
    split: tasks.load(run.task, model.lab, run.source_language, split) for split in ("train", "dev")
  }
  with claimed(workdir, config) as interruption:
    if run.baseline == "majority":
      result = majority_result(run, model, data, workdir)
    else:
      result = tuned_result(run, model, data, workdir, interruption, say)
  write_json(workdir / "result.json", result)
  say(summary(result, workdir))
  return result


def check_fits(run: FinetuneOptions, model: Pretrained, say):
  """UserError where the pretrained model lacks what the run needs, before anything is trained."""
  model.language_index(run.source_language)
  if run.route == "target":
    model.language_index(run.language)
  if run.task.max_length > model.model.max_length:
    raise UserError(
      f"data.max_length is {run.task.max_length}, but the pretrained model has "
      f"{model.model.max_length} positions; use --config.data.max_length={model.model.max_length} or "
      "less."
    )
  if run.task.max_length > model.sequence_length:
    say(
      f"Rows of up to {run.task.max_length} tokens use positions that pretraining on sequences of "
      f"{model.sequence_length} never saw; --config.data.max_length lowers them."
    )
  if run.freeze_phi and not model.model.specific:
    raise UserError(
      f"freeze_phi is True, but {model.system} has no language-specific modules to freeze; "
      "leave the field out."
    )
  for language in run.test_languages:
    model.tokenizer.for_language(language)
    tasks.check_test_set(run.task, language)


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
  for entry in seeds:  # every seed reads the same test sets
    tuner.reports |= entry.pop("test_reports")
    tuner.counts |= entry.pop("test_counts")
  tests = [entry["test"] for entry in seeds]
  return make_result(run, model, tests, tuner.reports, tuner.counts, seeds)


def write_seed(tuner: Tuner, seed: int, folder: pathlib.Path, say):
  """Trains the seed's trials, selects by dev score, tests the selected one, writes seed.json."""
  run, best, trials = tuner.run, None, []
  for trial in run.trials:
    name = describe(trial)
    try:
      state = tuner.train(trial, seed, folder / name, say, f"seed {seed} {name}")
    except NonFiniteLoss as error:
      if len(trials) + 1 == len(run.trials) and best is None:
        raise
      say(f"seed {seed} {name}: {error} The other trials go on.")
      trials.append({"trial": name, "dev": [], "diverged": str(error)})
      continue
    dev = [float(value) for value in state.dev]
    trials.append({"trial": name, "dev": dev})
    if best is None or max(dev) > best[0]:
      best = (max(dev), name, int(np.argmax(dev)) + 1, jax.device_get(state.best))
  dev, name, epoch, tuned = best
  test = {code: tuner.test(tuned, code, folder) for code in run.test_languages}
  tested = [f"test/{code}" for code in run.test_languages]
  write_json(
    folder / "seed.json",
    {
      "seed": seed,
      "selected": name,
      "selected_epoch": epoch,
      "dev": dev,
      "test": test,
      "trials": trials,
      "test_reports": {name: tuner.reports[name] for name in tested},
      "test_counts": {name: tuner.counts[name] for name in tested},
    },
  )
  for trial in run.trials:  # the selected weights of a seed are reproducible; disks are not endless
    if describe(trial) != name:
      shutil.rmtree(folder / describe(trial) / "checkpoints", ignore_errors=True)


def majority_result(run, model, data, workdir) -> dict:
  """The row of a classifier that always gives the most frequent training label or answer."""
  training, reports, test = data["train"][0], {}, {}
  counts = {split: len(examples) for split, (examples, _) in data.items()}
  for code in run.test_languages:
    examples, reports[f"test/{code}"] = tasks.load(run.task, model.lab, code, "test")
    counts[f"test/{code}"] = len(examples)
    predicted = tasks.majority(run.task, training, examples)
    tasks.write_per_example(workdir / f"seed{run.seed}", run.task, code, examples, predicted)
    test[code] = tasks.score(run.task, examples, predicted)
  return make_result(run, model, [test], reports, counts, [])


def make_result(run, model, tests: list[dict], reports: dict, counts: dict, seeds) -> dict:
  """The contents of result.json; scores in per cent, mean and standard deviation over seeds.

  Args:
    tests: of each seed, {language: {score: value}}.
    reports, counts: repairs and numbers of examples of "train", "dev" and each "test/<language>".
    seeds: the contents of each seed.json.
  """
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
    "system": model.system,
    "pretraining_steps": model.steps if run.baseline == "none" else 0,
    "pretraining": model.identity(),
    "baseline": run.baseline,
    "route": run.route,
    "main_score": tasks.MAIN_SCORE[run.task.name],
    "test": mean,
    "standard_deviation": deviation,
    "examples": counts,
    "data": reports,
    "seeds": seeds,
  }


def summary(result: dict, workdir: pathlib.Path) -> str:
  """The table at the end of a run."""
  row = {"none": result["system"]}.get(result["baseline"], result["baseline"])
  steps = result["pretraining_steps"]
  learnt = "imported" if steps is None else f"{steps:,} pretraining steps"
  lines = [
    "",
    f"{result['task']}, {result['setting']}: {row} ({learnt}), fine-tuned on "
    f"{result['source_language']}",
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
  lines.append(
    f"in {workdir}: result.json, seed<k>/ (trials, dev scores, predictions, per_example)"
  )
  return "\n".join(lines)
