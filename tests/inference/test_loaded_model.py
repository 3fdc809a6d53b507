"""Pretrained models on text: masks, vectors, perplexities, and what is refused."""

import dataclasses
import functools
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from golden_folders import FOLDERS, checkpoints
from xlm_folder import LINES, write_checkpoint

import negint
from negint.errors import UserError
from negint.inference import embedding, masked, rows
from negint.inference import load as loading
from negint.method import device, parallel
from negint.method.model import count_parameters, encode, vocabulary_logits
from negint.method.phi import merge_params, select_language
from negint.pretrained.load import load_pretrained
from negint.special_tokens import EOS, MASK

SHORT, LONG = "kala mobo", " ".join(["kala", "mobo", "tir", "zufa"] * 20)


@pytest.fixture(scope="module")
def texts(model):
  """Texts of the toy's own tokens: of many lengths, and one that is longer than the model."""
  rng = np.random.default_rng(0)
  lengths = [3, 40, 1, 17, 9, 90, 25, 5]
  return [model.tokenizer.decode(rng.integers(20, 190, n)) for n in lengths]


@functools.partial(jax.jit, static_argnums=0)
def outputs(options, params, tokens, index):
  states = encode(options, params, tokens, index)
  return states, jax.nn.softmax(vocabulary_logits(options, params, states))


def hidden(model, language, ids, layers=None):
  """The hidden states of one row, without padding or batches, [T, D]."""
  index = model.languages.index(language)
  params = merge_params(model.theta, select_language(model.phi, index))
  options = model._pretrained.model
  if layers is not None:
    options = options.replace(num_layers=layers)
  return np.asarray(outputs(options, params, np.array([ids]), index)[0][0])


def probabilities(model, language, rows):
  """The distributions of the softmax at every place of rows of one length, [N, T, V]."""
  index = model.languages.index(language)
  params = merge_params(model.theta, select_language(model.phi, index))
  return np.asarray(outputs(model._pretrained.model, params, np.array(rows), index)[1])


def test_importing_negint_imports_no_jax():
  code = "import negint, sys; print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == "[]"


def test_a_run_is_what_it_says(model, base):
  pretrained = load_pretrained(str(base))
  assert (model.languages, model.system, model.task) == (("xb", "xa"), "adpt", None)
  assert model.config["train"]["steps"] == 2 and model.max_tokens == 48
  np.testing.assert_array_equal(model.theta["token"], pretrained.theta["token"])
  assert jax.tree.structure(model.phi) == jax.tree.structure(pretrained.phi)
  for part in ("adpt of xb, xa, 2 steps", "for each language", str(base)):
    assert part in repr(model)


def test_tokens_are_the_tokenizers(model):
  pieces = model.tokens("kala\u00a0mobo", "xb")
  assert "".join(pieces) == "▁kala▁mobo"
  assert pieces == [model.tokenizer.piece(i) for i in model.tokenizer.encode("kala mobo")]
  assert model.tokens("  ", "xb") == []


def test_masks_are_filled_with_the_probabilities_of_the_softmax(model):
  text = "kala [MASK] mobo [MASK]"
  ((first, second),) = model.fill_mask([text], "xb", top=4)
  encoded = model.tokenizer.encode
  ids = [EOS, *encoded("kala"), MASK, *encoded("mobo"), MASK, EOS]
  for place, found in zip(np.flatnonzero(np.array(ids) == MASK), (first, second), strict=True):
    expected = probabilities(model, "xb", [ids])[0, place]
    best = np.argsort(-expected)[:4]
    assert [c.token for c in found] == [model.tokenizer.piece(i) for i in best]
    np.testing.assert_allclose([c.probability for c in found], expected[best], rtol=1e-4)
  other = model.fill_mask([text], "xa", top=4)[0][0]
  assert [c.probability for c in other] != [c.probability for c in first]


def test_probabilities_of_all_candidates_sum_to_one(model):
  ((found,),) = model.fill_mask(["[MASK]"], "xb", top=model._pretrained.model.vocab_size)
  assert sum(c.probability for c in found) == pytest.approx(1, abs=1e-5)
  assert [c.probability for c in found] == sorted((c.probability for c in found), reverse=True)


