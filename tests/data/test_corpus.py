"""A corpus on disk holds exactly the documents it was given, split by document."""

import json
import subprocess
import sys

import numpy as np
import pytest

from negint.data import corpus as corpus_lib
from negint.data.corpus import SPLITS, Corpus, open_corpus, write_corpus
from negint.errors import UserError
from negint.run import files
from negint.run.files import write_json


def _documents(count=300, seed=0):
  """Documents of one to four lines, several scripts, all different."""
  rng = np.random.default_rng(seed)
  words = ["river", "نهر", "నది", "река", "𝔘nicode", "e\u0301"]
  return [
    [f"{rng.choice(words)} {number} {line}" for line in range(rng.integers(1, 5))]
    for number in range(count)
  ]


def _write(documents, data_dir, provenance=None, language="ar") -> Corpus:
  return write_corpus(
    documents, language=language, data_dir=data_dir, provenance=provenance or {"source": "test"}
  )


def _splits(corpus) -> dict[str, list]:
  return {split: list(corpus.documents(split)) for split in SPLITS}


def test_text_written_is_text_read(tmp_path):
  documents = _documents()
  corpus = _write(documents, tmp_path)
  assert sorted(sum(_splits(corpus).values(), [])) == sorted(documents)
  assert sorted(sum(_splits(open_corpus(tmp_path, "ar")).values(), [])) == sorted(documents)
  assert open_corpus(tmp_path, "ar") == corpus
  assert corpus.directory == tmp_path / "corpus" / "ar" / "1.0.0"


def test_more_records_than_are_read_at_once_come_back(tmp_path, monkeypatch):
  monkeypatch.setattr(corpus_lib, "_READ_AT_ONCE", 7)
  documents = _documents(100)
  assert sorted(sum(_splits(_write(documents, tmp_path)).values(), [])) == sorted(documents)


def test_splits_are_disjoint_and_identical_documents_stay_together(tmp_path):
  corpus = _write(_documents() * 2, tmp_path)
  found = {
    split: {tuple(lines) for lines in documents} for split, documents in _splits(corpus).items()
  }
  assert sum(map(len, found.values())) == 300
  assert not found["train"] & found["meta"] | found["train"] & found["valid"]
  assert not found["meta"] & found["valid"]


def test_counts_describe_the_splits(tmp_path):
  corpus = _write(_documents(), tmp_path)
  for split, documents in _splits(corpus).items():
    assert corpus.num_documents[split] == len(documents)
    assert corpus.num_lines[split] == sum(map(len, documents))
    assert corpus.num_characters[split] == sum(len(line) for lines in documents for line in lines)


def test_the_order_of_the_source_does_not_change_the_split(tmp_path):
  documents = _documents()
  first, second = _write(documents, tmp_path / "a"), _write(documents[::-1], tmp_path / "b")
  assert {s: sorted(d) for s, d in _splits(first).items()} == {
    s: sorted(d) for s, d in _splits(second).items()
  }


def test_the_fingerprint_follows_text_and_provenance(tmp_path):
  documents = _documents()
  first = _write(documents, tmp_path / "a").fingerprint
  assert _write(documents, tmp_path / "b").fingerprint == first
  changed = [*documents[:-1], [*documents[-1], "one more line"]]
  assert _write(changed, tmp_path / "c").fingerprint != first
  assert _write(documents, tmp_path / "d", {"source": "other"}).fingerprint != first


def test_small_corpora_hold_out_five_percent_and_large_ones_a_fixed_number(tmp_path, monkeypatch):
  small = _write([[f"line {number}"] for number in range(1000)], tmp_path / "a")
  assert all(30 <= small.num_lines[split] <= 70 for split in ("meta", "valid"))
  monkeypatch.setattr(corpus_lib, "HELD_OUT_LINES", 100)
  large = _write([[f"line {number}"] for number in range(20_000)], tmp_path / "b")
  assert 70 <= large.num_lines["valid"] <= 130
  assert 150 <= large.num_lines["meta"] <= 250  # 1 %


def test_long_documents_are_held_out_too(tmp_path, monkeypatch):
  """A hundred lines would be half a document: no amount of such text would give one."""
  monkeypatch.setattr(corpus_lib, "HELD_OUT_LINES", 100)
  documents = [[f"book {book}, line {line}" for line in range(200)] for book in range(400)]
  corpus = _write(documents, tmp_path)
  assert all(1000 <= corpus.num_lines[split] <= 4000 for split in ("meta", "valid"))


def test_the_share_of_meta_does_not_move_valid(tmp_path, monkeypatch):
  monkeypatch.setattr(corpus_lib, "HELD_OUT_LINES", 100)
  documents = [[f"line {number}"] for number in range(5000)]

  def lines(corpus, split):
    return {line for document in corpus.documents(split) for line in document}

  shares = {0.0: 100, 0.01: 100, 0.2: 1000}  # share -> documents in meta, at least as many as valid
  corpora = [
    write_corpus(
      documents, language="ar", data_dir=tmp_path / str(share), provenance={}, meta_share=share
    )
    for share in shares
  ]
  for corpus, expected in zip(corpora, shares.values(), strict=True):
    assert lines(corpus, "valid") == lines(corpora[0], "valid")
    assert lines(corpus, "meta") >= lines(corpora[0], "meta")
    assert 0.7 * expected <= corpus.num_lines["meta"] <= 1.3 * expected
    assert not lines(corpus, "meta") & (lines(corpus, "valid") | lines(corpus, "train"))
    assert sum(corpus.num_lines.values()) == 5000


