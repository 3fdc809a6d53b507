"""Files of tagged words: columns with one word per line, and JSON with lists of words and tags."""

import collections
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from negint.data.opener import open_text
from negint.errors import UserError
from negint.tasks.examples import Report, count
from negint.tasks.json_files import first_field, label_name, names_beside, read_records
from negint.tasks.rows import Row, check_width, read_rows
from negint.tasks.task import Path, Reading
from negint.tasks.text_files import kind_of, where

_PREFIX = re.compile(r"[a-z]+([-_][a-z]+)*:")
_PREFIXED = 0.95  # share of the words with a prefix from which on prefixes are no part of words
_COMMON = 0.01  # share of the words from which on a prefix is one of the file's languages
_WORD_NAMES = ("word", "token", "form", "text")  # of a header
_IOB = re.compile(r"O|[BIESLUM][-_].+")
_LOOK_AT = 20  # lines that show whether a text file has tags
_WIDTH = (
  "Each line must hold a word and its tag, separated by a tab or spaces; a blank line ends a "
  "sentence."
)


class Word(NamedTuple):
  """A word of a file."""

  form: str  # the word
  tag: str  # its tag as it stands there
  place: str  # for messages, such as 'path, line 3'


Sentence = list[Word]


def read_tagged(
  path: Path, reading: Reading, tag_fields: tuple[str, ...], report: Report
) -> list[Sentence]:
  """Returns the sentences of a file of columns or, by its ending, of a JSON file.

  Language prefixes such as WikiAnn's `ar:word` are removed from the words if nearly all have one.

  Args:
    path: the file.
    reading: the column of the tags, and the names of tags that are numbers.
    tag_fields: names of the JSON field or the column of a header that holds the tags; the first
      that is there is read.
    report: counts of repairs, updated in place.

  Raises:
    UserError: the file cannot be read, or a word has no tag; with file and line.
  """
  if kind_of(path) in ("json", "jsonl"):
    sentences = _of_records(path, reading, tag_fields, report)
  else:
    sentences = _of_columns(path, reading, tag_fields, report)
  return _without_empty(_without_prefix(sentences, report), report)


def has_iob_tags(path: Path) -> bool:
  """Whether the first lines of a text file are words with IOB tags, as CoNLL-2003's are."""
  with open_text(path) as file:
    filled = (fields for line in file if (fields := line.split()))
    first = [fields for fields in itertools.islice(filled, _LOOK_AT) if fields[0] != "-DOCSTART-"]
  return bool(first) and all(len(each) > 1 and _IOB.fullmatch(each[-1]) for each in first)


def _of_records(
  path: Path, reading: Reading, tag_fields: tuple[str, ...], report: Report
) -> list[Sentence]:
  """Returns the sentences of a JSON file with the field names of the package datasets."""
  sentences = []
  if reading.tag_column:
    tag_fields = (reading.tag_column,)
  names = reading.names or names_beside(path, tag_fields)
  for record, place in read_records(path, report):
    words_field, tags_field = (first_field(record, f) for f in (("tokens", "words"), tag_fields))
    words, tags = record.get(words_field or ""), record.get(tags_field or "")
    if not reading.labelled and isinstance(words, list):
      sentences.append([Word(str(word), "", place) for word in words])
      continue
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
      raise UserError(
        f"{place}: it has the fields {', '.join(record)}. It needs two lists of equal length: tokens "
        f"and {' or '.join(tag_fields)} (--config.data.tag_column names "
        "another)."
      )
    sentences.append(
      [
        Word(str(word), label_name(tag, names, place), place)
        for word, tag in zip(words, tags, strict=True)
      ]
    )
  return sentences


def _of_columns(
  path: Path, reading: Reading, tag_fields: tuple[str, ...], report: Report
) -> list[Sentence]:
  """Returns the sentences of a file with one word per line.

  A blank line ends a sentence; -DOCSTART- lines separate documents; lines that begin with # and are
  no words are comments.
  """
  rows = read_rows(path, report, spaces=True)
  if all(not row.fields[-1] for row in rows if row.tabs and not row.fields[0].startswith("#")):
    rows = [row._replace(fields=row.fields[: -1 if row.tabs else None]) for row in rows]
  layout = _layout(path, rows, reading, tag_fields)
  current = ""
  sentences: list[Sentence] = [[]]
  for row in rows:
    if not row.fields or _is_docstart(row):
      sentences.append([])
    elif row.line != layout.header and not _is_comment(row, layout):
      check_width(path, row, layout.width, _WIDTH)
      form, tag = row.fields[layout.word], row.fields[layout.tag]
      if not tag and reading.labelled:
        raise UserError(f"{where(path, row.line)}: the word '{form}' has no tag.")
      if layout.sentence is not None and row.fields[layout.sentence] not in ("", current):
        current = row.fields[layout.sentence]
        sentences.append([])
      sentences[-1].append(Word(form, tag, where(path, row.line)))
  return [sentence for sentence in sentences if sentence]


class _Layout(NamedTuple):
  """Which columns a file has; columns count from 0."""

  header: int  # line of the header, 0 without one
  width: int  # number of columns
  word: int  # column of the words
  tag: int  # column of the tags
  sentence: int | None  # column whose value changes where a sentence begins
  tags: set[str]  # tags of the words that do not begin with #


