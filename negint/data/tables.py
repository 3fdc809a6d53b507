"""Tables of Apache Arrow: parquet, as the Hugging Face Hub has data sets, and Arrow files.

The package datasets keeps the names of numbered labels in such a file itself.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from negint.data.opener import Advance, damage_named
from negint.errors import UserError

ENDINGS = ("parquet", "arrow")  # of the names of tables
_PARQUET, _ARROW, _STREAM = b"PAR1", b"ARROW1\x00\x00", b"\xff\xff\xff\xff"  # first bytes
_LOOK_AT = 8  # bytes from which a table is recognised
_BATCH = 1000  # rows that are in memory at once

Path = str | os.PathLike[str]


# Any: pyarrow's own types; it is imported late, and it has none for mypy.
class _Table(NamedTuple):
  schema: Any  # names and types of the columns
  position: Callable[[int], int]  # number of rows read -> bytes of the file read, about
  batches: Callable[[list[str] | None], Iterator[Any]]  # columns (None: all) -> record batches


def is_table(path: Path) -> bool:
  """Returns whether a file is a table, by its first bytes; False for one that cannot be opened."""
  return _first_bytes(path).startswith((_PARQUET, _ARROW, _STREAM))


def column_names(path: Path) -> list[str]:
  """Returns the names of the columns of a table; raises as `read_table`."""
  with _opened(path) as table:
    return list(table.schema.names)


def features(path: Path) -> dict[str, Any]:
  """Returns what the package datasets says about each column of a table; {} where it says nothing.

  Raises:
    UserError: as `read_table`.
  """
  with _opened(path) as table:
    said = (table.schema.metadata or {}).get(b"huggingface", b"{}")
  with contextlib.suppress(ValueError, KeyError, TypeError):
    return dict(json.loads(said)["info"]["features"])
  return {}


def read_table(
  path: Path, columns: Sequence[str] | None = None, advance: Advance = lambda n: None
) -> Iterator[dict[str, Any]]:
  """Yields the rows of a table.

  Args:
    path: the file.
    columns: names of those that are read; None: all.
    advance: called with n whenever about n more bytes of the file have been read.

  Raises:
    UserError: the file is cut off or damaged.
  """
  size = os.path.getsize(path)
  done = told = 0
  with _opened(path) as table:
    for batch in table.batches(None if columns is None else list(columns)):
      yield from batch.to_pylist()
      done += batch.num_rows
      position = max(told, table.position(done))
      advance(position - told)
      told = position
  advance(size - told)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Table]:
  """Gives an open table; what pyarrow raises of a damaged file in the block becomes a UserError."""
  import pyarrow
  import pyarrow.parquet

  try:
    with damage_named(path), open(path, "rb") as file:
      start = _first_bytes(path)
      if start.startswith(_PARQUET):
        parquet = pyarrow.parquet.ParquetFile(file)
        size, rows = os.path.getsize(path), parquet.metadata.num_rows
        yield _Table(
          parquet.schema_arrow,
          lambda done: size * done // rows,
          lambda columns: parquet.iter_batches(_BATCH, columns=columns, use_threads=False),
        )
        return
      reader = (pyarrow.ipc.open_file if start == _ARROW else pyarrow.ipc.open_stream)(file)
      numbered = start == _ARROW  # such a file has its batches by number
      batches = map(reader.get_batch, range(reader.num_record_batches)) if numbered else reader
      yield _Table(
        reader.schema,
        lambda done: file.tell(),
        lambda columns: (batch.select(columns or reader.schema.names) for batch in batches),
      )
  except pyarrow.ArrowException as error:
    raise UserError(
      f"{path} is cut off or damaged ({error}). Compare its checksum, or download it again."
    ) from error


def _first_bytes(path: Path) -> bytes:
  with contextlib.suppress(OSError), open(path, "rb") as file:
    return file.read(_LOOK_AT)
  return b""
