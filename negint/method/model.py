"""XLM's encoder (Lample & Conneau, 2019) as a Flax module, used only through pure functions.

BERT's and RoBERTa's encoders differ in a few fields of ModelOptions, so they are this one, too.

Owns the network and its initialisation. It does not know which of its parameters belong to one
language: `phi.py` splits and merges the parameter tree, and every function here takes the merged
tree.

Dims in names: B batch, T sequence length, D model, H heads, V vocabulary, K predicted positions.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from negint.method.tree import Index, Tree
from negint.options import ModelOptions

POSITION_NORM = 2.0  # `local` start: norm of a position's row; a token's is about 1
QUERY_KEY_GAIN = 3.0  # `local` start: W_q and W_k in units of XLM's range

Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array


def wide_product(indices: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """A function that multiplies two arrays and gives the sums in `exact_dtype`, never below float32.

  Its derivatives multiply arrays of the operands' dtype. JAX's own would multiply the float32 derivative
  of the result with a half-precision operand, and GPUs do that in float32.

  Args:
    indices: of the operands and the result, as `jnp.einsum` takes them.
  """

  @jax.custom_jvp
  def product(a: jax.Array, b: jax.Array) -> jax.Array:
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(indices, a, b, preferred_element_type=wide)

  def derivative(a: jax.Array, b: jax.Array, result: jax.Array) -> jax.Array:
    return jnp.einsum(indices, a, b).astype(result.dtype)

  product.defjvps(
    lambda tangent, result, a, b: derivative(tangent, b, result),
    lambda tangent, result, a, b: derivative(a, tangent, result),
  )
  return product


attended_values = wide_product("bhqt,bhtd->bhqd")  # weights of attention, values
vocabulary_scores = wide_product("bkd,vd->bkv")  # hidden states, the table of the softmax


def gelu(x: jax.Array) -> jax.Array:
  """Exact GELU by erf.

  `nn.gelu` uses erfc, which costs twice as much and is more precise only where the result is near zero.
  """
  return x * (0.5 + 0.5 * jax.lax.erf(x * x.dtype.type(0.5**0.5)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": gelu,
  "gelu_tanh": functools.partial(nn.gelu, approximate=True),
  "relu": nn.relu,
  "silu": nn.silu,
}


def compute_dtype(options: ModelOptions) -> jnp.dtype:
  """Dtype of matrix products and activations."""
  return jnp.dtype(options.dtype)


def exact_dtype(options: ModelOptions) -> jnp.dtype:
  """Dtype of LayerNorm, softmax and loss: never below float32."""
  return jnp.dtype(jnp.float64 if options.dtype == "float64" else jnp.float32)


def uniform(key: jax.Array, shape: Sequence[int], dtype: Any, *, fan_in: int) -> jax.Array:
  """Values of U(+-1/sqrt(fan_in)), the start of kernels and biases in XLM's `Linear`."""
  bound = fan_in**-0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


def dense(
  options: ModelOptions,
  x_BxTxI: jax.Array,
  features: int,
  name: str,
  kernel_init: Initializer | None = None,
  bias_init: Initializer | None = None,
) -> jax.Array:
  """A dense layer at every position, as a submodule of the calling module.

  It multiplies two matrices: on a CPU, XLA's steps are a sixth faster with these than with products of
  a [B, T, I] array and a matrix.

  Args:
    options: dtypes.
    x_BxTxI: inputs.
    features: width O of the outputs.
    name: of the submodule.
    kernel_init: start of the kernel [I, O]; None: XLM's.
    bias_init: start of the bias [O]; None: XLM's.

  Returns:
    [B, T, O].
  """
  batch, length, fan_in = x_BxTxI.shape
  xlm = functools.partial(uniform, fan_in=fan_in)
  layer = nn.Dense(
    features,
    dtype=compute_dtype(options),
    param_dtype=exact_dtype(options),
    kernel_init=kernel_init or xlm,
    bias_init=bias_init or xlm,
    name=name,
  )
  return layer(x_BxTxI.reshape(batch * length, fan_in)).reshape(batch, length, features)


