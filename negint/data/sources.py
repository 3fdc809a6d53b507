"""Where text comes from: every source yields documents, each a list of lines.

A line is a sentence or a paragraph. This file has the four kinds of source (`sample`, `text:`,
`wikipedia_dump:`, `tfds:`) and what identifies their data. `wikipedia` reads dumps, `cleaning`
chooses the lines to keep, and `corpus` writes them.
"""

import dataclasses
import functools
import glob
import importlib.util
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from negint.data import cleaning, corpus
from negint.data.tfds_builders import find_builder
from negint.data.wikipedia import read_dump
from negint.errors import UserError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

SAMPLE_LANGUAGES = ("ar", "en", "fr", "hi", "kn", "mr", "ru", "te")
LEGAL_SPECS = "sample, text:GLOB, wikipedia_dump:FILE.xml.bz2, tfds:BUILDER[/CONFIG]"
RUN_LENGTH = 50  # lines per document in a file without blank lines
_MAX_DOCUMENT_LINES = 1000  # a document is held in memory, so longer text without a break is cut

Advance = Callable[[int], object]


@dataclasses.dataclass(frozen=True)
class Source:
  """Documents to prepare."""

  identity: dict  # JSON-able; two preparations with equal identities read the same data
  total: int | None  # size in units; None when unknown
  unit: str  # what `advance` counts: "B" (bytes of the files) or "doc"
  read: Callable[[int, Advance], Iterator[list[str]]]  # (skip, advance) -> documents

  def documents(self, *, skip: int = 0, advance: Advance = lambda n: None) -> Iterator[list[str]]:
    """Yields the documents after the first `skip`, always in the same order.

    A document may be empty.

    Args:
      skip: how many documents to leave out.
      advance: called with n whenever n more units have been read; skipped documents count.

    Raises:
      UserError: the data cannot be read.
    """
    return self.read(skip, advance)


def parse_source(spec: str, language: str, *, tfds_data_dir: str | None = None) -> Source:
  """Returns the source that `spec` names.

  Args:
    spec: the kind, a colon, and what the kind needs; see LEGAL_SPECS.
    language: its code; only the sample uses it, to choose its text.
    tfds_data_dir: folder of prepared TFDS builders; None for TFDS's own default.

  Raises:
    UserError: the spec is not legal, or names nothing that can be read.
  """
  kind, _, argument = spec.partition(":")
  if spec == "sample":
    return _sample_source(language)
  if argument and kind == "text":
    return _text_source(spec, argument)
  if argument and kind == "wikipedia_dump":
    return _dump_source(spec, argument)
  if argument and kind == "tfds":
    return _tfds_source(spec, argument, tfds_data_dir)
  raise UserError(f"source={spec!r} is not a source. Legal: {LEGAL_SPECS}.")


def _sample_source(language: str) -> Source:
  """Returns 1,000 sentences of a language, from the test data of the package eld."""
  if language not in SAMPLE_LANGUAGES:
    raise UserError(
      f"The bundled sample has no sentences in '{language}', only in "
      f"{', '.join(SAMPLE_LANGUAGES)}. For real text: python -m negint.prepare "
      f"--source=text:GLOB --language={language}, or --source=wikipedia_dump:FILE.xml.bz2, or "
      "--source=tfds:BUILDER."
    )
  package = importlib.util.find_spec("eld")
  folder = pathlib.Path(package.origin).parent if package and package.origin else None
  if not folder or not (path := folder / "tests" / "data" / "big-test.txt").is_file():
    raise UserError("The bundled sample is part of the package eld: pip install eld==1.0.6")

  def read(skip: int, advance: Advance) -> Iterator[list[str]]:
    prefix = language + "\t"
    with path.open(encoding="utf-8") as file:
      sentences = (line[len(prefix) :] for line in file if line.startswith(prefix))
      for number, sentence in enumerate(sentences):
        advance(1)
        if number >= skip:
          yield [sentence]

  identity = {"spec": "sample", "language": language, "bytes": path.stat().st_size}
  return Source(identity, total=1000, unit="doc", read=read)


def _text_source(spec: str, pattern: str) -> Source:
  """Returns the text of all UTF-8 files that match a pattern."""
  paths = [
    path
    for path in sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if os.path.isfile(path)
  ]
  if not paths:
    raise UserError(
      f"No file matches {pattern!r} (source={spec!r}). Quote the pattern in the shell."
    )
  sizes = [os.path.getsize(path) for path in paths]

  def read(skip: int, advance: Advance) -> Iterator[list[str]]:
    documents = itertools.chain.from_iterable(_text_documents(path, advance) for path in paths)
    return itertools.islice(documents, skip, None)

  files = [{"name": path, "bytes": size} for path, size in zip(paths, sizes, strict=True)]
  return Source({"spec": spec, "files": files}, total=sum(sizes), unit="B", read=read)


