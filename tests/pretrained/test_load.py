"""Pretrained models: what is read from a folder, what is known of them, what is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from golden_folders import checkpoints
from safetensors.numpy import load_file, save_file
from toy import assert_same_bits, toy_run
from xlm_folder import LINES, edit_object, write_checkpoint, write_object, write_tokenizer

from negint.errors import UserError
from negint.method import model
from negint.pretrained import xlm_weights
from negint.pretrained.load import Trained, load_pretrained, own_tokenizer, read_state
from negint.run.files import checksum, write_json
from negint.special_tokens import EOS

GOLDEN = checkpoints("xlm")


@pytest.fixture
def folder(tmp_path):
  write_checkpoint(tmp_path / "xlm")
  return tmp_path / "xlm"


def without_language_embeddings(folder, **changes):
  """A checkpoint such as XLM-100: many languages, and no embeddings of them."""
  languages = ("ar", "en", "sw", "te")
  return write_checkpoint(folder, languages, language_embedding=False, **changes)


def test_a_folder_gives_its_weights_languages_and_tokenizer(tmp_path):
  options, theta = write_checkpoint(tmp_path / "xlm")
  found = load_pretrained(str(tmp_path / "xlm"))
  assert found.model.replace(init=options.init) == options
  assert_same_bits(found.theta, theta)
  assert found.phi == {} and found.languages == ("ar", "en")
  assert found.tokenizer.decode(found.tokenizer.encode(LINES[0])) == LINES[0]
  assert (found.origin, found.lab, found.steps) == (None, None, None)
  assert found.sequence_length == options.max_length
  assert [found.language_index(code) for code in ("ar", "en")] == [0, 1]
  with pytest.raises(UserError, match=r"'fr' is not a language .*\(ar, en\)"):
    found.language_index("fr")


@pytest.mark.parametrize("name", ["run", "result"])
def test_what_only_a_pretraining_run_has_is_refused_for_a_checkpoint(name, folder):
  found = load_pretrained(str(folder))
  words = f"{folder} is an imported checkpoint, whose pretraining text is not known"
  with pytest.raises(UserError, match=words):
    getattr(found, name)
  trained = dataclasses.replace(found, origin=Trained(run="the options", result={"steps": 7}))
  assert (trained.run, trained.result, trained.steps) == ("the options", {"steps": 7}, 7)


def test_identity_says_what_is_known(folder):
  found = load_pretrained(str(folder)).identity()
  assert len(found.pop("vocabulary")) == 16
  assert found == {
    "workdir": str(folder),
    "system": "xlm",
    "languages": ["ar", "en"],
    "scale": "imported",
    "seed": None,
    "steps": None,
    "subsample": 0,
    "similarity": None,
    "tokens_seen": None,
    "tokens_seen_by_language": None,
    "flops": None,
  }


def test_identity_tells_another_vocabulary_from_the_same_in_another_form(tmp_path):
  shutil.copytree(checkpoints("bert")[0], tmp_path / "bert")
  path, before = tmp_path / "bert" / "tokenizer.json", load_pretrained(str(tmp_path / "bert"))
  write_object(path, {**json.loads(path.read_text(encoding="utf-8")), "truncation": None})
  assert load_pretrained(str(tmp_path / "bert")).identity() == before.identity()
  contents = json.loads(path.read_text(encoding="utf-8"))
  ids = contents["model"]["vocab"]
  first, second = list(ids)[-2:]
  ids[first], ids[second] = ids[second], ids[first]
  write_object(path, contents)
  other = load_pretrained(str(tmp_path / "bert")).identity()
  assert other.pop("vocabulary") != before.identity()["vocabulary"]
  assert other.items() < before.identity().items()


@pytest.mark.slow
def test_languages_without_embeddings_are_those_of_lang2id(tmp_path):
  without_language_embeddings(tmp_path / "xlm")
  found = load_pretrained(str(tmp_path / "xlm"))
  assert not found.model.language_embedding and "language" not in found.theta
  assert found.languages == ("ar", "en", "sw", "te")
  assert not found.speaks("fr")
  tokens = np.array([[EOS, 20, 21, EOS]])
  params = found.theta
  rows = [model.encode(found.model, params, tokens, found.language_index(c)) for c in ("ar", "te")]
  np.testing.assert_array_equal(*rows)


def test_any_language_is_accepted_where_none_is_named_and_none_embedded(tmp_path):
  without_language_embeddings(tmp_path / "xlm")
  edit_object(tmp_path / "xlm" / "config.json", lang2id=None, id2lang=None)
  found = load_pretrained(str(tmp_path / "xlm"))
  assert found.languages == () and found.speaks("fr") and found.language_index("fr") == 0


def test_embeddings_that_the_config_switches_off_are_left_out(folder):
  edit_object(folder / "config.json", use_lang_emb=False)
  found = load_pretrained(str(folder))
  assert not found.model.language_embedding and "language" not in found.theta


def test_half_precision_is_widened(folder):
  weights = load_file(folder / "model.safetensors")
  save_file({n: w.astype(np.float16) for n, w in weights.items()}, folder / "model.safetensors")
  found = load_pretrained(str(folder))
  assert {leaf.dtype for leaf in jax.tree.leaves(found.theta)} == {np.dtype(np.float32)}


def test_a_scratch_row_has_random_weights_of_the_same_shape(folder):
  trained, scratch = load_pretrained(str(folder)), load_pretrained(str(folder), scratch=True)
  again = load_pretrained(str(folder), scratch=True)
  assert_same_bits(scratch.theta, again.theta)
  shapes = [jax.tree.map(np.shape, found.theta) for found in (trained, scratch)]
  assert shapes[0] == shapes[1] and scratch.model == trained.model
  assert not np.array_equal(trained.theta["token"], scratch.theta["token"])


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_a_checkpoint_of_other_people_with_a_tokenizer_beside_it(golden, tmp_path):
  shutil.copytree(golden, tmp_path / "xlm")
  vocab_size = json.loads((golden / "config.json").read_text())["vocab_size"]
  assert write_tokenizer(tmp_path / "xlm", vocab_size=vocab_size) == vocab_size
  with pytest.raises(UserError, match='whose its 2 language embeddings are; add "lang2id"'):
    load_pretrained(str(tmp_path / "xlm"))
  edit_object(tmp_path / "xlm" / "config.json", lang2id={"ar": 0, "en": 1})
  found = load_pretrained(str(tmp_path / "xlm"))
  assert found.tokenizer.vocab_size == found.model.vocab_size == vocab_size
  expected = np.load(golden / "expected.npz")
  hidden = model.encode(
    found.model,
    found.theta,
    expected["tokens"],
    int(expected["language"]),
    lengths_B=expected["lengths"],
  )
  inside = np.arange(hidden.shape[1])[None] < expected["lengths"][:, None]
  assert np.max(np.abs(hidden[inside] - expected["hidden"][inside])) < 1e-4


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "model.safetensors"])
def test_a_missing_file_is_named(name, folder):
  (folder / name).unlink()
  with pytest.raises(UserError, match=f"has no {name}"):
    load_pretrained(str(folder))


@pytest.mark.parametrize(
  ("name", "end"),
  [
    ("vocab.json", "checkpoint .*; download it again"),
    ("merges.txt", "checkpoint .*; download it again"),
    ("config.json", "--config.init_from=.*; copy that folder again, or name another"),
    ("model.safetensors", "checkpoint .*; download it again"),
  ],
)
def test_a_damaged_file_is_named(name, end, folder):
  contents = (folder / name).read_bytes()
  (folder / name).write_bytes(b"\xff" + contents if name == "merges.txt" else contents[:100])
  with pytest.raises(UserError, match=f"{name} is damaged .* part of .*{end}"):
    load_pretrained(str(folder))


def test_more_pieces_than_embeddings_are_refused(folder):
  edit_object(folder / "vocab.json", extra=5000)
  with pytest.raises(UserError, match="ids up to 5000, but the checkpoint has [0-9]+ token"):
    load_pretrained(str(folder))


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (dict(model_type="gpt2"), "model_type is 'gpt2'; it must be one of 'xlm', 'bert', 'roberta'"),
    (dict(pad_index=1), "pad_index is 1; only 2 works"),
    (dict(mask_index=4), "mask_index is 4; only 5 works"),
    (dict(n_langs=3), "n_langs 3.*lang2id is"),
    (dict(lang2id={"ar": 0, "en": 2}), "lang2id is {'ar': 0, 'en': 2}"),
  ],
)
def test_configs_that_do_not_fit_are_refused(changes, words, folder):
  edit_object(folder / "config.json", **changes)
  with pytest.raises(UserError, match=words):
    load_pretrained(str(folder))


@pytest.fixture
def run_folder(tmp_path):
  """A folder with the files of a finished pretraining run, as far as they are looked at."""
  write_json(tmp_path / "config.json", {"task": "pretrain"})
  write_json(tmp_path / "result.json", {"steps": 2})
  (tmp_path / "tokenizer.model").touch()
  return tmp_path


def test_a_folder_that_is_neither_is_refused(tmp_path):
  with pytest.raises(UserError, match="nowhere does not exist .*; name .*hf download"):
    load_pretrained(str(tmp_path / "nowhere"))
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="file is a file; name the folder"):
    load_pretrained(str(tmp_path / "file"))
  words = "is neither a pretraining run nor a Hugging Face checkpoint: it"
  with pytest.raises(UserError, match=f"{words} has no config.json"):
    load_pretrained(str(tmp_path))
  write_json(tmp_path / "config.json", {"version": 1})
  with pytest.raises(UserError, match=f"{words}s config.json has neither task nor model_type"):
    load_pretrained(str(tmp_path))


def test_a_checkpoint_without_its_config_is_still_known_as_one(folder):
  (folder / "config.json").unlink()
  with pytest.raises(UserError, match="has no config.json; a Hugging Face folder needs"):
    load_pretrained(str(folder))


def test_a_folder_one_level_off_names_the_right_one(run_folder, tmp_path_factory):
  (run_folder / "checkpoints" / "2").mkdir(parents=True)
  words = f"has no config.json. It lies inside {run_folder}, which has one: name that folder."
  with pytest.raises(UserError, match=words):
    load_pretrained(str(run_folder / "checkpoints" / "2"))
  runs = tmp_path_factory.mktemp("runs")
  shutil.copytree(run_folder, runs / "adpt-ar-seed1")
  with pytest.raises(UserError, match="Folders inside it have one: name one of adpt-ar-seed1 with"):
    load_pretrained(str(runs))
  snapshot = tmp_path_factory.mktemp("models--a--b") / "snapshots" / "0f1e"
  shutil.copytree(run_folder, snapshot)
  with pytest.raises(UserError, match="name one of snapshots/0f1e with its path"):
    load_pretrained(str(snapshot.parents[1]))


def test_pickled_weights_name_the_command_that_converts_them(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  for names, called in (
    (["XLMWithLMHeadModel"], "XLMWithLMHeadModel"),
    (["XLMModel"], "XLMModel"),  # as a model with a head it would get a random one
    (None, "AutoModel"),
  ):
    edit_object(folder / "config.json", architectures=names)
    words = rf"has no model.safetensors; .*transformers.{called}.from_.*save_pretrained\('.*'\)\""
    with pytest.raises(UserError, match=words):
      load_pretrained(str(folder))
  (folder / "pytorch_model.bin").unlink()
  with pytest.raises(UserError, match="has no model.safetensors") as caught:
    load_pretrained(str(folder))
  assert "save_pretrained" not in str(caught.value)


@pytest.mark.parametrize(
  ("config", "words"),
  [
    ({"model_type": "deberta", "vocab_size": 9}, "model_type is 'deberta'; it must be one of"),
    ({"architectures": ["GPT2Model"]}, "has no model_type, and architectures is 'GPT2Model'"),
    ({"model_type": "xlm", "vocab_size": 9}, "model_type is 'xlm' and n_heads None; an XLM"),
    ({"vocab_size": 9, "hidden_size": 8}, "has no model_type, and architectures is ''"),
    ({"model_type": "bert", "is_decoder": True}, "is_decoder is True; only False works"),
  ],
)
def test_another_architecture_is_named_before_the_files_that_it_does_not_have(
  config, words, tmp_path
):
  write_json(tmp_path / "config.json", config)
  (tmp_path / "sentencepiece.bpe.model").touch()
  with pytest.raises(UserError, match=words):
    load_pretrained(str(tmp_path))


def test_a_checkpoint_older_than_model_type_is_read(folder):
  edit_object(folder / "config.json", model_type=None)
  assert load_pretrained(str(folder)).languages == ("ar", "en")


def shard(folder, count=3):
  """Cuts model.safetensors into shards with an index; returns the names of the shards."""
  weights = load_file(folder / "model.safetensors")
  names = [f"model-{n + 1:05d}-of-{count:05d}.safetensors" for n in range(count)]
  shard_of = {name: names[i % count] for i, name in enumerate(sorted(weights))}
  for one in names:
    save_file({n: weights[n] for n in weights if shard_of[n] == one}, folder / one)
  write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": shard_of})
  (folder / "model.safetensors").unlink()
  return names


def test_shards_are_read_by_their_index_and_a_missing_one_is_named(folder):
  whole = load_pretrained(str(folder))
  names = shard(folder)
  assert_same_bits(load_pretrained(str(folder)).theta, whole.theta)
  index = folder / "model.safetensors.index.json"
  contents = index.read_text()
  index.write_text(contents[:50])
  with pytest.raises(UserError, match="index.json is damaged .*download it again"):
    load_pretrained(str(folder))
  index.write_text(contents)
  shutil.copy(folder / names[0], folder / names[1])
  with pytest.raises(UserError, match=f"{names[1]} has no .*, which .*index.json expects in it"):
    load_pretrained(str(folder))
  (folder / names[1]).unlink()
  with pytest.raises(UserError, match=f"has no {names[1]}; .*index.json names it; download all 3"):
    load_pretrained(str(folder))


def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(folder):
  (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
  with pytest.raises(UserError, match="model.safetensors is a pointer of Git LFS .* git lfs pull"):
    load_pretrained(str(folder))


def rewrite_weights(folder, change):
  weights = change(load_file(folder / "model.safetensors"))
  save_file(weights, folder / "model.safetensors")


def without_head(weights):
  return {name: array for name, array in weights.items() if not name.startswith("pred_layer")}


@pytest.mark.parametrize(
  "change",
  [
    without_head,  # a head of a task is read apart from this
    lambda weights: {n.removeprefix("transformer."): w for n, w in without_head(weights).items()},
    lambda weights: {
      **without_head(weights),
      "sequence_summary.summary.weight": np.zeros((3, 16), np.float32),
      "classifier.bias": np.zeros(3, np.float32),
      "qa_outputs.start_logits.dense.weight": np.zeros((1, 16), np.float32),
    },
    lambda weights: {**weights, "pred_layer.proj.weight": np.zeros((2, 16), np.float32)},
  ],
  ids=["encoder", "encoder saved alone", "fine-tuned", "untied"],
)
def test_fine_tuning_needs_no_language_model_head(change, folder):
  whole = load_pretrained(str(folder))
  rewrite_weights(folder, change)
  found = load_pretrained(str(folder))
  assert found.model == whole.model
  assert whole.has_head and not found.has_head
  bias = {"softmax_bias": whole.theta["softmax_bias"]}
  assert_same_bits({**found.theta, **bias}, whole.theta)
  with pytest.raises(UserError, match="pred_layer|classifier"):  # the head was asked for
    xlm_weights.read_hugging_face(folder)


def test_a_tied_softmax_under_its_own_name_is_a_head(folder):
  rewrite_weights(
    folder,
    lambda weights: {
      **weights,
      "pred_layer.proj.weight": weights["transformer.embeddings.weight"].copy(),
    },
  )
  assert load_pretrained(str(folder)).has_head


def test_an_unknown_weight_of_the_encoder_is_still_refused(folder):
  extra = {"transformer.attentions.0.more.weight": np.zeros(2, np.float32)}
  rewrite_weights(folder, lambda weights: {**weights, **extra})
  with pytest.raises(UserError, match="weights that this encoder does not have: attentions.0.more"):
    load_pretrained(str(folder))


@pytest.mark.parametrize("how", ["cut", "empty", "noise"])
def test_a_damaged_tokenizer_of_a_run_is_named_with_what_makes_it_anew(how, run_folder):
  path = run_folder / "tokenizer.model"
  path.write_bytes(b"pieces" * 100)
  write_json(run_folder / "data.json", {"tokens": "0", "tokenizer": checksum(path)})
  with pytest.raises(RuntimeError):  # it is no tokenizer of SentencePiece, but it is whole
    own_tokenizer(run_folder, "Do this")
  path.write_bytes({"cut": b"pieces" * 99, "empty": b"", "noise": b"secret" * 100}[how])
  with pytest.raises(UserError, match=f"{path} is damaged .*. Do this."):
    own_tokenizer(run_folder, "Do this")


@pytest.mark.parametrize("task", ["ner", "pruning"])
def test_a_run_that_started_from_a_model_names_that_model(task, run_folder):
  """What the folder is comes first: it also lacks files that only a pretraining run has."""
  write_json(run_folder / "config.json", {"task": task, "init_from": "runs/base"})
  (run_folder / "tokenizer.model").unlink()
  (run_folder / "result.json").unlink()
  words = f"is a run of task '{task}', not .*--config.init_from=runs/base"
  with pytest.raises(UserError, match=words):
    load_pretrained(str(run_folder))


def test_an_unfinished_run_is_told_from_one_without_a_file(run_folder):
  (run_folder / "tokenizer.model").unlink()
  with pytest.raises(UserError, match="without its tokenizer.model; copy the whole folder"):
    load_pretrained(str(run_folder))
  (run_folder / "result.json").unlink()
  with pytest.raises(UserError, match="is not finished: it has no result.json. Start its command"):
    load_pretrained(str(run_folder))


def test_a_checkpoint_that_cannot_be_read_says_why_and_what_to_do(tmp_path):
  words = f"init_from={tmp_path}: the checkpoint of step 5 cannot be read \\(.+\\). Do this."
  with pytest.raises(UserError, match=words):
    read_state(tmp_path, toy_run(), 5, "Do this.")
