"""One trial of a fine-tuning run: training with a dev score per epoch, resumable at any update."""

import contextlib
import dataclasses
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from negint.data.sampling import endless_rows
from negint.errors import Interrupted, NonFiniteLoss
from negint.finetuning import heads, programs
from negint.finetuning.batches import batches
from negint.finetuning.data import Inputs
from negint.finetuning.options import FinetuneOptions, Trial
from negint.finetuning.programs import Params, Predictor, ScaledTuneState, TuneState
from negint.finetuning.weights import Tuned
from negint.method import loss_scale, memory, optim, parallel
from negint.method.memory import Choice, Need
from negint.method.phi import select_language
from negint.run.checkpoint import Checkpoints
from negint.run.interrupt import Interruption
from negint.run.progress import progress_bar
from negint.run.records import MetricsWriter
from negint.run.runner import Say

LOWER = (
  "Lower --config.train.batch_size or --config.data.max_length."  # where an update does not fit
)


class TrialState(struct.PyTreeNode):
  """A trial at any moment: what a checkpoint holds. All but `tuning` is on the host."""

  tuning: TuneState  # on the devices; an update takes its memory
  epoch: np.ndarray  # epochs done, int32 scalar
  epoch_start: np.ndarray  # updates done when the current epoch began, int32 scalar
  best: Tuned  # `tuning.tuned` after the best epoch
  dev: np.ndarray  # main score of each epoch, NaN where there is none yet, float32 [epochs]

  @property
  def step(self) -> jax.Array:
    """Updates done, int scalar."""
    return self.tuning.step


@dataclasses.dataclass(frozen=True)
class Shared:
  """What all trials of a run share."""

  run: FinetuneOptions  # what was asked for
  inputs: Inputs  # the model and the data
  interruption: Interruption  # to ask between updates
  source: int  # index of the source language
  phi_i: Params  # its modules as pretrained
  step: parallel.MappedStep  # one update
  predict: Predictor  # scores of a split