def _text_documents(path: str, advance: Advance) -> Iterator[list[str]]:
  """Yields the documents of a file.

  Blank lines separate documents. In a file without them, every RUN_LENGTH lines are a document.
  """
  limit = _MAX_DOCUMENT_LINES if _has_inner_blank_line(path) else RUN_LENGTH
  lines: list[str] = []
  with open(path, "rb") as file:
    for number, raw in enumerate(file, start=1):
      advance(len(raw))
      try:
        line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
      except UnicodeDecodeError as error:
        raise UserError(
          f"{path} is not UTF-8: line {number}, byte {error.start + 1} of the line is "
          f"0x{raw[error.start]:02x}. Convert the file, for example with iconv."
        ) from error
      blank = not line.strip()
      if not blank:
        lines.append(line)
      if lines and (blank or len(lines) == limit):
        yield lines
        lines = []
  if lines:
    yield lines


def _has_inner_blank_line(path: str) -> bool:
  """Whether a blank line has text both before and after it."""
  seen_text = seen_blank = False
  with open(path, "rb") as file:
    for raw in file:
      if raw.strip():
        if seen_blank:
          return True
        seen_text = True
      else:
        seen_blank = seen_text
  return False


def _dump_source(spec: str, name: str) -> Source:
  """Returns the articles of a Wikipedia XML dump (pages-articles), compressed by bzip2 or not."""
  path = pathlib.Path(name).expanduser()
  if not path.is_file():
    raise UserError(
      f"There is no file {path} (source={spec!r}). Dumps: https://dumps.wikimedia.org"
    )
  size = path.stat().st_size
  identity = {"spec": spec, "files": [{"name": path.name, "bytes": size}]}
  return Source(identity, total=size, unit="B", read=functools.partial(read_dump, path))


def _tfds_source(spec: str, name: str, data_dir: str | None) -> Source:
  """Returns the text of all splits of a TFDS builder that is on disk as ArrayRecord."""
  others = "or use --source=wikipedia_dump:FILE or --source=text:GLOB"
  builder = find_builder(name, data_dir, otherwise=others)
  where = f"'{name}' in {builder.data_dir}"
  if not builder.info.splits:
    raise UserError(
      f"The TFDS builder {where} is not prepared. Prepare it as array_record on a machine that has "
      "what the builder needs (TensorFlow; apache_beam for Wikipedia, wiki40b, c4): python -c "
      '"import tensorflow_datasets as tfds; '
      f"tfds.builder('{name}', file_format='array_record').download_and_prepare()\". Then name the "
      f"folder with --tfds_data_dir, {others}."
    )
  if builder.info.file_format.value != "array_record":
    raise UserError(
      f"The TFDS builder {where} is prepared as {builder.info.file_format.value}, which needs "
      "TensorFlow to read. Convert it on a machine with TensorFlow: tfds convert_format "
      f"--out_file_format=array_record (see its --help), {others}."
    )
  feature = _text_feature(name, builder.info.features)
  lengths = {split: info.num_examples for split, info in sorted(builder.info.splits.items())}

  def read(skip: int, advance: Advance) -> Iterator[list[str]]:
    for split, length in lengths.items():
      skipped = min(skip, length)
      skip -= skipped
      advance(skipped)
      for text in corpus.read_texts(builder, split=split, feature=feature, start=skipped):
        advance(1)
        yield cleaning.unmark_wiki40b(text).split("\n")

  identity = {"spec": spec, "version": str(builder.version), "feature": feature, "splits": lengths}
  return Source(identity, total=sum(lengths.values()), unit="doc", read=read)


def _text_feature(name: str, features: "tfds.features.FeaturesDict") -> str:
  """Returns the name of the feature that holds the text: 'text', or the only string."""
  import tensorflow_datasets as tfds

  texts = [key for key, value in features.items() if isinstance(value, tfds.features.Text)]
  if "text" in texts:
    return "text"
  if len(texts) == 1:
    return texts[0]
  raise UserError(
    f"The TFDS builder '{name}' has no feature with its text, only {list(features)}; choose another "
    "builder with --source=tfds:BUILDER."
  )
