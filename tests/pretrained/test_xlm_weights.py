"""XLM's weights in and out, Hugging Face's folders, and what is refused."""

import functools
import json

import jax
import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import load_file, save_file
from toy import assert_same_bits, toy_model

from negint.errors import UserError
from negint.method.phi import init_theta_and_phi
from negint.pretrained import xlm_weights

CODES = ("ar", "te", "en")
PLAIN = toy_model(num_languages=3, adapter_dim=0, max_length=10, vocab_size=40)
ADAPTED = PLAIN.replace(specific=("adapter",), adapter_dim=4)


def arrays(options):
  """(theta, phi) of arrays that all differ."""
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(functools.partial(init_theta_and_phi, options), jax.random.key(0))
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


def assert_equal_trees(tree, other):
  assert jax.tree.structure(tree) == jax.tree.structure(other)
  assert_same_bits(tree, other)


def xlm_names(options=ADAPTED):
  return xlm_weights.to_xlm(options, *arrays(options), CODES)


def read(weights, **changes):
  return xlm_weights.from_xlm(
    weights, **{**dict(num_heads=2, gelu=True, languages=CODES), **changes}
  )


@pytest.mark.parametrize("options", [PLAIN, ADAPTED], ids=["plain", "adapters"])
def test_xlms_names_give_arrays_and_options_back(options):
  found, theta, phi = read(xlm_names(options))
  assert found == options
  assert_equal_trees((theta, phi), arrays(options))


def test_matrices_are_transposed_as_torch_keeps_them():
  weights, (theta, phi) = xlm_names(), arrays(ADAPTED)
  assert weights["ffns.1.lin1.weight"].shape == (ADAPTED.ffn_dim, ADAPTED.model_dim)
  np.testing.assert_array_equal(
    weights["attentions.0.k_lin.weight"], theta["layers_0"]["attention"]["key"]["kernel"].T
  )
  np.testing.assert_array_equal(
    weights["adapter2.en.1.lin2.weight"], phi["layers_1"]["ffn_adapter"]["outer"]["kernel"][2].T
  )
  assert all(array.flags.c_contiguous for array in weights.values())


def test_a_language_whose_code_is_inside_adapter_gets_its_own_arrays_only():
  """'te' is a substring of 'adapter1.ar...': an assignment by substring would mix languages."""
  weights = xlm_names()
  _, phi = arrays(ADAPTED)
  moved = {
    name: array + 1.0 if name.split(".")[1] == "te" else array for name, array in weights.items()
  }
  assert sum("te" in name and name.split(".")[1] != "te" for name in weights) > 0
  _, theta_read, phi_read = read(moved)
  assert_equal_trees(theta_read, arrays(ADAPTED)[0])
  for path, leaf in traverse_util.flatten_dict(phi_read).items():
    original = traverse_util.flatten_dict(phi)[path]
    np.testing.assert_array_equal(leaf[1], original[1] + 1.0)
    np.testing.assert_array_equal(leaf[[0, 2]], original[[0, 2]])


def test_the_order_of_the_languages_is_the_callers():
  _, _, phi = read(xlm_names(), languages=("en", "te", "ar"))
  expected = jax.tree.map(lambda leaf: leaf[::-1], arrays(ADAPTED)[1])
  assert_equal_trees(phi, expected)


def test_tied_softmax_weights_are_taken_and_untied_ones_refused():
  weights = xlm_names()
  tied = {**weights, "pred_layer.proj.weight": weights["embeddings.weight"].copy()}
  assert_equal_trees(read(tied)[1:], arrays(ADAPTED))
  with pytest.raises(UserError, match="tied"):
    read({**tied, "pred_layer.proj.weight": weights["embeddings.weight"] + 1e-3})


@pytest.mark.parametrize(
  "name",
  [
    "embeddings.weight",
    "position_embeddings.weight",
    "pred_layer.proj.bias",
    "ffns.1.lin2.bias",
    "attentions.0.q_lin.weight",
    "adapter1.te.0.lin1.weight",
    "layer_norm2.1.bias",
  ],
)
def test_a_missing_weight_is_named(name):
  weights = xlm_names()
  del weights[name]
  with pytest.raises(UserError) as caught:
    read(weights)
  assert name in str(caught.value)


def test_missing_embeddings_are_named_beside_softmax_weights():
  weights = xlm_names()
  weights["pred_layer.proj.weight"] = weights.pop("embeddings.weight")
  with pytest.raises(UserError, match="embeddings.weight"):
    read(weights)


def test_a_weight_that_would_be_left_over_is_named():
  extra = {**xlm_names(), "encoder_attn.0.q_lin.weight": np.zeros((2, 2))}
  with pytest.raises(UserError, match="encoder_attn.0.q_lin.weight"):
    read(extra)
  with pytest.raises(UserError, match="adapter1.en"):
    read(xlm_names(ADAPTED.replace(language_embedding=False)), languages=("ar", "te"))
  with pytest.raises(UserError, match="adapter1.sw"):
    read(xlm_names(), languages=("ar", "sw", "en"))


