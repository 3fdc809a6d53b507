"""theta and phi: every parameter is in exactly one, and slices do not change each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from toy import assert_same_bits, toy_model

from configs.base import SYSTEMS
from negint.method import model, phi
from negint.method.phi import (
  init_theta_and_phi,
  merge_params,
  put_language,
  select_language,
  split_params,
)

OWNED = {
  "adapter": {"attention_adapter", "ffn_adapter"},
  "attention": {"attention"},
  "ffn": {"ffn"},
}


def options_of(system, **changes):
  return toy_model(
    specific=SYSTEMS[system]["specific"],
    shared_adapter=SYSTEMS[system]["shared_adapter"],
    **changes,
  )


def paths(tree):
  return set(traverse_util.flatten_dict(tree))


@functools.cache
def initialised(options):
  return jax.jit(init_theta_and_phi, static_argnums=0)(options, jax.random.key(0))


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_leaf_is_in_exactly_one_of_theta_and_phi(system):
  options = options_of(system)
  params = jax.eval_shape(functools.partial(model.init_params, options), jax.random.key(0))
  theta, phi_i = split_params(params, options.specific)
  assert paths(theta) | paths(phi_i) == paths(params)
  assert not paths(theta) & paths(phi_i)
  expected = set().union(*(OWNED[name] for name in options.specific))
  assert {path[1] for path in paths(phi_i)} == expected
  assert not any(expected.intersection(path) for path in paths(theta))
  if expected:
    assert {path[0] for path in paths(phi_i)} == {"layers_0", "layers_1"}
  assert any("ffn_adapter" in path for path in paths(theta)) == options.shared_adapter


@pytest.mark.parametrize("specific", [(), ("adapter",), ("ffn", "attention")])
def test_split_and_merge_are_inverse(specific):
  options = toy_model(specific=specific)
  params = jax.tree.map(
    lambda x: np.random.default_rng(0).random(x.shape),
    jax.eval_shape(functools.partial(model.init_params, options), jax.random.key(0)),
  )
  merged = merge_params(*split_params(params, specific))
  assert paths(merged) == paths(params)
  assert_same_bits(merged, params)


def test_merge_refuses_a_leaf_that_both_have():
  theta, phi_i = {"a": {"x": 1, "y": 2}}, {"a": {"z": 3}}
  assert merge_params(theta, phi_i) == {"a": {"x": 1, "y": 2, "z": 3}}
  with pytest.raises(ValueError, match="a/y"):
    merge_params(theta, {"a": {"y": 3}})


def test_a_module_without_parameters_is_refused(monkeypatch):
  monkeypatch.setitem(phi.MODULES, "ffn", ("ffm",))
  with pytest.raises(ValueError, match="no parameters of ffn: ffm"):
    jax.eval_shape(lambda: initialised(options_of("ffn")))
  jax.eval_shape(lambda: initialised(options_of("attn")))  # negative control


@pytest.mark.parametrize("system", ["adpt", "ffn", "attn"])
def test_languages_start_differently_where_the_start_is_random(system):
  options = options_of(system, num_layers=1, init="local")
  theta, phi = initialised(options)
  assert paths(merge_params(theta, select_language(phi, 0))) == paths(
    jax.eval_shape(functools.partial(model.init_params, options), jax.random.key(0))
  )
  kernels = 0
  for path, leaf in traverse_util.flatten_dict(phi).items():
    assert leaf.shape[0] == options.num_languages
    if path[-1] == "kernel":
      kernels += 1
      assert not np.any(np.asarray(leaf[0]) == leaf[1]), path
  assert kernels


def test_queries_and_keys_start_equal_in_each_language_of_a_local_start():
  _, phi = initialised(options_of("attn", num_layers=1, init="local"))
  attention = phi["layers_0"]["attention"]
  assert_same_bits(attention["query"], attention["key"])
  assert not np.any(attention["query"]["kernel"][0] == attention["query"]["kernel"][1])


def test_theta_does_not_depend_on_the_number_of_languages_in_phi():
  """Only the language embedding has one row per language."""
  theta, _ = initialised(options_of("adpt", num_layers=1, init="local"))
  more, phi = initialised(options_of("adpt", num_layers=1, init="local", num_languages=3))
  del theta["language"], more["language"]
  assert_same_bits(theta, more)
  assert {leaf.shape[0] for leaf in jax.tree.leaves(phi)} == {3}


def test_put_changes_one_slice_and_keeps_the_bits_of_the_others():
  rng = np.random.default_rng(0)
  phi = {"a": jnp.asarray(rng.random((3, 4, 2))), "b": {"c": jnp.asarray(rng.random((3, 5)))}}
  new = jax.tree.map(lambda x: x[0] + 1.0, phi)
  put, select = jax.jit(put_language), jax.jit(select_language)
  changed = put(phi, 1, new)
  assert_same_bits(select(changed, 1), new)
  for untouched in (0, 2):
    assert_same_bits(select(changed, untouched), select(phi, untouched))
  assert not np.any(np.asarray(changed["a"][1]) == phi["a"][1])
