"""Training and testing one trial of a fine-tuning run, resumable at any update.

Owns batches by width, the update, prediction over a split, and `Tuner`, which keeps what the trials
of a run share. What is tried and selected is `finetune.py`'s business.
"""

import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from negint.data.sampling import endless_rows
from negint.errors import Interrupted, NonFiniteLoss
from negint.finetuning import heads
from negint.finetuning.options import FinetuneOptions, Trial
from negint.method import optim, parallel
from negint.method.phi import merge_params, put_language, select_language
from negint.options import AdamOptions, ModelOptions
from negint.pretrained.load import Pretrained, routed
from negint.run.checkpoint import Checkpoints
from negint.run.progress import progress_bar
from negint.run.records import MetricsWriter
from negint.special_tokens import PAD
from negint.tasks import predictions
from negint.tasks import table as tasks

SHORTEST_ROW = 32  # widths of batches are this, doubled until max_length


@struct.dataclass
class TuneState:
  """A trial at any moment.

  step: updates done, int scalar. epoch: epochs done. loss_sum: of the losses of the epoch under
  way. key: of dropout. tuned: {"theta", "phi" (the source language's slice; empty if frozen),
  "head"}; slots: its Adam slots by group; best: `tuned` after the best epoch; dev: main score of
  each epoch, NaN where there is none yet, [epochs]; epoch_start: step at which the epoch under way
  began.
  """

  step: jax.Array
  epoch: jax.Array
  epoch_start: jax.Array
  loss_sum: jax.Array
  key: jax.Array
  tuned: Any
  slots: Any
  best: Any
  dev: jax.Array


