"""Fine-tuned models: what a test predicted, routes, places in the text, and weights on disk."""

import json
import shutil

import numpy as np
import pytest
from toy import slow

import negint
from negint.errors import UserError
from negint.finetuning import testing, weights
from negint.method import device
from negint.pretrained.load import load_pretrained
from negint.tasks import loading

TEXT = "\ufeffKala\u00a0mobo, e\u0301te\u0301 \U0001f600 tir-zufa 3,5 kala."  # not in NFC; a mark, an emoji


@pytest.fixture(scope="module")
def tuned(ner_run):
  return negint.load(ner_run)


def test_a_run_keeps_the_weights_that_it_tested(tuned, ner_run, base):
  entry = json.loads((ner_run / "seed1" / "seed.json").read_text())
  assert len(entry["weights"]) == 64
  assert not list(ner_run.glob("seed1/*/checkpoints"))
  assert "weights" not in json.loads((ner_run / "result.json").read_text())["seeds"][0]
  pretrained = load_pretrained(str(base))
  assert np.any(tuned.theta["token"] != pretrained.theta["token"])
  moved = tuned.phi["layers_0"]["ffn_adapter"]["inner"]["kernel"]
  before = pretrained.phi["layers_0"]["ffn_adapter"]["inner"]["kernel"]
  np.testing.assert_array_equal(moved[0], before[0])  # xb
  assert np.any(moved[1] != before[1])  # xa, which was fine-tuned
  for part in ("ner (O, B-PER", "fine-tuned on xa, seed 1, from adpt of xb, xa", str(ner_run)):
    assert part in repr(tuned)


@pytest.mark.parametrize("language", ["xb", slow("xa")])
def test_a_test_set_is_predicted_as_the_run_did(tuned, ner_run, language):
  (path,) = ner_run.glob(f"seed1/predictions/*/test-{language}.tsv")
  run, lab = tuned._finetuned.run, tuned._pretrained.lab
  examples, _ = loading.load(run.task, run.source, lab, language, "test")
  found = tuned.predict([list(each.words) for each in examples], language)
  assert run.task.as_text([each.tags for each in found]) == path.read_text()
  assert [each.words for each in found] == [each.words for each in examples]


def tags_of(model, language):
  return [each.tags for each in model.predict([TEXT, "zufa tir kala"] * 3, language)]


def test_the_route_decides_whose_modules_another_language_has(by_hand):
  found = {route: by_hand("ner", route=route) for route in ("target", "source", "mean")}
  tags = {route: tags_of(model, "xb") for route, model in found.items()}
  assert len({str(each) for each in tags.values()}) == 3
  assert tags_of(found["target"], "xa") == tags_of(found["mean"], "xa")  # the fine-tuned language
  for route, model in found.items():
    tuned = model._finetuned
    expected, _ = testing.routed_parameters(tuned.run, model._pretrained, tuned.weights, "xb")
    np.testing.assert_array_equal(
      model._routed("xb")[0][1]["layers_0"]["ffn_adapter"]["inner"]["bias"],
      expected[1]["layers_0"]["ffn_adapter"]["inner"]["bias"],
      err_msg=route,
    )


def test_a_language_without_modules_needs_another_route(by_hand):
  assert tags_of(by_hand("ner", route="source"), "de")
  with pytest.raises(UserError, match="'de' is not a language of .*--config.route=source or mean"):
    by_hand("ner").predict(["kala"], "de")


def test_entities_stand_where_they_are_said_to(by_hand):
  model = by_hand("ner")
  head = model._finetuned.weights["head"]
  head["kernel"][:], head["bias"][:] = 0, np.array([0, 9, 0, 0, 0, 0, 0])  # all B-PER
  (found,) = model.predict([TEXT], "xa")
  assert found.text == TEXT and len(found.entities) == len(found.words) == 9
  for entity, word, (begin, end) in zip(found.entities, found.words, found.spans, strict=True):
    assert TEXT[begin:end] == word == entity.text and entity.type == "PER"
    assert (entity.begin, entity.end) == (begin, end)
  head["bias"][:] = np.array([0, 0, 9, 0, 0, 0, 0])  # all I-PER: one entity, as the scorer counts
  model._prepared.clear()
  (entity,) = model.predict([TEXT], "xa")[0].entities
  assert TEXT[entity.begin : entity.end] == entity.text == TEXT[1:]
  (found,) = model.predict([["kala", "mobo"]], "xa")
  assert found.text == "kala mobo" and found.entities[0].text == "kala mobo"


def test_long_and_empty_texts_are_tagged_whole(by_hand):
  model = by_hand("pos")
  long = " ".join(["kala", "mobo", "tir"] * 60)
  found = model.predict(["", long, " \n"], "xa")
  assert [len(each.tags) for each in found] == [0, 180, 0]
  assert model.predict([], "xa") == []
  assert not hasattr(found[0], "entities")


def test_answers_stand_in_their_context(by_hand):
  model = by_hand("qa")
  context = f"{TEXT} " + "kala mobo tir zufa . " * 20  # several windows
  found = model.predict([("tir kala ?", context), ("zufa ?", TEXT), ("tir ?", context)], "xb")
  for answer, text in zip(found, (context, TEXT, context), strict=True):
    assert text[answer.begin : answer.end] == answer.answer == answer.answer.strip() != ""
    assert 0 < answer.score <= 1
  again = model.predict([("zufa ?", TEXT)], "xb", batch_size=1)[0]
  assert (again.begin, again.end) == (found[1].begin, found[1].end)
  assert again.score == pytest.approx(found[1].score, rel=1e-4)


