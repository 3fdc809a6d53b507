"""Fine-tuning a pretrained model on a task: trials, selection on dev, scores on test.

A run is a list of seeds, and a seed is a list of trials (one, or the grid of Appendix A). A trial
trains for some epochs and keeps the weights of its best epoch on the source language's dev set. The
best trial of a seed is tested. The test sets are scored after everything has been selected; before
the training they are only checked.
"""

import dataclasses
import hashlib
import pathlib
import shutil
import statistics

import jax
import numpy as np

from negint.errors import NonFiniteLoss, UserError
from negint.finetuning import options, testing, weights
from negint.finetuning.data import (
  Inputs,
  Split,
  adapted,
  adapts,
  read_split,
  read_training,
)
from negint.finetuning.options import FinetuneOptions, Trial
from negint.finetuning.testing import Tested
from negint.finetuning.trial import Shared, make_shared, remat_of, train, with_remat
from negint.finetuning.weights import Tuned
from negint.method import device, memory
from negint.options import DTYPES
from negint.out_of_memory import Remedies
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run import auto_remat
from negint.run import workdir as workdirs
from negint.run.files import read_json, write_json
from negint.run.runner import Kind, Place, Say, smaller_batches
from negint.tasks import loading


def prepare(run: FinetuneOptions, say: Say) -> Inputs:
  """Returns the pretrained model and the source language's training and dev data.

  Raises:
    UserError: the model or the data are missing, or do not fit the run.
  """
  model = load_pretrained(run.init_from, scratch=run.baseline == "scratch")
  check_fits(run, model, say)
  train, labels = read_training(run, model)
  dev = read_split(run, model, labels, run.source_language, "dev")
  for language in run.test_languages:
    selects = run.selects_by(language)
    loading.check_test_set(run.task, run.source, model.lab, language, selects=selects)
  if set(labels) - set(run.task.labels):
    say(f"The labels are those of the training data: {', '.join(labels)}.")
  return Inputs(model, labels, train, dev)


def check_fits(run: FinetuneOptions, model: Pretrained, say: Say) -> None:
  """Raises UserError if the pretrained model lacks what the run needs."""
  others = [code for code in model.languages if code != run.language]
  if run.setting == "zero_shot" and others and not model.speaks(run.source_language):
    raise UserError(
      f"source_language is {run.source_language!r}, which the pretrained model "
      f"({', '.join(model.languages)}) has not learned; use --config.source_language={others[-1]}, or "
      "another --config.init_from."
    )
  model.language_index(run.source_language)
  if run.route == "target":
    model.language_index(run.language)
  positions = model.model.max_length
  if run.limits.max_length > positions:
    raise UserError(
      f"data.max_length is {run.limits.max_length}, but the pretrained model has {positions} "
      f"positions; use --config.data.max_length={positions} or less."
    )
  if run.limits.max_length > model.sequence_length:
    say(
      f"Rows of up to {run.limits.max_length} tokens use positions that pretraining on sequences of "
      f"{model.sequence_length} never saw; --config.data.max_length lowers them."
    )
  if run.freeze_phi and not model.model.specific:
    raise UserError(
      f"freeze_phi is True, but {model.system} has no language-specific modules to freeze; "
      "leave the field out."
    )
  for language in run.test_languages:
    model.tokenizer.for_language(language)


def describe(trial: Trial) -> str:
  """Returns the trial's name, which is that of its folder."""
  head = "" if trial.head_learning_rate == trial.learning_rate else f"-{trial.head_learning_rate:g}"
  return f"batch{trial.batch_size}-rate{trial.learning_rate:g}{head}"


def work(run: FinetuneOptions, inputs: Inputs, place: Place) -> dict:
  """Returns the contents of result.json; resumes what the folder holds."""
  _keep_labels(place.workdir, inputs.labels)
  _tie_to_data(place.workdir, {"train": inputs.train, "dev": inputs.dev})
  tests: list[dict[str, Tested]] = []  # of each seed, by language
  seeds = []
  if run.baseline == "majority":
    folder = place.workdir / f"seed{run.seed}"
    tests = [
      {code: testing.test_majority(run, inputs, code, folder) for code in run.test_languages}
    ]
  else:
    shared = make_shared(run, _on_device(inputs, place), place.interruption)
    found = auto_remat.chosen(inputs.model.model, place, lambda: remat_of(shared, memory.limit()))
    shared = with_remat(shared, found.remat)
    inputs = shared.inputs
    for seed in range(run.seed, run.seed + run.seeds):
      entry = seed_entry(shared, seed, place)
      entry.pop("weights", None)
      tests.append({code: Tested(**fields) for code, fields in entry.pop("tested").items()})
      seeds.append({**entry, "test": {code: test.scores for code, test in tests[-1].items()}})
  return make_result(run, inputs, tests, seeds)