@pytest.mark.parametrize("count", [0, 1, 5])
def test_too_few_documents_are_refused_and_leave_nothing(tmp_path, count):
  with pytest.raises(UserError, match=f"{count} documents.*would be empty"):
    _write(_documents(count), tmp_path)
  assert not list(tmp_path.rglob("*.array_record*"))


@pytest.mark.parametrize("document", [[], ["a\nb"], ["a", ""], [""]])
def test_documents_that_would_not_come_back_are_refused(tmp_path, document):
  with pytest.raises(ValueError, match="non-empty lines"):
    _write([*_documents(), document], tmp_path)


def test_an_existing_corpus_is_not_overwritten(tmp_path):
  first = _write(_documents(), tmp_path)
  with pytest.raises(UserError, match="exists already"):
    _write(_documents(seed=1), tmp_path)
  assert open_corpus(tmp_path, "ar") == first


def test_a_missing_corpus_names_the_command(tmp_path):
  with pytest.raises(UserError, match="python -m negint.prepare.*--language=te"):
    open_corpus(tmp_path, "te")


def test_a_damaged_record_is_named(tmp_path):
  directory = _write(_documents(), tmp_path).directory
  (directory / "corpus.json").write_text('{"language": ')
  words = f"corpus.json is damaged .* part of the corpus of 'ar'; delete {directory} and prepare"
  with pytest.raises(UserError, match=words):
    open_corpus(tmp_path, "ar")


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "missing"])
def test_a_damaged_file_of_a_corpus_is_named_with_the_command_that_makes_it(tmp_path, how):
  provenance = {"source": {"spec": "text:my text/*"}, "filters": {"language_filter": False}}
  directory = _write(_documents(), tmp_path, provenance).directory
  path = next(directory.glob("*-train.array_record*"))
  contents = path.read_bytes()
  if how == "missing":
    path.unlink()
  else:
    noise = bytes(255 - byte for byte in contents)
    path.write_bytes({"cut": contents[:-1], "empty": b"", "noise": noise}[how])
  with pytest.raises(UserError) as caught:
    open_corpus(tmp_path, "ar")
  message = str(caught.value)
  assert message.startswith(f"{path} ") and f"delete {directory}" in message
  assert "--source='text:my text/*' --language=ar" in message
  assert message.endswith(f"--data_dir={tmp_path} --nolanguage_filter.")


def test_large_files_of_a_corpus_are_compared_on_request(tmp_path, monkeypatch):
  corpus = _write(_documents(), tmp_path)
  monkeypatch.setattr(files, "ALWAYS_READ", 100)
  path = next(corpus.directory.glob("*-train.array_record*"))
  path.write_bytes(bytes(path.stat().st_size))
  open_corpus(tmp_path, "ar").check()
  with pytest.raises(UserError, match="other contents than were written"):
    corpus.check(whole=True)


@pytest.mark.parametrize("entries", [{}, {"files": {}}])
def test_a_record_without_its_entries_is_damaged(tmp_path, entries):
  directory = _write(_documents(), tmp_path).directory
  write_json(directory / "corpus.json", entries)
  with pytest.raises(UserError, match="corpus.json does not have the entries .* delete"):
    open_corpus(tmp_path, "ar")


@pytest.mark.parametrize("language", ["", "..", "a/b", "AR", ".ar", "a b"])
def test_language_codes_cannot_leave_the_folder(tmp_path, language):
  with pytest.raises(UserError, match="language code"):
    open_corpus(tmp_path, language)


def test_a_failing_writer_leaves_neither_corpus_nor_debris(tmp_path, monkeypatch):
  def fail(corpus):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(corpus_lib, "_verify", fail)
  with pytest.raises(OSError, match="No space"):
    _write(_documents(), tmp_path)
  assert not [path for path in tmp_path.rglob("*") if path.is_file()]
  monkeypatch.undo()
  _write(_documents(), tmp_path)


def test_what_a_killed_writer_left_is_deleted(tmp_path):
  left = tmp_path / "corpus" / "ar" / ".1.0.0.killed"
  left.mkdir(parents=True)
  (left / "text").touch()
  other = tmp_path / "corpus" / "ar" / "another"
  other.touch()
  _write(_documents(), tmp_path)
  assert not left.exists() and other.exists()


def test_verification_notices_damaged_records(tmp_path):
  corpus = _write(_documents(), tmp_path)
  corpus_lib._verify(corpus)
  path = next(corpus.directory.glob("*-train.array_record*"))
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(OSError, match="split 'train'"):
    corpus_lib._verify(corpus)


def test_an_unknown_split_is_refused(tmp_path):
  with pytest.raises(ValueError, match="test"):
    next(_write(_documents(), tmp_path).documents("test"))


def test_opening_is_light_and_reading_needs_no_tensorflow(tmp_path):
  _write(_documents(), tmp_path)
  code = (
    "import sys, json; from negint.data.corpus import open_corpus; "
    f'c = open_corpus({str(tmp_path)!r}, "ar"); light = "tensorflow_datasets" not in sys.modules; '
    'n = sum(1 for _ in c.documents("train")); '
    'print(json.dumps([light, n, "tensorflow" in sys.modules]))'
  )
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  light, count, tensorflow = json.loads(result.stdout)
  assert light and not tensorflow
  assert count == open_corpus(tmp_path, "ar").num_documents["train"]
