"""FLOPs of a step, counted from shapes: matrix products only, two FLOPs per multiply-add.

A backward pass counts as two forward passes: one for the activations, one for the weights. Runs
report these counts, because a compiler's own count includes only one round of a scan. The count of
gradient surgery leaves out the inner products and the sum of the L gradients: 2 (L^2 + L) FLOPs per
parameter, beside at least 6 per parameter and token.
"""

from negint.method.masking import num_predicted
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
  """FLOPs of one sequence in all layers but the last, which rematerialisation computes again."""
  return (model.num_layers - 1) * layer(model, length, length)


def forward(model: ModelOptions, length: int, predicted: int) -> int:
  """FLOPs of one sequence of `length` tokens with `predicted` rows in the last layer and softmax."""
  softmax = 2 * predicted * model.model_dim * model.vocab_size
  if model.softmax_transform != "none":
    softmax += 2 * predicted * model.model_dim**2
  return inner_layers(model, length) + layer(model, length, predicted) + softmax


def step(options: RunOptions) -> int:
  """FLOPs of one training step of the global batch."""
  length = options.data.sequence_length
  sequence = forward(options.model, length, num_predicted(options.mask_rate, length))
  # With rematerialisation every backward pass runs most of its forward pass once more.
  again = inner_layers(options.model, length) if options.model.remat == "layer" else 0
  if options.freeze_theta:  # a backward pass without the weight gradients of theta
    sequences = options.sequences_per_step + options.held_out_sequences_per_step
    return sequences * (2 * sequence + again)
  held_out = options.held_out_sequences_per_step * (3 * sequence + again)
  of_phi_alone = held_out - options.held_out_sequences_per_step * sequence  # theta: no gradients
  if not options.meta.enabled:
    return options.sequences_per_step * (3 * sequence + again) + of_phi_alone
  # The inner gradient and theta's: of one batch in the paper, of two in the release.
  inner_and_theta = 2 * options.batch_size * (3 * sequence + again)
  if options.meta.gradient == "first_order":
    return inner_and_theta + of_phi_alone
  mixed = mixed_derivative(options.meta.gradient, sequence, again)
  return inner_and_theta + held_out + options.batch_size * mixed


def mixed_derivative(gradient: str, sequence: int, again: int) -> int:
  """FLOPs per sequence of the meta-gradient's second-order term.

  A finite difference takes two gradients by phi_i: each a forward pass and the activations' half of
  a backward pass. The exact routes add two products to each product of a forward and a backward pass.
  The compiler takes these passes from the inner gradient; with rematerialisation it computes them
  once more.

  Args:
    gradient: route, one of options.META_GRADIENTS without first_order.
    sequence: FLOPs of a forward pass.
    again: FLOPs of the layers that rematerialisation computes again; 0 without it.
  """
  if gradient == "finite_difference" or not again:
    return 4 * sequence + 2 * again
  return 6 * sequence + {"forward_over_reverse": 3, "grad_of_grad": 5}[gradient] * again
