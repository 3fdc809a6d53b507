"""A rough count of the memory of a training step, to say which option would lower it most.

It counts what a backward pass keeps, from shapes alone. It is no prediction: XLA reuses and fuses
buffers. launch/benchmarks has measured numbers.
"""

import dataclasses
from collections.abc import Iterator

from negint.method.masking import num_predicted
from negint.options import HALF_DTYPES, ModelOptions, RunOptions

WORTH_NAMING = 0.95  # an option is named if it lowers the count at least to this share
# How many times what the training batch keeps is held, by the route of the meta-gradient.
_COPIES = {
  "grad_of_grad": 3,
  "forward_over_reverse": 2,
  "finite_difference": 1,
  "first_order": 1,
}


def _kept_values(model: ModelOptions, length: int) -> int:
  """Returns the numbers that the backward pass of one sequence keeps, without the softmax."""
  width = model.num_heads * model.head_dim
  layer = length * (
    5 * model.model_dim + 4 * width + 2 * model.ffn_dim + 2 * model.num_heads * length
  )
  if model.has_adapters:
    layer += length * 4 * (model.model_dim + model.adapter_dim)
  if model.remat == "layer":
    return model.num_layers * length * model.model_dim + layer
  return model.num_layers * layer


def _sequence(model: ModelOptions, length: int, predicted: int) -> int:
  """Returns the bytes that one training sequence keeps; the softmax is float32, and its gradient."""
  size = 2 if model.dtype in HALF_DTYPES else 4
  return size * _kept_values(model, length) + 2 * 4 * predicted * model.vocab_size


def step_bytes(run: RunOptions, num_devices: int) -> int:
  """Returns about the bytes of activations that one device holds in a step or in an evaluation."""
  length = run.data.sequence_length
  sequence = _sequence(run.model, length, num_predicted(run.mask_rate, length))
  share = num_devices * run.accumulate
  step = sequence * run.batch_size / share
  if run.meta.enabled:
    step *= _COPIES[run.meta.gradient]
  if run.held_out_languages:
    step += sequence * run.meta.batch_size / share
  one_layer = run.model.replace(num_layers=1, remat="none")  # nothing is kept for later layers
  evaluation = _sequence(one_layer, length, num_predicted(0.15, length)) * run.eval_batch_size
  return int(max(step, evaluation / num_devices))


def remedies(run: RunOptions, num_devices: int) -> list[tuple[str, float]]:
  """Returns (flags, share of `step_bytes` that they leave), the most helpful first.

  An option that would not help is left out.
  """
  before = step_bytes(run, num_devices)
  shares = [
    (flags, step_bytes(changed, num_devices) / before)
    for flags, changed in _changes(run, num_devices)
  ]
  return sorted(
    ((flags, share) for flags, share in shares if share <= WORTH_NAMING), key=lambda each: each[1]
  )


def _changes(run: RunOptions, num_devices: int) -> Iterator[tuple[str, RunOptions]]:
  """Yields flags and the options that they make; all of them are legal for the run."""
  if run.model.remat == "none":
    yield "--config.model.remat=layer", _replace(run, model=run.model.replace(remat="layer"))
  parts = 2 * run.accumulate
  batches = [run.batch_size, *([run.meta.batch_size] if run.held_out_languages else [])]
  if all(size % (num_devices * parts) == 0 for size in batches):
    yield f"--config.train.accumulate={parts}", _replace(run, accumulate=parts)
  unit = num_devices * run.accumulate
  if half := _half(run.batch_size, unit):
    yield f"--config.train.batch_size={half}", _replace(run, batch_size=half)
  if run.model.dtype == "float32" and run.meta.gradient != "finite_difference":
    bfloat16 = _replace(run, model=run.model.replace(dtype="bfloat16"))
    yield "--config.model.dtype=bfloat16", bfloat16
  if run.held_out_languages and (half := _half(run.meta.batch_size, unit)):
    meta = dataclasses.replace(run.meta, batch_size=half)
    yield f"--config.meta.batch_size={half}", _replace(run, meta=meta)
  if half := _half(run.eval_batch_size, num_devices):
    yield f"--config.eval.batch_size={half}", _replace(run, eval_batch_size=half)


def _half(size: int, unit: int) -> int:
  """Returns about half of a batch size, a multiple of `unit`; 0 if there is none."""
  return size // 2 // unit * unit


def _replace(run: RunOptions, **changes: object) -> RunOptions:
  return dataclasses.replace(run, **changes)  # type: ignore[arg-type]  # of the fields' types
