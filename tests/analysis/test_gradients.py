"""Gradient cosines: known answers, a partition of theta, and equality of independent routes."""

import itertools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import random_tokens, relative_difference, slow, toy_run

from negint import pretrain
from negint.analysis import gradient_similarity, gradients
from negint.errors import UserError
from negint.method import losses, masking, parallel, similarity
from negint.method.phi import merge_params, select_language
from negint.method.state import init_state

LANGUAGES = ("ar", "en")


def product_of(vectors):
  matrix = np.array(vectors, np.float64)
  return matrix @ matrix.T


def test_cosines_of_vectors_worked_by_hand():
  ar, en = [[1.0, 0.0], [1.0, 1.0]], [[0.0, 2.0], [0.0, -2.0]]
  result = gradients.cosines(product_of([*ar, *en]), LANGUAGES)
  assert result == {
    "ar-ar": pytest.approx(2**-0.5),
    "en-en": pytest.approx(-1.0),
    "ar-en": pytest.approx(0.0),
  }
  assert math.isnan(similarity.corrected(result)["ar-en"])  # en disagrees with itself


@pytest.mark.parametrize("truth", [-0.6, 0.0, 0.8])
@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_correction_recovers_the_cosine_under_orthogonal_noise(truth, noise):
  """Means at a known angle, each draw with noise along an axis of its own."""
  x = np.eye(6)[0]
  e = truth * np.eye(6)[0] + (1 - truth**2) ** 0.5 * np.eye(6)[1]
  draws = [m + noise * np.eye(6)[2 + k] for k, m in enumerate((x, x, e, e))]
  raw = gradients.cosines(product_of(draws), LANGUAGES)
  assert abs(raw["ar-en"]) < abs(truth) or truth == 0
  assert similarity.corrected(raw)["ar-en"] == pytest.approx(truth, abs=1e-12)


def test_repeats_give_means_and_errors_that_shrink():
  generator = np.random.default_rng(0)

  def repeats(count):
    return [
      {"all": {"ar-ar": 0.5 + 0.1 * z, "en-en": 0.5 + 0.1 * w, "ar-en": 0.2 + 0.1 * v}}
      for z, w, v in generator.normal(size=(count, 3))
    ]

  few, many = (gradient_similarity.summarised(repeats(n))["all"] for n in (10, 1000))
  assert many["cosine"]["ar-en"]["mean"] == pytest.approx(0.2, abs=0.02)
  assert many["corrected"]["ar-en"]["mean"] == pytest.approx(0.4, abs=0.03)
  for kind in ("cosine", "corrected"):
    ratio = few[kind]["ar-en"]["standard_error"] / many[kind]["ar-en"]["standard_error"]
    assert 5 < ratio < 20  # sqrt(100) of a thousand against ten
  once = gradient_similarity.summarised(repeats(1))["all"]
  assert once["cosine"]["ar-en"]["standard_error"] is None


def test_codes_with_hyphens_are_told_apart():
  cosine = {"zh-yue-zh-yue": 0.25, "sr-Latn-sr-Latn": 0.25, "zh-yue-sr-Latn": 0.1}
  assert similarity.corrected(cosine) == {"zh-yue-sr-Latn": pytest.approx(0.4)}


def test_two_languages_that_agree_in_sign_only_by_chance_are_undefined_not_invented():
  repeat = {"all": {"ar-ar": -0.1, "en-en": 0.5, "ar-en": 0.2}}
  result = gradient_similarity.summarised([repeat, repeat])["all"]["corrected"]["ar-en"]
  assert result == {"mean": None, "standard_error": None}


@pytest.mark.parametrize("system", ["joint_pair", slow("share_adpt"), slow("ffn")])
def test_parts_partition_theta(system):
  run = toy_run(system)
  theta = init_state(run.model, run.optimiser, 1).theta
  changes = [lambda x: x + 0.1, lambda x: x - 0.1, lambda x: 2 * x, lambda x: x * x]
  trees = [jax.tree.map(change, theta) for change in changes]
  parts = jax.device_get(gradients.products(trees))
  expected = {"vocabulary", "embeddings", "language_embedding"} | {
    f"layer{n}/{module}" for n in (1, 2) for module in ("attention", "ffn")
  }
  assert set(parts) == expected
  flat = np.stack(
    [np.concatenate([np.float64(leaf).ravel() for leaf in jax.tree.leaves(tree)]) for tree in trees]
  )
  scopes = gradients.scopes(parts)
  everything = scopes["all"] + parts["language_embedding"]
  np.testing.assert_allclose(everything, flat @ flat.T, rtol=1e-5, atol=1e-4)
  rest = scopes["without_vocabulary"] + parts["vocabulary"]
  np.testing.assert_allclose(rest, scopes["all"], rtol=1e-5, atol=1e-4)


@pytest.fixture(scope="module")
def run():
  return toy_run("adpt", num_devices=2, model__num_layers=1)


