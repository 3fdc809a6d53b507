"""Token caches hold the whole text once, are opened without TFDS, and are whole or absent."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import sentencepiece

from negint.data import token_cache, verify
from negint.data.corpus import SPLITS, open_corpus, write_corpus
from negint.errors import UserError
from negint.options import DataOptions, LabOptions
from negint.run import files
from negint.special_tokens import EOS

ROOT = pathlib.Path(__file__).parents[2]
WORDS = {
  "te": ["నది", "సముద్రం", "పెద్ద", "నీరు", "చెట్టు"],
  "en": ["the", "river", "runs", "wide", "sea"],
}
SIZES = {"te": 80, "en": 160}


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
  """Two corpora of one to three sentences per document."""
  root = tmp_path_factory.mktemp("corpora")
  rng = np.random.default_rng(0)

  def line(words):
    return " ".join(rng.choice(words, rng.integers(3, 9))) + f" {rng.integers(10_000)}"

  return [
    write_corpus(
      [[line(words) for _ in range(rng.integers(1, 4))] for _ in range(SIZES[language])],
      language=language,
      data_dir=root,
      provenance={"source": "test"},
    )
    for language, words in WORDS.items()
  ]


def data_options(folder, **changes):
  data = DataOptions(
    source="prepared",
    dir=str(folder),
    vocab_size=110,
    sequence_length=16,
    sampling_exponent=0.7,
    subsample=0,
    tokenizer_sentences=1000,
    lab=LabOptions(0.5, 0, 100),
  )
  return dataclasses.replace(data, **changes)


@pytest.fixture(scope="module")
def folder(corpora, tmp_path_factory):
  folder = tmp_path_factory.mktemp("cache")
  token_cache.open_cache(corpora, data_options(folder))
  return folder


def lines_of(corpus, split):
  return [line for document in corpus.documents(split) for line in document]


def independent_stream(model: bytes, lines):
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  stream = [EOS]
  for line in lines:
    stream += [*processor.encode(line), EOS]
  return stream


def test_the_streams_are_the_whole_text(corpora, folder):
  cache = token_cache.open_cache(corpora, data_options(folder))
  for split in SPLITS:
    for corpus, stream in zip(corpora, cache.streams[split], strict=True):
      expected = independent_stream(cache.tokenizer.model, lines_of(corpus, split))
      np.testing.assert_array_equal(stream, expected)
      assert isinstance(stream, np.memmap) and stream.dtype == np.uint16
      assert not stream.flags.writeable
  assert cache.num_sentences == [corpus.num_lines["train"] for corpus in corpora]


def test_text_in_many_pieces_gives_the_same_streams(corpora, folder, tmp_path, monkeypatch):
  monkeypatch.setattr(token_cache, "LINES_AT_ONCE", 7)
  pieces = token_cache.open_cache(corpora, data_options(tmp_path))
  whole = token_cache.open_cache(corpora, data_options(folder))
  for split in SPLITS:
    for one, other in zip(pieces.streams[split], whole.streams[split], strict=True):
      np.testing.assert_array_equal(one, other)
  np.testing.assert_array_equal(pieces.counts, whole.counts)


def test_counts_are_those_of_the_training_streams(corpora, folder):
  cache = token_cache.open_cache(corpora, data_options(folder))
  assert cache.counts.shape == (2, 110)
  for counts, stream in zip(cache.counts, cache.streams["train"], strict=True):
    np.testing.assert_array_equal(counts, np.bincount(stream, minlength=110))
  expected = (cache.counts + 1) / (cache.counts + 1).sum(1, keepdims=True)
  np.testing.assert_allclose(np.exp(cache.unigram_log_probabilities()), expected, rtol=1e-5)


def test_a_subsample_takes_exactly_n_sentences_of_the_first_language(corpora, folder, tmp_path):
  cache = token_cache.open_cache(corpora, data_options(tmp_path, subsample=20))
  assert cache.num_sentences == [20, corpora[1].num_lines["train"]]
  lines = lines_of(corpora[0], "train")[:20]
  expected = independent_stream(cache.tokenizer.model, lines)
  np.testing.assert_array_equal(cache.streams["train"][0], expected)
  assert np.sum(cache.streams["train"][0] == EOS) == 21
  held_out = independent_stream(cache.tokenizer.model, lines_of(corpora[0], "valid"))
  np.testing.assert_array_equal(cache.streams["valid"][0], held_out)


def test_a_subsample_of_more_than_there_is_is_refused(corpora, tmp_path):
  available = corpora[0].num_lines["train"]
  with pytest.raises(UserError, match=rf"subsample is {available + 1}.*'te' has {available} sent"):
    token_cache.open_cache(corpora, data_options(tmp_path, subsample=available + 1))
  assert list((tmp_path / "tokens").iterdir()) == []
  cache = token_cache.open_cache(corpora, data_options(tmp_path, subsample=available))
  assert cache.num_sentences[0] == available


def test_one_language_with_the_tokenizer_of_a_pair_has_the_pairs_stream(corpora, folder, tmp_path):
  """Trained on the whole pair, whatever the run's languages and their subsample are."""
  pair = token_cache.open_cache(corpora, data_options(folder))
  alone = token_cache.open_cache(corpora[:1], data_options(tmp_path, subsample=20), pieces=corpora)
  assert alone.tokenizer.model == pair.tokenizer.model
  for split in ("meta", "valid"):
    np.testing.assert_array_equal(alone.streams[split][0], pair.streams[split][0])
  length = len(alone.streams["train"][0])
  assert alone.num_sentences == [20]
  np.testing.assert_array_equal(alone.streams["train"][0], pair.streams["train"][0][:length])
  own = token_cache.open_cache(corpora[:1], data_options(tmp_path, subsample=20))
  assert own.tokenizer.model != pair.tokenizer.model and own.key != alone.key
  reversed_pair = token_cache._key(corpora[:1], data_options(tmp_path, subsample=20), corpora[::-1])
  assert reversed_pair != alone.key


