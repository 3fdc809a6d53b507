"""Opens files as people have them: compressed or not, UTF-8 or UTF-16.

What a file is follows from its first bytes, not from its name.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, TextIO, cast

from negint.data.text import REPLACEMENT
from negint.errors import UserError

Advance = Callable[[int], object]

# (what the first bytes match, the decompressor): gzip, bzip2, xz, lzma
_DECOMPRESSED: tuple[tuple[bytes, Callable[[BinaryIO], io.BufferedIOBase]], ...] = (
  (rb"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file, mode="rb")),
  (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", bz2.BZ2File),
  (rb"\xfd7zXZ\x00", lzma.LZMAFile),
  (rb"\x5d\x00\x00", lzma.LZMAFile),
)
# (first bytes, what such a file is, the command that makes text of it)
_REFUSED = (
  (b"PK\x03\x04", "a zip archive", "unzip {path}"),
  (b"PK\x05\x06", "an empty zip archive", "unzip {path}"),
  (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {path}"),
  (b"Rar!\x1a\x07", "a rar archive", "unrar x {path}"),
  (b"\x28\xb5\x2f\xfd", "compressed by zstd", "zstd -d {path}"),
  (b"\x04\x22\x4d\x18", "compressed by lz4", "lz4 -d {path}"),
  (b"LZIP\x01", "compressed by lzip", "lzip -d {path}"),
  (b"\x1f\x9d", "compressed by compress", "uncompress {path}"),
  (
    b"PAR1",
    "a parquet file",
    "python -c \"import pandas; pandas.read_parquet('{path}').to_json('{stem}.jsonl', "
    "orient='records', lines=True, force_ascii=False)\" (pip install pandas pyarrow)",
  ),
  (
    b"ARROW1\x00\x00",
    "an Arrow file",
    "python -c \"import pandas; pandas.read_feather('{path}').to_json('{stem}.jsonl', "
    "orient='records', lines=True, force_ascii=False)\" (pip install pandas pyarrow)",
  ),
  (
    b"\xff\xff\xff\xff",
    "an Arrow stream, as the package datasets keeps it",
    "python -c \"import datasets; datasets.Dataset.from_file('{path}').to_json('{stem}.jsonl', "
    'force_ascii=False)" (pip install datasets)',
  ),
  (b"SQLite format 3\x00", "an SQLite data base", "sqlite3 {path} .dump"),
  (b"%PDF-", "a PDF", "pdftotext {path}"),
  (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "git lfs pull"),
)
_TAR_MARK, _TAR_PLACE = b"ustar", 257
_ENCODINGS = (
  (b"\xff\xfe\x00\x00", "utf-32"),
  (b"\x00\x00\xfe\xff", "utf-32"),
  (b"\xff\xfe", "utf-16"),
  (b"\xfe\xff", "utf-16"),
)
COMPRESSIONS = ("", ".gz", ".xz", ".bz2")  # endings that may follow that of a layout
_LOOK_AT = 512  # bytes from which a file is recognised
# Lines after the first byte that is not UTF-8, which tell damage from another encoding.
_LOOK_ON = 1000


def kind_of(path: str | os.PathLike[str]) -> str:
  """Returns the ending that tells a file's layout: 'tsv' for 'a.tsv' and for 'a.tsv.gz'."""
  stem, ending = os.path.splitext(os.fspath(path))
  if ending in COMPRESSIONS:
    ending = os.path.splitext(stem)[1]
  return ending.removeprefix(".").lower()


@contextlib.contextmanager
def open_bytes(
  path: str | os.PathLike[str], advance: Advance = lambda n: None
) -> Iterator[BinaryIO]:
  """Gives the decompressed bytes of a file: gzip, bzip2, xz, lzma, or not compressed.

  Args:
    path: the file.
    advance: called with n whenever n more bytes of the file, as it is on disk, have been read.

  Raises:
    UserError: the file is an archive or a table that is not read here; with the command that helps.
    EOFError, OSError, lzma.LZMAError, zlib.error: while reading, where the compressed data is
      damaged. `damage_named` makes one sentence of them.
  """
  with open(path, "rb", buffering=0) as file:
    start = file.read(_LOOK_AT)
    _refuse_others(path, start)
    file.seek(0)
    counted = cast(BinaryIO, io.BufferedReader(_Counted(file, advance), 1 << 16))
    with contextlib.ExitStack() as opened:
      stream = counted
      for marks, decompressed in _DECOMPRESSED:
        if re.match(marks, start):
          # BufferedReader's lines are faster than those of the decompressors.
          raw = cast(io.RawIOBase, opened.enter_context(decompressed(counted)))
          buffered = io.BufferedReader(raw, 1 << 16)
          _refuse_others(path, buffered.peek(_LOOK_AT))
          stream = cast(BinaryIO, buffered)
          break
      yield stream


