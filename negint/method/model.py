"""XLM's encoder (Lample & Conneau, 2019) as a Flax module, used only through pure functions.

Owns the network and its initialisation. It does not know which of its parameters belong to one
language: `language.py` splits and merges the parameter tree, and every function here takes the
merged tree.

Dims in names: B batch, T sequence length, D model, H heads, V vocabulary, K predicted positions.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from negint.options import ModelOptions
from negint.special_tokens import PAD

POSITION_NORM = 2.0  # `local` start: a position's row is twice as long as a token's (about 1)
QUERY_KEY_GAIN = 3.0  # `local` start: W_q and W_k in units of XLM's range


def gelu(x):
  """Exact GELU. `nn.gelu` goes through erfc, which costs twice as much and gains digits of values
  near zero only."""
  return x * (0.5 + 0.5 * jax.lax.erf(x * x.dtype.type(0.5**0.5)))


ACTIVATIONS = {"gelu": gelu, "relu": nn.relu}


def compute_dtype(options: ModelOptions):
  return jnp.dtype(options.dtype)


def exact_dtype(options: ModelOptions):
  """Dtype of LayerNorm, softmax and loss: never below float32."""
  return jnp.promote_types(compute_dtype(options), jnp.float32)


def uniform_fan_in(key, shape, dtype=jnp.float32, fan_in=None):
  """XLM's `Linear` start, U(+-1/sqrt(fan_in)), for kernels [fan_in, fan_out]."""
  bound = (fan_in or shape[0]) ** -0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def dense(options, fan_in, features, name):
  return nn.Dense(
    features,
    dtype=compute_dtype(options),
    param_dtype=exact_dtype(options),
    kernel_init=uniform_fan_in,
    bias_init=functools.partial(uniform_fan_in, fan_in=fan_in),
    name=name,
  )


def by_rows(layer, x_BxTxD):
  """A dense layer at every position, as a product of two matrices: on a CPU XLA's steps are a sixth
  faster with those than with products of a matrix and a [B, T, D] array."""
  batch, length, dim = x_BxTxD.shape
  return layer(x_BxTxD.reshape(batch * length, dim)).reshape(batch, length, -1)


def layer_norm(options, name=None):
  dtype = exact_dtype(options)
  # The fast variance E[x^2] - E[x]^2 loses digits that eps = 1e-12 does not forgive.
  return nn.LayerNorm(
    epsilon=1e-12, dtype=dtype, param_dtype=dtype, use_fast_variance=False, name=name
  )


class Attention(nn.Module):
  """Multi-head attention of the query rows over all rows."""

  options: ModelOptions

  @nn.compact
  def __call__(self, query_BxQxD, x_BxTxD, valid_BxT, deterministic):
    o = self.options
    width = o.num_heads * o.head_dim

    def heads(inputs, name):
      rows = by_rows(dense(o, o.model_dim, width, name), inputs)
      return rows.reshape(*rows.shape[:2], o.num_heads, o.head_dim)

    q_BxQxHxd = heads(query_BxQxD, "query")
    k_BxTxHxd = heads(x_BxTxD, "key")
    v_BxTxHxd = heads(x_BxTxD, "value")
    if o.attention == "cudnn":
      lengths = None if valid_BxT is None else jnp.maximum(valid_BxT.sum(-1, dtype=jnp.int32), 1)
      context_BxQxHxd = jax.nn.dot_product_attention(
        q_BxQxHxd, k_BxTxHxd, v_BxTxHxd, key_value_seq_lengths=lengths, implementation="cudnn"
      )
    else:
      dropout = nn.Dropout(o.attention_dropout, deterministic=deterministic)
      context_BxQxHxd = attend(o, q_BxQxHxd, k_BxTxHxd, v_BxTxHxd, valid_BxT, dropout)
    context_BxQxW = context_BxQxHxd.reshape(*context_BxQxHxd.shape[:2], width)
    return by_rows(dense(o, width, o.model_dim, "output"), context_BxQxW)


def attend(options, q_BxQxHxd, k_BxTxHxd, v_BxTxHxd, valid_BxT, dropout):
  """softmax(q k / sqrt(d)) v, [B, Q, H, d]; dropout acts on the weights.

  The softmax is divided by its sum after the product with v: [B, H, Q, d] is smaller than
  [B, H, Q, T], and every derivative has a pass less over the latter.
  """
  q_BxHxQxd, k_BxHxTxd, v_BxHxTxd = (
    jnp.swapaxes(x, 1, 2) for x in (q_BxQxHxd, k_BxTxHxd, v_BxTxHxd)
  )
  scores_BxHxQxT = jnp.einsum(
    "bhqd,bhtd->bhqt", q_BxHxQxd * options.head_dim**-0.5, k_BxHxTxd
  ).astype(exact_dtype(options))
  if valid_BxT is not None:
    lowest = jnp.finfo(scores_BxHxQxT.dtype).min
    scores_BxHxQxT = jnp.where(valid_BxT[:, None, None, :], scores_BxHxQxT, lowest)
  highest_BxHxQx1 = jax.lax.stop_gradient(scores_BxHxQxT.max(-1, keepdims=True))
  weights_BxHxQxT = jnp.exp(scores_BxHxQxT - highest_BxHxQx1)
  sum_BxHxQx1 = weights_BxHxQxT.sum(-1, keepdims=True)
  weights_BxHxQxT = dropout(weights_BxHxQxT.astype(compute_dtype(options)))
  context_BxHxQxd = jnp.einsum(
    "bhqt,bhtd->bhqd", weights_BxHxQxT, v_BxHxTxd, preferred_element_type=exact_dtype(options)
  )
  context_BxHxQxd = (context_BxHxQxd / sum_BxHxQx1).astype(compute_dtype(options))
  return jnp.swapaxes(context_BxHxQxd, 1, 2)


