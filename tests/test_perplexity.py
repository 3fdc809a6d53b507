"""Perplexity of a whole split does not depend on the batch size or the devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from toy import random_tokens, toy_run

from negint import perplexity
from negint.method import masking, parallel, steps
from negint.method.phi import init_theta_and_phi
from negint.special_tokens import PAD

T, V = 24, 200
K = masking.num_predicted(steps.EVAL_MASK_RATE, T)
STREAMS = {
  "xb": random_tokens(0, 13 * T + 5).astype(np.uint16),
  "xa": random_tokens(1, 7 * T).astype(np.uint16),
}


@pytest.fixture(scope="module")
def run():
  return toy_run("adpt", model__num_layers=1)


@pytest.fixture(scope="module")
def params(run):
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(functools.partial(init_theta_and_phi, run.model), jax.random.key(0))
  return jax.tree.map(lambda x: np.float32(rng.normal(0.02, 0.3, x.shape)), shapes)


@pytest.fixture(scope="module")
def unigram_log():
  weights = np.random.default_rng(2).random((2, V))
  return np.log(weights / weights.sum(1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def eval_step(run):
  return steps.make_eval_step(run)


def scores(eval_step, params, unigram_log, batch_size=4, streams=STREAMS, **fields):
  return perplexity.perplexities(
    eval_step, params, streams, unigram_log, sequence_length=T, batch_size=batch_size, **fields
  )


def masks(stream):
  """The evaluation masks of a whole split at once."""
  batch = next(perplexity.row_batches(stream, T, -(-len(stream) // T)))
  return jax.device_get(
    jax.jit(
      functools.partial(
        masking.mask_tokens, num_predicted=K, vocab_size=V, corruption=masking.EVAL_CORRUPTION
      )
    )(jax.random.key(steps.EVAL_SEED), batch["tokens"], batch["rows"], lengths_B=batch["lengths"])
  )


@pytest.mark.parametrize("size", [0, 1, T - 1, T, 3 * T, 3 * T + 1, 4 * T])
def test_rows_hold_the_whole_stream_once_and_then_padding(size):
  stream = random_tokens(3, size).astype(np.uint16)
  batches = list(perplexity.row_batches(stream, T, 2))
  rows = {
    name: np.concatenate([b[name] for b in batches]) if batches else np.zeros((0, T))
    for name in ("tokens", "lengths", "rows")
  }
  inside = np.arange(T)[None] < rows["lengths"].reshape(-1, 1)
  np.testing.assert_array_equal(rows["tokens"][inside], stream)
  assert np.all(rows["tokens"][~inside] == PAD)
  if size:
    np.testing.assert_array_equal(rows["rows"], np.arange(len(rows["rows"])))
    assert {b["tokens"].shape for b in batches} == {(2, T)}
    assert rows["tokens"].dtype == np.int32


def test_every_row_counts_the_padded_tail_too(eval_step, params, unigram_log):
  counted = []

  def step(*arguments):
    counted.append(eval_step(*arguments))
    return counted[-1]

  scores(step, params, unigram_log, streams={"xb": STREAMS["xb"]})
  tail = max(round(K * 5 / T), 1)
  assert sum(float(part["tokens"]) for part in counted) == 13 * K + tail


def test_the_tail_changes_the_perplexity(eval_step, params, unigram_log):
  whole = scores(eval_step, params, unigram_log)["perplexity"]
  cut = {"xb": STREAMS["xb"][: 13 * T], "xa": STREAMS["xa"]}
  without = scores(eval_step, params, unigram_log, streams=cut)["perplexity"]
  assert whole["xb"] != without["xb"] and whole["xa"] == without["xa"]


def test_perplexity_does_not_depend_on_the_batch_size(eval_step, params, unigram_log):
  expected = scores(eval_step, params, unigram_log)
  other = scores(eval_step, params, unigram_log, batch_size=10)
  for name, values in expected.items():
    for language, value in values.items():
      np.testing.assert_allclose(other[name][language], value, rtol=1e-5)


def test_perplexity_does_not_depend_on_the_devices(
  run, eval_step, params, unigram_log, monkeypatch
):
  assert parallel.num_devices() == 2
  two = scores(eval_step, params, unigram_log)
  device = jax.devices()[:1]
  mapped = jax.pmap(
    functools.partial(steps.eval_step, run),
    axis_name=parallel.AXIS,
    in_axes=(None, 0, None, None),
    out_axes=None,
    devices=device,
  )
  monkeypatch.setattr(parallel, "num_devices", lambda: 1)
  monkeypatch.setattr(
    parallel,
    "replicate",
    lambda tree: jax.device_put(tree, NamedSharding(Mesh(device, ("d",)), PartitionSpec())),
  )
  one = scores(mapped, params, unigram_log)
  for name, values in two.items():
    for language, value in values.items():
      np.testing.assert_allclose(one[name][language], value, rtol=1e-5)


def test_a_uniform_models_perplexity_is_the_vocabulary(eval_step, params, unigram_log):
  zeros = jax.tree.map(np.zeros_like, params)
  uniform = np.full((2, V), -np.log(V), np.float32)
  for values in scores(eval_step, zeros, uniform).values():
    for value in values.values():
      np.testing.assert_allclose(value, V, rtol=1e-4)
  other = scores(eval_step, params, unigram_log)["perplexity"]
  assert all(abs(value - V) > 1 for value in other.values())


def test_unigram_perplexity_is_that_of_the_predicted_tokens(eval_step, params, unigram_log):
  found = scores(eval_step, params, unigram_log)["unigram_perplexity"]
  for index, (language, stream) in enumerate(STREAMS.items()):
    masked = masks(stream)
    logs = unigram_log[index].astype(np.float64)[masked.targets]
    expected = np.exp(-np.sum(logs * masked.weights) / np.sum(masked.weights))
    np.testing.assert_allclose(found[language], expected, rtol=1e-5)


def test_each_language_is_scored_with_its_own_parameters(eval_step, params, unigram_log):
  theta, phi = params
  moved = jax.tree.map(lambda leaf: np.stack([leaf[0] + np.float32(0.5), leaf[1]]), phi)
  before = scores(eval_step, params, unigram_log)["perplexity"]
  after = scores(eval_step, (theta, moved), unigram_log)["perplexity"]
  assert after["xa"] == before["xa"] and after["xb"] != before["xb"]


def test_poll_is_called_between_batches_and_may_stop(eval_step, params, unigram_log):
  calls = []
  scores(eval_step, params, unigram_log, poll=lambda: calls.append(1))
  assert len(calls) == 4 + 2

  def stop():
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    scores(eval_step, params, unigram_log, poll=stop)


def test_a_diverged_model_has_infinite_perplexity():
  def step(*arguments):
    del arguments
    return {"loss": jnp.float32(1e6), "unigram_loss": jnp.float32(2.0), "tokens": jnp.float32(2.0)}

  found = scores(step, None, np.zeros((1, V)), streams={"xb": STREAMS["xb"]})
  assert found["perplexity"]["xb"] == np.inf
  np.testing.assert_allclose(found["unigram_perplexity"]["xb"], np.e)
