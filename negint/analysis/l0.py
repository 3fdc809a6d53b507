"""Hard-concrete gates (Louizos et al., 2017) on the weights of a frozen encoder.

A gate is a number from 0 (closed: its weights are pruned) to 1 (open). It is drawn from a
distribution with one parameter, log_alpha (the paper's pi): the larger, the more surely it is open.
A mask is a tree {layer: {module: {name: array}}}, of log_alpha or of gates.

The granularity says which weights one gate multiplies:
  unit    an attention head, or a neuron of the feed-forward layer
  row     an output neuron of a projection (a row of W in y = W x + b, with its bias)
  weight  a single weight
Embeddings, LayerNorms and adapters are never masked.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from negint.options import ModelOptions

GAMMA, ZETA = -0.1, 1.1  # a gate is stretched to this interval and then clipped to 0..1
TEMPERATURE = 2 / 3  # beta of the concrete distribution
UNIFORM_CLIP = 1e-6  # uniform numbers stay this far from 0 and 1, where their logit is infinite
LOG_ALPHA_LIMIT = math.log(100)  # log_alpha stays within +- this, so that a gate can still turn
START_STD = 0.01  # of log_alpha, which starts around 0: a gate is as likely above 1/2 as below
GRANULARITIES = ("unit", "row", "weight")

Mask = Any  # a tree of arrays; JAX has no type for one


def sample_gates(key: jax.Array, log_alpha: Mask) -> Mask:
  """Returns one sample of every gate, in 0..1, differentiable in log_alpha.

  Louizos et al. (2017), Eqs. 10-11 (https://arxiv.org/abs/1712.01312).
  """
  leaves, structure = jax.tree.flatten(log_alpha)
  keys = jax.random.split(key, len(leaves))

  def draw(key: jax.Array, leaf: jax.Array) -> jax.Array:
    u = jax.random.uniform(key, leaf.shape, leaf.dtype, UNIFORM_CLIP, 1 - UNIFORM_CLIP)
    concrete = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + leaf) / TEMPERATURE)
    return jnp.clip(concrete * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)

  return jax.tree.unflatten(
    structure, [draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)]
  )


def deterministic_gates(log_alpha: Mask) -> Mask:
  """Returns the gates of a pruned model: 0 for log_alpha below -2.398, 1 above 2.398.

  Louizos et al. (2017), Eq. 13.
  """
  return jax.tree.map(
    lambda leaf: jnp.clip(jax.nn.sigmoid(leaf) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0), log_alpha
  )


def open_probability(log_alpha: Mask) -> Mask:
  """Returns the probability that each gate is not zero; their sum is the expected L0 norm.

  Louizos et al. (2017), Eq. 12.
  """
  shift = TEMPERATURE * math.log(-GAMMA / ZETA)
  return jax.tree.map(lambda leaf: jax.nn.sigmoid(leaf - shift), log_alpha)


def gate_shapes(model: ModelOptions, granularity: str) -> dict:
  """Returns the shapes of all gates: {layer: {module: {name: shape}}}."""
  width = model.num_heads * model.head_dim
  kernels = {
    "attention": {
      "query": (model.model_dim, width),
      "key": (model.model_dim, width),
      "value": (model.model_dim, width),
      "output": (width, model.model_dim),
    },
    "ffn": {
      "inner": (model.model_dim, model.ffn_dim),
      "outer": (model.ffn_dim, model.model_dim),
    },
  }
  layer = {
    "unit": {"attention": {"head": (model.num_heads,)}, "ffn": {"neuron": (model.ffn_dim,)}},
    "row": {m: {n: (s[1],) for n, s in names.items()} for m, names in kernels.items()},
    "weight": kernels,
  }[granularity]
  return {f"layers_{n}": layer for n in range(model.num_layers)}


def group_sizes(model: ModelOptions, granularity: str) -> dict:
  """Returns how many weights one gate multiplies, the same in every layer: {module: {name: count}}."""
  width = model.num_heads * model.head_dim
  return {
    "unit": {
      "attention": {"head": 4 * model.model_dim * model.head_dim},
      "ffn": {"neuron": 2 * model.model_dim},
    },
    "row": {
      "attention": {
        "query": model.model_dim,
        "key": model.model_dim,
        "value": model.model_dim,
        "output": width,
      },
      "ffn": {"inner": model.model_dim, "outer": model.ffn_dim},
    },
    "weight": {
      "attention": {"query": 1, "key": 1, "value": 1, "output": 1},
      "ffn": {"inner": 1, "outer": 1},
    },
  }[granularity]


def init_log_alpha(model: ModelOptions, granularity: str, key: jax.Array) -> Mask:
  """Returns the log_alpha that training starts from: normal, with mean 0 and deviation START_STD."""
  shapes = traverse_util.flatten_dict(gate_shapes(model, granularity))
  keys = jax.random.split(key, len(shapes))
  return traverse_util.unflatten_dict(
    {
      path: START_STD * jax.random.normal(k, shape)
      for k, (path, shape) in zip(keys, shapes.items(), strict=True)
    }
  )


def share(model: ModelOptions, granularity: str, values: Mask) -> jax.Array:
  """Returns the mean over all masked weights of a value of their gates, a scalar.

  Args:
    model: the encoder's shape.
    granularity: one of GRANULARITIES.
    values: one value per gate; gates or `open_probability` give the share of weights that is kept.
  """
  sizes = group_sizes(model, granularity)
  total: jax.Array | float = 0.0
  weights = 0
  for (_, module, name), leaf in traverse_util.flatten_dict(values).items():
    total = total + sizes[module][name] * jnp.sum(leaf)
    weights += sizes[module][name] * leaf.size
  return jnp.asarray(total / weights)


def multipliers(model: ModelOptions, gates: Mask) -> dict[tuple[str, ...], jax.Array]:
  """Returns gates as factors of parameters: {path in the parameter tree: factor}.

  A closed head has value vectors of zero, a closed neuron an activation of zero (because the
  activation function maps 0 to 0), a closed row an output of zero.
  """
  factors: dict[tuple[str, ...], jax.Array] = {}
  for (layer, module, name), gate in traverse_util.flatten_dict(gates).items():
    if name == "head":
      name, gate = "value", jnp.repeat(gate, model.head_dim)
    elif name == "neuron":
      name = "inner"
    if gate.ndim == 1:
      factors[layer, module, name, "bias"] = gate
      gate = gate[None]
    factors[layer, module, name, "kernel"] = gate
  return factors


def masked(tree: Any, factors: dict[tuple[str, ...], jax.Array]) -> Any:
  """Returns parameters times their factors.

  Args:
    tree: theta, or phi with its leading axis of languages; all languages get the same factors.
    factors: as `multipliers` returns them; those of other trees are not used.
  """
  leaves = traverse_util.flatten_dict(tree)
  for path in leaves.keys() & factors.keys():
    factor = factors[path]
    leaves[path] = leaves[path] * factor.reshape(
      (1,) * (leaves[path].ndim - factor.ndim) + factor.shape
    )
  return traverse_util.unflatten_dict(leaves)


def by_scope(log_alpha: Mask) -> dict[str, np.ndarray]:
  """Returns log_alpha as vectors: {"all": [gates], "layer1/attention": [...], "layer1/ffn": ...}."""
  leaves: dict[str, list[np.ndarray]] = {}
  for (layer, module, _), leaf in ordered(log_alpha):
    leaves.setdefault(f"{layer}/{module}", []).append(np.ravel(leaf))
  vectors = {scope: np.concatenate(parts) for scope, parts in leaves.items()}
  return {"all": np.concatenate(list(vectors.values())), **vectors}


def group_names(log_alpha: Mask) -> list[str]:
  """Returns the names of the gates in the order of "all" of `by_scope`: layer1/ffn/inner[17], ..."""
  names = []
  for path, leaf in ordered(log_alpha):
    prefix = "/".join(path)
    names += [f"{prefix}[{','.join(map(str, index))}]" for index in np.ndindex(np.shape(leaf))]
  return names


def ordered(mask: Mask) -> list[tuple[tuple[str, str, str], Any]]:
  """Returns ((layer<n>, module, name), array) pairs, sorted by layer, module and name."""
  leaves = [
    ((int(layer.removeprefix("layers_")) + 1, module, name), leaf)
    for (layer, module, name), leaf in traverse_util.flatten_dict(mask).items()
  ]
  leaves.sort(key=lambda item: item[0])
  return [((f"layer{n}", module, name), leaf) for (n, module, name), leaf in leaves]
