"""The encoder: predicted rows, padding, precision, rematerialisation and start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import assert_same_bits, random_tokens, relative_difference, toy_model

from negint.method import losses, model
from negint.method.masking import MaskedBatch
from negint.method.phi import init_theta_and_phi
from negint.options import HALF_DTYPES
from negint.special_tokens import PAD

PAPER = dict(
  vocab_size=32_000,
  num_layers=8,
  model_dim=512,
  num_heads=8,
  head_dim=64,
  ffn_dim=2048,
  max_length=512,
  adapter_dim=128,
)

SMALL = toy_model(
  model_dim=64, num_heads=4, head_dim=16, max_length=64, vocab_size=400, num_layers=1
)


def shapes_of(options):
  return jax.eval_shape(functools.partial(model.init_params, options), jax.random.key(0))


@functools.cache
def start(options):
  return jax.jit(model.init_params, static_argnums=0)(options, jax.random.key(0))


@functools.cache
def random_params(options):
  """Parameters of no particular start, in the sizes of XLM's; nothing is zero."""
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda x: np.float32(rng.normal(0.02, 0.2, x.shape)), shapes_of(options))


def batch_of(rows=3, length=12, lengths=None):
  """A masked batch that predicts positions 1, 3 and 4 of every row."""
  tokens = random_tokens(3, rows, length, vocab_size=61)
  positions = np.tile(np.int32([1, 4, 3]), (rows, 1))
  weights = np.ones(positions.shape, np.float32)
  if lengths is not None:
    tokens[np.arange(length)[None] >= np.asarray(lengths)[:, None]] = PAD
    weights *= positions < np.asarray(lengths)[:, None]
    lengths = np.int32(lengths)
  targets = random_tokens(4, rows, 3, vocab_size=61)
  return MaskedBatch(tokens, positions, targets, weights, lengths)


@functools.cache
def compiled(options, loss):
  def mean(params, batch, language, dropout_key):
    total, count = loss(options, params, batch, language, dropout_key)
    return total / count

  return jax.jit(jax.value_and_grad(mean))


def value_and_gradient(options, params, batch, dropout_key=None, loss=losses.mlm_loss):
  """Mean loss and its gradient by all parameters."""
  return compiled(options, loss)(params, batch, 1, dropout_key)


def all_rows_then_gather(options, params, batch, language, dropout_key):
  hidden = model.encode(
    options, params, batch.tokens, language, lengths_B=batch.lengths, dropout_key=dropout_key
  )
  hidden = jnp.take_along_axis(hidden, batch.positions[..., None], axis=1)
  logits = jax.nn.log_softmax(model.vocabulary_logits(options, params, hidden))
  picked = jnp.take_along_axis(logits, batch.targets[..., None], axis=-1)[..., 0]
  return -jnp.sum(picked * batch.weights), jnp.sum(batch.weights)


def test_the_predicted_rows_alone_give_the_loss_and_gradient_of_all_rows():
  options = toy_model()
  batch = batch_of(lengths=[12, 7, 5])
  value, gradient = value_and_gradient(options, random_params(options), batch)
  expected = value_and_gradient(options, random_params(options), batch, loss=all_rows_then_gather)
  np.testing.assert_allclose(value, expected[0], rtol=1e-6)
  assert relative_difference(gradient, expected[1]) < 1e-5
  elsewhere = batch._replace(positions=batch.positions[:, ::-1])
  other, _ = value_and_gradient(options, random_params(options), elsewhere)
  assert abs(other - value) > 1e-4


def test_as_many_positions_as_tokens_are_still_positions():
  """A row may ask for T positions, in any order and repeated, beside padding."""
  options = toy_model(num_layers=1)
  tokens, lengths = random_tokens(0, 2, 6, vocab_size=61), np.int32([6, 3])
  positions = np.int32([[5, 4, 3, 2, 1, 0], [2, 1, 0, 0, 0, 2]])

  @jax.jit
  def both(params):
    rows = model.encode(options, params, tokens, 0, lengths_B=lengths)
    chosen = model.encode(options, params, tokens, 0, lengths_B=lengths, positions_BxK=positions)
    return rows, jnp.take_along_axis(rows, positions[..., None], axis=1), chosen

  rows, gathered, chosen = both(random_params(options))
  assert not np.any(rows[1, 3:]) and np.all(np.any(rows[1, :3], axis=-1))
  np.testing.assert_allclose(chosen, gathered, atol=1e-5)