def test_a_ready_tokenizer_gives_the_ids(corpora, folder, tmp_path):
  pair = token_cache.open_cache(corpora, data_options(folder))
  data = data_options(tmp_path, vocab_size=pair.tokenizer.vocab_size)
  cache = token_cache.open_cache(corpora[1:], data, pieces=pair.tokenizer)
  assert cache.tokenizer.model == pair.tokenizer.model
  for split in SPLITS:
    np.testing.assert_array_equal(cache.streams[split][0], pair.streams[split][1])
  np.testing.assert_array_equal(cache.counts[0], pair.counts[1])
  other = token_cache.open_cache(corpora[1:], data_options(tmp_path)).tokenizer
  assert token_cache._key(corpora[1:], data, other) != cache.key
  words = "vocab_size is 109, but the tokenizer of runs/pair has 110 pieces: use .*vocab_size=110"
  with pytest.raises(UserError, match=words):
    token_cache.open_cache(
      corpora[1:],
      data_options(tmp_path, vocab_size=109, tokenizer_from="runs/pair"),
      pieces=pair.tokenizer,
    )


@pytest.mark.parametrize(
  ("tokenizer_from", "languages"),
  [("", ()), ("xb-xa", ("xb", "xa")), ("ar", ("ar",)), ("sr-Latn-en", ("sr_Latn", "en"))]
  + [(folder, ()) for folder in ("runs/adpt-xb-xa-lab-seed1", "./en", "adpt-xb-xa", "/tmp/xlm")],
)
def test_the_tokenizer_comes_from_languages_or_from_a_folder(tokenizer_from, languages, tmp_path):
  data = data_options(tmp_path, tokenizer_from=tokenizer_from)
  assert token_cache.tokenizer_languages(data) == languages
  is_folder = bool(tokenizer_from) and not languages
  assert token_cache.needs_ready_tokenizer(data) == is_folder


def damaged(contents, how):
  """The contents of a file, cut by two bytes or by three, emptied, or replaced by noise of that size."""
  noise = np.random.default_rng(0).bytes(len(contents))
  return {"cut": contents[:-2], "odd": contents[:-3], "empty": b"", "noise": noise}[how]


@pytest.mark.parametrize("how", ["cut", "odd", "empty", "noise"])
@pytest.mark.parametrize("name", ["te-train.tokens", "tokenizer.model", "cache.json", "counts.npy"])
def test_a_damaged_cache_is_made_anew_with_one_line(corpora, folder, tmp_path, name, how):
  whole = token_cache.open_cache(corpora, data_options(folder), pytest.fail)
  shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
  path = tmp_path / "tokens" / whole.key / name
  path.write_bytes(damaged(path.read_bytes(), how))
  said = []
  again = token_cache.open_cache(corpora, data_options(tmp_path), said.append)
  (line,) = said
  assert line.startswith(f"The token cache {path.parent} is damaged ({path} ")
  for split in SPLITS:
    for one, other in zip(again.streams[split], whole.streams[split], strict=True):
      np.testing.assert_array_equal(one, other)
  assert again.tokenizer.model == whole.tokenizer.model
  token_cache.open_cache(corpora, data_options(tmp_path), pytest.fail)


def test_a_missing_file_of_a_cache_is_noticed_and_large_ones_are_compared_on_request(
  corpora, folder, tmp_path, monkeypatch
):
  shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
  cache = tmp_path / "tokens" / token_cache.open_cache(corpora, data_options(folder)).key
  path = cache / "en-train.tokens"
  path.write_bytes(damaged(path.read_bytes(), "noise"))
  monkeypatch.setattr(files, "ALWAYS_READ", 100)
  assert token_cache.damage(cache) is None
  assert token_cache.damage(cache, whole=True) == f"{path} has other contents than were written"
  path.unlink()
  assert token_cache.damage(cache) == f"{path} is missing"


