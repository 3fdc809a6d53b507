"""Files of tagged words: one word per line, or lists of words and tags in JSON and tables."""

import collections
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from negint.data.opener import open_text
from negint.errors import UserError
from negint.tasks.examples import Report, count
from negint.tasks.json_files import (
  first_field,
  has_values,
  label_name,
  names_beside,
  read_records,
)
from negint.tasks.rows import Row, check_width, read_rows
from negint.tasks.task import Path, Reading
from negint.tasks.text_files import where

_PREFIX = re.compile(r"[a-z]+([-_][a-z]+)*:")
_PREFIXED = 0.95  # share of the words with a prefix from which on prefixes are no part of words
_COMMON = 0.01  # share of the words from which on a prefix is one of the file's languages
_WORD_NAMES = ("word", "token", "form", "text")  # of a header
_IOB = re.compile(r"O|[BIESLUM][-_].+")
_LOOK_AT = 20  # lines that show whether a text file has tags
_NUMBER = re.compile(r"\d+(?:([-.])\d+)?")  # of a word; with a sign: as in CoNLL-U
_NUMBERED = 0.95  # share of rows and of sentences that fit, from which on a column numbers words
_SKIPPED = {"-": "multiword tokens kept apart", ".": "empty nodes skipped"}
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
  """Returns the sentences of a file of columns or, by its ending, of a JSON file or a table.

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
  if has_values(path):
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
  """Returns the sentences of a file with the field names of the package datasets."""
  sentences = []
  if reading.tag_column:
    tag_fields = (reading.tag_column,)
  names = reading.names or names_beside(path, tag_fields)
  for record, place in read_records(path, report):
    words_field, tags_field = (first_field(record, f) for f in (("tokens", "words"), tag_fields))
    words, tags = record.get(words_field or ""), record.get(tags_field or "")
    if not reading.labelled and isinstance(words, list):
      sentence = [Word(str(word), "", place) for word in words]
      sentences.append(_without_headless(sentence, record.get("head"), report))
      continue
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
      raise UserError(
        f"{place}: it has the fields {', '.join(record)}. It needs two lists of equal length: tokens "
        f"and {' or '.join(tag_fields)} (--config.data.tag_column names "
        "another)."
      )
    sentence = [
      Word(str(word), label_name(tag, names, place), place)
      for word, tag in zip(words, tags, strict=True)
    ]
    sentences.append(_without_headless(sentence, record.get("head"), report))
  return sentences


def has_no_head(head: object) -> bool:
  """Returns whether a token of Universal Dependencies has no head, as its data sets say it.

  Only multiword tokens and empty nodes have none.
  """
  return head in (None, "None", "_", "")


def _without_headless(sentence: Sentence, heads: object, report: Report) -> Sentence:
  """Returns the words of a sentence of Universal Dependencies; `heads` is what JSON has of them."""
  if not isinstance(heads, list) or len(heads) != len(sentence) or all(map(has_no_head, heads)):
    return sentence  # of another kind, or without a tree
  kept = []
  for word, head in zip(sentence, heads, strict=True):
    if not has_no_head(head):
      kept.append(word)
    else:  # without tags nothing tells multiword tokens from empty nodes
      count(report, _SKIPPED["-" if word.tag in ("", "_") else "."])
  return kept


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
  if layout.first is not None:
    rows = _without_numbers(rows, layout, report)
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
  first: int | None  # number of each sentence's first word if column 0 numbers the words
  tags: set[str]  # tags of the words that do not begin with #


def _layout(
  path: Path, rows: Sequence[Row], reading: Reading, tag_fields: tuple[str, ...]
) -> _Layout:
  """Returns the layout of a file.

  The first column has the words and the last one the tags. Where the first one numbers the words,
  the second has the words, and the first column of IOB tags the tags. A header names them; its
  column `sentence` (or sentence_id, "Sentence #") tells the sentences.

  Raises:
    UserError: no word, no tags, a header of another width, or a first column of numbers that do not
      number the words.
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
  word, tag, first = 0, width - 1, None
  named = next((names.index(name) for name in _WORD_NAMES if name in names), None)
  sentence = next((i for i, name in enumerate(names) if name.startswith("sentence")), None)
  if width > 2 and 0 not in (named, sentence) and _has_numbers(body):
    first, misfit = _first_number(rows, body)
    if misfit and named is None:
      shown = " ".join(misfit.fields)[:60]
      raise UserError(
        f"{where(path, misfit.line)}: the first column has numbers, but in '{shown}' the number does "
        "not count the words of its sentence from 0 or 1 on. Correct or remove that column, or name "
        "the columns in a first line, such as id, word, tag, or sentence, word, tag where the number "
        "is that of the sentence."
      )
  if first is not None:
    word = 1
    body = [row for row in body if row.fields[0].isdecimal()]
    iob = (c for c in range(2, width) if all(_IOB.fullmatch(row.fields[c]) for row in body))
    tag = next(iob, tag)
  word = word if named is None else named
  tag = next((names.index(name) for name in map(_singular, tag_fields) if name in names), tag)
  if reading.tag_column:
    tag = _chosen_column(path, names, width, reading.tag_column)
  tags = {row.fields[tag] for row in body}
  return _Layout(header.line if header else 0, width, word, tag, sentence, first, tags)


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


