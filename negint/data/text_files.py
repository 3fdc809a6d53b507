"""The documents of text files: plain text, numbered sentences, WikiExtractor's, JSON, tables, dumps."""

import csv
import functools
import html
import itertools
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from negint.data import tables
from negint.data.opener import Advance, kind_of, open_text
from negint.data.wikipedia import read_dump
from negint.errors import UserError

RUN_LENGTH = 50  # lines per document in a plain file that has hardly a blank line
_FEW_BLANK = 200  # lines between two blank ones, on average, from which on these may be strays
_LOOK_AT = 100_000  # lines of a file whose average decides
LEGAL_DOCUMENTS = "line, blank, file, or a number of lines"
_MAX_DOCUMENT_LINES = 1000  # a document is held in memory, so longer text without a break is cut
_TEXT_FIELDS = ("text", "content")  # the second is OSCAR's
_FIRST_CHARACTERS = 1 << 20  # of a file's first line, to recognise what the file is
_OPENING = re.compile(r"<doc\s+id=")
_NUMBERED = re.compile(r"(\d+)\t(?=\S)")
_MARKUP = re.compile(r"<(\?xml|!doctype|html|tmx)", re.IGNORECASE)
_TITLE = re.compile(r'title="(.*)">\s*$')


class TextFiles:
  """Files that are read as one sequence of documents.

  Args:
    paths: the files, in order.
    document: what one document of a plain file is: "line"; "blank", what stands between blank lines;
      "file"; or a number of lines. None: blank lines separate documents, and a file that has hardly
      any is also cut every RUN_LENGTH lines.

  Raises:
    UserError: `document` is not legal.
  """

  def __init__(self, paths: list[str], document: str | None = None):
    if document is not None and not re.fullmatch("line|blank|file|[1-9][0-9]*", document):
      raise UserError(f"document={document!r} is not legal. Legal: {LEGAL_DOCUMENTS}.")
    self._paths = paths
    self._document = document
    self._cut: dict[str, int] = {}  # path -> documents that were cut out of it
    self._long = 0  # documents of more than _MAX_DOCUMENT_LINES

  def documents(self, advance: Advance) -> Iterator[list[str] | None]:
    """Yields the documents, each a list of lines; `advance` as in `opener.open_text`.

    None stands for an article of a dump whose markup cannot be read.

    Raises:
      UserError: a file is not text, or its documents cannot be found.
    """
    self._cut, self._long = {}, 0
    for path in self._paths:
      read = _format(path)
      if read is None:
        yield from self._plain(path, advance)
      elif self._document is not None:
        raise UserError(
          f"--document={self._document} is for plain text, but {path} says itself where its "
          "documents end (WikiExtractor's output, JSON, a table, numbered sentences or a dump). Leave "
          "--document out."
        )
      else:
        for lines in read(path, advance):
          if lines is None:
            yield None
          else:
            self._long += len(lines) > _MAX_DOCUMENT_LINES
            for first in range(0, max(len(lines), 1), _MAX_DOCUMENT_LINES):
              yield lines[first : first + _MAX_DOCUMENT_LINES]

  def notes(self) -> list[str]:
    """Returns warnings about documents that had to be cut without knowing where."""
    long = (
      f"{self._long:,} document(s) have more than {_MAX_DOCUMENT_LINES:,} lines and are cut there. "
      "Parts of one may then be in both train and valid. Put a blank line (or, in JSON, a new object) "
      "between articles, or cut plain text in shorter documents: --document=<number of lines>."
    )
    return [*self._cut_notes(), *([long] if self._long else [])]

  def _cut_notes(self) -> list[str]:
    """Returns a warning if plain files have too few blank lines."""
    if not self._cut:
      return []
    files = (
      f"{len(self._cut):,} of {len(self._paths):,} files" if len(self._paths) > 1 else "The file"
    )
    have = "have" if len(self._cut) > 1 else "has"
    return [
      f"{files} {have} no or hardly any blank lines between documents: every {RUN_LENGTH} lines are one "
      f"document ({sum(self._cut.values()):,} in all). Parts of one article may then be in both train and "
      "valid. Separate articles by blank lines, or say what a document is: --document=line (each line "
      "stands alone), file, or a number of lines."
    ]

  def _plain(self, path: str, advance: Advance) -> Iterator[list[str]]:
    """Yields the documents of a plain file."""
    document = self._document or "blank"
    few = self._document is None and _has_few_blank_lines(path)
    limits = {"blank": _MAX_DOCUMENT_LINES, "line": 1, "file": sys.maxsize}
    limit = RUN_LENGTH if few else limits[document] if document in limits else int(document)
    whole = document == "blank" and not few  # such a document is cut only because it is long
    lines: list[str] = []
    cuts = count = 0  # parts cut off the document so far; all documents
    with open_text(path, advance) as file:
      for line in itertools.chain(file, [""]):
        blank = not line.strip()
        full = len(lines) == limit and not blank
        ends = blank and (document == "blank" or not line)
        if lines and (full or ends):
          count += 1
          self._long += whole and full and not cuts
          cuts = 0 if ends else cuts + 1
          yield lines
          lines = []
        if not blank:
          lines.append(line)
    if few and count > 1:
      self._cut[path] = count


