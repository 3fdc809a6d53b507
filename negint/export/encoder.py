"""A model of ours as an encoder that transformers computes, at most with adapters beside it.

That is XLM's, or BERT's or XLM-R's for a model that was started from one of these. XLM's model of one
language has no language embedding, its heads are D / H wide, and its feed-forward layers 4 D. Each
difference is met by an exact rewriting, so the logits stay the same.

D is the model's width, H the number of heads, F the width of the feed-forward layers, L the number of
languages. theta are the parameters that all languages share, phi those of each language.
"""

from typing import NamedTuple

import jax
import numpy as np
from flax import traverse_util

from negint.errors import UserError
from negint.method.phi import merge_params, split_params
from negint.method.tree import Tree
from negint.options import ModelOptions

ADAPTER = ("adapter",)
# The axis of each parameter that counts the heads' columns, and that of the feed-forward's neurons.
HEAD_AXES = {
  **{("attention", name, "kernel"): 1 for name in ("query", "key", "value")},
  **{("attention", name, "bias"): 0 for name in ("query", "key", "value")},
  ("attention", "output", "kernel"): 0,
}
NEURON_AXES = {
  ("ffn", "inner", "kernel"): 1,
  ("ffn", "inner", "bias"): 0,
  ("ffn", "outer", "kernel"): 0,
}


class Encoder(NamedTuple):
  """An encoder that transformers has."""

  family: str  # its model_type: "xlm", "bert" or "xlm-roberta"
  options: ModelOptions  # `specific` is ADAPTER or ()
  theta: Tree  # nested dict of arrays, without adapters
  phi: Tree  # nested dict of arrays [L, ...], the adapters; {} without adapters


def family_of(options: ModelOptions) -> str:
  """Returns the model_type of transformers that has a model's embeddings and softmax."""
  if options.position_offset:
    return "xlm-roberta"
  is_xlm = (
    options.softmax_transform == "none"
    and options.tied_softmax
    and not options.token_types
    and options.norm_epsilon == 1e-12
  )
  return "xlm" if is_xlm else "bert"


def is_shared(options: ModelOptions) -> bool:
  """Returns whether one folder can hold several languages: they differ in adapters or in `langs`."""
  embedded = options.language_embedding and family_of(options) != "xlm"
  return not embedded and set(options.specific) <= set(ADAPTER)


def of_all_languages(options: ModelOptions, theta: Tree, phi: Tree) -> Encoder:
  """Returns the encoder that all languages share.

  transformers adds a language embedding only where it is given `langs`. The position embeddings take in
  that of the first language, so that without `langs` the model computes this language.

  Args:
    options: shape of the model; phi holds nothing but adapters.
    theta: nested dict of arrays.
    phi: nested dict of arrays [L, ...].

  Raises:
    UserError: XLM's encoder cannot have this shape.
  """
  if options.shared_adapter:
    theta, shared = split_params(theta, ADAPTER)
    phi = jax.tree.map(lambda leaf: np.stack([leaf] * options.num_languages), shared)
  if options.language_embedding:
    table = theta["language"]
    theta = {**theta, "position": theta["position"] + table[:1], "language": table - table[:1]}
  return _finished(options, theta, phi)


def of_one_language(options: ModelOptions, theta: Tree, phi_i: Tree, index: int) -> Encoder:
  """Returns the encoder of one language; phi_i and its language embedding are merged into theta.

  Args:
    options: shape of the model.
    theta: nested dict of arrays.
    phi_i: nested dict of arrays, the language's parameters.
    index: row of the language embedding.

  Raises:
    UserError: XLM's encoder cannot have this shape.
  """
  theta, adapters = split_params(merge_params(theta, phi_i), ADAPTER)
  if options.language_embedding:
    table = theta.pop("language")
    theta = {**theta, "position": theta["position"] + table[index][None]}
  phi = jax.tree.map(lambda leaf: leaf[None], adapters)
  return _finished(options.replace(num_languages=1, language_embedding=False), theta, phi)


def _finished(options: ModelOptions, theta: Tree, phi: Tree) -> Encoder:
  """Returns the encoder in the shape of its family; phi holds nothing but adapters."""
  family = family_of(options)
  if family == "xlm":
    options, theta = _in_xlms_shape(options, theta)
  options = options.replace(specific=ADAPTER if phi else (), shared_adapter=False)
  theta, phi = jax.tree.map(np.asarray, (theta, phi))
  return Encoder(family, options, theta, phi)


def _in_xlms_shape(options: ModelOptions, theta: Tree) -> tuple[ModelOptions, Tree]:
  """Returns (options, theta) with heads and feed-forward layers as wide as XLM's, filled with zeros.

  Raises:
    UserError: they are wider already, or no number of heads fits.
  """
  width = options.model_dim
  fitting = [
    heads
    for heads in range(options.num_heads, width + 1)
    if width % heads == 0 and width // heads >= options.head_dim
  ]
  if not fitting:
    raise UserError(
      f"The model has {options.num_heads} heads of {options.head_dim} and is {width} wide, but the "
      f"heads of every encoder in transformers make up its width, and {width} has no such parts; "
      "export a model that was trained with heads that divide model.model_dim, such as "
      f"--config.model.num_heads=8 --config.model.head_dim={width // 8}."
    )
  if options.ffn_dim > 4 * width:
    raise UserError(
      f"model.ffn_dim is {options.ffn_dim}, but XLM's feed-forward layers in transformers are 4 x "
      f"{width} = {4 * width} wide; export a model with at most that many neurons."
    )
  old, new = (options.num_heads, options.head_dim), (fitting[0], width // fitting[0])
  # Scores are divided by the root of the head's width.
  scale = (new[1] / old[1]) ** 0.5

  def fitted(path: tuple[str, ...], leaf: np.ndarray) -> np.ndarray:
    leaf = np.asarray(leaf)
    part = path[1:]  # without the layer
    if part in NEURON_AXES:
      return _widened(leaf, NEURON_AXES[part], (options.ffn_dim,), (4 * width,))
    if part in HEAD_AXES:
      leaf = _widened(leaf, HEAD_AXES[part], old, new)
      return leaf * leaf.dtype.type(scale) if part[1] == "query" else leaf
    return leaf

  leaves = traverse_util.flatten_dict(theta)
  theta = traverse_util.unflatten_dict({path: fitted(path, leaf) for path, leaf in leaves.items()})
  return options.replace(num_heads=new[0], head_dim=new[1], ffn_dim=4 * width), theta


def _widened(leaf: np.ndarray, axis: int, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
  """Returns an array with an axis of the sizes `old` filled up with zeros to the sizes `new`."""
  before, after = leaf.shape[:axis], leaf.shape[axis + 1 :]
  pads = [(0, to - size) for size, to in zip(old, new, strict=True)]
  around = [(0, 0)] * len(before), [(0, 0)] * len(after)
  filled = np.pad(leaf.reshape(*before, *old, *after), [*around[0], *pads, *around[1]])
  return filled.reshape(*before, -1, *after)