def _has_numbers(body: Sequence[Row]) -> bool:
  """Returns whether the first column has numbers: 3 (a word), 3-4 (several), 3.1 (an empty node)."""
  found = [match for row in body if (match := _NUMBER.fullmatch(row.fields[0]))]
  return len(found) >= _NUMBERED * len(body) and any(match[1] is None for match in found)


def _first_number(rows: Sequence[Row], body: Sequence[Row]) -> tuple[int | None, Row | None]:
  """Returns how the first column numbers the words of nearly all sentences.

  It does if the numbers rise until they fall to 0 or 1 again, the same in all sentences. There a new
  sentence begins, with or without a blank line.

  Args:
    rows: all rows; blank ones end sentences.
    body: those of words, with a first column as `_has_numbers` says.

  Returns:
    (0 or 1, None), or (None, the first word whose number does not fit).
  """
  words = {row.line for row in body if row.fields[0].isdecimal()}
  begins: list[tuple[Row, int, int | None]] = []  # word, its number, that of the word before
  previous: int | None = None
  for row in rows:
    if row.line in words:
      number = int(row.fields[0])
      if previous is None or number <= previous:
        begins.append((row, number, previous))
      previous = number
    elif not row.fields:
      previous = None
  first = collections.Counter(number for _, number, _ in begins).most_common(1)[0][0]
  if first not in (0, 1):
    return None, begins[0][0]
  # A number that repeats is rather that of the sentence.
  misfits = [row for row, number, before in begins if number != first or before == first]
  if len(misfits) > (1 - _NUMBERED) * len(begins):
    return None, misfits[0]
  return first, None


def _without_numbers(rows: Sequence[Row], layout: _Layout, report: Report) -> list[Row]:
  """Returns the rows of words, with a blank row wherever the numbers of the words begin again.

  Rows of several words and of empty nodes are left out, as from CoNLL-U. All that is not regular is
  counted.
  """
  first = layout.first
  kept: list[Row] = []
  previous: int | None = None  # number of the word before in the sentence
  for row in rows:
    number = _NUMBER.fullmatch(row.fields[0]) if row.fields else None
    if number and number[1]:
      count(report, _SKIPPED[number[1]])
      continue
    if number:
      value = int(number[0])
      if previous is not None and value == first:
        count(report, "sentences that begin without a blank line")
        kept.append(Row(row.line, [], False))
      elif value != (first if previous is None else previous + 1):
        count(report, "words whose number does not follow that of the word before")
      previous = value
    elif not row.fields or _is_docstart(row):
      previous = None
    elif row.line != layout.header and not _is_comment(row, layout):
      count(report, "words without a number")
    kept.append(row)
  return kept


def _is_docstart(row: Row) -> bool:
  return bool(row.fields) and row.fields[0].startswith("-DOCSTART-")


def _is_header(fields: Sequence[str], tag_fields: Sequence[str]) -> bool:
  names = {_singular(field) for field in fields}
  return bool(names & set(_WORD_NAMES)) and bool(names & set(map(_singular, tag_fields)))


def _singular(name: str) -> str:
  """Returns a column's name in the form that is compared."""
  return name.lower().removesuffix("s")


def _is_comment(row: Row, layout: _Layout) -> bool:
  """Returns whether a row that begins with # is none of a word.

  Its columns or its tag show it; where words have numbers, each such row is none.
  """
  if not row.fields[0].startswith("#") or len(row.fields) != layout.width:
    return row.fields[0].startswith("#")
  if layout.first is not None:
    return True
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
