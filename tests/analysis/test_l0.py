"""Hard-concrete gates against their closed forms, by simulation, and on a real encoder."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import random_tokens, toy_model

from negint.analysis import l0
from negint.method import model

SAMPLES = 200_000


def spread(value):
  return {"layers_0": {"ffn": {"inner": jnp.full((SAMPLES,), value)}}}


def drawn(value):
  return np.asarray(jax.tree.leaves(l0.sample_gates(jax.random.key(0), spread(value)))[0])


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("log_alpha", [-4.0, -1.0, 0.0, 0.7, 3.0])
def test_samples_open_and_close_as_often_as_the_closed_form_says(log_alpha):
  gates = drawn(log_alpha)
  assert gates.min() >= 0 and gates.max() <= 1
  is_open = float(jax.tree.leaves(l0.open_probability({"a": jnp.float32(log_alpha)}))[0])
  # P(gate = 1): the stretched value passes 1 where the concrete one passes (1 - gamma) / 1.2.
  beyond = (1 - l0.GAMMA) / (l0.ZETA - l0.GAMMA)
  is_full = sigmoid(log_alpha - l0.TEMPERATURE * math.log(beyond / (1 - beyond)))
  for share, expected in (((gates > 0).mean(), is_open), ((gates == 1).mean(), is_full)):
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / SAMPLES) + 1e-6


def test_probability_of_an_open_gate_at_the_start():
  assert float(l0.open_probability(jnp.float32(0.0))) == pytest.approx(sigmoid(1.5986), abs=1e-4)


def test_deterministic_gates_close_and_fill_at_log_11():
  edge = math.log(11)  # 2.398
  gates = l0.deterministic_gates(
    jnp.array([-edge - 1e-3, -edge + 1e-3, 0.0, edge - 1e-3, edge + 1e-3])
  )
  assert gates[0] == 0 and gates[1] > 0 and gates[3] < 1 and gates[4] == 1
  assert float(gates[2]) == pytest.approx(0.5)


def test_gradient_of_the_expected_gate_agrees_with_a_finite_difference_of_simulations():
  def mean_gate(value):
    gates = l0.sample_gates(jax.random.key(1), spread(value))
    return jax.tree.leaves(gates)[0].mean()

  derivative = jax.grad(mean_gate)(0.3)
  difference = (mean_gate(0.35) - mean_gate(0.25)) / 0.1
  assert float(derivative) == pytest.approx(float(difference), rel=0.02)


def hidden(options, params):
  return model.encode(options, params, random_tokens(0, 3, 10, vocab_size=61), 0)


@pytest.fixture
def toy():
  options = toy_model()
  return options, model.init_params(options, jax.random.key(0))


@pytest.mark.parametrize("granularity", l0.GRANULARITIES)
def test_open_gates_change_nothing_and_shapes_fit_every_weight(granularity, toy):
  options, params = toy
  gates = l0.init_log_alpha(options, granularity, jax.random.key(1))
  ones = jax.tree.map(jnp.ones_like, gates)
  same = l0.masked(params, l0.multipliers(options, ones))
  assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, params))
  assert float(l0.share(options, granularity, ones)) == pytest.approx(1.0)


def test_a_closed_head_and_neuron_are_a_model_without_them(toy):
  options, params = toy
  gates = jax.tree.map(jnp.ones_like, l0.init_log_alpha(options, "unit", jax.random.key(1)))
  gates["layers_0"]["attention"]["head"] = jnp.array([0.0, 1.0])
  gates["layers_1"]["ffn"]["neuron"] = jnp.ones(options.ffn_dim).at[5].set(0.0)
  masked = l0.masked(params, l0.multipliers(options, gates))

  removed = jax.tree.map(jnp.array, params)
  output = removed["layers_0"]["attention"]["output"]
  output["kernel"] = output["kernel"].at[: options.head_dim].set(0.0)
  outer = removed["layers_1"]["ffn"]["outer"]
  outer["kernel"] = outer["kernel"].at[5].set(0.0)
  np.testing.assert_allclose(hidden(options, masked), hidden(options, removed), atol=1e-6)
  assert np.abs(np.asarray(hidden(options, masked) - hidden(options, params))).max() > 1e-3


def test_a_closed_row_outputs_zero_and_a_closed_weight_is_zero(toy):
  options, params = toy
  gates = jax.tree.map(jnp.ones_like, l0.init_log_alpha(options, "row", jax.random.key(1)))
  gates["layers_0"]["attention"]["key"] = gates["layers_0"]["attention"]["key"].at[3].set(0.0)
  key = l0.masked(params, l0.multipliers(options, gates))["layers_0"]["attention"]["key"]
  assert not key["kernel"][:, 3].any() and key["bias"][3] == 0
  assert key["kernel"][:, 2].all()

  gates = jax.tree.map(jnp.ones_like, l0.init_log_alpha(options, "weight", jax.random.key(1)))
  gates["layers_1"]["ffn"]["inner"] = gates["layers_1"]["ffn"]["inner"].at[2, 7].set(0.0)
  masked = l0.masked(params, l0.multipliers(options, gates))
  inner, before = masked["layers_1"]["ffn"]["inner"], params["layers_1"]["ffn"]["inner"]
  assert inner["kernel"][2, 7] == 0 and (inner["bias"] == before["bias"]).all()
  assert int((inner["kernel"] != before["kernel"]).sum()) == 1


def test_phi_is_masked_language_by_language(toy):
  options, params = toy
  gates = jax.tree.map(jnp.ones_like, l0.init_log_alpha(options, "row", jax.random.key(1)))
  gates["layers_0"]["ffn"]["inner"] = gates["layers_0"]["ffn"]["inner"].at[0].set(0.0)
  ffn = {"layers_0": {"ffn": params["layers_0"]["ffn"]}}
  phi = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), ffn)
  masked = l0.masked(phi, l0.multipliers(options, gates))["layers_0"]["ffn"]["inner"]
  assert not masked["kernel"][:, :, 0].any() and masked["kernel"][:, :, 1].all()
  assert not masked["bias"][:, 0].any()


def test_shares_weigh_gates_by_the_weights_behind_them():
  options = toy_model(num_layers=1)
  gates = jax.tree.map(jnp.ones_like, l0.init_log_alpha(options, "unit", jax.random.key(1)))
  gates["layers_0"]["attention"]["head"] = jnp.zeros(options.num_heads)
  attention = 4 * options.model_dim * options.num_heads * options.head_dim
  ffn = 2 * options.model_dim * options.ffn_dim
  assert float(l0.share(options, "unit", gates)) == pytest.approx(ffn / (attention + ffn))


def test_group_names_go_with_the_values_in_order():
  options = toy_model()
  log_alpha = l0.init_log_alpha(options, "row", jax.random.key(1))
  log_alpha["layers_1"]["ffn"]["outer"] = log_alpha["layers_1"]["ffn"]["outer"].at[3].set(99.0)
  shuffled = dict(reversed(log_alpha.items()))  # the order of a dict must not matter
  vectors = l0.by_scope(shuffled)
  assert l0.group_names(shuffled)[int(vectors["all"].argmax())] == "layer2/ffn/outer[3]"
  assert vectors["all"].size == sum(v.size for scope, v in vectors.items() if scope != "all")
  assert vectors["layer2/ffn"].max() == 99.0
