"""The two compiled functions of a run: an update, and the scores of a split."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from negint.finetuning import heads
from negint.finetuning.batches import batches
from negint.method import loss_scale, optim, parallel
from negint.method.phi import merge_params
from negint.options import AdamOptions, ModelOptions
from negint.tasks.features import Arrays
from negint.tasks.task import Batch, Task

# Any: trees of arrays.
Params = Any
# ((theta, phi_i, head), arrays, language, poll) -> scores of all rows
Predictor = Callable[
  [tuple[Params, Params, heads.Head], Arrays, int, Callable[[], None]], np.ndarray
]


class TuneState(struct.PyTreeNode):
  """What an update of a trial changes."""

  step: jax.Array  # updates done, int scalar
  loss_sum: jax.Array  # sum of the losses of the current epoch
  key: jax.Array  # of dropout
  tuned: Params  # {"theta", "phi": the source language's slice, empty if frozen; "head"}
  slots: Params  # Adam's state for each group of `tuned`


class ScaledTuneState(TuneState):
  """The same of a model that computes in float16."""

  loss_scale: loss_scale.LossScale  # of the loss; counts the skipped steps of the current epoch


@functools.lru_cache(maxsize=1)  # the step whose memory was looked at is the one that trains
def make_tune_step(model: ModelOptions, optimiser: AdamOptions, task: Task) -> parallel.MappedStep:
  """Returns (state, batch, language, phi_i, rates) -> (state, metrics), one compiled update.

  In it, `phi_i` is read only if phi is frozen, and `rates` is {group: rate}. Both are arguments, so
  that all trials with one shape of batch share one compilation. The state's memory is donated.
  """

  def step(
    state: TuneState, batch: Batch, language: jax.Array, phi_i: Params, rates: dict[str, jax.Array]
  ) -> tuple[TuneState, dict[str, jax.Array]]:
    key = jax.random.fold_in(state.key, state.step)
    dropout = model.dropout or model.attention_dropout
    dropout_key = parallel.device_key(key) if dropout else None

    def loss(tuned: Params) -> jax.Array:
      params = merge_params(tuned["theta"], tuned["phi"] or phi_i)
      scores = heads.logits(
        model,
        params,
        tuned["head"],
        batch,
        language,
        first_position=task.first_position,
        dropout_key=dropout_key,
      )
      total, count = task.loss(scores, batch)
      return total / jnp.maximum(parallel.mean(count), 1.0)

    derivative = loss_scale.value_and_grad(loss, 0, loss_scale.scale_of(state))
    value, gradient = parallel.mean(derivative(state.tuned))
    gradient, norm = optim.clip(gradient, optimiser.clip_norm)
    moved = {
      group: optim.update(
        optimiser, rates[group], state.tuned[group], state.slots[group], gradient[group]
      )
      for group in state.tuned
    }
    after = state.replace(
      step=state.step + 1,
      loss_sum=state.loss_sum + value,
      tuned={group: params for group, (params, _) in moved.items()},
      slots={group: slots for group, (_, slots) in moved.items()},
    )
    if loss_scale.needed(model.dtype):
      return loss_scale.settled(state, after, {"loss": value, "gradient_norm": norm})
    return after, {"loss": value}

  return parallel.pmap_step(step, donate_state=True)


def make_scores(model: ModelOptions, task: Task) -> Callable[..., np.ndarray]:
  """Returns ((theta, phi_i, head), split batch, language) -> scores of the batch's rows, compiled."""

  def scores(
    params: tuple[Params, Params, heads.Head], batch: Batch, language: jax.Array
  ) -> jax.Array:
    theta, phi_i, head = params
    merged = merge_params(theta, phi_i)
    return heads.logits(model, merged, head, batch, language, first_position=task.first_position)

  return parallel.pmap_rows(scores)


def make_predictor(model: ModelOptions, task: Task, batch_size: int) -> Predictor:
  """Returns ((theta, phi_i, head), arrays, language, poll) -> scores of all rows.

  In it, `poll` is called before each batch. The scores have the shape that `task.decode` takes;
  those of the padding are the lowest float.
  """
  mapped = make_scores(model, task)

  def predict(
    params: tuple[Params, Params, heads.Head],
    arrays: Arrays,
    language: int,
    poll: Callable[[], None],
  ) -> np.ndarray:
    params = parallel.replicate(params)
    num_rows, length = arrays["tokens"].shape
    shape = params[2]["bias"].shape if task.first_position else (length, *params[2]["bias"].shape)
    result = np.full((num_rows, *shape), np.finfo(np.float32).min, np.float32)
    for rows, batch in batches(arrays, (), batch_size, np.arange(num_rows)):
      poll()
      part = mapped(params, parallel.split(batch), np.int32(language))[: len(rows)]
      if task.first_position:
        result[rows] = part
      else:
        result[rows, : part.shape[1]] = part
    return result

  return predict