def _has_few_blank_lines(path: str) -> bool:
  """Returns whether a file has no blank line with text on both sides, or very few."""
  filled = runs = 0
  after_blank = True
  with open_text(path) as file:
    for line in itertools.islice(file, _LOOK_AT):
      blank = not line.strip()
      filled += not blank
      runs += after_blank and not blank
      after_blank = blank
  return runs < 2 or filled > _FEW_BLANK * runs


def _format(path: str) -> Callable[[str, Advance], Iterator[list[str] | None]] | None:
  """Returns the reader of a file that says itself where its documents end; None for plain text."""
  if tables.is_table(path):
    return _table
  if by_name := {"csv": _csv, "tsv": _tsv}.get(kind_of(path)):
    return functools.partial(_marked, by_name)
  with open_text(path) as file:
    first = next(
      (line for line in iter(lambda: file.readline(_FIRST_CHARACTERS), "") if line.strip()), ""
    )
    second = file.readline(_FIRST_CHARACTERS)
  rows = [line for line in (first, second) if line.count("\t") == 1]
  numbers = [int(found[1]) for line in rows if (found := _NUMBERED.match(line))]
  if len(numbers) == 2 and numbers[1] == numbers[0] + 1:
    return functools.partial(_marked, _numbered)
  first = first.strip()
  if _OPENING.match(first):
    return functools.partial(_marked, _wikiextractor)
  if first.startswith("<?xml") and second.startswith("<mediawiki"):
    first = second
  if first.startswith("<mediawiki"):
    return lambda path, advance: read_dump(pathlib.Path(path), 0, advance)
  if re.match(r'\{\s*"', first):
    return functools.partial(_marked, _json_lines)
  if _MARKUP.match(first):
    raise UserError(
      f"{path} is XML or HTML, whose tags would be learned as text. Plain text, JSON, csv, parquet, and "
      "MediaWiki's dumps are read: take the text out first, for example with trafilatura."
    )
  if re.match(r'\[\s*[{"]', first) or (first == "[" and second.lstrip().startswith(("{", '"'))):
    return functools.partial(_marked, _json_array)
  if first == "{" and second.lstrip().startswith('"'):
    raise UserError(
      f"{path} is one JSON value over many lines. JSON is read with one object per line: jq -c . "
      f"{path} > {path}.jsonl"
    )
  return None


def _marked(
  read: Callable[[TextIO, str], Iterator[list[str]]], path: str, advance: Advance
) -> Iterator[list[str]]:
  """Yields the documents that `read` finds in a file."""
  with open_text(path, advance) as file:
    yield from read(file, path)


def _table(path: str, advance: Advance) -> Iterator[list[str]]:
  """Yields the text of each row of a parquet or Arrow file."""
  names = tables.column_names(path)
  field = next((name for name in _TEXT_FIELDS if name in names), None)
  if field is None:
    raise UserError(
      f"{path} has no column 'text', only {', '.join(names)}. Rename the column that holds the text, "
      f"for example: python -c \"import pyarrow.parquet as p; p.write_table(p.read_table('{path}')"
      f".rename_columns({{'NAME': 'text'}}), '{path}.text.parquet')\""
    )
  for number, row in enumerate(tables.read_table(path, [field], advance), start=1):
    yield _json_text(row, f"{path}, row {number}")