class FeedForward(nn.Module):
  options: ModelOptions

  @nn.compact
  def __call__(self, x_BxTxD):
    o = self.options
    hidden_BxTxF = by_rows(dense(o, o.model_dim, o.ffn_dim, "inner"), x_BxTxD)
    hidden_BxTxF = ACTIVATIONS[o.activation](hidden_BxTxF)
    return by_rows(dense(o, o.ffn_dim, o.model_dim, "outer"), hidden_BxTxF)


class Adapter(nn.Module):
  """Residual adapter o = W2 g(W1 z) + z (Eqs. 6-7), with biases as in the authors' release.

  Starts near the identity (Houlsby et al., 2019): torch's default start would add a random layer
  to a post-LN model trained from scratch.
  """

  options: ModelOptions

  @nn.compact
  def __call__(self, z_BxTxD):
    o = self.options
    near_zero = dict(
      dtype=compute_dtype(o),
      param_dtype=exact_dtype(o),
      kernel_init=nn.initializers.normal(o.adapter_init_std),
    )
    h_BxTxA = by_rows(nn.Dense(o.adapter_dim, name="inner", **near_zero), z_BxTxD)
    h_BxTxA = ACTIVATIONS[o.adapter_activation](h_BxTxA)
    return z_BxTxD + by_rows(nn.Dense(o.model_dim, name="outer", **near_zero), h_BxTxA)


class Layer(nn.Module):
  """One post-LN layer, evaluated at the query rows only (all rows but in a last layer)."""

  options: ModelOptions

  @nn.compact
  def __call__(self, query_BxQxD, x_BxTxD, valid_BxT, deterministic):
    o = self.options
    dtype = compute_dtype(o)
    out_BxQxD = Attention(o, name="attention")(query_BxQxD, x_BxTxD, valid_BxT, deterministic)
    out_BxQxD = nn.Dropout(o.dropout)(out_BxQxD, deterministic)
    if o.has_adapters:
      out_BxQxD = Adapter(o, name="attention_adapter")(out_BxQxD)
    h_BxQxD = layer_norm(o, "attention_norm")(query_BxQxD + out_BxQxD).astype(dtype)
    out_BxQxD = FeedForward(o, name="ffn")(h_BxQxD)
    out_BxQxD = nn.Dropout(o.dropout)(out_BxQxD, deterministic)
    if o.has_adapters:
      out_BxQxD = Adapter(o, name="ffn_adapter")(out_BxQxD)
    return layer_norm(o, "ffn_norm")(h_BxQxD + out_BxQxD).astype(dtype)


