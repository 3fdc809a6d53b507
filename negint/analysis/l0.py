"""Hard-concrete gates (Louizos et al., 2017) on the weights of a frozen encoder.

A mask is a tree {layer: {module: {name: [gates]}}}; `log_alpha` (the paper's pi) has that form, and
so have the gates drawn from it. What one gate covers is the granularity:
  unit    an attention head, or a neuron of the feed-forward layer
  row     one output neuron of a projection (a row of W in y = W x + b, with its bias)
  weight  one weight
Embeddings, LayerNorms and adapters are never masked.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from negint.options import ModelOptions

GAMMA, ZETA = -0.1, 1.1  # the interval that a gate is stretched to before clipping to 0..1
TEMPERATURE = 2 / 3  # beta of the concrete distribution
UNIFORM_CLIP = 1e-6
LOG_ALPHA_LIMIT = math.log(100)
START_STD = 0.01  # log_alpha starts at 0: half the mass on each side
GRANULARITIES = ("unit", "row", "weight")


def sample_gates(key, log_alpha):
  """One hard-concrete sample of every gate, in 0..1; differentiable in log_alpha."""
  leaves, structure = jax.tree.flatten(log_alpha)
  keys = jax.random.split(key, len(leaves))

  def draw(key, leaf):
    u = jax.random.uniform(key, leaf.shape, leaf.dtype, UNIFORM_CLIP, 1 - UNIFORM_CLIP)
    concrete = jax.nn.sigmoid((jnp.log(u) - jnp.log1p(-u) + leaf) / TEMPERATURE)
    return jnp.clip(concrete * (ZETA - GAMMA) + GAMMA, 0.0, 1.0)

  return structure.unflatten([draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])


def test_gates(log_alpha):
  """The gates that a pruned model is tested with: 0 below log_alpha = -2.398, 1 above 2.398."""
  return jax.tree.map(
    lambda leaf: jnp.clip(jax.nn.sigmoid(leaf) * (ZETA - GAMMA) + GAMMA, 0.0, 1.0), log_alpha
  )


def open_probability(log_alpha):
  """Probability that a gate is not zero, the summand of the expected L0 norm."""
  shift = TEMPERATURE * math.log(-GAMMA / ZETA)
  return jax.tree.map(lambda leaf: jax.nn.sigmoid(leaf - shift), log_alpha)


def gate_shapes(model: ModelOptions, granularity: str) -> dict:
  """Shapes of the gates of every layer."""
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
  """Weights behind one gate, |g|: {module: {name: count}}, the same in every layer."""
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


def init_log_alpha(model: ModelOptions, granularity: str, key):
  shapes = traverse_util.flatten_dict(gate_shapes(model, granularity))
  keys = jax.random.split(key, len(shapes))
  return traverse_util.unflatten_dict(
    {
      path: START_STD * jax.random.normal(k, shape)
      for k, (path, shape) in zip(keys, shapes.items(), strict=True)
    }
  )


def share(model: ModelOptions, granularity: str, values):
  """Mean of a value of each gate (such as `open_probability`), weighted by group sizes: a scalar."""
  sizes = group_sizes(model, granularity)
  total = weights = 0.0
  for (_, module, name), leaf in traverse_util.flatten_dict(values).items():
    total = total + sizes[module][name] * jnp.sum(leaf)
    weights += sizes[module][name] * leaf.size
  return total / weights


def multipliers(model: ModelOptions, gates) -> dict:
  """Gates as factors of parameters: {path in the parameter tree: factor}.

  A closed head has no value vectors, a closed neuron no activation (g(0) = 0), a closed row an
  output of zero.
  """
  factors = {}
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


def masked(tree, factors: dict):
  """theta or phi with the factors of its own leaves applied; phi's leading axis is broadcast."""
  leaves = traverse_util.flatten_dict(tree)
  for path in leaves.keys() & factors.keys():
    factor = factors[path]
    leaves[path] = leaves[path] * factor.reshape(
      (1,) * (leaves[path].ndim - factor.ndim) + factor.shape
    )
  return traverse_util.unflatten_dict(leaves)


def by_scope(log_alpha) -> dict:
  """log_alpha as numpy vectors: {"all": [gates], "layer1/attention": [...], "layer1/ffn": ...}."""
  vectors = {}
  for (layer, module, _), leaf in ordered(log_alpha):
    vectors.setdefault(f"{layer}/{module}", []).append(np.ravel(leaf))
  vectors = {scope: np.concatenate(parts) for scope, parts in vectors.items()}
  return {"all": np.concatenate(list(vectors.values())), **vectors}


def group_names(log_alpha) -> list[str]:
  """Names of the gates in the order of `by_scope`'s "all", such as layer1/ffn/inner[17]."""
  names = []
  for path, leaf in ordered(log_alpha):
    prefix = "/".join(path)
    names += [f"{prefix}[{','.join(map(str, index))}]" for index in np.ndindex(np.shape(leaf))]
  return names


def ordered(mask) -> list:
  """((layer<n>, module, name), gates) by layer, module and name."""
  leaves = [
    ((int(layer.removeprefix("layers_")) + 1, module, name), leaf)
    for (layer, module, name), leaf in traverse_util.flatten_dict(mask).items()
  ]
  leaves.sort(key=lambda item: item[0])
  return [((f"layer{n}", module, name), leaf) for (n, module, name), leaf in leaves]