def epoch_rows(num_rows: int, epoch_size: int, seed: int, epoch: int) -> np.ndarray:
  """Row numbers of an epoch: the next `epoch_size` of an endless sequence of shuffled passes."""
  size = epoch_size or num_rows

  def order_of_pass(number: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(num_rows)

  return endless_rows(epoch * size, size, num_rows, order_of_pass)


def make_shared(run: FinetuneOptions, inputs: Inputs, interruption: Interruption) -> Shared:
  """Returns what all trials of a run share."""
  model = inputs.model
  source = model.language_index(run.source_language)
  return Shared(
    run,
    inputs,
    interruption,
    source,
    phi_i=parallel.replicate(select_language(model.phi, source)),
    step=programs.make_tune_step(model.model, run.optimiser, run.task),
    predict=programs.make_predictor(model.model, run.task, run.eval_batch_size),
  )


def with_remat(shared: Shared, remat: str) -> Shared:
  """Returns what all trials share where the model has this model.remat."""
  pretrained = shared.inputs.model
  if pretrained.model.remat == remat:
    return shared
  pretrained = dataclasses.replace(pretrained, model=pretrained.model.replace(remat=remat))
  inputs = dataclasses.replace(shared.inputs, model=pretrained)
  return make_shared(shared.run, inputs, shared.interruption)


def init_state(shared: Shared, seed: int) -> TuneState:
  """Returns what the first update of a trial starts from: the pretrained model and a random head."""
  run, model = shared.run, shared.inputs.model
  head_key, key = jax.random.split(jax.random.key(seed))
  tuned = {
    "theta": model.theta,
    "phi": {} if run.freeze_phi else shared.phi_i,
    "head": heads.init_head(head_key, model.model.model_dim, len(shared.inputs.labels)),
  }
  tuned = jax.tree.map(jnp.copy, tuned)  # an update takes their memory, and others hold the model
  transform = optim.adam(run.optimiser)
  state = TuneState(
    step=jnp.zeros((), jnp.int32),
    loss_sum=jnp.zeros(()),
    key=key,
    tuned=tuned,
    slots={group: transform.init(params) for group, params in tuned.items()},
  )
  if loss_scale.needed(model.model.dtype):
    state = ScaledTuneState(**vars(state), loss_scale=loss_scale.first())
  return parallel.replicate(state)


def state_shapes(shared: Shared) -> TuneState:
  """Returns the shapes of the states of a run's trials."""
  shapes: TuneState = jax.eval_shape(lambda: init_state(shared, 0))
  return parallel.replicated_shapes(shapes)


def at_start(tuning: TuneState, best: Tuned, epochs: int) -> TrialState:
  """Returns a trial before its first update, of so many epochs."""
  dev = np.full((epochs,), np.nan, np.float32)
  return TrialState(tuning, np.zeros((), np.int32), np.zeros((), np.int32), best, dev)


def on_host(tree: Params) -> Params:
  """Returns a copy of arrays on the host. What `jax.device_get` returns can share their memory."""
  return jax.tree.map(np.array, tree)


def remat_of(shared: Shared, available: memory.Limit | None) -> Choice:
  """Returns what the updates of a run do about their memory.

  Args:
    shared: the run.
    available: memory of the device.

  Raises:
    UserError: the update of the largest and longest batch does not fit.
  """
  trial = max(shared.run.trials, key=lambda each: each.batch_size)
  return memory.choose(lambda remat: step_need(shared, trial, remat), available, lambda: LOWER)


def step_need(shared: Shared, trial: Trial, remat: str) -> Need:
  """Returns the memory of the update with a trial's longest batch, which is compiled and kept.

  Args:
    shared: the run.
    trial: one of it.
    remat: of the update.
  """
  run, arrays = shared.run, shared.inputs.train.arrays
  longest = np.array([np.argmax(arrays["lengths"])])
  [(_, batch)] = batches(arrays, run.task.targets, trial.batch_size, longest)
  model = shared.inputs.model.model.replace(remat=remat)
  step = programs.make_tune_step(model, run.optimiser, run.task)
  source, rates = np.int32(shared.source), rates_of(trial, 0.0)
  state = state_shapes(shared)
  lowered = step.lower(state, parallel.split(batch), source, shared.phi_i, rates)
  return memory.need_of(lowered.compile())


def dev_score(shared: Shared, tuned: Params) -> float:
  """Returns the main score of the weights on the source language's dev set, in per cent."""
  task, dev = shared.run.task, shared.inputs.dev
  params = (tuned["theta"], tuned["phi"] or shared.phi_i, tuned["head"])
  scores = shared.predict(params, dev.arrays, shared.source, shared.interruption.poll)
  predicted = task.decode(scores, dev.arrays, dev.examples, shared.inputs.labels, shared.run.limits)
  return task.scores(task.per_example(dev.examples, predicted))[task.main_score]


def train(
  shared: Shared, trial: Trial, seed: int, folder: pathlib.Path, say: Say, label: str
) -> TrialState:
  """Returns the state after the trial's last epoch; resumes from its last checkpoint.

  Args:
    shared: the run.
    trial: its setting.
    seed: of the head, of dropout and of the order of rows.
    folder: of the trial, for checkpoints and metrics.
    say: receives sentences for the user.
    label: names the trial to the user.

  Raises:
    Interrupted: after a checkpoint was saved.
    NonFiniteLoss: the loss diverged; the last good checkpoint is kept.
  """
  folder.mkdir(parents=True, exist_ok=True)
  with contextlib.closing(Checkpoints(folder, keep=2)) as checkpoints:
    state = restored(shared, trial, checkpoints, say)
    if state is None:
      tuning = init_state(shared, seed)
      state = at_start(tuning, on_host(tuning.tuned), trial.epochs)
    else:
      say(f"{label}: resumes after update {int(state.step)}, in epoch {int(state.epoch) + 1}.")
    with contextlib.closing(MetricsWriter(folder, int(state.step))) as writer:
      for epoch in range(int(state.epoch), trial.epochs):
        state = train_epoch(shared, trial, seed, state, epoch, checkpoints, label)
        try:
          score = dev_score(shared, state.tuning.tuned)
        except Interrupted:
          checkpoints.save(state)
          checkpoints.wait()
          raise
        loss = epoch_scalars(state, shared.run.source_language)
        state = end_epoch(state, score)
        scalars = {"epoch": epoch + 1, **loss, f"dev/{shared.run.task.main_score}": score}
        writer.write(int(state.step), scalars)
        checkpoints.save(state)
        shared.interruption.poll()
      checkpoints.wait()
  return state


def restored(shared: Shared, trial: Trial, checkpoints: Checkpoints, say: Say) -> TrialState | None:
  """Returns the newest state on disk, or None; arguments and errors as of `train`."""
  shapes = state_shapes(shared)
  like = parallel.replicated_shapes(at_start(shapes, shapes.tuned, trial.epochs))
  state = checkpoints.restore(like, say)
  if state is None:
    return None
  kept = {name: on_host(getattr(state, name)) for name in ("epoch", "epoch_start", "best", "dev")}
  return state.replace(**kept)


def epoch_scalars(state: TrialState, language: str) -> dict[str, float]:
  """Returns the epoch's mean loss, and with a loss scale the scale and the share of skipped steps."""
  steps, tuning = int(state.step) - int(state.epoch_start), state.tuning
  if not isinstance(tuning, ScaledTuneState):
    return {f"loss/{language}": float(tuning.loss_sum) / steps}
  skipped = int(tuning.loss_scale.skipped)
  scalars = {"loss_scale": float(tuning.loss_scale.scale), "skipped_share": skipped / steps}
  if skipped < steps:
    scalars[f"loss/{language}"] = float(tuning.loss_sum) / (steps - skipped)
  return scalars


def end_epoch(state: TrialState, score: float) -> TrialState:
  """Returns the state at the start of the next epoch, with the dev score of the one that ended."""
  dev, epoch, tuning = np.array(state.dev), int(state.epoch), state.tuning
  best_before = np.nanmax(np.append(dev, -np.inf))
  dev[epoch] = score
  # Compared as stored, in float32: argmax(dev) then names the epoch of the best weights, on a tie too.
  is_best = not dev[epoch] <= best_before
  tuning = tuning.replace(loss_sum=jnp.zeros_like(tuning.loss_sum))
  if isinstance(tuning, ScaledTuneState):
    tuning = tuning.replace(loss_scale=tuning.loss_scale.replace(skipped=jnp.zeros((), jnp.int32)))
  return TrialState(
    tuning=parallel.replicate(tuning),
    epoch=np.array(epoch + 1, np.int32),
    epoch_start=np.array(tuning.step),
    best=on_host(tuning.tuned) if is_best else state.best,
    dev=dev,
  )


def train_epoch(
  shared: Shared,
  trial: Trial,
  seed: int,
  state: TrialState,
  epoch: int,
  checkpoints: Checkpoints,
  label: str,
) -> TrialState:
  """Returns the state after the rest of an epoch, from the state's update on.

  Raises:
    Interrupted: after a checkpoint was saved.
    NonFiniteLoss: nothing was saved since the loss was last seen to be finite.
  """
  run, arrays = shared.run, shared.inputs.train.arrays
  rows = epoch_rows(len(arrays["lengths"]), trial.epoch_size, seed, epoch)
  order = np.random.default_rng([seed, epoch, 1])
  epoch_batches = list(batches(arrays, run.task.targets, trial.batch_size, rows, order))
  total, done = len(epoch_batches), int(state.step) - int(state.epoch_start)
  name = f"{label} epoch {epoch + 1}/{trial.epochs}"
  with progress_bar(total=total, initial=done, desc=name, leave=False) as bar:
    for number in range(done, total):
      batch = parallel.split(epoch_batches[number][1])
      rates = rates_of(trial, epoch + number / total)
      source = np.int32(shared.source)
      tuning, metrics = shared.step(state.tuning, batch, source, shared.phi_i, rates)
      state = state.replace(tuning=tuning)
      bar.update()
      stop = shared.interruption.asked()
      # The last update of an epoch is saved with what the epoch's end adds to it.
      due = number + 1 < total and (number + 1) % run.checkpoint_every == 0
      if stop or due:
        check_finite(tuning, trial, epoch, run.source_language)
        checkpoints.save(state)
      if stop:
        checkpoints.wait()
        raise stop
      if number % 50 == 49:
        bar.set_postfix_str(f"loss {float(metrics['loss']):.3f}", refresh=False)
  check_finite(state.tuning, trial, epoch, run.source_language)
  return state


def rates_of(trial: Trial, epochs_done: float) -> dict[str, np.float32]:
  """Returns the learning rate of each group, which falls linearly to zero."""
  left = np.float32(1.0 - epochs_done / trial.epochs)
  encoder = left * np.float32(trial.learning_rate)
  return {"theta": encoder, "phi": encoder, "head": left * np.float32(trial.head_learning_rate)}


def check_finite(state: TuneState, trial: Trial, epoch: int, language: str) -> None:
  """Raises NonFiniteLoss if the epoch's loss is not finite, or was not at the smallest loss scale."""
  if isinstance(state, ScaledTuneState) and state.loss_scale.scale < loss_scale.FLOOR:
    raise NonFiniteLoss(
      f"the loss scale of float16 fell to its floor of {loss_scale.FLOOR:g} in epoch {epoch + 1} on "
      f"'{language}', and the loss or gradient is still not finite at update {int(state.step)} "
      f"(learning rate {trial.learning_rate:.3g}); the checkpoint before is kept. Lower "
      "--config.train.learning_rate, in a new --workdir."
    )
  if not math.isfinite(float(state.loss_sum)):
    raise NonFiniteLoss(
      f"the loss of epoch {epoch + 1} on '{language}' is {float(state.loss_sum)} after update "
      f"{int(state.step)} (learning rate {trial.learning_rate:.3g}); the checkpoint before is kept. "
      "Lower --config.train.learning_rate, in a new --workdir."
    )
