"""BERT's and RoBERTa's checkpoints: equal to transformers, in all forms that such files have."""

import functools
import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from golden_folders import FOLDERS, checkpoints
from safetensors.numpy import load_file, save_file
from toy import assert_same_bits, slow
from xlm_folder import edit_object

from negint.errors import UserError
from negint.method import model
from negint.method.model import init_params
from negint.pretrained import bert_weights
from negint.pretrained.load import load_pretrained
from negint.run.files import write_json

GOLDEN = checkpoints("bert", "roberta", "xlm-roberta", "camembert")
BERT, ROBERTA = (FOLDERS[0] / name for name in ("tiny_bert", "tiny_xlm_roberta"))
TOKENS = np.array([[2, 7, 9, 30, 3], [2, 50, 3, 0, 0]])


@functools.partial(jax.jit, static_argnums=0)
def forward(options, params, tokens, lengths=None, types=None):
  hidden = model.encode(options, params, tokens, 0, lengths_B=lengths, types_BxT=types)
  return hidden, model.vocabulary_logits(options, params, hidden)


@pytest.fixture(params=[BERT, ROBERTA], ids=["bert", "roberta"])
def folder(request, tmp_path):
  return shutil.copytree(request.param, tmp_path / request.param.name)


@pytest.fixture
def bert(tmp_path):
  return shutil.copytree(BERT, tmp_path / "bert")


def rewrite(folder, change):
  """Replaces the weights by what a function makes of them."""
  weights = change(load_file(folder / "model.safetensors"))
  arrays = {name: np.ascontiguousarray(array) for name, array in weights.items()}
  save_file(arrays, folder / "model.safetensors")


def test_there_are_golden_files_of_both_families():
  assert {BERT, ROBERTA} <= set(GOLDEN)


def error(golden, **changes):
  """Largest difference to transformers' hidden states and logits, with other options."""
  found, expected = load_pretrained(str(golden)), np.load(golden / "expected.npz")
  tokens, lengths = expected["tokens"], expected["lengths"]
  inside = np.arange(tokens.shape[1])[None] < lengths[:, None]
  hidden, logits = forward(found.model.replace(**changes), found.theta, tokens, lengths)
  pairs = [(hidden, "last_hidden_state"), (logits, "logits")]
  differences = [x - expected[name] for x, name in pairs if name in expected.files]
  return max(np.max(np.abs(each[inside])) for each in differences)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_hidden_states_and_logits_are_those_of_transformers(golden):
  assert error(golden) < 1e-4


@pytest.mark.parametrize(
  ("golden", "changes"),
  [
    (ROBERTA, dict(position_offset=0, max_length=34)),
    slow(ROBERTA, dict(norm_epsilon=1e-3)),
    slow(BERT, dict(token_types=0)),
    slow(BERT, dict(softmax_transform="none")),
  ],
)
def test_the_golden_values_tell_the_families_apart(golden, changes):
  """Negative controls: without a field of the options the values are others."""
  assert error(golden, **changes) > 2e-4


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_what_is_known_of_a_checkpoint(golden):
  found = load_pretrained(str(golden))
  config = json.loads((golden / "config.json").read_text())
  assert (found.system, found.languages, found.phi) == (config["model_type"], (), {})
  assert found.speaks("sw") and found.language_index("sw") == 0
  assert found.model.position_offset + found.model.max_length == config["max_position_embeddings"]
  assert found.model.mask_id == found.tokenizer.special.mask
  assert set(found.model.kept_ids) == set(found.tokenizer.special.ids)
  shapes = jax.eval_shape(functools.partial(init_params, found.model), jax.random.key(0))
  assert jax.tree.map(np.shape, found.theta) == jax.tree.map(np.shape, shapes)
  assert {leaf.dtype for leaf in jax.tree.leaves(found.theta)} == {np.dtype(np.float32)}


def test_a_scratch_row_has_random_weights_of_the_same_shape(bert):
  trained, scratch = load_pretrained(str(bert)), load_pretrained(str(bert), scratch=True)
  assert scratch.model == trained.model and scratch.tokenizer.special == trained.tokenizer.special
  shapes = [jax.tree.map(np.shape, found.theta) for found in (trained, scratch)]
  assert shapes[0] == shapes[1]
  assert not np.any(scratch.theta["token"][scratch.model.pad_id])
  assert not np.array_equal(trained.theta["token"], scratch.theta["token"])