def _wikiextractor(file: TextIO, path: str) -> Iterator[list[str]]:
  """Yields the documents of WikiExtractor's output, without their titles."""
  lines: list[str] = []
  title = None
  for line in file:
    if _OPENING.match(line):
      found = _TITLE.search(line)
      title = html.unescape(found[1]).strip() if found else None
    elif line.startswith("</doc>"):
      yield lines
      lines = []
    elif line.strip():
      line = html.unescape(line)  # WikiExtractor escapes <, > and &
      if title is None or line.strip() != title:
        lines.append(line)
      title = None  # only the first line is the title
  if lines:
    yield lines


def _numbered(file: TextIO, path: str) -> Iterator[list[str]]:
  """Yields the sentences of the Leipzig Corpora, whose lines are a number, a tab and a sentence.

  Each is a document, because they stand in no order.
  """
  for line in file:
    yield [_NUMBERED.sub("", line, count=1)]


def _csv(file: TextIO, path: str) -> Iterator[list[str]]:
  """Yields the text of each row of a csv file."""
  csv.field_size_limit(sys.maxsize)  # a text may be longer than the usual limit
  yield from _columns(csv.reader(file), path)


def _tsv(file: TextIO, path: str) -> Iterator[list[str]]:
  """Yields the text of each row of a tsv file, in which quotes are characters like others."""
  yield from _columns((line.rstrip("\r\n").split("\t") for line in file), path)


def _columns(rows: Iterator[list[str]], path: str) -> Iterator[list[str]]:
  """Yields the text of each row; the first row names the columns."""
  names = next(rows, [])
  field = next((names.index(name) for name in _TEXT_FIELDS if name in names), None)
  if field is None:
    raise UserError(
      f"{path}: its first row names no column 'text', but {', '.join(names[:5]) or 'nothing'}. Name the "
      "column that holds the text so, or put one text per line into a file that ends in .txt."
    )
  for row in rows:
    if len(row) > field:
      yield re.split(r"\r\n|\r|\n", row[field])


def _json_lines(file: TextIO, path: str) -> Iterator[list[str]]:
  """Yields the text of each line's object."""
  for number, line in enumerate(file, start=1):
    if line.strip():
      try:
        value = json.loads(line)
      except ValueError as error:
        raise UserError(
          f"{path} begins as JSON lines, but line {number} is not JSON ({error}). Remove that line, or "
          "download the file again."
        ) from error
      yield _json_text(value, f"{path}, line {number}")


def _json_array(file: TextIO, path: str) -> Iterator[list[str]]:
  """Yields the text of each object of a JSON array, or each of its texts."""
  try:
    values = json.load(file)
  except ValueError as error:
    raise UserError(f"{path} begins as a JSON array, but is not JSON ({error}).") from error
  for number, value in enumerate(values, start=1):
    yield _json_text(value, f"{path}, object {number}")


def _json_text(value: object, place: str) -> list[str]:
  """Returns the lines of an object's text, or of a text."""
  if isinstance(value, str):
    value = {"text": value}
  if not isinstance(value, dict):
    raise UserError(f"{place}: a {type(value).__name__}, not a JSON object with a field 'text'.")
  field = next((name for name in _TEXT_FIELDS if name in value), None)
  if field is None:
    raise UserError(
      f"{place}: the JSON object has no field 'text', only {', '.join(value) or 'none'}. Rename the "
      "field that holds the text, for example: jq -c '{text: .NAME}'"
    )
  text = value[field]
  if text is None:
    return []
  if not isinstance(text, str):
    raise UserError(f"{place}: the field {field!r} is a {type(text).__name__}, not text.")
  if "revid" in value:  # WikiExtractor's, which escapes <, > and &
    text = html.unescape(text)
  return re.split(r"\r\n|\r|\n", text)
