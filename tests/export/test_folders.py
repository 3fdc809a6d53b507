"""Exported folders: our own reader gets the same logits back; what a folder holds; what is refused."""

import dataclasses
import json

import exported
import numpy as np
import pytest
from safetensors.numpy import load_file
from toy import slow

from negint.errors import UserError
from negint.export import folders
from negint.inference.load import load
from negint.inference.model import Model
from negint.pretrained import adapters


def read(folder):
  return load(folder)


def names(folder):
  return {path.name for path in folder.iterdir()}


FAST = [
  ("joint", "as_xlm"),
  ("share_adpt", "narrow_ffn"),
  ("everything", "narrow_heads"),
  ("adpt", "xlm-roberta"),
]
SHAPES = (*exported.SHAPES, *exported.FAMILIES)
SLOW = sorted({(s, shape) for s in exported.SYSTEMS for shape in SHAPES} - set(FAST))


@pytest.mark.parametrize(("system", "shape"), [*FAST, *(slow(*case) for case in SLOW)])
def test_an_exported_model_computes_the_same_logits(system, shape, tmp_path):
  model = exported.made(system, shape)
  found = folders.write(model, tmp_path / "all")
  own = system in ("ffn", "attn", "everything")
  if shape in exported.FAMILIES:  # these have no language embeddings
    own = system != "mono"
  assert [f.name for f in found] == (list(exported.LANGUAGES) if own else ["all"])
  for code in model.languages:
    inside = read(tmp_path / "all" / code if own else tmp_path / "all")
    expected = exported.logits(model, code)
    np.testing.assert_allclose(exported.logits(inside, code), expected, atol=1e-4)


@pytest.mark.parametrize("system", ["share_adpt", "ffn", *map(slow, ("mono", "joint", "adpt"))])
def test_a_folder_of_one_language_holds_no_other(system, tmp_path):
  model = exported.made(system, "narrow_ffn")
  code = model.languages[-1]
  assert folders.write(model, tmp_path / "one", code) == [tmp_path / "one"]
  inside = read(tmp_path / "one")
  assert inside.languages == (code,) and not inside.pretrained.model.language_embedding
  np.testing.assert_allclose(exported.logits(inside, code), exported.logits(model, code), atol=1e-4)
  path = tmp_path / "one" / adapters.FILE
  assert path.exists() == ("adpt" in system)
  if path.exists():
    assert {name.split(".")[1] for name in load_file(path)} == {code}


def test_the_first_language_needs_no_language_embedding(tmp_path):
  model = exported.made("joint")
  folders.write(model, tmp_path / "all")
  inside = read(tmp_path / "all")
  assert not inside.theta["language"][0].any() and inside.theta["language"][1].any()


def test_languages_differ_so_that_a_mixed_up_one_would_be_seen():
  for system in ("joint", "everything"):
    model = exported.made(system)
    found = [exported.logits(model, code) for code in model.languages]
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_a_folder_holds_all_that_is_needed(tmp_path):
  model = exported.made("adpt")
  folders.write(model, tmp_path / "all")
  files = {
    "README.md",
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  }
  assert names(tmp_path / "all") == files | {"adapters.safetensors"}
  assert names(tmp_path) == {"all"}
  found = load_file(tmp_path / "all" / "adapters.safetensors")
  np.testing.assert_array_equal(
    found["adapter2.ar.1.lin2.weight"],
    model.phi["layers_1"]["ffn_adapter"]["outer"]["kernel"][1].T,
  )
  assert not any("adapter" in name for name in load_file(tmp_path / "all" / "model.safetensors"))
  card = (tmp_path / "all" / "README.md").read_text(encoding="utf-8")
  assert "add_adapters" in card and "- ar\n" in card


def test_config_has_the_shape_of_the_encoder(tmp_path):
  folders.write(exported.made("joint", "narrow_heads"), tmp_path / "all")
  config = json.loads((tmp_path / "all" / "config.json").read_text(encoding="utf-8"))
  assert (config["n_heads"], config["emb_dim"], config["n_langs"]) == (4, 16, 3)
  weights = load_file(tmp_path / "all" / "model.safetensors")
  assert weights["transformer.ffns.0.lin1.weight"].shape == (64, 16)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (dict(num_heads=3, head_dim=5), "3 heads of 5 .* 16 wide"),
    (dict(ffn_dim=65), "ffn_dim is 65"),
  ],
)
def test_shapes_that_transformers_does_not_have_are_refused(changes, words, tmp_path):
  with pytest.raises(UserError, match=words):
    folders.write(exported.made("joint", **changes), tmp_path / "all")
  assert names(tmp_path) == set()


def test_an_unknown_language_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"'fr' is not a language .*te, ar, en"):
    folders.write(exported.made("joint"), tmp_path / "all", "fr")
  assert names(tmp_path) == set()


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path):
  (tmp_path / "file").write_text("mine")
  for out in (tmp_path, tmp_path / "file"):
    with pytest.raises(UserError, match="name a new folder"):
      folders.write(exported.made("joint"), out)
  assert names(tmp_path) == {"file"}
  (tmp_path / "empty").mkdir()
  folders.write(exported.made("joint"), tmp_path / "empty")
  assert "config.json" in names(tmp_path / "empty")


def test_a_finetuned_model_is_written_for_the_language_of_its_test(tmp_path):
  model = exported.finetuned("adpt", "ner", tmp_path / "run")
  assert folders.write(model, tmp_path / "out") == [tmp_path / "out"]
  config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
  assert config["architectures"] == ["XLMForTokenClassification"]
  assert config["id2label"]["1"] == model.labels[1] and config["lang2id"] == {"ar": 0}
  weights = load_file(tmp_path / "out" / "model.safetensors")
  np.testing.assert_array_equal(
    weights["classifier.weight"], model.finetuned.weights["head"]["kernel"].T
  )
  assert not any(name.startswith("pred_layer") for name in weights)
  card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
  assert "| ar | 61.2 |" in card and "AutoModelForTokenClassification" in card
  assert load(tmp_path / "out").pretrained.has_head is False  # it can be fine-tuned again


def test_a_head_that_transformers_has_in_another_form_is_refused(tmp_path):
  model = exported.finetuned("joint", "nli", tmp_path / "run", "bert")
  with pytest.raises(UserError, match="BertForSequenceClassification .* another form"):
    folders.write(model, tmp_path / "out")
  assert names(tmp_path) == {"run"}


def test_an_encoder_without_a_language_model_is_refused(tmp_path):
  model = exported.made("joint")
  headless = dataclasses.replace(model.pretrained, has_head=False)
  with pytest.raises(UserError, match="no language-model head"):
    folders.write(Model("runs/made", {}, headless), tmp_path / "out")