@pytest.mark.slow
def test_gradient_is_that_of_the_mean_loss_however_it_is_accumulated(run):
  state = init_state(run.model, run.optimiser, 1)
  rows, key = random_tokens(3, 8, run.data.sequence_length), jax.random.key(5)
  params = parallel.replicate((state.theta, state.phi))
  step = gradients.make_gradient_step(run)
  quick, patient = (
    gradients.mean_gradient(step, params, rows, 1, key, size, lambda: None) for size in (8, 2)
  )
  assert relative_difference(quick, patient) < 1e-5

  def loss(theta):
    model = run.model.replace(dropout=0.0)
    masked = masking.mask_tokens(
      key,
      rows,
      jnp.arange(8),
      num_predicted=masking.num_predicted(run.mask_rate, rows.shape[1]),
      vocab_size=model.vocab_size,
    )
    total, count = losses.mlm_loss(
      model, merge_params(theta, select_language(state.phi, 1)), masked, 1
    )
    return total / count

  assert relative_difference(quick, jax.jit(jax.grad(loss))(state.theta)) < 1e-5


def test_draws_are_disjoint_and_a_function_of_the_numbers_given():
  stream = np.repeat(np.arange(100), 4)  # block b holds the number b
  first, second = gradients.disjoint_rows(stream, 4, 30, np.random.default_rng(0))
  assert first.shape == second.shape == (30, 4)
  assert not set(first[:, 0]) & set(second[:, 0]) and len(set(first[:, 0])) == 30


def test_a_corpus_too_small_gives_what_it_has_or_one_sentence():
  streams = [np.zeros(1000), np.zeros(400)]
  assert gradients.available_sentences(streams, 10, 4096, 8) == 16
  with pytest.raises(UserError, match="at least one batch of 32"):
    gradients.available_sentences(streams, 10, 4096, 32)


def test_a_measurement_sees_a_language_that_is_the_other_one_as_itself(run):
  """Two names for one text, no phi and no language embedding: between is as within, up to noise."""
  same = toy_run("joint_pair", num_devices=2, model__language_embedding=False)
  state = init_state(same.model, same.optimiser, 1)
  stream = np.random.default_rng(0).zipf(1.5, 40_000).clip(max=150) + 14
  measure = gradients.make_measure(same, [stream, stream], 128, 64, lambda: None)
  params = parallel.replicate((state.theta, state.phi))
  cosine = measure(params, (1, 0))["without_vocabulary"]
  assert set(cosine) == {"xb-xb", "xa-xa", "xb-xa"}
  assert max(abs(a - b) for a, b in itertools.combinations(cosine.values(), 2)) < 0.1
  assert measure(params, (1, 0))["without_vocabulary"] == cosine
  assert measure(params, (1, 1))["without_vocabulary"] != cosine


def test_the_rows_of_the_language_embedding_are_in_no_sum(monkeypatch):
  """One text, two names, equal embeddings: the languages agree as one language does with itself."""
  same = toy_run("joint_pair", num_devices=2)
  state = init_state(same.model, same.optimiser, 1)
  rows = state.theta["language"]
  state = state.replace(theta=state.theta | {"language": jnp.broadcast_to(rows[0], rows.shape)})
  stream = np.random.default_rng(0).zipf(1.5, 40_000).clip(max=150) + 14
  measure = gradients.make_measure(same, [stream, stream], 128, 64, lambda: None)
  params = parallel.replicate((state.theta, state.phi))
  measured = measure(params, (1, 0))
  own = measured["language_embedding"]
  assert own["xb-xa"] == 0 and min(own["xb-xb"], own["xa-xa"]) > 0.5

  def corrected(measured, scope):
    return similarity.corrected(measured[scope])["xb-xa"]

  assert corrected(measured, "all") == pytest.approx(1, abs=0.05)
  assert corrected(measured, "without_vocabulary") == pytest.approx(1, abs=0.05)
  monkeypatch.setattr(gradients, "LANGUAGE_EMBEDDING", "no part")
  counted = measure(params, (1, 0))
  assert corrected(counted, "all") < 0.95 and corrected(counted, "without_vocabulary") < 0.9


def test_measurements_are_dense_at_the_beginning():
  def steps(every, until):
    return [step for step in range(until) if gradients.is_due(step, every)]

  assert steps(1000, 3001) == [10, 20, 40, 80, 160, 320, 640, 1000, 2000, 3000]
  assert steps(60, 200) == [10, 20, 40, 60, 120, 180]
  assert steps(2, 7) == [2, 4, 6]
  assert steps(10, 41) == [10, 20, 30, 40]


def test_a_pretraining_run_measures_then():
  run = toy_run("joint_pair", gradient_similarity__every=1000, gradient_similarity__batch_size=64)
  cache = types.SimpleNamespace(streams={"train": []})
  [observer] = pretrain.gradient_observers(run, cache, 64, lambda: None)
  assert [step for step in range(1500) if observer.is_due(step)][:3] == [10, 20, 40]
  assert pretrain.gradient_observers(run, cache, 0, lambda: None) == []


def test_only_raw_cosines_are_logged_and_what_has_no_value_is_not_a_number():
  measured = {"all": {"xb-xb": 0.5, "xa-xa": math.nan, "xb-xa": math.nan}}
  assert gradients.scalars(measured) == {"gradient_cosine/all/xb-xb": 0.5}