def layer_norm(options: ModelOptions, name: str | None = None) -> nn.LayerNorm:
  """LayerNorm; XLM's eps is 1e-12."""
  dtype = exact_dtype(options)
  # The fast variance E[x^2] - E[x]^2 cancels digits, and an eps this small does not hide that.
  return nn.LayerNorm(
    epsilon=options.norm_epsilon,
    dtype=dtype,
    param_dtype=dtype,
    use_fast_variance=False,
    name=name,
  )


class Attention(nn.Module):
  """Multi-head attention of the query rows over all rows."""

  options: ModelOptions

  @nn.compact
  def __call__(
    self,
    query_BxQxD: jax.Array,
    x_BxTxD: jax.Array,
    valid_BxT: jax.Array | None,
    deterministic: bool,
  ) -> jax.Array:
    """The outputs at the query rows, [B, Q, D]; `valid_BxT` is False at padding."""
    o = self.options
    width = o.num_heads * o.head_dim

    def heads(inputs: jax.Array, name: str) -> jax.Array:
      rows = dense(o, inputs, width, name)
      return rows.reshape(*rows.shape[:2], o.num_heads, o.head_dim)

    q_BxQxHxd = heads(query_BxQxD, "query")
    k_BxTxHxd = heads(x_BxTxD, "key")
    v_BxTxHxd = heads(x_BxTxD, "value")
    # With padding cuDNN has no derivative for an odd number of rows, such as the one that NLI reads.
    is_even = query_BxQxD.shape[1] % 2 == 0 and x_BxTxD.shape[1] % 2 == 0
    if o.attention == "cudnn" and (is_even or valid_BxT is None):
      lengths = None if valid_BxT is None else jnp.maximum(valid_BxT.sum(-1, dtype=jnp.int32), 1)
      context_BxQxHxd = jax.nn.dot_product_attention(
        q_BxQxHxd, k_BxTxHxd, v_BxTxHxd, key_value_seq_lengths=lengths, implementation="cudnn"
      )
    else:
      dropout = nn.Dropout(o.attention_dropout, deterministic=deterministic)
      context_BxQxHxd = attend(o, q_BxQxHxd, k_BxTxHxd, v_BxTxHxd, valid_BxT, dropout)
    context_BxQxW = context_BxQxHxd.reshape(*context_BxQxHxd.shape[:2], width)
    return dense(o, context_BxQxW, o.model_dim, "output")