def old_names(weights):
  """What mBERT's first files have: other names of LayerNorm, buffers, tied weights, a second head."""
  words = next(name for name in weights if "word_embeddings" in name)
  head = "cls.predictions" if "cls.predictions.bias" in weights else "lm_head"
  prefix = words.removesuffix("embeddings.word_embeddings.weight")
  renamed = {
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
      "LayerNorm.bias", "LayerNorm.beta"
    ): w
    for name, w in weights.items()
  }
  more = {
    f"{prefix}embeddings.position_ids": np.arange(9)[None],
    f"{prefix}pooler.dense.bias": np.ones(16, np.float32),
    f"{head}.decoder.weight": weights[words],
    f"{head}.decoder.bias": weights[f"{head}.bias"],
    "cls.seq_relationship.bias": np.ones(2, np.float32),
  }
  return {**renamed, **more}


def under_the_softmaxs_name(weights):
  """The tied table under its other name alone, as some converters write it."""
  words = next(name for name in weights if "word_embeddings" in name)
  head = "cls.predictions" if "cls.predictions.bias" in weights else "lm_head"
  kept = {name: weight for name, weight in weights.items() if name != words}
  return {**kept, f"{head}.decoder.weight": weights[words]}


@pytest.mark.parametrize("change", [old_names, under_the_softmaxs_name])
def test_other_names_and_buffers_change_nothing(change, folder):
  whole = load_pretrained(str(folder))
  rewrite(folder, change)
  found = load_pretrained(str(folder))
  assert found.model == whole.model
  assert_same_bits(found.theta, whole.theta)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened(dtype, folder):
  whole = load_pretrained(str(folder))
  rewrite(folder, lambda weights: {n: w.astype(dtype) for n, w in weights.items()})
  found = load_pretrained(str(folder))
  rounded = jax.tree.map(lambda x: x.astype(dtype).astype(np.float32), whole.theta)
  assert_same_bits(found.theta, rounded)


def test_shards_are_read_by_their_index(folder):
  whole, weights = load_pretrained(str(folder)), load_file(folder / "model.safetensors")
  names = sorted(weights)
  parts = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
  for part, those in parts.items():
    save_file({name: weights[name] for name in those}, folder / part)
  index = {name: part for part, those in parts.items() for name in those}
  write_json(folder / "model.safetensors.index.json", {"weight_map": index})
  (folder / "model.safetensors").unlink()
  assert_same_bits(load_pretrained(str(folder)).theta, whole.theta)


def without_head(weights):
  return {n: w for n, w in weights.items() if not n.startswith(("cls.", "lm_head."))}


def alone(weights):
  return {name.partition(".")[2]: weight for name, weight in without_head(weights).items()}


def with_a_tasks_head(weights):
  return {**without_head(weights), "classifier.weight": np.zeros((3, 16), np.float32)}


@pytest.mark.parametrize("change", [without_head, alone, with_a_tasks_head])
def test_an_encoder_serves_without_its_head(change, folder):
  whole = load_pretrained(str(folder))
  rewrite(folder, change)
  found = load_pretrained(str(folder))
  assert whole.has_head and not found.has_head
  assert found.model == whole.model.replace(softmax_transform="none")
  np.testing.assert_array_equal(
    *(forward(each.model, each.theta, TOKENS)[0] for each in (whole, found))
  )
  assert not np.any(found.theta["softmax_bias"])


def test_a_softmax_of_its_own_is_no_table_of_tokens(bert):
  whole = load_pretrained(str(bert))
  rng = np.random.default_rng(0)
  table, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((200, 16), (200,)))
  own = {"cls.predictions.decoder.weight": table, "cls.predictions.decoder.bias": bias}
  rewrite(bert, lambda weights: {**weights, **own})  # transformers ignores the other bias then
  found = load_pretrained(str(bert))
  assert found.model == whole.model.replace(tied_softmax=False)
  hidden, logits = forward(whole.model, whole.theta, TOKENS)
  same_hidden, own_logits = forward(found.model, found.theta, TOKENS)
  np.testing.assert_array_equal(hidden, same_hidden)
  logits, own_logits = (np.asarray(each).reshape(-1, 200) for each in (logits, own_logits))
  transformed = np.linalg.lstsq(whole.theta["token"], (logits - whole.theta["softmax_bias"]).T)[0]
  np.testing.assert_allclose(own_logits, (table @ transformed).T + bias, rtol=1e-3, atol=1e-3)


def test_a_head_without_bias_has_a_bias_of_zero(bert):
  whole = load_pretrained(str(bert))
  rewrite(bert, lambda w: {n: x for n, x in w.items() if n != "cls.predictions.bias"})
  found = load_pretrained(str(bert))
  assert found.has_head and found.model == whole.model
  zero = {**whole.theta, "softmax_bias": np.zeros(200, np.float32)}
  assert_same_bits(found.theta, zero)


