"""Text files of the tasks: their text, their kind by name, and the position of a mistake."""

import os

from negint.data.opener import open_text
from negint.errors import UserError
from negint.tasks.task import Path

COMPRESSIONS = ("", ".gz", ".xz", ".bz2")  # endings that may follow that of a layout


def where(path: Path, line: int) -> str:
  """Returns 'path, line 3', as all messages name a position."""
  return f"{path}, line {line}"


def kind_of(path: Path) -> str:
  """Returns the ending that tells a file's layout: 'tsv' for 'a.tsv' and for 'a.tsv.gz'."""
  stem, ending = os.path.splitext(os.fspath(path))
  if ending in COMPRESSIONS:
    ending = os.path.splitext(stem)[1]
  return ending.removeprefix(".").lower()


def read_text(path: Path) -> str:
  """Returns the text of a file, see `open_text`, with its line ends as they are.

  Raises:
    UserError: the file is missing, empty or no text.
  """
  try:
    with open_text(path, newline="") as file:
      text = file.read()
  except OSError as error:
    raise UserError(
      f"Cannot read {path}: {error.strerror}. Check the path and its rights."
    ) from None
  if not text.strip():
    raise UserError(
      f"{path} is empty: a task file needs at least one example. Remove or refill it."
    )
  return text


def read_lines(path: Path) -> list[str]:
  """Returns the lines of a file; only LF and CR LF end a line.

  `str.splitlines` also breaks at U+2028, U+0085 and others, which real tokens contain.
  """
  return lines_of(read_text(path))


def lines_of(text: str) -> list[str]:
  """Returns the lines of a text, see `read_lines`."""
  return [line.removesuffix("\r") for line in text.split("\n")]
