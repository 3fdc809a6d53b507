"""Adapters beside an exported encoder: there and back, the authors' names, damaged files."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from toy import assert_same_bits, toy_model

from negint.errors import UserError
from negint.method.phi import init_theta_and_phi
from negint.pretrained import adapters

CODES = ("te", "ar")
OPTIONS = toy_model(specific=("adapter",), adapter_activation="relu")


@pytest.fixture
def phi():
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(lambda key: init_theta_and_phi(OPTIONS, key)[1], jax.random.key(0))
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def test_adapters_come_back(phi, tmp_path):
  config = json.loads(json.dumps(adapters.write(tmp_path, OPTIONS, phi, CODES)))
  plain = OPTIONS.replace(specific=(), adapter_dim=0, adapter_activation="gelu", num_languages=1)
  options, found, languages = adapters.read(tmp_path, config, plain)
  assert (options, languages) == (OPTIONS, CODES)
  assert jax.tree.structure(found) == jax.tree.structure(phi)
  assert_same_bits(found, phi)


def test_names_and_matrices_are_the_authors(phi, tmp_path):
  adapters.write(tmp_path, OPTIONS, phi, CODES)
  found = load_file(tmp_path / adapters.FILE)
  assert (
    len(found) == 2 * 2 * 2 * 2 * 2
  )  # adapters, languages, layers, linear layers, kernel and bias
  np.testing.assert_array_equal(
    found["adapter1.ar.1.lin1.weight"],
    phi["layers_1"]["attention_adapter"]["inner"]["kernel"][1].T,
  )


def test_without_adapters_there_is_no_file(tmp_path):
  assert adapters.write(tmp_path, OPTIONS, {}, CODES) == {} and not any(tmp_path.iterdir())


def test_what_is_missing_is_named(phi, tmp_path):
  config = adapters.write(tmp_path, OPTIONS, phi, CODES)
  with pytest.raises(UserError, match="adapter_dim, adapter_activation, adapter_languages"):
    adapters.read(tmp_path, {}, OPTIONS)
  arrays = load_file(tmp_path / adapters.FILE)
  del arrays["adapter2.te.0.lin2.bias"]
  save_file(arrays, tmp_path / adapters.FILE)
  with pytest.raises(UserError, match="has no adapter2.te.0.lin2.bias"):
    adapters.read(tmp_path, config, OPTIONS)