def test_probabilities_of_labels_sum_to_one(by_hand):
  found = by_hand("nli").predict([("kala mobo", "tir"), ("zufa " * 50, "mobo " * 50)], "xb")
  for pair in found:
    assert sum(pair.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert pair.label == max(pair.probabilities, key=pair.probabilities.__getitem__)


@pytest.mark.parametrize(
  ("task", "inputs", "words"),
  [
    ("ner", "kala", r"give a list of inputs: \[text\]"),
    ("ner", [3], r"inputs\[0\] is '3'; tagging takes"),
    ("pos", ["kala", ["mobo", ""]], r"inputs\[1\] has an empty word"),
    ("qa", ["who ?"], r"inputs\[0\] is 'who \?'; it must be two texts, question and context"),
    ("qa", [("who ?", " ")], r"inputs\[0\] has an empty context"),
    ("nli", [{"premise": "kala"}], "it must be two texts, premise and hypothesis"),
  ],
)
def test_inputs_of_the_wrong_kind_are_one_sentence(by_hand, task, inputs, words):
  with pytest.raises(UserError, match=words):
    by_hand(task).predict(inputs, "xa")


def test_a_fine_tuned_model_embeds_and_fills_no_masks(tuned, model):
  assert tuned.embed(["kala"], "xb").shape == (1, 16)
  assert np.any(tuned.embed(["kala"], "xb") != model.embed(["kala"], "xb"))
  for call in (tuned.fill_mask, tuned.perplexity):
    with pytest.raises(UserError, match="fine-tuned on 'ner'.*load .*adpt"):
      call(["[MASK]"], "xb")


@pytest.fixture
def copied(ner_run, base, tmp_path):
  """The run and its pretraining, moved together to another place."""
  for folder in (ner_run, base):
    shutil.copytree(folder, tmp_path / "moved" / folder.name)
  path = tmp_path / "moved" / "ner" / "config.json"
  path.write_text(path.read_text().replace(str(base), "elsewhere/adpt"))
  return tmp_path / "moved" / "ner"


def test_runs_that_moved_together_find_each_other(copied, tuned):
  moved = negint.load(copied)
  np.testing.assert_array_equal(moved.theta["token"], tuned.theta["token"])
  shutil.rmtree(copied.parent / "adpt")
  with pytest.raises(UserError, match="fine-tuned from elsewhere/adpt.*put that folder beside it"):
    negint.load(copied)


def test_another_model_in_the_place_of_the_old_one_is_refused(copied, tuned):
  """Runs of earlier versions have no digest of the vocabulary, but the shape tells."""
  path = copied / "result.json"
  pretraining = json.loads(path.read_text())["pretraining"]
  assert pretraining["vocabulary"] == tuned.pretrained.identity()["vocabulary"]
  edit(path, pretraining={**pretraining, "vocabulary": "0123456789abcdef"})
  with pytest.raises(UserError, match="another model than .*vocabulary 0123456789abcdef then"):
    negint.load(copied)
  del pretraining["vocabulary"]
  edit(path, pretraining=pretraining)
  assert negint.load(copied).task == "ner"
  theta = {**tuned.theta, "token": tuned.theta["token"][:-1]}
  digest = weights.write(copied / "seed1", {**tuned.finetuned.weights, "theta": theta})
  edit(copied / "seed1" / "seed.json", weights=digest)
  with pytest.raises(UserError, match=r"theta/token of shape \(199, 16\) then, \(200, 16\) now"):
    negint.load(copied)


def test_a_fine_tuned_model_computes_as_its_run_did(copied, tuned, monkeypatch):
  assert tuned.dtype == "float32"
  monkeypatch.setattr(device, "fast_dtype", lambda devices: ("bfloat16", "a test says so"))
  assert negint.load(copied).dtype == "float32"
  edit(copied / "result.json", dtype="bfloat16")  # as of an imported model
  half = negint.load(copied)
  assert half.dtype == "bfloat16" and half.pretrained.model.dtype == "float32"
  assert tags_of(half, "xa") and tags_of(negint.load(copied, dtype="float32"), "xa") == tags_of(
    tuned, "xa"
  )


def edit(path, **changes):
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_cannot_be_loaded_is_named(copied):
  weights = copied / "seed1" / "weights.safetensors"
  whole = weights.read_bytes()
  for contents in (whole[:-4], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
    weights.write_bytes(contents)
    with pytest.raises(UserError, match=r"weights.safetensors, .*is damaged.*seed.json"):
      negint.load(copied)
  weights.unlink()
  with pytest.raises(
    UserError, match=r"weights.safetensors, .*is missing.*start the run's command"
  ):
    negint.load(copied)
  weights.write_bytes(whole)
  with pytest.raises(UserError, match="seed is 7, but .* has 1"):
    negint.load(copied, seed=7)
  pretraining = json.loads((copied / "result.json").read_text())["pretraining"]
  edit(copied / "result.json", pretraining={**pretraining, "flops": 1})
  with pytest.raises(UserError, match="another model than .*flops 1 then"):
    negint.load(copied)
  (copied / "result.json").unlink()
  with pytest.raises(UserError, match="not finished"):
    negint.load(copied)
  edit(copied / "config.json", baseline="majority")
  edit_result = copied / "result.json"
  edit_result.write_text("{}")
  with pytest.raises(UserError, match="which has no model"):
    negint.load(copied)
