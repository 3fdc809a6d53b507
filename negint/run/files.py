"""Files and folders that are there whole or not at all: written aside, then renamed."""

import contextlib
import glob
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from negint.errors import UserError

ALWAYS_READ = 1 << 26  # bytes; files up to this size are compared by checksum at every start


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
    for file in temporary.rglob("*"):
      if file.is_file():
        _sync(file)
    try:
      temporary.rename(path)
    except OSError:
      if not path.is_dir():
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(path: pathlib.Path) -> None:
  """Deletes what killed processes left of `whole_folder(path)`.

  Call it only while holding the lock of `path`: it also deletes what another process is writing.
  """
  for folder in path.parent.glob(f".{glob.escape(path.name)}.*"):
    shutil.rmtree(folder, ignore_errors=True)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a UTF-8 file."""
  with whole_file(path) as file:
    file.write(text)


def write_json(path: pathlib.Path, value: object) -> None:
  """Writes a JSON file, indented."""
  write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: pathlib.Path, values: Iterable[object]) -> None:
  """Writes a file with one JSON value per line."""
  with whole_file(path) as file:
    file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def read_json(path: pathlib.Path, part_of: str) -> dict[str, Any]:
  """Returns the JSON object in a file.

  Args:
    path: the file.
    part_of: what the file belongs to and what to do when it is damaged, as the end of a sentence:
      "the run --workdir=x; choose another --workdir".

  Raises:
    UserError: the file is not JSON, or its value is not an object.
    OSError: it cannot be read.
  """
  with damage_reported(path, part_of):
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
      raise ValueError(f"it holds a {type(value).__name__}, not a JSON object")
    return value


def read_json_lines(path: pathlib.Path, part_of: str) -> Iterator[Any]:
  """Yields the JSON value of each line; arguments and errors as in `read_json`.

  An empty file counts as damaged.
  """
  with damage_reported(path, part_of), path.open(encoding="utf-8") as file:
    yield json.loads(next(file, ""))
    for line in file:
      yield json.loads(line)


@contextlib.contextmanager
def damage_reported(path: pathlib.Path, part_of: str) -> Iterator[None]:
  """Turns a ValueError of the block into a UserError that says that the file is damaged.

  The arguments are those of `read_json`.
  """
  try:
    yield
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}). It is part of {part_of}.") from error


def checksum(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file's contents, hexadecimal."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def record_files(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns {name: {"bytes": size, "sha256": checksum}} of the files in a folder, without subfolders."""
  return {
    path.name: {"bytes": path.stat().st_size, "sha256": checksum(path)}
    for path in sorted(folder.iterdir())
    if path.is_file()
  }


def find_damage(
  folder: pathlib.Path, files: dict[str, dict[str, Any]], *, whole: bool = False
) -> str | None:
  """Returns what is wrong with the first file that is not as it was recorded, or None.

  The sizes of all files are compared, and the contents of files of at most ALWAYS_READ bytes.

  Args:
    folder: where the files are.
    files: what `record_files` returned when they were written.
    whole: compare the contents of large files, too.
  """
  for name, recorded in files.items():
    path = folder / name
    if not path.is_file():
      return f"{path} is missing"
    size = path.stat().st_size
    if size != recorded["bytes"]:
      return f"{path} has {size:,} bytes instead of {recorded['bytes']:,}"
    if (whole or size <= ALWAYS_READ) and checksum(path) != recorded["sha256"]:
      return f"{path} has other contents than were written"
  return None


def _sync(path: pathlib.Path) -> None:
  """Returns when the contents of a file are on disk."""
  with path.open("rb") as file:
    os.fsync(file.fileno())
