"""Files and folders that are there whole or not at all: written aside, then renamed."""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, Any

from negint.errors import UserError


@contextlib.contextmanager
def whole_file(path: pathlib.Path, mode: str = "w") -> Iterator[IO[Any]]:
  """Gives a new file to write into; it takes the name `path` when the block ends without an error.

  The folder is made if it is not there. What was at `path` stays until the new file is on disk.

  Args:
    path: the file's final place.
    mode: "w" for UTF-8 text with line feeds, "wb" for bytes.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  binary = "b" in mode
  # A name of its own: two processes may write the same file at the same time.
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  try:
    with temporary.open(
      mode, encoding=None if binary else "utf-8", newline=None if binary else "\n"
    ) as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a new folder to fill; it takes the name `path` when the block ends without an error.

  Where another process has made the same folder in the meantime, that one stays.

  Raises:
    OSError: the folder cannot be written, or `path` is something else than a folder.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
  temporary.chmod(0o755)  # mkdtemp makes folders that only their owner can read
  try:
    yield temporary
    try:
      temporary.rename(path)
    except OSError:
      if not path.is_dir():
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a UTF-8 file."""
  with whole_file(path) as file:
    file.write(text)


def write_json(path: pathlib.Path, value: object) -> None:
  """Writes a JSON file, indented."""
  write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: pathlib.Path, part_of: str) -> Any:
  """Returns the contents of a JSON file.

  Args:
    path: the file.
    part_of: what the file belongs to and what to do when it is damaged, as the end of a sentence:
      "the run --workdir=x; choose another --workdir".

  Raises:
    UserError: the file is not JSON.
    OSError: it cannot be read.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}). It is part of {part_of}.") from error
