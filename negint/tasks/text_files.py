"""Text files of the tasks: their text, and the position of a mistake."""

from negint.data.opener import open_text
from negint.errors import UserError
from negint.tasks.task import Path


def where(path: Path, line: int) -> str:
  """Returns 'path, line 3', as all messages name a position."""
  return f"{path}, line {line}"


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
