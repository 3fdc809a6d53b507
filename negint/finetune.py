"""Fine-tuning a pretrained model on a task: trials, selection on dev, scores on test.

A run is a list of seeds, each a list of trials (one, or the grid of Appendix A). A trial trains for
some epochs and keeps the weights of its best epoch on the source language's dev set; the best trial
of a seed is tested. The test sets are read after everything has been selected.
"""

import math
import pathlib
import shutil
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from tqdm import tqdm

from negint import heads, interrupt, optim, options, parallel, pretrained, tasks
from negint import language as lang
from negint.checkpoint import Checkpoints
from negint.data.tasks import predictions as prediction_files
from negint.errors import Interrupted, NonFiniteLoss, UserError
from negint.options import FinetuneOptions, Trial
from negint.tokens import PAD
from negint.workdir import check_workdir, claim_workdir, read_json
from negint.writers import MetricsWriter, write_json

SHORTEST_ROW = 32  # widths of batches are this, doubled until max_length


@struct.dataclass
class TuneState:
  """A trial between two epochs.

  step: epochs done, int scalar. updates: updates done. key: of dropout. tuned: {"theta", "phi" (the
  source language's slice; empty if frozen), "head"}; slots: its Adam slots by group; best: `tuned`
  after the best epoch; dev: main score of each epoch, NaN where there is none yet, [epochs].
  """

  step: jax.Array
  updates: jax.Array
  key: jax.Array
  tuned: Any
  slots: Any
  best: Any
  dev: jax.Array


def finetune(config, workdir: pathlib.Path, say=print) -> dict:
  """Runs or resumes a fine-tuning run to its end and returns its result.

  Raises:
    UserError: what was asked for cannot run.
    Interrupted: SIGTERM or Ctrl-C; the last epoch is saved.
    NonFiniteLoss: a trial diverged.
  """
  run = options.finetune_from_config(config, parallel.num_devices())
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


def batches(arrays: dict, batch_size: int, order=None):
  """Rows by width: yields (row numbers, batch) with `tokens` cut to the batch's width.

  Args:
    arrays: of features.py, rows first.
    batch_size: rows; a last batch of a width is filled up with rows of length 0.
    order: np.random.Generator that shuffles rows and batches; None keeps the order.
  """
  lengths, longest = arrays["lengths"], arrays["tokens"].shape[1]
  widths = np.full(len(lengths), SHORTEST_ROW)
  while np.any(short := (widths < lengths)):
    widths[short] *= 2
  widths = np.minimum(widths, longest)
  rows = np.arange(len(lengths)) if order is None else order.permutation(len(lengths))
  chunks = []
  for width in np.unique(widths):
    of_width = rows[widths[rows] == width]
    chunks += [(width, of_width[i : i + batch_size]) for i in range(0, len(of_width), batch_size)]
  if order is not None:
    chunks = [chunks[i] for i in order.permutation(len(chunks))]
  for width, chosen in chunks:
    yield chosen, _fill(arrays, chosen, int(width), batch_size)


def _fill(arrays, chosen, width, batch_size):
  batch = {}
  for name in ("tokens", "lengths", "labels", "starts", "ends"):
    if name in arrays:
      values = arrays[name]
      part = values[chosen, :width] if values.ndim == 2 else values[chosen]
      full = np.full((batch_size, *part.shape[1:]), PAD if name == "tokens" else 0, np.int32)
      full[: len(chosen)] = part
      batch[name] = full
  return batch


