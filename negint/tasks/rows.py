"""Files of columns: their rows, by tabs, spaces or commas, and csv quoting where it is undone."""

import csv
import io
from typing import Literal, NamedTuple

from negint.data.opener import kind_of
from negint.errors import UserError
from negint.tasks.examples import Report, count
from negint.tasks.task import Path
from negint.tasks.text_files import lines_of, read_text, where

_LONGEST_FIELD = 1 << 24  # characters


Quoting = Literal[0, 1]  # csv.QUOTE_MINIMAL, csv.QUOTE_ALL


class Row(NamedTuple):
  """A line of a file of columns."""

  line: int  # its number, from 1
  fields: list[str]  # without spaces at their ends; none for a blank line
  tabs: bool  # whether tabs (or commas of csv) separate them


def read_rows(path: Path, report: Report, *, spaces: bool) -> list[Row]:
  """Returns the rows of a file.

  In a .csv file commas or semicolons separate columns. In others tabs do; quotation marks mean
  nothing there, unless the whole file is quoted as a csv writer quotes.

  Args:
    path: the file.
    report: counts the lines whose quotes are undone.
    spaces: spaces separate the columns of a line without tabs. Other white space (U+00A0, U+200B)
      is part of a word.

  Raises:
    UserError: the file cannot be read, is empty, or is not csv.
  """
  text = read_text(path)
  csv.field_size_limit(_LONGEST_FIELD)
  if kind_of(path) == "csv":
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
      return _quoted(text, delimiter, strict=False)
    except csv.Error as error:
      raise UserError(f"{path} is not csv: {error}. Write it again, or as .tsv.") from None
  if '"' in text and _is_quoted(text):
    count(report, "lines with csv quotes, which are undone", sum('"' in x for x in lines_of(text)))
    return _quoted(text, "\t", strict=True)
  return [_row(number, line, spaces) for number, line in enumerate(lines_of(text), start=1)]


def check_width(path: Path, row: Row, width: int, hint: str) -> None:
  """Raises UserError unless a row has `width` columns."""
  if len(row.fields) != width:
    shown = " ".join(row.fields)[:60]
    raise UserError(
      f"{where(path, row.line)}: {len(row.fields)} column(s) in '{shown}', where {width} are "
      f"expected. {hint}"
    )


def _row(number: int, line: str, spaces: bool) -> Row:
  if not line.strip(" \t"):  # a lone no-break space is a word
    return Row(number, [], False)
  tabs = "\t" in line
  # Spaces separate only where there is no tab, so that a tab-separated word may hold a space.
  if tabs or not spaces:
    return Row(number, [field.strip(" ") for field in line.split("\t")], tabs)
  return Row(number, [field for field in line.split(" ") if field], tabs)


def _quoted(text: str, delimiter: str, *, strict: bool) -> list[Row]:
  """Returns the rows of text in which a csv writer quoted fields."""
  reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
  rows = []
  start = 1
  for fields in reader:
    fields = [field.strip(" ") for field in fields]
    rows.append(Row(start, fields if any(fields) else [], any(fields)))
    start = reader.line_num + 1
  return rows


def _is_quoted(text: str) -> bool:
  """Returns whether a csv writer gives the very same lines for the rows that it reads in them.

  A field of several lines does not count: one token `"` would begin it and another one end it.
  """
  possible: set[Quoting] = {csv.QUOTE_MINIMAL, csv.QUOTE_ALL}
  for line in filter(None, lines_of(text)):
    try:
      rows = list(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error:
      return False
    possible = {quoting for quoting in possible if _written(rows, quoting) == line}
    if not possible:
      return False
  return True


def _written(rows: list[list[str]], quoting: Quoting) -> str:
  """Returns what a csv writer writes for rows of tabs."""
  text = io.StringIO()
  csv.writer(text, delimiter="\t", quoting=quoting, lineterminator="").writerows(rows)
  return text.getvalue()
