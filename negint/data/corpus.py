"""The corpus on disk: one folder per language, in TFDS's ArrayRecord layout, split by document.

The folder is `<data_dir>/corpus/<language>/1.0.0`. TFDS writes and reads the text (without
TensorFlow); `corpus.json`, a file of this project beside TFDS's files, has the counts and the
provenance. `sources` and `cleaning` make the documents.
"""

import array
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from negint.data.cleaning import Filters
from negint.errors import UserError
from negint.language_codes import canonical
from negint.run.files import (
  find_damage,
  read_json,
  record_files,
  remove_leftovers,
  whole_folder,
  write_json,
)

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

SPLITS = ("train", "meta", "valid")
VERSION = "1.0.0"
HELD_OUT_SHARE = 0.05  # of the documents, for each of meta and valid ...
HELD_OUT_LINES = 5000  # ... but at most about this many lines each, apart from META_SHARE ...
HELD_OUT_DOCUMENTS = 10  # ... and at least about as many documents, however long they are
META_SHARE = 0.01  # smallest share of the documents for meta, however many lines that is
METADATA = "corpus.json"
_READ_AT_ONCE = 512  # records; reading them one by one is several times slower


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A prepared corpus of one language."""

  language: str  # its code, also the name of its folder
  directory: pathlib.Path  # where its files are
  fingerprint: str  # hexadecimal digest of text, splits and provenance; token caches depend on it
  provenance: dict  # what it was made from and how, as given to `write_corpus`
  num_lines: dict[str, int]  # by split
  num_documents: dict[str, int]  # by split
  num_characters: dict[str, int]  # by split, without newlines
  files: dict[str, dict[str, Any]]  # size and checksum of each file, as `record_files` returns them

  def check(self, *, whole: bool = False) -> None:
    """Compares the files with what was recorded when they were written.

    Args:
      whole: compare the contents of large files, too, and not only their sizes.

    Raises:
      UserError: a file is damaged or missing.
    """
    if what := find_damage(self.directory, self.files, whole=whole):
      raise UserError(f"{what}. It is part of {_part_of(self.directory, self.provenance)}.")

  def documents(self, split: str) -> Iterator[list[str]]:
    """Yields the documents of a split, each a list of lines, in the stored (shuffled) order."""
    if split not in SPLITS:
      raise ValueError(f"split={split!r} is not one of {SPLITS}.")
    import tensorflow_datasets as tfds  # takes half a second, and only readers need it

    builder = tfds.builder_from_directory(self.directory)
    for text in read_texts(builder, split=split, feature="text"):
      yield text.split("\n")


class TooFewDocuments(UserError):
  """The documents do not suffice for three splits."""


def corpus_directory(data_dir: os.PathLike | str, language: str) -> pathlib.Path:
  """Returns the folder of the corpus of a language, which may not exist yet.

  Raises:
    UserError: `language` is not a language code.
  """
  return pathlib.Path(data_dir).expanduser() / "corpus" / canonical(language) / VERSION


def open_corpus(data_dir: os.PathLike | str, language: str) -> Corpus:
  """Returns the prepared corpus of a language.

  It reads one small file, and compares the others with what was recorded (see `Corpus.check`).

  Raises:
    UserError: there is no corpus of the language, or it is damaged.
  """
  directory = corpus_directory(data_dir, language)
  try:
    record = read_json(directory / METADATA, _part_of(directory, {}))
  except FileNotFoundError:
    raise UserError(
      f"There is no corpus of '{language}' at {directory}. Prepare it: python -m negint.prepare "
      f"--source='text:my_text/*.txt' --language={language} --data_dir={data_dir} "
      "(or wikipedia_dump:, tfds:)."
    ) from None
  fields = {field.name for field in dataclasses.fields(Corpus)} - {"directory"}
  if record.keys() != fields:
    raise UserError(
      f"{directory / METADATA} does not have the entries {', '.join(sorted(fields))}. It is part of "
      f"{_part_of(directory, {})}."
    )
  corpus = Corpus(directory=directory, **record)
  corpus.check()
  return corpus


def _part_of(directory: pathlib.Path, provenance: dict[str, Any]) -> str:
  """Returns what a damaged file belongs to and what makes it again, as the end of a sentence."""
  language, root = directory.parent.name, directory.parents[2]
  source = provenance.get("source")
  spec = source.get("spec") if isinstance(source, dict) else None
  if spec == "lab":
    again = "start the same command again, which makes it anew"
  elif spec:
    again = (
      f"prepare the corpus again: python -m negint.prepare --source={shlex.quote(spec)} "
      f"--language={language} --data_dir={shlex.quote(str(root))}"
      + "".join(f" {flag}" for flag in _changed_flags(provenance))
    )
  else:
    again = "prepare the corpus again"
  return f"the corpus of '{language}'; delete {directory} and {again}"


def _changed_flags(provenance: dict[str, Any]) -> Iterator[str]:
  """Yields the flags of negint.prepare that were not the defaults when the corpus was made."""
  default = {**dataclasses.asdict(Filters()), "meta_share": META_SHARE, "document": None}
  made = {
    **provenance.get("filters", {}),
    **provenance.get("split", {}),
    "document": provenance["source"].get("document"),
  }
  for name, value in made.items():
    if value != default.get(name):
      yield f"--{'' if value else 'no'}{name}" if isinstance(value, bool) else f"--{name}={value}"


def write_corpus(
  documents: Iterable[list[str]],
  *,
  language: str,
  data_dir: os.PathLike | str,
  provenance: dict,
  meta_share: float = META_SHARE,
  progress: bool = False,
) -> Corpus:
  """Writes documents as the corpus of a language, the whole corpus or nothing, and returns it.

  Only one process at a time may write the corpus of a language; `prepare` takes a lock.

  Args:
    documents: each a non-empty list of non-empty lines without newline characters. They are
      iterated four times, so pass a list or an object whose `__iter__` starts from the beginning.
    language: its code, the name of the folder.
    data_dir: the root of all prepared data.
    provenance: JSON-able; part of the fingerprint, so it must not hold times or random values.
    meta_share: share of the documents for the split meta. It gets at least as many as valid.
    progress: whether to show progress bars on stderr.

  Raises:
    TooFewDocuments: a split would be empty.
    UserError: the corpus exists already.
    OSError: the disk refuses the corpus, or does not give back what was written.
  """
  directory = corpus_directory(data_dir, language)
  if directory.exists():
    raise UserError(f"The corpus of '{language}' exists already: delete {directory} to replace it.")
  split_of, record = _plan(documents, language, meta_share)
  fingerprint = hashlib.sha256(record.pop("digest").encode())
  fingerprint.update(json.dumps(provenance, sort_keys=True, ensure_ascii=False).encode())
  record = {
    "language": language,
    "fingerprint": fingerprint.hexdigest(),
    "provenance": provenance,
    **record,
  }
  remove_leftovers(directory)
  with whole_folder(directory) as folder:
    with progress_bar(progress, total=len(split_of), desc="writing", unit="doc") as bar:
      _write_records(documents, split_of, language, folder, bar.update)
    record["files"] = record_files(folder)
    _verify(Corpus(directory=folder, **record))
    write_json(folder / METADATA, record)
  return Corpus(directory=directory, **record)


def read_texts(
  builder: "tfds.core.DatasetBuilder", *, split: str, feature: str, start: int = 0
) -> Iterator[str]:
  """Yields one string feature of each record of a builder, from record number `start` on.

  TFDS decodes one record at a time through NumPy, at 10 MB/s. The same records read in bulk and
  parsed as protocol buffers arrive at 80 MB/s, long documents at 200 MB/s.

  Args:
    builder: prepared as ArrayRecord.
    split: name of the split.
    feature: name of the feature.
    start: how many records to leave out.
  """
  import tensorflow_datasets as tfds
  from tensorflow_datasets.proto import tf_example_pb2

  raw = builder.as_data_source(
    split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
  )
  for first in range(start, len(raw), _READ_AT_ONCE):
    for record in raw.__getitems__(list(range(first, min(first + _READ_AT_ONCE, len(raw))))):
      example = tf_example_pb2.Example.FromString(record)
      yield example.features.feature[feature].bytes_list.value[0].decode()


def progress_bar(shown: bool, **options: Any) -> tqdm:
  """Returns tqdm's bar with tqdm's options, drawn on stderr if `shown` and stderr is a terminal."""
  return tqdm(disable=None if shown else True, **options)


def _plan(
  documents: Iterable[list[str]], language: str, meta_share: float
) -> tuple[np.ndarray, dict]:
  """Returns each document's split (an index into SPLITS) and what `corpus.json` says of the text.

  A document's split depends only on its own text. So identical documents share a split, and the
  order of the source does not matter. What is in valid does not depend on `meta_share`.
  """
  # As machine numbers: a corpus can have 100 million documents of one line.
  hashes, lines_of, characters_of = array.array("d"), array.array("q"), array.array("q")
  digest = hashlib.sha256()
  for lines in documents:
    text = "\n".join(lines)
    if not lines or text.count("\n") != len(lines) - 1 or not all(lines):
      raise ValueError(f"a document needs non-empty lines without newlines, not {lines[:3]!r}")
    text_digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    digest.update(text_digest)
    hashes.append(int.from_bytes(text_digest[:8], "big") / 2**64)
    lines_of.append(len(lines))
    characters_of.append(len(text) - len(lines) + 1)
  position, num_lines, num_characters = map(np.array, (hashes, lines_of, characters_of))
  few = max(HELD_OUT_LINES / max(num_lines.sum(), 1), HELD_OUT_DOCUMENTS / max(len(hashes), 1))
  share = min(HELD_OUT_SHARE, few)
  meta = (position < share) | (position >= 2 * share) & (position < share + max(share, meta_share))
  split_of = np.select([meta, position < 2 * share], [1, 2], 0).astype(np.uint8)
  documents_by_split = np.bincount(split_of, minlength=len(SPLITS))
  for name, count in zip(SPLITS, documents_by_split, strict=True):
    if not count:
      raise TooFewDocuments(
        f"The corpus of '{language}' would have {len(hashes)} documents, too few to split: "
        f"'{name}' would be empty."
      )
  return split_of, {
    "digest": digest.hexdigest(),
    "num_lines": _by_split(np.bincount(split_of, num_lines)),
    "num_documents": _by_split(documents_by_split),
    "num_characters": _by_split(np.bincount(split_of, num_characters)),
  }


def _by_split(values: np.ndarray) -> dict[str, int]:
  return {name: int(value) for name, value in zip(SPLITS, values, strict=True)}


def _write_records(
  documents: Iterable[list[str]],
  split_of: np.ndarray,
  language: str,
  folder: pathlib.Path,
  advance: Callable[[int], object],
) -> None:
  """Lets TFDS write all splits into a folder."""
  import tensorflow_datasets as tfds

  def generate(split: int) -> Iterator[tuple[int, dict[str, str]]]:
    for key, lines in enumerate(documents):
      if split_of[key] == split:
        advance(1)
        yield key, {"text": "\n".join(lines)}

  with tfds.core.registered.skip_registration():

    class CorpusBuilder(tfds.core.GeneratorBasedBuilder):
      """Documents of one language."""

      name = "corpus"
      VERSION = tfds.core.Version(VERSION)
      BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=language)]
      # TFDS looks for files beside this code with importlib_resources, which it does not install.
      code_path = None

      def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

      def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {name: self._generate_examples(split) for split, name in enumerate(SPLITS)}

      def _generate_examples(self, split):
        return generate(split)

  # TFDS makes folders of its own for name, config and version; the corpus is their contents.
  root = folder / "tfds"
  builder = CorpusBuilder(config=language, data_dir=root, file_format="array_record")
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(
      io.StringIO()
    ):  # TFDS announces a download that does not happen
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
  except RuntimeError as error:
    if "() failed: " in str(error):  # a failed system call, such as on a full disk
      raise OSError(str(error)) from error
    raise
  for path in pathlib.Path(builder.data_dir).iterdir():
    path.rename(folder / path.name)
  shutil.rmtree(root)


def _verify(corpus: Corpus) -> None:
  """Reads the text back, because ArrayRecord may not report a full disk.

  Raises:
    OSError: the text cannot be read, or lines are missing.
  """
  for split in SPLITS:
    lines = 0
    try:
      lines = sum(len(document) for document in corpus.documents(split))
    except Exception as error:  # the reader raises many types for a damaged file
      raise OSError(f"split '{split}' of the written corpus cannot be read: {error}") from error
    if lines != corpus.num_lines[split]:
      raise OSError(f"split '{split}' has {lines} lines instead of {corpus.num_lines[split]}")
