"""Files are opened by what they are: compressed or not, UTF-8 or UTF-16; others are named."""

import bz2
import gzip
import io
import itertools
import lzma
import tarfile
import zipfile

import pytest

from negint.data.opener import open_bytes, open_text
from negint.errors import UserError

TEXT = "première ligne\nвторая строка\n\nسطر ثالث\n"
COMPRESSED = {
  "plain": bytes,
  "gzip": gzip.compress,
  "bzip2": bz2.compress,
  "xz": lzma.compress,
  "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
  "two gzip members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
  "two bzip2 streams": lambda data: bz2.compress(data[:9]) + bz2.compress(data[9:]),
}


def _text(path, **options):
  with open_text(path, **options) as file:
    return file.read()


def _file(tmp_path, data, name="file.txt"):
  path = tmp_path / name
  path.write_bytes(data)
  return path


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_whatever_its_container_and_encoding(tmp_path, kind, encoding):
  path = _file(tmp_path, COMPRESSED[kind](TEXT.encode(encoding)))
  done = []
  assert _text(path, advance=done.append) == TEXT
  assert sum(done) == path.stat().st_size  # bytes on disk, which a progress bar can count


def test_big_endian_utf16_is_read(tmp_path):
  assert _text(_file(tmp_path, b"\xfe\xff" + TEXT.encode("utf-16-be"))) == TEXT


def test_only_the_first_mark_is_dropped(tmp_path):
  assert _text(_file(tmp_path, "\ufeffa\n\ufeffb".encode())) == "a\n\ufeffb"


@pytest.mark.parametrize("kind", COMPRESSED)
def test_an_empty_file_is_an_empty_text(tmp_path, kind):
  assert _text(_file(tmp_path, COMPRESSED[kind](b""))) == ""


def test_all_line_ends_are_read_unless_the_caller_keeps_them(tmp_path):
  path = _file(tmp_path, "a\rb\r\nc\nd\u0085e\u2028f".encode())
  with open_text(path) as file:
    assert list(file) == ["a\n", "b\n", "c\n", "d\u0085e\u2028f"]
  assert _text(path, newline="") == "a\rb\r\nc\nd\u0085e\u2028f"


@pytest.mark.parametrize("words", ["BZh is a name.", "LZIP is old.", "]", "x"])
def test_text_that_begins_like_a_container_is_text(tmp_path, words):
  assert _text(_file(tmp_path, words.encode())) == words


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("lost", [slice(None, -30), slice(None, 12)])
def test_a_damaged_container_is_named(tmp_path, kind, lost):
  data = COMPRESSED[kind](bytes(range(256)) * 20 + TEXT.encode())
  path = _file(tmp_path, data[lost])
  with pytest.raises(UserError, match="file.txt is cut off or damaged .*download it again"):
    _text(path)


def _zip(data):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w") as archive:
    archive.writestr("a.txt", data)
  return buffer.getvalue()


def _tar(data):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode="w") as archive:
    info = tarfile.TarInfo("a.txt")
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))
  return buffer.getvalue()


@pytest.mark.parametrize(
  ("data", "what", "command"),
  [
    (_zip(b"text"), "a zip archive", "unzip "),
    (_tar(b"text"), "a tar archive", "tar xf "),
    (gzip.compress(_tar(b"text")), "a tar archive", "tar xf "),
    (b"7z\xbc\xaf\x27\x1c\x00\x04", "a 7z archive", "7z x "),
    (b"\x28\xb5\x2f\xfd\x04", "compressed by zstd", "zstd -d "),
    (b"PAR1\x15\x04", "a parquet file", 'python -c "import pandas; pandas.read_parquet'),
    (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS", "git lfs pull"),
    ("plain words".encode("utf-16-le"), "UTF-16LE without a byte-order mark", "iconv -f UTF-16LE"),
    ("plain words".encode("utf-16-be"), "UTF-16BE without a byte-order mark", "iconv -f UTF-16BE"),
  ],
  ids=itertools.count(),  # zip and gzip hold the time
)
def test_what_is_not_read_is_named_with_the_command_that_helps(tmp_path, data, what, command):
  path = _file(tmp_path, data)
  with pytest.raises(UserError) as caught:
    _text(path)
  message = str(caught.value)
  assert what in message and f"First run: {command}" in message and str(path) in message


def test_bytes_that_are_not_text_are_located(tmp_path):
  data = ("line\n" * 40_000).encode() + "un café\n".encode("latin-1")
  for packed in (data, gzip.compress(data)):
    with pytest.raises(UserError, match=r"line 40001, byte 7 of the line is 0xe9.*iconv"):
      _text(_file(tmp_path, packed))
  with pytest.raises(UserError, match="begins as UTF-16 and then is not"):
    _text(_file(tmp_path, TEXT.encode("utf-16")[:-1]))


RUSSIAN = "Это русский текст.\n".encode()


@pytest.mark.parametrize(
  "data",
  [
    RUSSIAN * 5 + b"\xd0\n",
    RUSSIAN * 5 + b"\xd0\n" + RUSSIAN * 2000,
    b"\xd0\n" + RUSSIAN * 2,
    b"plain\n" + RUSSIAN.strip() * 9 + b"\xd0 in the only long line",
    RUSSIAN * 5 + RUSSIAN[:-3],  # cut off inside a character
  ],
)
def test_a_damaged_byte_in_utf8_is_no_other_encoding(tmp_path, data):
  with pytest.raises(UserError) as caught:
    _text(_file(tmp_path, data))
  message = str(caught.value)
  assert "is UTF-8 and damaged: line " in message and "iconv -c -f UTF-8 -t UTF-8" in message
  assert "WINDOWS" not in message


@pytest.mark.parametrize("encoding", ["windows-1251", "koi8-r", "latin-1", "gb18030", "shift-jis"])
def test_other_encodings_are_no_damage(tmp_path, encoding):
  lines = {
    "latin-1": ["un café à l'été", "plain", "voilà"],
    "gb18030": ["中华人民共和国", "联通", "首都北京"],
    "shift-jis": ["日本語の文章です", "カタカナ", "東京"],
  }.get(encoding, ["Это русский текст", "plain", "Да"])
  with pytest.raises(UserError, match="is not UTF-8: line 1, byte .*WINDOWS-1252"):
    _text(_file(tmp_path, "\n".join(lines * 50).encode(encoding)))


def test_bytes_are_given_unread(tmp_path):
  with open_bytes(_file(tmp_path, gzip.compress(b"\xff\x00\xfe"))) as file:
    assert file.read() == b"\xff\x00\xfe"


def test_a_missing_file_stays_a_missing_file(tmp_path):
  with pytest.raises(FileNotFoundError):
    _text(tmp_path / "no.txt")
