"""Where text comes from: every source yields documents, each a list of lines.

A line is a sentence or a paragraph. This file has the four kinds of source (`sample`, `text:`,
`wikipedia_dump:`, `tfds:`) and what identifies their data. `wikipedia` reads dumps, `cleaning`
chooses the lines to keep, and `corpus` writes them. `text_files` reads text.
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
from negint.data.opener import Advance
from negint.data.text_files import TextFiles
from negint.data.tfds_builders import find_builder, prepare_builder
from negint.data.wikipedia import read_dump
from negint.errors import UserError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

SAMPLE_LANGUAGES = ("ar", "en", "fr", "hi", "kn", "mr", "ru", "te")
LEGAL_SPECS = "sample, text:GLOB, wikipedia_dump:FILE, tfds:BUILDER[/CONFIG]"


@dataclasses.dataclass(frozen=True)
class Source:
  """Documents to prepare."""

  identity: dict  # JSON-able; two preparations with equal identities read the same data
  total: int | None  # size in units; None when unknown
  unit: str  # what `advance` counts: "B" (bytes of the files) or "doc"
  read: Callable[[int, Advance], Iterator[list[str] | None]]  # (skip, advance) -> documents
  notes: Callable[[], list[str]] = list  # what to tell the user after reading

  def documents(
    self, *, skip: int = 0, advance: Advance = lambda n: None
  ) -> Iterator[list[str] | None]:
    """Yields the documents after the first `skip`, always in the same order.

    A document may be empty. None stands for one whose markup cannot be read.

    Args:
      skip: how many documents to leave out.
      advance: called with n whenever n more units have been read; skipped documents count.

    Raises:
      UserError: the data cannot be read.
    """
    return self.read(skip, advance)


def parse_source(
  spec: str, language: str, *, tfds_data_dir: str | None = None, document: str | None = None
) -> Source:
  """Returns the source that `spec` names.

  Args:
    spec: the kind, a colon, and what the kind needs; see LEGAL_SPECS.
    language: its code; only the sample uses it, to choose its text.
    tfds_data_dir: folder of prepared TFDS builders; None for TFDS's own default.
    document: what is one document of plain text; see `text_files.TextFiles`.

  Raises:
    UserError: the spec is not legal, or names nothing that can be read.
  """
  kind, _, argument = spec.partition(":")
  if document is not None and kind != "text":
    raise UserError(f"--document={document} is for --source=text:GLOB, not for source={spec!r}.")
  if spec == "sample":
    return _sample_source(language)
  if argument and kind == "text":
    return _text_source(spec, argument, document)
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
      f"--source=text:GLOB --language={language}, or --source=wikipedia_dump:FILE, or "
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


def _text_source(spec: str, pattern: str, document: str | None) -> Source:
  """Returns the text of all files that match a pattern."""
  pattern = os.path.expanduser(pattern)
  if os.path.isdir(pattern):  # such as the folder that WikiExtractor writes
    pattern = os.path.join(glob.escape(pattern), "**")
  paths = [path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)]
  if not paths:
    raise UserError(
      f"No file matches {pattern!r} (source={spec!r}). Quote the pattern in the shell."
    )
  text = TextFiles(paths, document)
  sizes = [os.path.getsize(path) for path in paths]

  def read(skip: int, advance: Advance) -> Iterator[list[str] | None]:
    return itertools.islice(text.documents(advance), skip, None)

  files = [{"name": path, "bytes": size} for path, size in zip(paths, sizes, strict=True)]
  identity = {"spec": spec, "files": files, "document": document}
  return Source(identity, total=sum(sizes), unit="B", read=read, notes=text.notes)


def _dump_source(spec: str, name: str) -> Source:
  """Returns the articles of a Wikipedia XML dump (pages-articles), compressed or not."""
  path = pathlib.Path(name).expanduser()
  if not path.is_file():
    raise UserError(
      f"There is no file {path} (source={spec!r}). Dumps: https://dumps.wikimedia.org"
    )
  size = path.stat().st_size
  identity = {"spec": spec, "files": [{"name": path.name, "bytes": size}]}
  return Source(identity, total=size, unit="B", read=functools.partial(read_dump, path))


def _tfds_source(spec: str, name: str, data_dir: str | None) -> Source:
  """Returns the text of all splits of a TFDS builder, which is prepared as ArrayRecord if need be."""
  others = "or use --source=wikipedia_dump:FILE or --source=text:GLOB"
  builder = find_builder(name, data_dir, otherwise=others)
  if not builder.info.splits:
    builder = find_builder(name, data_dir, otherwise=others, file_format="array_record")
    prepare_builder(builder, name, otherwise=others)
  where = f"'{name}' in {builder.data_dir}"
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