def _on_device(inputs: Inputs, place: Place) -> Inputs:
  """Returns the inputs, whose model has the dtype that was fast where the run began if it adapts."""
  if not adapts(inputs.model):
    return inputs

  def choose() -> str:
    dtype, why = device.fast_dtype(jax.devices())
    if inputs.model.origin is None:
      place.say(f"The imported model computes in {dtype}, because {why}.")
    elif dtype != inputs.model.model.dtype:
      place.say(
        f"The model was pretrained in bfloat16; here it computes in {dtype}, because {why}."
      )
    return dtype

  return adapted(inputs, workdirs.chosen(place.workdir, "model.dtype", DTYPES, choose))


def _keep_labels(workdir: pathlib.Path, labels: tuple[str, ...]) -> None:
  """Writes labels.json; UserError if the run began with other labels."""
  now = list(labels)
  begun = _begun_with(workdir, "labels.json", {"labels": now})["labels"]
  if begun != now:
    raise UserError(
      f"{workdir} began with the labels {', '.join(begun)}, but those of the training data are now "
      f"{', '.join(now)}. Put the training data back, or start in a new --workdir."
    )


def _tie_to_data(workdir: pathlib.Path, splits: dict[str, Split]) -> None:
  """Writes data.json, digests of what trains and selects; UserError if the run began with other data."""
  now = {}
  for name, split in splits.items():
    digest = hashlib.sha256()
    for example in split.examples:
      digest.update(repr(example).encode())
    now[name] = digest.hexdigest()
  begun = _begun_with(workdir, "data.json", now)
  if changed := [name for name in now if begun.get(name) != now[name]]:
    raise UserError(
      f"{workdir} began with other {' and '.join(changed)} examples than the data have now. Put the old "
      "data back, or start in a new --workdir."
    )


def _begun_with(workdir: pathlib.Path, name: str, now: dict) -> dict:
  """Returns what a file of the run's folder says of its beginning; a new run writes `now` there."""
  path = workdir / name
  if not path.exists():
    write_json(path, now)
  return read_json(path, f"the run in {workdir}; delete it to make it anew")


def seed_entry(shared: Shared, seed: int, place: Place) -> dict:
  """Returns the contents of seed<k>/seed.json, which is made if it is not there."""
  folder = place.workdir / f"seed{seed}"
  path = folder / "seed.json"
  if not path.exists():
    write_json(path, tune_seed(shared, seed, folder, place.say))
  entry = read_json(
    path, f"the run in {place.workdir}; delete it and start the same command again to make it anew"
  )
  for trial in shared.run.trials:
    drop_checkpoints(folder, trial)
  return entry


def tune_seed(shared: Shared, seed: int, folder: pathlib.Path, say: Say) -> dict:
  """Returns what a seed's trials scored on dev, which was selected, and its test scores.

  Writes the selected weights into the folder. A trial that has ended leaves trial.json, and the
  checkpoints of the best trial alone stay: each is several times as large as the weights.

  Raises:
    Interrupted: SIGTERM or Ctrl-C; the state is saved.
    NonFiniteLoss: all trials diverged.
  """
  run = shared.run
  trials: list[dict] = []
  selected: dict = {}
  # The selected trial; its weights where this process trained it.
  best, tuned = run.trials[0], None
  for trial in run.trials:
    entry, weights_of_best = trial_entry(
      shared, trial, seed, folder, say, is_last_hope=not selected
    )
    trials.append(entry)
    dev = entry["dev"]
    if dev and (not selected or max(dev) > selected["dev"]):
      drop_checkpoints(folder, best, unless=trial)
      best, tuned = trial, weights_of_best
      epoch = int(np.argmax(dev)) + 1
      selected = {"selected": describe(trial), "selected_epoch": epoch, "dev": max(dev)}
    elif dev:
      drop_checkpoints(folder, trial)
  if tuned is None:
    name = describe(best)
    # This restores it. Nothing else keeps the state: the test needs the memory of the device.
    tuned = train(shared, best, seed, folder / name, say, f"seed {seed} {name}").best
  tested = {code: testing.test(shared, tuned, code, folder) for code in run.test_languages}
  return {
    "seed": seed,
    **selected,
    "trials": trials,
    "weights": weights.write(folder, tuned),
    "tested": {code: dataclasses.asdict(test) for code, test in tested.items()},
  }


