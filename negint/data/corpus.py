"""The corpus on disk: one folder a language, in TFDS's ArrayRecord layout, split by document.

Owns `<data_dir>/corpus/<language>/1.0.0`: how documents are assigned to the splits, how they are
written (TFDS, without TensorFlow), how they are read, and `corpus.json`, our own record of counts
and provenance beside TFDS's files. Knows nothing of where the text came from.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from negint.errors import UserError

SPLITS = ("train", "meta", "valid")
VERSION = "1.0.0"
HELD_OUT_SHARE = 0.05  # of the documents, for each of meta and valid ...
HELD_OUT_LINES = 5000  # ... but no more than about so many lines each
_METADATA = "corpus.json"
_READ_AT_ONCE = 512  # records: reading one by one is several times slower


@dataclasses.dataclass(frozen=True)
class Corpus:
  """A prepared corpus of one language.

  Attributes:
    language: its code, also the name of its folder.
    directory: where its files lie.
    fingerprint: hexadecimal digest of text, splits and provenance; the key of everything derived.
    provenance: what it was made from and how, as given to `write_corpus`.
    num_lines, num_documents, num_characters: counts by split; newlines are no characters.
  """

  language: str
  directory: pathlib.Path
  fingerprint: str
  provenance: dict
  num_lines: dict[str, int]
  num_documents: dict[str, int]
  num_characters: dict[str, int]

  def documents(self, split: str) -> Iterator[list[str]]:
    """Yields the documents of `split`, each a list of lines, in the stored (shuffled) order."""
    if split not in SPLITS:
      raise ValueError(f"split={split!r} is none of {SPLITS}.")
    import tensorflow_datasets as tfds  # half a second, and only readers need it

    builder = tfds.builder_from_directory(self.directory)
    for text in read_texts(builder, split=split, feature="text"):
      yield text.split("\n")


def corpus_directory(data_dir: os.PathLike | str, language: str) -> pathlib.Path:
  """Where the corpus of `language` lies. UserError when `language` cannot name a folder."""
  if not re.fullmatch(r"[a-z][a-z0-9]*([_-][A-Za-z0-9]+)*", language):
    raise UserError(
      f"language={language!r} is not a language code: write lower-case letters and digits that "
      "begin with a letter, such as 'ar', 'en' or 'zh-classical'."
    )
  return pathlib.Path(data_dir).expanduser() / "corpus" / language / VERSION


def open_corpus(data_dir: os.PathLike | str, language: str) -> Corpus:
  """The prepared corpus of `language`; reads one small file. UserError when there is none."""
  directory = corpus_directory(data_dir, language)
  path = directory / _METADATA
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise UserError(
      f"There is no corpus of '{language}' at {directory}. Prepare it: python -m negint.prepare "
      f"--source='text:my_text/*.txt' --language={language} --data_dir={data_dir} "
      "(or wikipedia_dump:, tfds:)."
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(
      f"{path} cannot be read ({error}): delete {directory} and prepare the corpus again."
    ) from error
  return Corpus(directory=directory, **record)


def write_corpus(
  documents: Iterable[list[str]],
  *,
  language: str,
  data_dir: os.PathLike | str,
  provenance: dict,
  progress: bool = False,
) -> Corpus:
  """Writes `documents` as the corpus of `language`: all of it or nothing.

  Args:
    documents: iterated four times, so a list or an object whose `__iter__` starts afresh; each is a
      non-empty list of non-empty lines without newline characters.
    language: code, the name of the folder.
    data_dir: the root of all prepared data.
    provenance: JSON-able; part of the fingerprint, so it must not hold times or random values.
    progress: show progress bars on stderr.

  Raises:
    UserError: the corpus exists already, or has too few documents for its three splits.
  """
  directory = corpus_directory(data_dir, language)
  if directory.exists():
    raise UserError(f"The corpus of '{language}' exists already: delete {directory} to replace it.")
  split_of, record = _plan(documents, language, directory)
  fingerprint = hashlib.sha256(record.pop("digest").encode())
  fingerprint.update(json.dumps(provenance, sort_keys=True, ensure_ascii=False).encode())
  record = {
    "language": language,
    "fingerprint": fingerprint.hexdigest(),
    "provenance": provenance,
    **record,
  }
  temporary = directory.parent.parent / f".{language}.writing"
  shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
  try:
    with progress_bar(progress, total=len(split_of), desc="writing", unit="doc") as bar:
      written = _write_records(documents, split_of, language, temporary, bar.update)
    corpus = Corpus(directory=written, **record)
    _verify(corpus)
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (written / _METADATA).write_text(text, encoding="utf-8")
    directory.parent.mkdir(parents=True, exist_ok=True)
    os.rename(written, directory)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return dataclasses.replace(corpus, directory=directory)


def read_texts(builder, *, split: str, feature: str, start: int = 0) -> Iterator[str]:
  """Yields the string `feature` of each record of an ArrayRecord builder, from record `start` on.

  TFDS decodes one record at a time through NumPy: 10 MB/s measured. The same records read in bulk
  and parsed as protocol buffers came at 80 MB/s, long documents at 200 MB/s.
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