def make_tune_step(model, run: FinetuneOptions, frozen_phi):
  """(state, batch, language, rates) -> (state, metrics): one update at rates {group: rate}.

  Rates are arguments, so that one compilation serves every trial of a batch's shape.
  """

  def step(state: TuneState, batch, language, rates):
    key = jax.random.fold_in(state.key, state.updates)
    dropout = model.dropout or model.attention_dropout
    dropout_key = parallel.device_key(key) if dropout else None

    def loss(tuned):
      params = lang.merge(tuned["theta"], tuned["phi"] or frozen_phi)
      scores = heads.logits(
        model, params, tuned["head"], run.task.name, batch, language, dropout_key
      )
      total, count = heads.loss(run.task.name, scores, batch)
      return total / jnp.maximum(parallel.mean(count), 1.0)

    value, gradient = parallel.mean(jax.value_and_grad(loss)(state.tuned))
    gradient, norm = optim.clip(gradient, run.optimiser.clip_norm)
    moved = {
      group: optim.update(
        run.optimiser, rates[group], state.tuned[group], state.slots[group], gradient[group]
      )
      for group in state.tuned
    }
    state = state.replace(
      updates=state.updates + 1,
      tuned={group: params for group, (params, _) in moved.items()},
      slots={group: slots for group, (_, slots) in moved.items()},
    )
    return state, {"loss": value, "gradient_norm": norm}

  return parallel.pmap_step(step, donate_state=False)


def make_predictor(model, run: FinetuneOptions):
  """(theta, phi_i, head), arrays, language -> scores of all rows, padded to max_length."""

  def scores(params, batch, language):
    theta, phi_i, head = params
    return heads.logits(model, lang.merge(theta, phi_i), head, run.task.name, batch, language)

  mapped = parallel.pmap_rows(scores)

  def predict(params, arrays, language, poll):
    params = parallel.replicate(params)
    result = None
    for rows, batch in batches(arrays, run.eval_batch_size):
      poll()
      inputs = {name: batch[name] for name in ("tokens", "lengths")}
      part = mapped(params, parallel.split(inputs), np.int32(language))[: len(rows)]
      if result is None:
        shape = part.shape[1:] if part.ndim == 2 else (arrays["tokens"].shape[1], part.shape[-1])
        result = np.full((len(arrays["lengths"]), *shape), np.finfo(np.float32).min, np.float32)
      if part.ndim == 2:
        result[rows] = part
      else:
        result[rows, : part.shape[1]] = part
    return result

  return predict