def test_padding_reaches_nothing():
  options = toy_model()
  lengths = [12, 7, 0]
  batch = batch_of(lengths=lengths)
  value, gradient = value_and_gradient(options, random_params(options), batch)
  assert np.isfinite(value) and all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradient))

  outside = np.arange(12)[None] >= np.asarray(lengths)[:, None]
  other_pads = batch._replace(tokens=np.where(outside, 9, batch.tokens).astype(np.int32))
  same = value_and_gradient(options, random_params(options), other_pads)
  assert_same_bits(same, (value, gradient))

  more = batch._replace(tokens=np.pad(batch.tokens, ((0, 0), (0, 8)), constant_values=PAD))
  longer_value, longer_gradient = value_and_gradient(options, random_params(options), more)
  np.testing.assert_allclose(longer_value, value, rtol=1e-5)
  assert relative_difference(longer_gradient, gradient) < 1e-4

  whole = batch._replace(lengths=np.int32([12, 12, 12]))
  unmasked, _ = value_and_gradient(options, random_params(options), whole)
  assert abs(unmasked - value) > 1e-5


def dtypes_of(primitives, options, batch):
  """Dtypes that the named primitives return in a loss."""
  closed = jax.make_jaxpr(lambda p: losses.mlm_loss(options, p, batch, 0)[0])(shapes_of(options))
  found = set()

  def visit(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name in primitives:
        found.update(str(v.aval.dtype) for v in equation.outvars)
      for value in jax.tree.leaves(list(equation.params.values())):
        inner = getattr(value, "jaxpr", value)
        if hasattr(inner, "eqns"):
          visit(inner)

  visit(closed.jaxpr)
  return found


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_norms_softmaxes_and_losses_stay_float32_in_half_precision(dtype, monkeypatch):
  options = toy_model(dtype=dtype)
  batch = batch_of(lengths=[12, 7, 5])
  params = shapes_of(options)
  hidden = jax.eval_shape(lambda p: model.encode(options, p, batch.tokens, 0), params)
  logits = jax.eval_shape(functools.partial(model.vocabulary_logits, options), params, hidden)
  loss = jax.eval_shape(lambda p: losses.mlm_loss(options, p, batch, 0), params)
  assert hidden.dtype == jnp.dtype(dtype)
  assert logits.dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves((params, loss))} == {jnp.dtype("float32")}
  delicate = ("exp", "log", "rsqrt", "sqrt")
  assert dtypes_of(delicate, options, batch) == {"float32"}
  assert dtype in dtypes_of(("dot_general",), options, batch)
  monkeypatch.setattr(model, "exact_dtype", model.compute_dtype)
  assert dtype in dtypes_of(delicate, options, batch)


@functools.partial(jax.jit, static_argnums=0)
def attention_weights(options, params, tokens):
  """Weights of the first layer, [heads, T, T], from the projections that the model computed."""
  _, kept = model.Encoder(options).apply(
    {"params": params},
    tokens[None],
    0,
    None,
    None,
    True,
    capture_intermediates=True,
    mutable=["intermediates"],
  )
  projected = kept["intermediates"]["layers_0"]["attention"]
  shape = len(tokens), options.num_heads, options.head_dim
  query, key = (projected[name]["__call__"][0].reshape(shape) for name in ("query", "key"))
  return jax.nn.softmax(jnp.einsum("qhd,thd->hqt", query, key) * options.head_dim**-0.5)


def share_near_home(init, reach=3):
  """Attention within `reach` places of the own, in units of the share under uniform attention."""
  options = SMALL.replace(init=init)
  weights = attention_weights(SMALL, start(options), random_tokens(5, 64, vocab_size=400))
  near = np.abs(np.arange(64)[:, None] - np.arange(64)[None]) <= reach
  weights = np.asarray(weights)
  return float(np.mean(np.sum(weights * near, -1))) / near.mean()


@pytest.mark.slow
def test_the_local_start_attends_near_home_and_xlms_does_not():
  assert share_near_home("local") > 3
  assert 0.9 < share_near_home("xlm") < 1.1


def test_the_local_start_copies_queries_to_keys_and_doubles_positions():
  local, xlm = SMALL.replace(init="local"), SMALL.replace(init="xlm")
  params = start(local)
  norms = np.linalg.norm(params["position"], axis=-1)
  np.testing.assert_allclose(norms, model.POSITION_NORM, rtol=1e-5)
  assert np.std(np.linalg.norm(start(xlm)["position"], axis=-1)) > 1e-3
  bound = model.QUERY_KEY_GAIN * local.model_dim**-0.5
  attention = params["layers_0"]["attention"]
  assert_same_bits(attention["query"], attention["key"])
  assert 0.8 * bound < np.max(np.abs(attention["query"]["kernel"])) <= bound
  attention = start(xlm)["layers_0"]["attention"]
  assert not np.any(np.asarray(attention["query"]["kernel"]) == attention["key"]["kernel"])