@contextlib.contextmanager
def open_text(
  path: str | os.PathLike[str],
  advance: Advance = lambda n: None,
  *,
  newline: str | None = None,
) -> Iterator[TextIO]:
  r"""Gives the text of a file: decompressed, UTF-8 or UTF-16, without its byte-order mark.

  Args:
    path: the file.
    advance: as in `open_bytes`.
    newline: as in Python's `open`. None: lines end with "\n", "\r\n" or "\r", and are given with
      "\n". The module csv needs "".

  Raises:
    UserError: also while reading: the file is no text, is damaged, or is in another encoding; the
      message says the place and what to do.
  """
  with damage_named(path), open_bytes(path, advance) as stream:
    encoding = _encoding(path, stream)
    # The list of codecs that skip a mark: "utf-8-sig", "utf-16" and "utf-32".
    text = io.TextIOWrapper(stream, encoding=encoding, newline=newline)
    try:
      yield text
    except UnicodeDecodeError as error:
      raise UserError(_wrong_encoding(path, encoding, error)) from error


@contextlib.contextmanager
def damage_named(path: str | os.PathLike[str]) -> Iterator[None]:
  """Turns what a decompressor raises in the block into a UserError that names the file."""
  try:
    yield
  except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
    if getattr(error, "errno", None) is not None:  # of the system, not of a decompressor
      raise
    raise UserError(
      f"{path} is cut off or damaged ({error}). Compare its checksum, or download it again."
    ) from error


class _Counted(io.RawIOBase):
  """A file that reports how much of it is read."""

  def __init__(self, file: io.FileIO, advance: Advance):
    self._file = file
    self._advance = advance

  def readable(self) -> bool:
    return True

  def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
    count = self._file.readinto(buffer)
    if count:
      self._advance(count)
    return count


def _refuse_others(path: str | os.PathLike[str], start: bytes) -> None:
  """UserError where the first bytes of a file show that it is not text."""
  for mark, what, command in _REFUSED:
    if start.startswith(mark):
      first = command.format(path=path, stem=os.path.splitext(path)[0])
      raise UserError(f"{path} is {what}, which is not read here. First run: {first}")
  if start[_TAR_PLACE:].startswith(_TAR_MARK):
    raise UserError(f"{path} is a tar archive, which is not read here. First run: tar xf {path}")


def _encoding(path: str | os.PathLike[str], stream: BinaryIO) -> str:
  """Returns the encoding that the first bytes of a stream show."""
  start = cast(io.BufferedReader, stream).peek(_LOOK_AT)[:_LOOK_AT]
  for mark, encoding in _ENCODINGS:
    if start.startswith(mark):
      return encoding
  for order, first in (("UTF-16LE", 1), ("UTF-16BE", 0)):
    zeros, others = start[first::2].count(0), start[1 - first :: 2].count(0)
    if zeros > len(start) / 4 and not others:
      raise UserError(
        f"{path} looks like {order} without a byte-order mark. First run: iconv -f {order} -t UTF-8 "
        f"{path} > {path}.utf8"
      )
  return "utf-8-sig"


def _wrong_encoding(path: str | os.PathLike[str], encoding: str, error: UnicodeDecodeError) -> str:
  """Returns the sentence about bytes that are not text; says their place in UTF-8."""
  if encoding != "utf-8-sig":
    return f"{path} begins as {encoding.upper()} and then is not ({error.reason}). It is damaged."
  first = ""  # where the first byte that is not UTF-8 stands
  right = wrong = 0  # characters beyond ASCII, and bytes or so that are none
  with open_bytes(path) as stream:
    for number, line in enumerate(stream, start=1):
      try:
        line.decode("utf-8")
      except UnicodeDecodeError as here:
        if not first:
          last = number + _LOOK_ON
          first = f"line {number}, byte {here.start + 1} of the line is 0x{line[here.start]:02x}"
      bad = (text := line.decode("utf-8", "replace")).count(REPLACEMENT)
      right += len(text) - len(text.encode("ascii", "ignore")) - bad
      wrong += bad
      if first and number >= last:
        break
  if not first:
    return f"{path} is not UTF-8 ({error})."
  if right > wrong:
    return (
      f"{path} is UTF-8 and damaged: {first}, but {right:,} characters around it are UTF-8. Download "
      f"it again, or leave such bytes out: iconv -c -f UTF-8 -t UTF-8 {path} > {path}.utf8"
    )
  return (
    f"{path} is not UTF-8: {first}. Convert the file, for example from Windows-1252: iconv -f "
    f"WINDOWS-1252 -t UTF-8 {path} > {path}.utf8"
  )