class Tuner:
  """What the trials of a run share: the model, its data and its compiled functions."""

  def __init__(self, run: FinetuneOptions, model: pretrained.Pretrained, data, interruption):
    self.run, self.model, self.interruption = run, model, interruption
    self.source = model.language_index(run.source_language)
    self.phi_i = lang.select(model.phi, self.source)
    self.reports = {}
    self.examples = {split: examples for split, (examples, _) in data.items()}
    self.arrays = {}
    for split, (examples, report) in data.items():
      self.arrays[split], more = tasks.featurise(run.task, examples, model.tokenizer)
      self.reports[split] = {**report, **{name: n for name, n in more.items() if n}}
    frozen = self.phi_i if run.freeze_phi else {}
    self.tune_step = make_tune_step(model.model, run, frozen)
    self.predict = make_predictor(model.model, run)

  def init_state(self, trial: Trial, seed: int) -> TuneState:
    head_key, key = jax.random.split(jax.random.key(seed))
    outputs = len(tasks.LABELS[self.run.task.name])
    tuned = {
      "theta": self.model.theta,
      "phi": {} if self.run.freeze_phi else self.phi_i,
      "head": heads.init_head(head_key, self.model.model.model_dim, outputs),
    }
    tuned = jax.tree.map(jnp.asarray, tuned)
    transform = optim.adam(self.run.optimiser)
    return parallel.replicate(
      TuneState(
        step=jnp.zeros((), jnp.int32),
        updates=jnp.zeros((), jnp.int32),
        key=key,
        tuned=tuned,
        slots={group: transform.init(params) for group, params in tuned.items()},
        best=tuned,
        dev=jnp.full((trial.epochs,), jnp.nan),
      )
    )

  def dev_score(self, tuned) -> float:
    params = (tuned["theta"], tuned["phi"] or self.phi_i, tuned["head"])
    scores = self.predict(params, self.arrays["dev"], self.source, self.interruption.poll)
    predicted = tasks.decode(self.run.task, scores, self.arrays["dev"], self.examples["dev"])
    result = tasks.score(self.run.task, self.examples["dev"], predicted)
    return result[tasks.MAIN_SCORE[self.run.task.name]]

  def train(self, trial: Trial, seed: int, folder: pathlib.Path, say, label: str) -> TuneState:
    """Trains one trial, from its last finished epoch on; a checkpoint after each epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder, keep=1)
    state = self.init_state(trial, seed)
    restored = checkpoints.restore(state, say)
    if restored is not None:
      state = restored
      say(f"{label}: going on after epoch {int(state.step)} of {trial.epochs}.")
    writer = MetricsWriter(folder, int(state.step))
    try:
      for epoch in range(int(state.step), trial.epochs):
        state, scalars = self.train_epoch(trial, seed, state, epoch, label)
        score = self.dev_score(state.tuned)
        dev = np.array(state.dev)
        is_best = not score <= np.nanmax(np.append(dev, -np.inf))
        dev[epoch] = score
        state = state.replace(
          step=state.step + 1, dev=jnp.asarray(dev), best=state.tuned if is_best else state.best
        )
        state = parallel.replicate(state)
        writer.write(epoch + 1, {**scalars, f"dev/{tasks.MAIN_SCORE[self.run.task.name]}": score})
        checkpoints.save(state)
        checkpoints.wait()
        self.interruption.poll()
    finally:
      writer.close()
      checkpoints.close()
    return state

  def train_epoch(self, trial: Trial, seed: int, state: TuneState, epoch: int, label: str):
    order = np.random.default_rng([seed, epoch])
    epoch_batches = list(batches(self.arrays["train"], trial.batch_size, order))
    total = trial.epochs * len(epoch_batches)
    losses = []
    source = f"loss/{self.run.source_language}"
    with tqdm(
      epoch_batches,
      desc=f"{label} epoch {epoch + 1}/{trial.epochs}",
      unit="step",
      dynamic_ncols=True,
      leave=False,
    ) as bar:
      for number, (_, batch) in enumerate(bar):
        self.interruption.poll()
        left = np.float32(1.0 - (epoch * len(epoch_batches) + number) / total)
        rates = {
          "theta": left * np.float32(trial.learning_rate),
          "phi": left * np.float32(trial.learning_rate),
          "head": left * np.float32(trial.head_learning_rate),
        }
        state, metrics = self.tune_step(state, parallel.split(batch), np.int32(self.source), rates)
        losses.append(metrics["loss"])
        if number % 50 == 49:
          bar.set_postfix_str(f"{source} {float(losses[-2]):.3f}")
    values = [float(value) for value in losses]
    for number, value in enumerate(values):
      if not math.isfinite(value):
        raise NonFiniteLoss(
          f"the loss is {value} at update {number + 1} of epoch {epoch + 1} on "
          f"'{self.run.source_language}' (learning rate {trial.learning_rate:.3g}); the epoch before "
          "is kept. Lower --config.train.learning_rate, in a new --workdir."
        )
    return state, {source: statistics.fmean(values)}

  def test(self, tuned, language: str, predictions_folder: pathlib.Path) -> dict[str, float]:
    """Scores of the selected weights on a test set, which is read here and nowhere else."""
    examples, report = tasks.load(self.run.task, self.model.lab, language, "test")
    arrays, more = tasks.featurise(self.run.task, examples, self.model.tokenizer)
    self.reports[f"test/{language}"] = {**report, **{name: n for name, n in more.items() if n}}
    phi = self.model.phi
    if tuned["phi"]:
      phi = lang.put(jax.tree.map(jnp.asarray, phi), self.source, tuned["phi"])
    target = self.source
    if language in self.model.run.languages:
      target = self.model.language_index(language)
    # The source language's own test goes the way that training went.
    route = self.run.route if language != self.run.source_language else "source"
    theta, phi_i, index = pretrained.routed(tuned["theta"], phi, route, self.source, target)
    scores = self.predict((theta, phi_i, tuned["head"]), arrays, index, self.interruption.poll)
    predicted = tasks.decode(self.run.task, scores, arrays, examples)
    prediction_files.write(predictions_folder, self.run.task.name, language, predicted)
    return tasks.score(self.run.task, examples, predicted)


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
