"""How much arithmetic a step is, counted from shapes: matrix products only, a multiply-add as two.

A backward pass is two forward passes: one for the activations, one for the weights. A compiler's
own count leaves out all but one round of a scan, so the runs report these. Where the gradients of
L languages are combined, their inner products and sum are left out, 2 (L^2 + L) FLOPs a parameter
beside at least 6 a parameter and token.
"""

from negint.masking import num_predicted
from negint.options import ModelOptions, RunOptions


def layer(model: ModelOptions, length: int, queries: int) -> int:
  """FLOPs of one layer over a sequence of `length` tokens, evaluated at `queries` of them."""
  width = model.num_heads * model.head_dim
  total = 2 * model.model_dim * width * (2 * queries + 2 * length)  # q and o, k and v
  total += 2 * 2 * queries * length * width  # scores and context
  total += 2 * 2 * queries * model.model_dim * model.ffn_dim
  if model.has_adapters:
    total += 2 * 2 * 2 * queries * model.model_dim * model.adapter_dim
  return total


def inner_layers(model: ModelOptions, length: int) -> int:
  """FLOPs of one sequence in all layers but the last: what rematerialisation computes again."""
  return (model.num_layers - 1) * layer(model, length, length)


def forward(model: ModelOptions, length: int, predicted: int) -> int:
  """FLOPs of one sequence of `length` tokens with `predicted` rows in the last layer and softmax."""
  softmax = 2 * predicted * model.model_dim * model.vocab_size
  return inner_layers(model, length) + layer(model, length, predicted) + softmax


def step(options: RunOptions) -> int:
  """FLOPs of one training step of the global batch."""
  length = options.data.sequence_length
  sequence = forward(options.model, length, num_predicted(options.mask_rate, length))
  # With rematerialisation every backward pass runs most of its forward pass once more.
  remat = inner_layers(options.model, length) if options.model.remat == "layer" else 0
  gradient = options.sequences_per_step * (3 * sequence + remat)
  if not options.meta.enabled:
    return gradient
  held_out = options.held_out_sequences_per_step * (3 * sequence + remat)
  inner_and_theta = 2 * gradient
  if options.meta.gradient == "first_order":
    # No weight gradients of theta.
    return inner_and_theta + held_out - options.held_out_sequences_per_step * sequence
  # The mixed derivative costs the gradient by phi_i (forward and activations) twice.
  second_order = 2 * options.batch_size * (2 * sequence + remat)
  return inner_and_theta + held_out + second_order