@pytest.mark.parametrize("languages", [("ar", "te"), ("ar", "te", "en", "fr")])
def test_as_many_languages_as_language_embeddings_or_none(languages):
  with pytest.raises(UserError, match="lang_embeddings.weight"):
    read(xlm_names(PLAIN), languages=languages)


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(UserError, match="3 heads.* 16"):
    read(xlm_names(), num_heads=3)
  assert read(xlm_names(), num_heads=4)[0].head_dim == 4


@pytest.mark.parametrize(
  "changes",
  [
    dict(specific=("ffn",)),
    dict(specific=("attention",)),
    dict(shared_adapter=True, adapter_dim=4),
  ],
)
def test_systems_without_xlms_names_are_not_exported(changes):
  options = PLAIN.replace(**changes)
  with pytest.raises(UserError, match="model.specific"):
    xlm_weights.to_xlm(options, *arrays(options), CODES)


@pytest.mark.parametrize("tree", [0, 1], ids=["theta", "phi"])
def test_a_module_without_a_name_is_not_left_out_of_the_file(tree):
  trees = arrays(ADAPTED)
  trees[tree]["layers_0"]["shift"] = {"bias": np.zeros((len(CODES), 8), np.float32)}
  with pytest.raises(UserError, match="no name for layers_0/shift/bias"):
    xlm_weights.to_xlm(ADAPTED, *trees, CODES)


@pytest.mark.parametrize(
  "changes", [dict(norm_epsilon=1e-5), dict(token_types=2), dict(softmax_transform="gelu")]
)
def test_other_families_have_no_xlm_names(changes):
  options = PLAIN.replace(**changes)
  with pytest.raises(UserError, match=f"model.{next(iter(changes))} is"):
    xlm_weights.to_xlm(options, *arrays(options), CODES)


EXPORTED = PLAIN.replace(
  dropout=0.1, attention_dropout=0.2, activation="relu", adapter_activation="relu"
)


@pytest.fixture
def exported(tmp_path):
  folder = tmp_path / "exported"
  xlm_weights.write_hugging_face(folder, EXPORTED, *arrays(EXPORTED), CODES)
  return folder


def test_a_hugging_face_folder_gives_arrays_options_and_languages_back(exported):
  options, theta, phi, languages = xlm_weights.read_hugging_face(exported)
  assert options == EXPORTED and languages == CODES
  assert_equal_trees((theta, phi), arrays(EXPORTED))
  assert sorted(path.name for path in exported.iterdir()) == ["config.json", "model.safetensors"]
  assert [path.name for path in exported.parent.iterdir()] == ["exported"]


def test_names_and_config_are_hugging_faces(exported):
  config = json.loads((exported / "config.json").read_text(encoding="utf-8"))
  assert config["architectures"] == ["XLMWithLMHeadModel"] and config["n_langs"] == 3
  assert config["lang2id"] == {"ar": 0, "te": 1, "en": 2} and config["mask_index"] == 5
  names = load_file(exported / "model.safetensors").keys()
  assert "transformer.embeddings.weight" in names and "pred_layer.proj.bias" in names
  assert all(name.startswith(("transformer.", "pred_layer.")) for name in names)


def test_a_mono_model_goes_out_and_in(tmp_path):
  options = PLAIN.replace(num_languages=1, language_embedding=False)
  xlm_weights.write_hugging_face(tmp_path / "mono", options, *arrays(options), ("ar",))
  found, theta, phi, languages = xlm_weights.read_hugging_face(tmp_path / "mono")
  assert found == options and languages == ("ar",)
  assert_equal_trees((theta, phi), arrays(options))


def test_buffers_of_other_versions_and_tied_weights_are_no_obstacle(exported):
  weights = load_file(exported / "model.safetensors")
  weights["transformer.position_ids"] = np.arange(10)[None]
  weights["pred_layer.proj.weight"] = weights["transformer.embeddings.weight"].copy()
  save_file(weights, exported / "model.safetensors")
  assert_equal_trees(xlm_weights.read_hugging_face(exported)[1:3], arrays(EXPORTED))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_its_files_is_refused(exported, missing):
  (exported / missing).unlink()
  with pytest.raises(UserError, match=missing):
    xlm_weights.read_hugging_face(exported)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("model_type", "bert"),
    ("causal", True),
    ("asm", True),
    ("is_encoder", False),
    ("layer_norm_eps", 1e-5),
  ],
)
def test_another_architecture_is_refused(exported, field, value):
  path = exported / "config.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
  with pytest.raises(UserError, match=f"{field} is {value!r}"):
    xlm_weights.read_hugging_face(exported)


@pytest.mark.parametrize(
  ("changes", "word"),
  [
    (dict(specific=("ffn",)), "ffn"),
    (dict(shared_adapter=True, adapter_dim=4), "shared_adapter"),
    (dict(head_dim=4), "2 heads of 4 are 8"),
  ],
)
def test_systems_that_hugging_face_cannot_hold_are_refused(tmp_path, changes, word):
  options = PLAIN.replace(**changes)
  with pytest.raises(UserError, match=word):
    xlm_weights.write_hugging_face(tmp_path / "out", options, *arrays(options), CODES)
  assert list(tmp_path.iterdir()) == []