def attend(
  options: ModelOptions,
  q_BxQxHxd: jax.Array,
  k_BxTxHxd: jax.Array,
  v_BxTxHxd: jax.Array,
  valid_BxT: jax.Array | None,
  dropout: Callable[[jax.Array], jax.Array],
) -> jax.Array:
  """The attention softmax(q k / sqrt(d)) v of each head; dropout acts on its weights.

  The sum of the softmax divides the product with v instead of the weights: [B, H, Q, d] is smaller
  than [B, H, Q, T], and each derivative passes once less over the larger array.

  Returns:
    [B, Q, H, d].
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
  context_BxHxQxd = attended_values(weights_BxHxQxT, v_BxHxTxd)
  context_BxHxQxd = (context_BxHxQxd / sum_BxHxQx1).astype(compute_dtype(options))
  return jnp.swapaxes(context_BxHxQxd, 1, 2)


class FeedForward(nn.Module):
  """Two dense layers with an activation between them."""

  options: ModelOptions

  @nn.compact
  def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
    """The outputs at every position, [B, T, D]."""
    o = self.options
    hidden_BxTxF = dense(o, x_BxTxD, o.ffn_dim, "inner")
    hidden_BxTxF = ACTIVATIONS[o.activation](hidden_BxTxF)
    return dense(o, hidden_BxTxF, o.model_dim, "outer")


class Adapter(nn.Module):
  """Residual adapter o = W2 g(W1 z) + z (Eqs. 6-7), with biases as in the authors' release.

  It starts near the identity (Houlsby et al., 2019). The default start of PyTorch would add a random
  layer to a post-LN model trained from scratch.
  """

  options: ModelOptions

  @nn.compact
  def __call__(self, z_BxTxD: jax.Array) -> jax.Array:
    """The outputs at every position, [B, T, D]."""
    o = self.options
    near_zero = dict(
      kernel_init=nn.initializers.normal(o.adapter_init_std), bias_init=nn.initializers.zeros
    )
    h_BxTxA = dense(o, z_BxTxD, o.adapter_dim, "inner", **near_zero)
    h_BxTxA = ACTIVATIONS[o.adapter_activation](h_BxTxA)
    return z_BxTxD + dense(o, h_BxTxA, o.model_dim, "outer", **near_zero)


class Layer(nn.Module):
  """One post-LN layer, computed at the query rows: all rows, or some of them in the last layer."""

  options: ModelOptions

  @nn.compact
  def __call__(
    self,
    query_BxQxD: jax.Array,
    x_BxTxD: jax.Array,
    valid_BxT: jax.Array | None,
    deterministic: bool,
  ) -> jax.Array:
    """The outputs at the query rows, [B, Q, D]; `valid_BxT` is False at padding."""
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


class SoftmaxTransform(nn.Module):
  """What BERT and RoBERTa put before the softmax: a dense layer, an activation and LayerNorm."""

  options: ModelOptions

  @nn.compact
  def __call__(self, hidden_BxKxD: jax.Array) -> jax.Array:
    """The outputs at every position, [B, K, D]."""
    o = self.options
    hidden_BxKxD = ACTIVATIONS[o.softmax_transform](dense(o, hidden_BxKxD, o.model_dim, "dense"))
    return layer_norm(o, "norm")(hidden_BxKxD).astype(compute_dtype(o))


class Encoder(nn.Module):
  """Tokens to hidden states, and hidden states to vocabulary logits."""

  options: ModelOptions

  def setup(self) -> None:
    """Declares the parameters and submodules."""
    o = self.options
    dtype = exact_dtype(o)
    table = nn.initializers.normal(o.model_dim**-0.5, dtype)
    self.token = self.param("token", table, (o.vocab_size, o.model_dim), dtype)
    positions = o.position_offset + o.max_length
    self.position = self.param("position", table, (positions, o.model_dim), dtype)
    if o.language_embedding:
      self.language = self.param("language", table, (o.num_languages, o.model_dim), dtype)
    if o.token_types:
      self.token_type = self.param("token_type", table, (o.token_types, o.model_dim), dtype)
    self.embedding_norm = layer_norm(o)
    self.embedding_dropout = nn.Dropout(o.dropout)
    self.layers = [Layer(o) for _ in range(o.num_layers)]
    if o.softmax_transform != "none":
      self.transform = SoftmaxTransform(o)
    if not o.tied_softmax:
      self.softmax = self.param("softmax", table, (o.vocab_size, o.model_dim), dtype)
    self.softmax_bias = self.param("softmax_bias", nn.initializers.zeros, (o.vocab_size,), dtype)

  def __call__(
    self,
    tokens_BxT: jax.Array,
    language: Index,
    lengths_B: jax.Array | None,
    positions_BxK: jax.Array | None,
    deterministic: bool,
    types_BxT: jax.Array | None = None,
  ) -> jax.Array:
    """The hidden states, as `encode` returns them."""
    o = self.options
    length = tokens_BxT.shape[1]
    position_TxD = self.position[o.position_offset : o.position_offset + length]
    x_BxTxD = self.token[tokens_BxT] + position_TxD[None]
    if o.language_embedding:
      x_BxTxD += self.language[language][None, None]
    if o.token_types:
      x_BxTxD += self.token_type[jnp.zeros_like(tokens_BxT) if types_BxT is None else types_BxT]
    x_BxTxD = self.embedding_norm(x_BxTxD).astype(compute_dtype(o))
    x_BxTxD = self.embedding_dropout(x_BxTxD, deterministic)
    valid_BxT = None
    if lengths_B is not None:
      valid_BxT = jnp.arange(length)[None] < lengths_B[:, None]
    x_BxTxD = zero_padding(x_BxTxD, valid_BxT)
    if self.is_initializing():
      self.logits(x_BxTxD)  # Flax makes the parameters of what runs
    if positions_BxK is None:
      return self.all_rows(self.layers, x_BxTxD, valid_BxT, deterministic)
    # Only the predicted rows of the last layer are read, so its queries and feed-forward run there.
    x_BxTxD = self.all_rows(self.layers[:-1], x_BxTxD, valid_BxT, deterministic)
    query_BxKxD = jnp.take_along_axis(x_BxTxD, positions_BxK[..., None], axis=1)
    return self.layers[-1](query_BxKxD, x_BxTxD, valid_BxT, deterministic)

  def all_rows(
    self,
    layers: Sequence[Layer],
    x_BxTxD: jax.Array,
    valid_BxT: jax.Array | None,
    deterministic: bool,
  ) -> jax.Array:
    """The outputs of `layers`, one after another, each at all rows: [B, T, D]."""
    if self.options.remat != "layer" or self.is_initializing() or not layers:
      for layer in layers:
        x_BxTxD = zero_padding(layer(x_BxTxD, x_BxTxD, valid_BxT, deterministic), valid_BxT)
      return x_BxTxD
    params = [layer.variables["params"] for layer in layers]
    key = None if deterministic else self.make_rng("dropout")
    return rematerialised(self.options, params, x_BxTxD, valid_BxT, key)

  def logits(self, hidden_BxKxD: jax.Array) -> jax.Array:
    """The logits of the softmax, [B, K, V]."""
    o = self.options
    if o.softmax_transform != "none":
      hidden_BxKxD = self.transform(hidden_BxKxD)
    table_VxD = (self.token if o.tied_softmax else self.softmax).astype(compute_dtype(o))
    return vocabulary_scores(hidden_BxKxD, table_VxD) + self.softmax_bias[None, None]


def zero_padding(x_BxTxD: jax.Array, valid_BxT: jax.Array | None) -> jax.Array:
  """The rows with zeros at padding, where `valid_BxT` is False; None: no padding."""
  return x_BxTxD if valid_BxT is None else x_BxTxD * valid_BxT[..., None].astype(x_BxTxD.dtype)


def rematerialised(
  options: ModelOptions,
  params: Sequence[Tree],
  x_BxTxD: jax.Array,
  valid_BxT: jax.Array | None,
  dropout_key: jax.Array | None,
) -> jax.Array:
  """The outputs of layers at all rows; a backward pass computes each layer's inside once more.

  The layers are a scan. In an unrolled loop XLA's CPU compiler merges the second computation with the
  first and saves no memory: 27.7 GB instead of 6.2 GB at the paper's shape.

  Args:
    options: shape of the encoder.
    params: parameters of each layer.
    x_BxTxD: inputs.
    valid_BxT: False at padding; None: no padding.
    dropout_key: None switches dropout off.

  Returns:
    [B, T, D].
  """

  def one_layer(
    x_BxTxD: jax.Array, params_and_key: tuple[Tree, jax.Array | None]
  ) -> tuple[jax.Array, None]:
    params, key = params_and_key
    rngs = None if key is None else {"dropout": key}
    layer = Layer(options, parent=None)
    x_BxTxD = _apply(layer, params, x_BxTxD, x_BxTxD, valid_BxT, key is None, rngs=rngs)
    return zero_padding(x_BxTxD, valid_BxT), None

  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
  keys = None if dropout_key is None else jax.random.split(dropout_key, len(params))
  again = jax.checkpoint(one_layer, prevent_cse=False)  # the scan already prevents it
  return jax.lax.scan(again, x_BxTxD, (stacked, keys))[0]


def encode(
  options: ModelOptions,
  params: Tree,
  tokens_BxT: jax.Array,
  language: Index,
  *,
  lengths_B: jax.Array | None = None,
  positions_BxK: jax.Array | None = None,
  types_BxT: jax.Array | None = None,
  dropout_key: jax.Array | None = None,
) -> jax.Array:
  """Hidden states of a batch in one language.

  Args:
    options: shape of the encoder.
    params: theta and phi_i merged (`phi.merge_params`).
    tokens_BxT: token ids, int [B, T].
    language: index of the batch's language.
    lengths_B: tokens of each row that are not padding, int [B]; None where no row is padded.
    positions_BxK: rows of the last layer to compute, int [B, K]; None for all T.
    types_BxT: token types, int [B, T], of a model with `token_types`; None: all are 0.
    dropout_key: None switches dropout off.

  Returns:
    [B, T, D] (padding rows are zero), or [B, K, D] with positions_BxK.
  """
  rngs = None if dropout_key is None else {"dropout": dropout_key}
  arguments = tokens_BxT, language, lengths_B, positions_BxK, dropout_key is None, types_BxT
  return _apply(Encoder(options), params, *arguments, rngs=rngs)


def vocabulary_logits(options: ModelOptions, params: Tree, hidden_BxKxD: jax.Array) -> jax.Array:
  """Logits of the softmax over the vocabulary, [B, K, V] in `exact_dtype`."""
  return _apply(Encoder(options), params, hidden_BxKxD, method="logits")


def _apply(module: nn.Module, params: Tree, *arguments: Any, **more: Any) -> jax.Array:
  """The output of a module whose only variables are parameters; Any: flax's own arguments."""
  return cast(jax.Array, module.apply({"params": params}, *arguments, **more))