def trial_entry(
  shared: Shared, trial: Trial, seed: int, folder: pathlib.Path, say: Say, *, is_last_hope: bool
) -> tuple[dict, Tuned | None]:
  """Returns (what a trial scored on dev, its best weights on the host if it was trained just now).

  The trial's state is freed: the next trial and the test need the memory of the device.

  Args:
    shared: the run.
    trial: its setting.
    seed: of the trial.
    folder: of the seed.
    say: receives sentences for the user.
    is_last_hope: whether no trial before has scores.

  Raises:
    Interrupted: SIGTERM or Ctrl-C; the state is saved.
    NonFiniteLoss: the last trial diverged as all others did.
  """
  name = describe(trial)
  path = folder / name / "trial.json"
  if path.exists():
    return read_json(path, f"the run in {folder.parent}; delete it to make it anew"), None
  best = None
  try:
    state = train(shared, trial, seed, folder / name, say, f"seed {seed} {name}")
    entry = {"trial": name, "dev": [float(value) for value in state.dev]}
    best = state.best
  except NonFiniteLoss as error:
    if trial is shared.run.trials[-1] and is_last_hope:
      raise
    say(f"seed {seed} {name}: {error} The other trials continue.")
    entry = {"trial": name, "dev": [], "diverged": str(error)}
  write_json(path, entry)
  return entry, best


def drop_checkpoints(folder: pathlib.Path, trial: Trial, unless: Trial | None = None) -> None:
  """Deletes the checkpoints of a trial in a seed's folder; nothing if it is the trial `unless`."""
  if trial is not unless:
    shutil.rmtree(folder / describe(trial) / "checkpoints", ignore_errors=True)


def make_result(
  run: FinetuneOptions, inputs: Inputs, tests: list[dict[str, Tested]], seeds: list[dict]
) -> dict:
  """Returns the contents of result.json; scores in per cent, mean and deviation over seeds.

  Args:
    run: the options.
    inputs: the model and the data.
    tests: of each seed, {language: what its test says}.
    seeds: what result.json says of each seed.
  """
  model, splits = inputs.model, {"train": inputs.train, "dev": inputs.dev}
  counts = {name: len(split.examples) for name, split in splits.items()}
  reports = {name: split.report for name, split in splits.items()}
  mean, deviation = {}, {}
  for code, first in tests[0].items():  # every seed reads the same test sets
    counts[f"test/{code}"], reports[f"test/{code}"] = first.examples, first.report
    values = {name: [test[code].scores[name] for test in tests] for name in first.scores}
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
    "main_score": run.task.main_score,
    "dtype": model.model.dtype,
    "remat": model.model.remat,
    "labels": list(inputs.labels),
    "test": mean,
    "standard_deviation": deviation,
    "examples": counts,
    "data": reports,
    "seeds": seeds,
  }


def summary(result: dict, workdir: pathlib.Path) -> str:
  """Returns the table at the end of a run."""
  row = result["system"] if result["baseline"] == "none" else result["baseline"]
  steps = result["pretraining_steps"]
  pretraining = "imported" if steps is None else f"{steps:,} pretraining steps"
  lines = [
    "",
    f"{result['task']}, {result['setting']}: {row} ({pretraining}), fine-tuned on "
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
    f"in {workdir}: result.json, labels.json, seed<k>/ (weights.safetensors, dev scores, "
    "predictions, per_example)"
  )
  return "\n".join(lines)


def remedies(run: FinetuneOptions, say: Say) -> Remedies:
  """Returns flags that lower the memory of a trial or of a test."""
  del say  # nothing is compiled
  batch = max(trial.batch_size for trial in run.trials)
  field = "train.batch_size"
  length = run.limits.max_length // 2
  sizes = {field: batch, "eval.batch_size": run.eval_batch_size}
  return [
    *smaller_batches(sizes),
    (f"--config.data.max_length={length}", 0.5),
  ]


KIND = Kind(options.from_config, prepare, work, summary, remedies)