def test_a_mask_of_a_long_text_sees_the_window_around_it(model):
  long = f"{LONG} [MASK] {LONG}"
  ((found,),) = model.fill_mask([long], "xb")
  ids = masked.mask_ids(long, model.tokenizer)
  at, room = ids.index(MASK), model.max_tokens - 2
  window = ids[at - room // 2 : at - room // 2 + room]
  expected = probabilities(model, "xb", [[EOS, *window, EOS]])[0, 1 + room // 2]
  np.testing.assert_allclose(found[0].probability, expected.max(), rtol=1e-4)


def test_what_follows_a_mask_without_a_space_continues_its_word(model):
  encode_text = model.tokenizer.encode
  spaced, joined = (masked.mask_ids(text, model.tokenizer) for text in ("[MASK] la", "[MASK]la"))
  assert spaced == [MASK, *encode_text("la")]
  assert joined[0] == MASK and joined != spaced
  assert model.tokenizer.decode([*encode_text("ka"), *joined[1:]]) == "kala"


def test_pseudo_perplexity_hides_each_token_once(model):
  texts = [SHORT, f"{SHORT} {SHORT}"]
  found = model.perplexity(texts, "xb")
  surprise, count = 0.0, 0
  for text, value, tokens in zip(texts, found.texts, found.tokens, strict=True):
    ids = model.tokenizer.encode(text)
    places = np.arange(len(ids))
    rows = np.array([[EOS, *ids, EOS]] * len(ids))
    rows[places, 1 + places] = MASK
    logs = np.log(probabilities(model, "xb", rows)[places, 1 + places, ids])
    assert tokens == len(ids)
    np.testing.assert_allclose(value, np.exp(-np.mean(logs)), rtol=1e-4)
    surprise, count = surprise - sum(logs), count + len(ids)
  assert found.overall == pytest.approx(np.exp(surprise / count), rel=1e-4)


def test_pseudo_perplexity_of_a_long_text_reads_windows(model, monkeypatch):
  ids = model.tokenizer.encode(LONG)
  assert len(ids) > model.max_tokens
  whole = model.perplexity([LONG, SHORT], "xb")
  assert list(whole.tokens) == [len(ids), len(model.tokenizer.encode(SHORT))]
  monkeypatch.setattr(rows, "ROWS_AT_ONCE", 7)
  parts = model.perplexity([LONG, SHORT], "xb")
  np.testing.assert_allclose(parts.texts, whole.texts, rtol=1e-5)
  assert np.isnan(model.perplexity([], "xb").overall)


@pytest.mark.parametrize(
  ("length", "at", "begin"), [(5, 4, 0), (50, 0, 0), (50, 25, 20), (50, 49, 40)]
)
def test_windows_hold_their_place(length, at, begin):
  assert rows.window(length, at, 10) == begin
  assert begin <= at < begin + 10


def test_any_batch_size_gives_the_same_rows(model, texts):
  whole = model.embed(texts, "xb")
  assert whole.dtype == np.float32 and whole.shape == (len(texts), 16)
  for batch_size in (1, 3):
    np.testing.assert_allclose(model.embed(texts, "xb", batch_size=batch_size), whole, atol=1e-5)
  alone = np.concatenate([model.embed([text], "xb") for text in texts])
  np.testing.assert_allclose(alone, whole, atol=1e-5)
  np.testing.assert_allclose(model.embed(texts[::-1], "xb")[::-1], whole, atol=1e-5)
  assert np.abs(model.embed(texts, "xa") - whole).max() > 1e-2  # negative control
  assert model.embed([], "xb").shape == (0, 16)


def test_a_generator_is_as_good_as_a_list(model, texts):
  vectors = model.embed((text for text in texts), "xb")
  np.testing.assert_array_equal(vectors, model.embed(texts, "xb"))
  masked_texts = [f"{text} [MASK]" for text in texts]
  assert len(model.fill_mask(iter(masked_texts), "xb")) == len(texts)
  assert model.perplexity(iter([SHORT, SHORT]), "xb").texts.shape == (2,)
  with pytest.raises(UserError, match=r"texts\[1\] is empty"):
    model.embed(iter(["kala", " "]), "xb")


def test_groups_of_texts_give_the_same_vectors_in_less_memory(model, texts, monkeypatch):
  """The tokens of one group are in memory at a time."""
  many = [*texts, LONG] * 3
  whole, alive, most = model.embed(many, "xb"), set(), []

  class Ids(list):
    def __init__(self, ids):
      super().__init__(ids)
      alive.add(id(self))
      most.append(len(alive))

    def __del__(self):
      alive.discard(id(self))

  monkeypatch.setattr(embedding, "TEXTS_AT_ONCE", 4)
  plain = embedding.encode
  monkeypatch.setattr(embedding, "encode", lambda *args: Ids(plain(*args)))
  np.testing.assert_allclose(model.embed(many, "xb"), whole, atol=1e-5)
  assert len(most) == len(many) and max(most) <= 8  # one group, and what is left of the one before


@pytest.mark.parametrize(("layer", "layers"), [(-1, 1), (1, 1), (0, 0), (-2, 0)])
def test_a_vector_is_the_mean_of_a_layer_over_the_tokens(model, layer, layers):
  ids = model.tokenizer.encode(SHORT)
  states = hidden(model, "xb", [EOS, *ids, EOS], layers)
  (vector,) = model.embed([SHORT], "xb", layer=layer)
  np.testing.assert_allclose(vector, states[1:-1].mean(0), atol=1e-5)
  assert np.abs(vector - states.mean(0)).max() > 1e-3  # negative control: with the separators


def test_the_vector_of_a_long_text_is_the_mean_over_its_parts(model):
  ids, room = model.tokenizer.encode(LONG), model.max_tokens - 2
  states = [
    hidden(model, "xb", [EOS, *ids[i : i + room], EOS])[1:-1] for i in range(0, len(ids), room)
  ]
  (vector,) = model.embed([LONG], "xb")
  np.testing.assert_allclose(vector, np.concatenate(states).mean(0), atol=1e-5)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda m: m.fill_mask("kala [MASK]", "xb"), "give a list of texts"),
    (lambda m: m.fill_mask(["kala"], "xb"), r"texts\[0\] has no \[MASK\]"),
    (lambda m: m.fill_mask(["[MASK]"], "xb", top=0), "top is 0; it must be from 1 to 200"),
    (lambda m: m.fill_mask(["[MASK]", 3], "xb"), r"texts\[1\] is '3'"),
    (lambda m: m.embed(["kala", " "], "xb"), r"texts\[1\] is empty"),
    (lambda m: m.embed(["kala"], "xb", layer=3), "layer is 3; it must be from -2 to 1"),
    (lambda m: m.embed(["kala"], "xb", batch_size=0), "batch_size is 0"),
    (lambda m: m.embed(["kala"], "de"), "'de' is not a language of .* which has xb, xa;"),
    (lambda m: m.perplexity(["kala", ""], "xb"), r"texts\[1\] is empty"),
    (lambda m: m.perplexity(["kala"], "de"), "'de' is not a language"),
    (lambda m: m.tokens("kala", "de"), "'de' is not a language"),
    (lambda m: m.predict(["kala"], "xb"), "predict needs a fine-tuned one"),
  ],
)
def test_mistakes_are_one_sentence(model, call, words):
  with pytest.raises(UserError, match=words):
    call(model)