class Encoder(nn.Module):
  """Tokens to hidden states, and hidden states to vocabulary logits by the tied softmax."""

  options: ModelOptions

  def setup(self):
    o = self.options
    dtype = exact_dtype(o)
    table = nn.initializers.normal(o.model_dim**-0.5, dtype)
    self.token = self.param("token", table, (o.vocab_size, o.model_dim), dtype)
    self.position = self.param("position", table, (o.max_length, o.model_dim), dtype)
    if o.language_embedding:
      self.language = self.param("language", table, (o.num_languages, o.model_dim), dtype)
    self.embedding_norm = layer_norm(o)
    self.embedding_dropout = nn.Dropout(o.dropout)
    self.layers = [Layer(o) for _ in range(o.num_layers)]
    self.softmax_bias = self.param("softmax_bias", nn.initializers.zeros, (o.vocab_size,), dtype)

  def __call__(self, tokens_BxT, language, lengths_B, positions_BxK, deterministic):
    o = self.options
    length = tokens_BxT.shape[1]
    x_BxTxD = self.token[tokens_BxT] + self.position[:length][None]
    if o.language_embedding:
      x_BxTxD += self.language[language][None, None]
    x_BxTxD = self.embedding_norm(x_BxTxD).astype(compute_dtype(o))
    x_BxTxD = self.embedding_dropout(x_BxTxD, deterministic)
    valid_BxT = None
    if lengths_B is not None:
      valid_BxT = jnp.arange(length)[None] < lengths_B[:, None]
      x_BxTxD = x_BxTxD * valid_BxT[..., None]
    if positions_BxK is None:
      return self.through(self.layers, x_BxTxD, valid_BxT, deterministic)
    # Nothing reads a last layer's rows but the predicted ones: queries and feed-forward run there.
    x_BxTxD = self.through(self.layers[:-1], x_BxTxD, valid_BxT, deterministic)
    query_BxKxD = jnp.take_along_axis(x_BxTxD, positions_BxK[..., None], axis=1)
    return self.layers[-1](query_BxKxD, x_BxTxD, valid_BxT, deterministic)

  def through(self, layers, x_BxTxD, valid_BxT, deterministic):
    """Layers that compute all rows, one after another.

    With rematerialisation they are a scan, whose rounds no compiler takes apart: in an unrolled loop
    XLA's for CPUs saves no memory by it (27.7 GB for 6.2 at the paper's shape).
    """
    o = self.options

    def rows(layer, x_BxTxD):
      x_BxTxD = layer(x_BxTxD, x_BxTxD, valid_BxT, deterministic)
      return x_BxTxD if valid_BxT is None else x_BxTxD * valid_BxT[..., None]

    if o.remat == "none" or self.is_initializing() or not layers:
      return functools.reduce(lambda x, layer: rows(layer, x), layers, x_BxTxD)

    def one_round(x_BxTxD, params_and_key):
      params, key = params_and_key
      rngs = None if key is None else {"dropout": key}
      layer = functools.partial(Layer(o, parent=None).apply, {"params": params}, rngs=rngs)
      return rows(layer, x_BxTxD), None

    params = [layer.variables["params"] for layer in layers]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    keys = None if deterministic else jax.random.split(self.make_rng("dropout"), len(layers))
    again = jax.checkpoint(one_round, prevent_cse=False)  # the scan prevents it already
    return jax.lax.scan(again, x_BxTxD, (stacked, keys))[0]

  def logits(self, hidden_BxKxD):
    o = self.options
    table_VxD = self.token.astype(compute_dtype(o))
    logits_BxKxV = jnp.einsum(
      "bkd,vd->bkv", hidden_BxKxD, table_VxD, preferred_element_type=exact_dtype(o)
    )
    return logits_BxKxV + self.softmax_bias[None, None]


def encode(
  options: ModelOptions,
  params,
  tokens_BxT,
  language,
  *,
  lengths_B=None,
  positions_BxK=None,
  dropout_key=None,
):
  """Hidden states of a batch in one language.

  Args:
    params: theta and phi_i merged (`language.merge`).
    tokens_BxT: token ids, int [B, T].
    language: index of the batch's language, a traced int scalar.
    lengths_B: tokens of each row that are not padding, int [B]; None where no row is padded.
    positions_BxK: rows of the last layer to compute, int [B, K]; None for all T.
    dropout_key: None switches dropout off.

  Returns:
    [B, T, D] (padding rows are zero), or [B, K, D] with positions_BxK.
  """
  rngs = None if dropout_key is None else {"dropout": dropout_key}
  return Encoder(options).apply(
    {"params": params},
    tokens_BxT,
    language,
    lengths_B,
    positions_BxK,
    dropout_key is None,
    rngs=rngs,
  )


def vocabulary_logits(options: ModelOptions, params, hidden_BxKxD):
  """Tied softmax with its own bias: [B, K, D] to logits [B, K, V] in `exact_dtype`."""
  return Encoder(options).apply({"params": params}, hidden_BxKxD, method="logits")


def init_params(options: ModelOptions, key):
  """Parameter tree of the whole encoder for one language: `{"token": ..., "layers_0": ...}`."""
  params = Encoder(options).init(key, jnp.zeros((1, 2), jnp.int32), 0, None, None, True)["params"]
  params["token"] = params["token"].at[PAD].set(0.0)
  return start_near_home(options, params) if options.init == "local" else params


def start_near_home(options: ModelOptions, params):
  """The `local` start: every head attends near its own position from the first step.

  Positions begin as sinusoids and W_k as a copy of W_q, both in a larger range. With XLM's start
  attention is uniform and a small model sits on the unigram plateau for thousands of steps.
  """
  params = dict(params)
  position = sinusoids(options.max_length, options.model_dim)
  params["position"] = (position * POSITION_NORM).astype(params["position"].dtype)
  for number in range(options.num_layers):
    layer = dict(params[f"layers_{number}"])
    query = jax.tree.map(lambda x: x * QUERY_KEY_GAIN, layer["attention"]["query"])
    layer["attention"] = {**layer["attention"], "query": query, "key": query}
    params[f"layers_{number}"] = layer
  return params


def sinusoids(length: int, dim: int):
  """Sinusoidal positions (Vaswani et al., 2017) with rows of norm 1, [length, dim]."""
  half = (dim + 1) // 2
  rate = 10000.0 ** (-jnp.arange(half) / half)
  angle = jnp.arange(length)[:, None] * rate[None, :]
  rows = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(length, -1)[:, :dim]
  return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def count_parameters(tree) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