def test_a_cache_is_not_made_from_a_damaged_corpus(tmp_path):
  rng = np.random.default_rng(1)
  documents = [[" ".join(rng.choice(WORDS["en"], 5))] for _ in range(300)]
  corpus = write_corpus(documents, language="en", data_dir=tmp_path, provenance={})
  path = next(corpus.directory.glob("*-train.array_record*"))
  contents = bytearray(path.read_bytes())
  contents[len(contents) // 2] ^= 1
  path.write_bytes(contents)
  with pytest.raises(UserError, match=f"{path} has other contents .* prepare the corpus again"):
    token_cache.open_cache([corpus], data_options(tmp_path))
  assert not list((tmp_path / "tokens").glob("*"))


def python(code, *args):
  return subprocess.run(
    [sys.executable, "-c", code, *map(str, args)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )


OPEN = """
import json, sys
from negint.data import token_cache
from negint.data.corpus import open_corpus
from negint.options import DataOptions, LabOptions
root, data = sys.argv[1], json.loads(sys.argv[2])
data = DataOptions(**{**data, "lab": LabOptions(**data["lab"])})
corpora = [open_corpus(root, language) for language in ("te", "en")]
"""


def test_a_second_open_rebuilds_nothing_and_imports_no_tfds(corpora, folder):
  files = [path for path in folder.rglob("*") if path.is_file()]
  before = {path: path.stat().st_mtime_ns for path in files}
  data = data_options(folder)
  code = (
    OPEN
    + """
cache = token_cache.open_cache(corpora, data)
heavy = [m for m in ("tensorflow_datasets", "tensorflow", "jax") if m in sys.modules]
print(json.dumps([heavy, [len(s) for s in cache.streams["train"]]]))
"""
  )
  root = corpora[0].directory.parents[2]
  result = python(code, root, json.dumps(dataclasses.asdict(data)))
  heavy, lengths = json.loads(result.stdout)
  assert heavy == []
  cache = token_cache.open_cache(corpora, data)
  assert lengths == [len(stream) for stream in cache.streams["train"]]
  assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
  "changes",
  [
    dict(vocab_size=111),
    dict(sampling_exponent=1.0),
    dict(subsample=30),
    dict(tokenizer_sentences=50),
  ],
)
def test_whatever_changes_the_tokens_changes_the_key(corpora, folder, changes):
  key = token_cache._key(corpora, data_options(folder))
  assert token_cache._key(corpora, data_options(folder, **changes)) != key
  assert token_cache._key(corpora[::-1], data_options(folder)) != key
  assert token_cache._key(corpora, data_options(folder, sequence_length=99)) == key


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_a_build_that_fails_leaves_nothing(corpora, tmp_path, monkeypatch, error):
  save = np.save

  def fail(path, array):
    del array
    raise error

  monkeypatch.setattr(np, "save", fail)
  with pytest.raises(type(error)):
    token_cache.open_cache(corpora, data_options(tmp_path))
  assert list((tmp_path / "tokens").iterdir()) == []
  monkeypatch.setattr(np, "save", save)
  token_cache.open_cache(corpora, data_options(tmp_path))


def test_a_killed_build_leaves_no_half_cache(corpora, folder, tmp_path):
  code = (
    OPEN
    + """
import os, signal
import numpy as np
np.save = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
token_cache.open_cache(corpora, data)
"""
  )
  data = data_options(tmp_path)
  root = corpora[0].directory.parents[2]
  result = python(code, root, json.dumps(dataclasses.asdict(data)))
  assert result.returncode == -signal.SIGKILL
  assert not (tmp_path / "tokens" / token_cache._key(corpora, data)).exists()
  again = token_cache.open_cache([open_corpus(root, code) for code in WORDS], data)
  whole = token_cache.open_cache(corpora, data_options(folder))
  np.testing.assert_array_equal(again.streams["train"][1], whole.streams["train"][1])


def test_a_cache_that_another_run_finished_meanwhile_is_used(corpora, tmp_path, monkeypatch):
  data = data_options(tmp_path)
  rename = pathlib.Path.rename

  def lose(self, target):
    if self.is_dir():
      rename(self, target)
      (pathlib.Path(target) / "winner").touch()
      raise OSError("Directory not empty")
    return rename(self, target)

  monkeypatch.setattr(pathlib.Path, "rename", lose)
  token_cache.open_cache(corpora, data)
  assert [path.name for path in (tmp_path / "tokens").iterdir()] == [
    token_cache._key(corpora, data)
  ]
  assert os.path.exists(tmp_path / "tokens" / token_cache._key(corpora, data) / "winner")


def test_verify_tells_whole_data_from_damaged(corpora, folder, tmp_path, capsys):
  with pytest.raises(UserError, match="neither a corpus nor a token cache"):
    verify.report(tmp_path)
  root = corpora[0].directory.parents[2]
  shutil.copytree(root, tmp_path / "lab")
  shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
  assert verify.report(tmp_path) == 0
  assert capsys.readouterr().out.endswith("3 of 3 are whole.\n")
  for pattern in ("lab/corpus/te/1.0.0/*-valid.array_record*", "tokens/*/en-meta.tokens"):
    path = next(tmp_path.glob(pattern))
    path.write_bytes(damaged(path.read_bytes(), "noise"))
  assert verify.report(tmp_path) == 2
  lines = capsys.readouterr().out.splitlines()
  assert [line.rpartition(": ")[2] == "whole" for line in lines] == [True, False, False, False]
  assert "corpus/te" in lines[1] and "makes it anew" in lines[2] and "1 of 3" in lines[3]