def test_what_is_no_model_is_named_without_a_flag(base, tmp_path):
  for path, words in (
    (tmp_path / "none", "does not exist"),
    (tmp_path, "neither a pretraining run"),
    (base.parent, "Folders inside it have one: name one of .*adpt"),
  ):
    with pytest.raises(UserError, match=words) as caught:
      negint.load(path)
    assert "--config.init_from" not in str(caught.value)
  with pytest.raises(UserError, match="not a fine-tuning run; leave seed out"):
    negint.load(base, seed=2)


@pytest.mark.slow
def test_a_hugging_face_folder_is_a_model_like_any_other(tmp_path):
  write_checkpoint(tmp_path / "xlm")
  model = negint.load(tmp_path / "xlm")
  assert model.languages == ("ar", "en") and "xlm of ar, en; theta" in repr(model)
  (((best, *_),),) = model.fill_mask([f"{LINES[2]} [MASK]"], "ar")
  assert 0 < best.probability < 1
  with pytest.raises(UserError, match="'fr' is not a language"):
    model.tokens("la mer", "fr")


@pytest.mark.parametrize(
  "folder", checkpoints("bert", "roberta", "xlm-roberta"), ids=lambda p: p.name
)
def test_vectors_and_masks_of_other_families_are_transformers_own(folder):
  pytest.importorskip("tokenizers")
  model, golden = negint.load(folder), np.load(folder / "expected.npz")
  tokenizer, special = model.tokenizer, model.tokenizer.special
  compared = 0
  for text, tokens, length, states in zip(
    *(golden[name] for name in ("texts", "tokens", "lengths", "last_hidden_state")), strict=True
  ):
    ids = rows.row_of(rows.encode(str(text), tokenizer), special)
    if ids == list(tokens[:length]):  # others are cut there
      expected = states[len(special.begin) : length - len(special.end)].mean(0)
      np.testing.assert_allclose(model.embed([str(text)], "en")[0], expected, atol=1e-4)
      compared += 1
  assert compared
  ((first, second),) = model.fill_mask(["[MASK] a [MASK]"], "en", top=1)
  assert 0 < first[0].probability < 1 and first != second


