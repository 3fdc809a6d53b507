"""FLOPs of a step, counted from shapes: matrix products only, two FLOPs per multiply-add.

A backward pass counts as two forward passes: one for the activations, one for the weights. Runs
report these counts, because a compiler's own count includes only one round of a scan. The count of
gradient surgery leaves out the inner products and the sum of the L gradients: 2 (L^2 + L) FLOPs per
parameter, beside at least 6 per parameter and token.
"""

from negint.method.masking import num_predicted
from negint.options import ModelOptions, RunOptions


def modules(model: ModelOptions, length: int, queries: int) -> dict[str, int]:
  """FLOPs of the parts of one layer over a sequence of `length` tokens, evaluated at `queries` of them.

  "attention" are its products with weights, and "scores" those of queries, keys and values.
  """
  width = model.num_heads * model.head_dim
  adapters = 2 if model.has_adapters else 0
  return {
    "attention": 2 * model.model_dim * width * (2 * queries + 2 * length),  # q and o, k and v
    "scores": 2 * 2 * queries * length * width,  # and the context
    "ffn": 2 * 2 * queries * model.model_dim * model.ffn_dim,
    "adapter": adapters * 2 * 2 * queries * model.model_dim * model.adapter_dim,
  }


def layer(model: ModelOptions, length: int, queries: int) -> int:
  """FLOPs of one layer over a sequence of `length` tokens, evaluated at `queries` of them."""
  return sum(modules(model, length, queries).values())


def encoder(model: ModelOptions, length: int) -> int:
  """FLOPs of one sequence of `length` tokens in all layers, at every position."""
  return model.num_layers * layer(model, length, length)


def inner_layers(model: ModelOptions, length: int) -> int:
  """FLOPs of one sequence in all layers but the last, which rematerialisation computes again."""
  return (model.num_layers - 1) * layer(model, length, length)


def forward(model: ModelOptions, length: int, predicted: int) -> int:
  """FLOPs of one sequence of `length` tokens with `predicted` rows in the last layer and softmax."""
  softmax = 2 * predicted * model.model_dim * model.vocab_size
  if model.softmax_transform != "none":
    softmax += 2 * predicted * model.model_dim**2
  return inner_layers(model, length) + layer(model, length, predicted) + softmax


def products_with_phi(model: ModelOptions, length: int, predicted: int) -> int:
  """FLOPs of a forward pass in products with phi, as many as the gradients of phi's weights take."""

  def of_layer(queries: int) -> int:
    parts = modules(model, length, queries)
    return sum(parts[name] for name in model.specific)

  return (model.num_layers - 1) * of_layer(length) + of_layer(predicted)


def computed_again(model: ModelOptions, length: int) -> int:
  """FLOPs of one sequence that a backward pass adds for rematerialisation: most of a forward pass."""
  return inner_layers(model, length) if model.remat == "layer" else 0


def gradient(options: RunOptions) -> int:
  """FLOPs of the masked loss of one training sequence and its gradient by all parameters."""
  length = options.data.sequence_length
  predicted = num_predicted(options.mask_rate, length)
  return 3 * forward(options.model, length, predicted) + computed_again(options.model, length)


def step(options: RunOptions) -> int:
  """FLOPs of one training step of the global batch."""
  length = options.data.sequence_length
  predicted = num_predicted(options.mask_rate, length)
  sequence = forward(options.model, length, predicted)
  again = computed_again(options.model, length)
  # A gradient by phi alone: a backward pass without the weight gradients of theta.
  by_phi = 2 * sequence + again + products_with_phi(options.model, length, predicted)
  if options.freeze_theta:
    return (options.sequences_per_step + options.held_out_sequences_per_step) * by_phi
  held_out = options.held_out_sequences_per_step * gradient(options)
  of_phi_alone = options.held_out_sequences_per_step * by_phi
  if not options.meta.enabled:
    return options.sequences_per_step * gradient(options) + of_phi_alone
  # The inner gradient and theta's: of one batch in the paper, of two in the release.
  inner_and_theta = 2 * options.batch_size * gradient(options)
  if options.meta.gradient == "first_order":
    return inner_and_theta + of_phi_alone
  mixed = mixed_derivative(options.meta.gradient, sequence, again, by_phi)
  return inner_and_theta + held_out + options.batch_size * mixed


def mixed_derivative(gradient: str, sequence: int, again: int, by_phi: int) -> int:
  """FLOPs per sequence of the meta-gradient's second-order term.

  A finite difference takes two gradients by phi_i. The exact routes add two products to each product
  of a forward and a backward pass.
  The compiler takes these passes from the inner gradient; with rematerialisation it computes them
  once more.

  Args:
    gradient: route, one of options.META_GRADIENTS without first_order.
    sequence: FLOPs of a forward pass.
    again: FLOPs of the layers that rematerialisation computes again; 0 without it.
    by_phi: FLOPs of a gradient by phi_i alone.
  """
  if gradient == "finite_difference":
    return 2 * by_phi
  if not again:
    return 4 * sequence
  return 6 * sequence + {"forward_over_reverse": 3, "grad_of_grad": 5}[gradient] * again
