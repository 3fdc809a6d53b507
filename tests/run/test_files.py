"""Files and folders are there whole or not at all."""

import json

import pytest

from negint.errors import UserError
from negint.run import files


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_under_its_name_and_leaves_nothing_beside_it(tmp_path):
  path = tmp_path / "new" / "folder" / "a.txt"
  with files.whole_file(path) as file:
    file.write("first\nsecond\n")
    assert not path.exists()
  assert path.read_bytes() == b"first\nsecond\n"
  assert names(path.parent) == ["a.txt"]
  with files.whole_file(path, "wb") as file:
    file.write(b"\x00\xff")
  assert path.read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error):
  files.write_text(tmp_path / "a.txt", "old")
  with pytest.raises(type(error)), files.whole_file(tmp_path / "a.txt") as file:
    file.write("half of the n")
    raise error
  assert (tmp_path / "a.txt").read_text() == "old"
  assert names(tmp_path) == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
  with files.whole_folder(tmp_path / "made") as folder:
    files.write_text(folder / "one", "1")
    assert names(tmp_path) != ["made"]
  assert names(tmp_path) == ["made"] and names(tmp_path / "made") == ["one"]
  with pytest.raises(ValueError), files.whole_folder(tmp_path / "broken") as folder:
    files.write_text(folder / "one", "1")
    raise ValueError
  assert names(tmp_path) == ["made"]


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path):
  with files.whole_folder(tmp_path / "cache") as folder:
    files.write_text(folder / "mine", "")
    (tmp_path / "cache").mkdir()
    files.write_text(tmp_path / "cache" / "theirs", "")
  assert names(tmp_path / "cache") == ["theirs"]


def test_a_file_in_the_place_of_a_folder_is_an_error_and_stays(tmp_path):
  files.write_text(tmp_path / "cache", "a file")
  with pytest.raises(OSError), files.whole_folder(tmp_path / "cache"):
    pass
  assert (tmp_path / "cache").read_text() == "a file"


def test_json_round_trips_and_a_damaged_file_is_named_with_what_it_is_part_of(tmp_path):
  path, value = tmp_path / "a.json", {"language": "తెలుగు", "steps": [1, 2.5, None]}
  files.write_json(path, value)
  assert files.read_json(path, "this test") == value
  assert "తెలుగు" in path.read_text(encoding="utf-8")
  for text in ('{"steps": ', "", b"\xff\xfe".decode("latin-1")):
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="a.json is damaged .*part of the run r; start it anew"):
      files.read_json(path, "the run r; start it anew")
  with pytest.raises(FileNotFoundError):
    files.read_json(tmp_path / "missing.json", "the run r")
  assert json.dumps(value)  # the value itself was legal