@pytest.mark.parametrize(
  ("name", "ours"),
  [("gelu_new", "gelu_tanh"), ("gelu", "gelu"), ("relu", "relu"), ("swish", "silu")],
)
def test_roberta_transforms_with_gelu_whatever_its_layers_have(name, ours, folder):
  edit_object(folder / "config.json", hidden_act=name)
  found = load_pretrained(str(folder)).model
  assert found.activation == ours
  assert found.softmax_transform == ("gelu" if found.position_offset else ours)


@pytest.mark.parametrize(
  ("name", "formula"),
  [
    ("gelu_tanh", lambda x: x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
    ("silu", lambda x: x / (1 + np.exp(-x))),
  ],
)
def test_activations_are_their_formulas(name, formula):
  x = np.linspace(-5, 5, 101, dtype=np.float32)
  np.testing.assert_allclose(model.ACTIVATIONS[name](x), formula(x), atol=1e-6)


def test_positions_begin_after_the_pad_that_the_config_names(tmp_path):
  folder = shutil.copytree(ROBERTA, tmp_path / "roberta")
  found = load_pretrained(str(folder)).model
  assert (found.pad_id, found.position_offset, found.max_length) == (1, 2, 32)
  edit_object(folder / "config.json", pad_token_id=5)
  found = load_pretrained(str(folder)).model
  assert (found.pad_id, found.position_offset, found.max_length) == (5, 6, 28)
  edit_object(folder / "config.json", pad_token_id=None)
  assert load_pretrained(str(folder)).model.position_offset == 2


def test_the_texts_of_a_pair_are_told_apart_where_there_are_types(bert):
  found = load_pretrained(str(bert))
  assert found.tokenizer.special.second_type == 1
  types = np.array([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]])
  one, two = (forward(found.model, found.theta, TOKENS, None, t)[0] for t in (types, None))
  assert np.max(np.abs(one[0] - two[0])) > 1e-3
  np.testing.assert_array_equal(one[1], two[1])
  name = "bert.embeddings.token_type_embeddings.weight"
  rewrite(bert, lambda weights: {**weights, name: weights[name][:1]})
  found = load_pretrained(str(bert))
  assert (found.model.token_types, found.tokenizer.special.second_type) == (1, 0)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (dict(is_decoder=True), "is_decoder is True; only False works"),
    (dict(add_cross_attention=True), "add_cross_attention is True"),
    (dict(position_embedding_type="relative_key"), "is 'relative_key'; only 'absolute' works"),
    (dict(pruned_heads={"0": [1]}), "pruned_heads is"),
    (dict(quantization_config={"bits": 4}), "quantization_config is"),
    (dict(hidden_act="mish"), "hidden_act is 'mish'; it must be one of 'gelu', 'gelu_python'"),
    (dict(num_attention_heads=3), "num_attention_heads is 3, which does not divide the width 16"),
    (dict(num_hidden_layers=4), "has no weight 'encoder.layer.[0-9]+.attention.self.query.weight'"),
    (
      dict(num_hidden_layers=1),
      "has weights that its config.json does not tell of: encoder.layer.1",
    ),
    (dict(tie_word_embeddings=False), "tie_word_embeddings is False, but the .* has no softmax of"),
    (dict(model_type="electra"), "model_type is 'electra'; it must be one of 'xlm', 'bert'"),
  ],
)
def test_configs_that_cannot_be_computed_are_refused(changes, words, folder):
  edit_object(folder / "config.json", **changes)
  with pytest.raises(UserError, match=words):
    load_pretrained(str(folder))


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      lambda w: {n: x for n, x in w.items() if "position_emb" not in n},
      "has no weight 'embeddings",
    ),
    (
      lambda w: {n: x for n, x in w.items() if "word_emb" not in n},
      "has no weight 'embeddings.word",
    ),
    (
      lambda w: {n: x for n, x in w.items() if "transform.dense" not in n},
      "has no weight 'cls.pre",
    ),
    (lambda w: {n: x.astype(np.int8) for n, x in w.items()}, "numbers of type int8; quantised"),
    (
      lambda w: {**w, "bert.encoder.layer.0.output.adapter.weight": np.zeros((2, 2), np.float32)},
      "has weights that its config.json does not tell of: encoder.layer.0.output.adapter.weight",
    ),
  ],
)
def test_weights_that_do_not_fit_are_refused(change, words, bert):
  rewrite(bert, change)
  with pytest.raises(UserError, match=words):
    load_pretrained(str(bert))


def test_a_class_stands_for_the_model_type_of_an_old_file(bert):
  edit_object(bert / "config.json", model_type=None)
  assert load_pretrained(str(bert)).system == "bert"


def test_another_family_is_refused_by_the_reader_of_weights(bert):
  edit_object(bert / "config.json", model_type="xlm", n_heads=2)
  with pytest.raises(UserError, match="model_type is 'xlm'; it must be one of 'bert'"):
    bert_weights.read_hugging_face(bert)