def test_the_local_start_has_the_shapes_of_xlms_where_positions_begin_later():
  options = SMALL.replace(position_offset=2)
  shapes = [jax.tree.map(np.shape, start(options.replace(init=init))) for init in ("local", "xlm")]
  assert shapes[0] == shapes[1] and shapes[0]["position"][0] == options.max_length + 2


@pytest.mark.parametrize("init", ["local", "xlm"])
def test_the_padding_token_starts_at_zero_and_no_other_does(init):
  rows = np.any(start(SMALL.replace(init=init))["token"], axis=-1)
  assert not rows[PAD] and rows.sum() == len(rows) - 1


@pytest.mark.slow
def test_rematerialisation_changes_neither_loss_nor_gradient():
  kept = toy_model(num_layers=3, remat="none")
  params, batch = random_params(kept), batch_of(lengths=[12, 7, 5])
  value, gradient = value_and_gradient(kept, params, batch)
  value_again, gradient_again = value_and_gradient(kept.replace(remat="layer"), params, batch)
  np.testing.assert_allclose(value_again, value, rtol=1e-6)
  assert relative_difference(gradient_again, gradient) < 1e-5
  hidden = [
    model.encode(kept.replace(remat=remat), params, batch.tokens, 1) for remat in ("none", "layer")
  ]
  np.testing.assert_allclose(*hidden, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_what_is_recomputed_sees_the_same_dropout(monkeypatch):
  options = toy_model(dropout=0.2, num_layers=3, remat="layer")
  params, batch, key = random_params(options), batch_of(), jax.random.key(1)

  def loss(params, key):
    total, weight = losses.mlm_loss(options, params, batch, 1, key)
    return total / weight

  value, gradient = jax.jit(jax.value_and_grad(loss))(params, key)
  assert "remat" in str(jax.make_jaxpr(jax.grad(loss))(params, key))
  assert abs(jax.jit(loss)(params, jax.random.key(2)) - value) > 1e-4
  monkeypatch.setattr(jax, "checkpoint", lambda function, **_: function)
  assert "remat" not in str(jax.make_jaxpr(jax.grad(loss))(params, key))
  value_kept, gradient_kept = jax.jit(jax.value_and_grad(loss))(params, key)
  np.testing.assert_allclose(value, value_kept, rtol=1e-6)
  assert relative_difference(gradient, gradient_kept) < 1e-5


def counts(**changes):
  options = toy_model(**PAPER).replace(**changes)
  theta, phi = jax.eval_shape(functools.partial(init_theta_and_phi, options), jax.random.key(0))
  return model.count_parameters(theta), model.count_parameters(phi) // options.num_languages


@pytest.mark.slow
def test_parameter_counts_at_the_papers_size():
  shared, nothing = counts()
  assert shared == pytest.approx(41.9e6, rel=0.01) and nothing == 0
  for specific, size in {"adapter": 2.11e6, "ffn": 16.8e6, "attention": 8.4e6}.items():
    theta, phi_i = counts(specific=(specific,))
    assert phi_i == pytest.approx(size, rel=0.01)
    assert theta + phi_i == shared + (phi_i if specific == "adapter" else 0)
  assert counts(shared_adapter=True)[0] - shared == pytest.approx(2.11e6, rel=0.01)
  twelve_heads, _ = counts(num_heads=12, head_dim=40)
  assert 0 < shared - twelve_heads < 0.02 * shared


def test_one_language_has_no_language_embedding_and_two_are_told_apart():
  assert "language" not in shapes_of(toy_model(language_embedding=False, num_languages=1))
  options = toy_model(num_layers=1)
  assert shapes_of(options)["language"].shape == (2, options.model_dim)
  encode = jax.jit(functools.partial(model.encode, options))
  tokens = batch_of().tokens
  zero, one = (encode(random_params(options), tokens, language) for language in (0, 1))
  assert relative_difference(zero, one) > 1e-3


def test_dropout_follows_its_key_and_without_a_key_there_is_none():
  options = toy_model(dropout=0.3, attention_dropout=0.2, num_layers=1)
  params = random_params(options)

  @functools.partial(jax.jit, static_argnums=0)
  def encode(options, key):
    return model.encode(options, params, batch_of().tokens, 0, dropout_key=key)

  off = encode(options, None)
  without = encode(options.replace(dropout=0.0, attention_dropout=0.0), None)
  assert relative_difference(off, without) < 1e-6
  first, same, other = (encode(options, jax.random.key(seed)) for seed in (1, 1, 2))
  assert_same_bits(first, same)
  assert relative_difference(first, other) > 1e-2
  assert relative_difference(first, off) > 1e-2