def epoch_rows(num_rows: int, epoch_size: int, seed: int, epoch: int) -> np.ndarray:
  """Row numbers of an epoch: the next `epoch_size` of an endless sequence of shuffled passes."""
  size = epoch_size or num_rows

  def order_of_pass(number: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(num_rows)

  return endless_rows(epoch * size, size, num_rows, order_of_pass)


def batches(arrays: dict, batch_size: int, rows: np.ndarray, order=None):
  """Rows by width: yields (row numbers, batch) with `tokens` cut to the batch's width.

  Args:
    arrays: of features.py, rows first.
    batch_size: rows; a last batch of a width is filled up with rows of length 0.
    rows: numbers of the rows to visit.
    order: np.random.Generator that shuffles the batches; None keeps them by width.
  """
  lengths, longest = arrays["lengths"], arrays["tokens"].shape[1]
  widths = np.full(len(lengths), SHORTEST_ROW)
  while np.any(short := (widths < lengths)):
    widths[short] *= 2
  widths = np.minimum(widths, longest)
  chunks = []
  for width in np.unique(widths[rows]):
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


def make_tune_step(model: ModelOptions, optimiser: AdamOptions, task: str):
  """(state, batch, language, phi_i, rates) -> (state, metrics): one update.

  phi_i: where it is frozen; read only there. rates: {group: rate}. Both are arguments, so that one
  compilation serves every trial of a batch's shape.
  """

  def step(state: TuneState, batch, language, phi_i, rates):
    key = jax.random.fold_in(state.key, state.step)
    dropout = model.dropout or model.attention_dropout
    dropout_key = parallel.device_key(key) if dropout else None

    def loss(tuned):
      params = merge_params(tuned["theta"], tuned["phi"] or phi_i)
      scores = heads.logits(model, params, tuned["head"], task, batch, language, dropout_key)
      total, count = heads.loss(task, scores, batch)
      return total / jnp.maximum(parallel.mean(count), 1.0)

    value, gradient = parallel.mean(jax.value_and_grad(loss)(state.tuned))
    gradient, _ = optim.clip(gradient, optimiser.clip_norm)
    moved = {
      group: optim.update(
        optimiser, rates[group], state.tuned[group], state.slots[group], gradient[group]
      )
      for group in state.tuned
    }
    state = state.replace(
      step=state.step + 1,
      loss_sum=state.loss_sum + value,
      tuned={group: params for group, (params, _) in moved.items()},
      slots={group: slots for group, (_, slots) in moved.items()},
    )
    return state, {"loss": value}

  return parallel.pmap_step(step, donate_state=False)


def make_predictor(model: ModelOptions, task: str, batch_size: int):
  """(theta, phi_i, head), arrays, language -> scores of all rows, padded to max_length."""

  def scores(params, batch, language):
    theta, phi_i, head = params
    return heads.logits(model, merge_params(theta, phi_i), head, task, batch, language)

  mapped = parallel.pmap_rows(scores)

  def predict(params, arrays, language, poll):
    params = parallel.replicate(params)
    result = None
    everything = np.arange(len(arrays["lengths"]))
    for rows, batch in batches(arrays, batch_size, everything):
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

  def __init__(self, run: FinetuneOptions, model: Pretrained, data, interruption):
    self.run, self.model, self.interruption = run, model, interruption
    self.source = model.language_index(run.source_language)
    self.phi_i = parallel.replicate(select_language(model.phi, self.source))
    self.reports, self.counts = {}, {split: len(examples) for split, (examples, _) in data.items()}
    self.examples = {split: examples for split, (examples, _) in data.items()}
    self.arrays = {}
    tokenizer = model.tokenizer.for_language(run.source_language)
    for split, (examples, report) in data.items():
      self.arrays[split], more = tasks.featurise(run.task, examples, tokenizer)
      self.reports[split] = {**report, **{name: n for name, n in more.items() if n}}
    self.tune_step = make_tune_step(model.model, run.optimiser, run.task.name)
    self.predict = make_predictor(model.model, run.task.name, run.eval_batch_size)

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
        epoch=jnp.zeros((), jnp.int32),
        epoch_start=jnp.zeros((), jnp.int32),
        loss_sum=jnp.zeros(()),
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
    """Trains one trial, from its last checkpoint on; returns the state after the last epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder, keep=2)
    state = self.init_state(trial, seed)
    restored = checkpoints.restore(state, say)
    if restored is not None:
      state = restored
      say(f"{label}: going on after update {int(state.step)}, epoch {int(state.epoch) + 1}.")
    writer = MetricsWriter(folder, int(state.step))
    main_score = f"dev/{tasks.MAIN_SCORE[self.run.task.name]}"
    try:
      for epoch in range(int(state.epoch), trial.epochs):
        state = self.train_epoch(trial, seed, state, epoch, checkpoints, label)
        try:
          score = self.dev_score(state.tuned)
        except Interrupted:
          checkpoints.save(state)
          checkpoints.wait()
          raise
        dev = np.array(state.dev)
        is_best = not score <= np.nanmax(np.append(dev, -np.inf))
        dev[epoch] = score
        updates = int(state.step) - int(state.epoch_start)
        loss = float(state.loss_sum) / updates
        state = parallel.replicate(
          state.replace(
            epoch=state.epoch + 1,
            epoch_start=state.step,
            loss_sum=jnp.zeros_like(state.loss_sum),
            dev=jnp.asarray(dev),
            best=state.tuned if is_best else state.best,
          )
        )
        scalars = {f"loss/{self.run.source_language}": loss, main_score: score}
        writer.write(int(state.step), {"epoch": epoch + 1, **scalars})
        checkpoints.save(state)
        self.interruption.poll()
      checkpoints.wait()
    finally:
      writer.close()
      checkpoints.close()
    return state

  def train_epoch(self, trial: Trial, seed: int, state: TuneState, epoch, checkpoints, label):
    """The rest of an epoch, from the state's update on.

    Raises:
      Interrupted: after a checkpoint was saved.
      NonFiniteLoss: with nothing saved since the loss was last seen to be finite.
    """
    rows = epoch_rows(len(self.arrays["train"]["lengths"]), trial.epoch_size, seed, epoch)
    order = np.random.default_rng([seed, epoch, 1])
    epoch_batches = list(batches(self.arrays["train"], trial.batch_size, rows, order))
    done = int(state.step) - int(state.epoch_start)
    with progress_bar(
      total=len(epoch_batches),
      initial=done,
      desc=f"{label} epoch {epoch + 1}/{trial.epochs}",
      leave=False,
    ) as bar:
      for number in range(done, len(epoch_batches)):
        left = np.float32(1.0 - (epoch + number / len(epoch_batches)) / trial.epochs)
        rates = {
          "theta": left * np.float32(trial.learning_rate),
          "phi": left * np.float32(trial.learning_rate),
          "head": left * np.float32(trial.head_learning_rate),
        }
        batch = parallel.split(epoch_batches[number][1])
        state, metrics = self.tune_step(state, batch, np.int32(self.source), self.phi_i, rates)
        bar.update()
        stop = self.interruption.signal_name
        # The last update of an epoch is saved with what the epoch's end adds to it.
        between = number + 1 < len(epoch_batches)
        if stop or (between and (number + 1) % self.run.checkpoint_every == 0):
          self.check_finite(state, trial, epoch)
          checkpoints.save(state)
        if stop:
          checkpoints.wait()
          self.interruption.poll()
        if number % 50 == 49:
          bar.set_postfix_str(f"loss {float(metrics['loss']):.3f}", refresh=False)
    self.check_finite(state, trial, epoch)
    return state

  def check_finite(self, state: TuneState, trial: Trial, epoch: int):
    if not math.isfinite(float(state.loss_sum)):
      raise NonFiniteLoss(
        f"the loss of epoch {epoch + 1} on '{self.run.source_language}' is {float(state.loss_sum)} "
        f"after update {int(state.step)} (learning rate {trial.learning_rate:.3g}); the checkpoint "
        "before is kept. Lower --config.train.learning_rate, in a new --workdir."
      )

  def test(self, tuned, language: str, folder: pathlib.Path) -> dict[str, float]:
    """Scores of the selected weights on a test set, which is read here and nowhere else.

    Writes `predictions/` and `per_example/` of the language in the folder.
    """
    examples, report = tasks.load(self.run.task, self.model.lab, language, "test")
    tokenizer = self.model.tokenizer.for_language(language)
    arrays, more = tasks.featurise(self.run.task, examples, tokenizer)
    self.counts[f"test/{language}"] = len(examples)
    self.reports[f"test/{language}"] = {**report, **{name: n for name, n in more.items() if n}}
    phi = self.model.phi
    if tuned["phi"]:
      phi = put_language(jax.tree.map(jnp.asarray, phi), self.source, tuned["phi"])
    target = self.model.language_index(language) if self.model.speaks(language) else self.source
    # The source language's own test goes the way that training went.
    route = self.run.route if language != self.run.source_language else "source"
    theta, phi_i, index = routed(tuned["theta"], phi, route, self.source, target)
    scores = self.predict((theta, phi_i, tuned["head"]), arrays, index, self.interruption.poll)
    predicted = tasks.decode(self.run.task, scores, arrays, examples)
    predictions.write(folder / "predictions", self.run.task.name, language, predicted)
    tasks.write_per_example(folder, self.run.task, language, examples, predicted)
    return tasks.score(self.run.task, examples, predicted)