def init_params(options: ModelOptions, key: jax.Array) -> Tree:
  """Random parameters of the encoder for one language: `{"token": ..., "layers_0": ...}`."""
  params = Encoder(options).init(key, jnp.zeros((1, 2), jnp.int32), 0, None, None, True)["params"]
  params["token"] = params["token"].at[options.pad_id].set(0.0)
  return start_near_home(options, params) if options.init == "local" else params


def start_near_home(options: ModelOptions, params: Tree) -> Tree:
  """The parameters with the `local` start: every head attends near its own position from step 1.

  Positions start as sinusoids and W_k as a copy of W_q, both in a larger range. With XLM's start
  attention is uniform, and a small model predicts no better than a unigram model for thousands of
  steps.
  """
  params = dict(params)
  position = sinusoids(len(params["position"]), options.model_dim)
  params["position"] = (position * POSITION_NORM).astype(params["position"].dtype)
  for number in range(options.num_layers):
    layer = dict(params[f"layers_{number}"])
    query = jax.tree.map(lambda x: x * QUERY_KEY_GAIN, layer["attention"]["query"])
    layer["attention"] = {**layer["attention"], "query": query, "key": query}
    params[f"layers_{number}"] = layer
  return params


def sinusoids(length: int, dim: int) -> jax.Array:
  """Sinusoidal positions (Vaswani et al., 2017) with rows of norm 1, [length, dim]."""
  half = (dim + 1) // 2
  rate = 10000.0 ** (-jnp.arange(half, dtype=float) / half)
  angle = jnp.arange(length, dtype=float)[:, None] * rate[None, :]
  rows = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(length, -1)[:, :dim]
  return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def count_parameters(tree: Tree) -> int:
  """The number of scalars in a tree of arrays."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