def progress_bar(shown: bool, **options) -> tqdm:
  """A bar on stderr if `shown` and stderr is a terminal: in a log file it would be litter."""
  return tqdm(disable=None if shown else True, **options)


def _plan(documents, language, directory) -> tuple[np.ndarray, dict]:
  """The split of each document (index into SPLITS) and what `corpus.json` says of the text.

  A document's place depends on its own text alone, so identical documents share a split, and the
  order of the source does not matter.
  """
  hashes, sizes, digest = [], [], hashlib.sha256()
  for lines in documents:
    text = "\n".join(lines)
    if not lines or text.count("\n") != len(lines) - 1 or not all(lines):
      raise ValueError(f"a document needs non-empty lines without newlines, not {lines[:3]!r}")
    text_digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    digest.update(text_digest)
    hashes.append(int.from_bytes(text_digest[:8], "big") / 2**64)
    sizes.append((len(lines), len(text) - len(lines) + 1))
  position = np.array(hashes)
  lines, characters = np.array(sizes, np.int64).reshape(-1, 2).T
  share = min(HELD_OUT_SHARE, HELD_OUT_LINES / max(lines.sum(), 1))
  split_of = np.select([position < share, position < 2 * share], [1, 2], 0).astype(np.uint8)
  documents_by_split = np.bincount(split_of, minlength=len(SPLITS))
  for name, count in zip(SPLITS, documents_by_split, strict=True):
    if not count:
      raise UserError(
        f"The corpus of '{language}' would have {len(hashes)} documents, too few to split by "
        f"document: '{name}' would be empty. Give more text (200 documents are safe) or, in text "
        "files, separate documents by blank lines."
      )
  return split_of, {
    "digest": digest.hexdigest(),
    "num_lines": _by_split(np.bincount(split_of, lines)),
    "num_documents": _by_split(documents_by_split),
    "num_characters": _by_split(np.bincount(split_of, characters)),
  }


def _by_split(values) -> dict[str, int]:
  return {name: int(value) for name, value in zip(SPLITS, values, strict=True)}


def _write_records(documents, split_of, language, root, advance) -> pathlib.Path:
  """Lets TFDS write all splits under `root`; returns the folder with the files."""
  import tensorflow_datasets as tfds

  def generate(split: int):
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
      # Nothing lies beside this code to be found; TFDS would look by a package that it does not
      # require (importlib_resources).
      code_path = None

      def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

      def _split_generators(self, dl_manager):
        del dl_manager  # nothing to download
        return {name: self._generate_examples(split) for split, name in enumerate(SPLITS)}

      def _generate_examples(self, split):
        return generate(split)

  builder = CorpusBuilder(config=language, data_dir=root, file_format="array_record")
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces a download
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
  except RuntimeError as error:
    if "() failed: " in str(error):  # how ArrayRecord reports a system call, a full disk for one
      raise OSError(str(error)) from error
    raise
  return pathlib.Path(builder.data_dir)


def _verify(corpus: Corpus) -> None:
  """OSError unless the text can be read back: ArrayRecord may not report a full disk."""
  for split in SPLITS:
    lines = 0
    try:
      lines = sum(len(document) for document in corpus.documents(split))
    except Exception as error:  # whatever the reader makes of a damaged file
      raise OSError(f"split '{split}' of the written corpus cannot be read: {error}") from error
    if lines != corpus.num_lines[split]:
      raise OSError(f"split '{split}' has {lines} lines instead of {corpus.num_lines[split]}")