def _layout(
  path: Path, rows: Sequence[Row], reading: Reading, tag_fields: tuple[str, ...]
) -> _Layout:
  """Returns the layout of a file.

  The first column has the words and the last one the tags. Where the first one numbers the words,
  the second has the words, and the first column of IOB tags the tags. A header names them; its
  column `sentence` (or sentence_id, "Sentence #") tells the sentences.
  """
  filled = [row for row in rows if row.fields and not _is_docstart(row)]
  header = filled.pop(0) if filled and _is_header(filled[0].fields, tag_fields) else None
  body = [row for row in filled if not row.fields[0].startswith("#")] or filled
  if not body:
    raise UserError(f"{path} has no words. {_WIDTH}")
  widths = collections.Counter(len(row.fields) for row in body)
  width = max(widths, key=lambda number: (widths[number], number))
  if width == 1 and reading.labelled:
    raise UserError(
      f"{where(path, body[0].line)}: 1 column(s) in '{body[0].fields[0][:60]}', and so in most "
      f"lines: the words have no tags. {_WIDTH} XTREME's scripts remove the tags of their test "
      "files; put the original file there."
    )
  body = [row for row in body if len(row.fields) == width]
  names: list[str] = []
  if header:
    check_width(path, header, width, "The header must name the columns of the other lines.")
    names = [_singular(name) for name in header.fields]
  word, tag = 0, width - 1
  if width > 2 and _numbers_words(rows, body):
    word = 1
    iob = (c for c in range(2, width) if all(_IOB.fullmatch(row.fields[c]) for row in body))
    tag = next(iob, tag)
  word = next((names.index(name) for name in _WORD_NAMES if name in names), word)
  tag = next((names.index(name) for name in map(_singular, tag_fields) if name in names), tag)
  if reading.tag_column:
    tag = _chosen_column(path, names, width, reading.tag_column)
  sentence = next((i for i, name in enumerate(names) if name.startswith("sentence")), None)
  return _Layout(
    header.line if header else 0, width, word, tag, sentence, {row.fields[tag] for row in body}
  )


def _chosen_column(path: Path, names: list[str], width: int, chosen: str) -> int:
  """Returns the column that data.tag_column names, from 0."""
  if _singular(chosen) in names:
    return names.index(_singular(chosen))
  if not chosen.isdecimal() or not 1 <= int(chosen) <= width:
    raise UserError(
      f"data.tag_column is '{chosen}', but {path} has {width} columns"
      + (f", named {', '.join(names)}" if names else " and no header")
      + f". Give a number from 1 to {width}"
      + (" or one of the names." if names else ".")
    )
  return int(chosen) - 1


def _numbers_words(rows: Sequence[Row], body: Sequence[Row]) -> bool:
  """Returns whether the first column counts the words of each sentence."""
  if not all(row.fields[0].isdecimal() for row in body):
    return False
  numbers = {row.line: int(row.fields[0]) for row in body}
  firsts, previous = set(), None
  for row in rows:
    if row.line in numbers:
      if previous is None:
        firsts.add(numbers[row.line])
      elif numbers[row.line] != previous + 1:
        return False
      previous = numbers[row.line]
    elif not row.fields:
      previous = None
  return len(firsts) == 1 and firsts <= {0, 1}


def _is_docstart(row: Row) -> bool:
  return bool(row.fields) and row.fields[0].startswith("-DOCSTART-")


def _is_header(fields: Sequence[str], tag_fields: Sequence[str]) -> bool:
  names = {_singular(field) for field in fields}
  return bool(names & set(_WORD_NAMES)) and bool(names & set(map(_singular, tag_fields)))


def _singular(name: str) -> str:
  """Returns a column's name in the form that is compared."""
  return name.lower().removesuffix("s")


def _is_comment(row: Row, layout: _Layout) -> bool:
  """Returns whether a row that begins with # is none of a word: by its columns, or by its tag."""
  if not row.fields[0].startswith("#") or len(row.fields) != layout.width:
    return row.fields[0].startswith("#")
  return not row.tabs and row.fields[layout.tag] not in layout.tags


def _without_prefix(sentences: list[Sentence], report: Report) -> list[Sentence]:
  """Returns the sentences without language prefixes, if nearly all words have one."""
  words = [word.form for sentence in sentences for word in sentence]
  found = [match.group() for match in map(_PREFIX.match, words) if match]
  if not found or len(found) < _PREFIXED * len(words):
    if len(found) > len(words) / 2:
      count(report, "words that begin like 'xx:word', kept as they are", len(found))
    return sentences
  prefixes = {p for p, times in collections.Counter(found).items() if times >= _COMMON * len(words)}

  def bare(word: Word) -> Word:
    match = _PREFIX.match(word.form)
    if match and match.group() in prefixes:
      count(report, "language prefixes removed")
      return word._replace(form=word.form[match.end() :])
    count(report, "words without the language prefix of the others")
    return word

  return [[bare(word) for word in sentence] for sentence in sentences]


def _without_empty(sentences: list[Sentence], report: Report) -> list[Sentence]:
  kept = [[word for word in sentence if word.form] for sentence in sentences]
  count(report, "words without text dropped", sum(map(len, sentences)) - sum(map(len, kept)))
  return [sentence for sentence in kept if sentence]