def test_an_encoder_alone_fills_no_masks(model, monkeypatch):
  monkeypatch.setattr(model, "_pretrained", dataclasses.replace(model._pretrained, has_head=False))
  with pytest.raises(UserError, match="without the layer that predicts hidden tokens"):
    model.fill_mask(["[MASK]"], "xb")
  assert model.embed(["kala"], "xb").shape == (1, 16)


@pytest.mark.parametrize(
  ("trained", "fast", "dtype"),
  [
    (None, "float16", "float16"),  # imported
    (None, "bfloat16", "bfloat16"),
    ("float32", "bfloat16", "float32"),
    ("bfloat16", "bfloat16", "bfloat16"),
    ("bfloat16", "float16", "float16"),
    ("bfloat16", "float32", "float32"),
    ("float16", "bfloat16", "float16"),
  ],
)
def test_the_dtype_is_what_the_device_is_fast_in_but_never_less_exact_than_the_training(
  trained, fast, dtype, monkeypatch
):
  monkeypatch.setattr(device, "fast_dtype", lambda devices: (fast, "a test says so"))
  assert loading._dtype("auto", trained) == dtype
  assert loading._dtype("float32", trained) == "float32"


def test_a_model_computes_in_the_dtype_of_the_device(base, monkeypatch):
  monkeypatch.setattr(device, "fast_dtype", lambda devices: ("bfloat16", "a test says so"))
  assert negint.load(FOLDERS[0] / "tiny_bert").dtype == "bfloat16"
  assert negint.load(FOLDERS[0] / "tiny_bert", dtype="float32").dtype == "float32"
  assert negint.load(base).dtype == "float32"  # it was trained so


def test_half_precision_changes_results_a_little(model, base, texts):
  half = negint.load(base, dtype="bfloat16")
  assert "; bfloat16; in" in repr(half) and "; float32; in" in repr(model)
  vectors, exact = half.embed(texts, "xb"), model.embed(texts, "xb")
  assert vectors.dtype == np.float32
  assert 0 < np.abs(vectors - exact).max() < 0.03 * np.abs(exact).max()
  with pytest.raises(UserError, match="dtype is 'half'; it must be one of 'auto', 'float32'"):
    negint.load(base, dtype="half")


def test_a_run_with_cudnns_attention_is_used_where_there_is_none(base, model, texts, tmp_path):
  folder = shutil.copytree(base, tmp_path / "run")
  config = json.loads((folder / "config.json").read_text())
  config["model"].update(attention="cudnn", dtype="bfloat16")
  (folder / "config.json").write_text(json.dumps(config))
  found = negint.load(folder)
  np.testing.assert_array_equal(found.embed(texts, "xb"), model.embed(texts, "xb"))
  pretrained = load_pretrained(str(folder))
  assert pretrained.model == pretrained.run.model
  assert (pretrained.model.attention, pretrained.model.dtype) == ("xla", "bfloat16")


def test_a_change_of_language_sends_no_theta_again(base, model, monkeypatch):
  found, sent = negint.load(base), []
  replicate = parallel.replicate

  def counted(tree):
    sent.append(count_parameters(tree))
    return replicate(tree)

  monkeypatch.setattr(parallel, "replicate", counted)
  first = found.embed([SHORT], "xb")
  theta, phi = count_parameters(found.theta), count_parameters(found.phi) // 2
  assert phi and sum(sent) == theta + phi
  other = found.embed([SHORT], "xa")
  np.testing.assert_array_equal(found.embed([SHORT], "xb"), first)
  assert sum(sent) == theta + 3 * phi
  np.testing.assert_array_equal(other, model.embed([SHORT], "xa"))
  assert np.abs(other - first).max() > 0
