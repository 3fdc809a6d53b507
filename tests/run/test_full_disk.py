"""A full disk is reported once: what background writers would print about it is dropped, no more."""

import pathlib
import subprocess
import sys

import pytest

PROGRAM = """
import errno, threading, warnings
from absl import logging
from negint.run import full_disk
if {quiet}:
  full_disk.keep_writers_quiet()
full = {error}

def work():
  raise full

class Writer:
  def __del__(self):
    raise full

def follow():
  try:
    raise full
  except Exception as error:
    raise RuntimeError("the save failed") from error

for target in (work, follow):
  thread = threading.Thread(target=target)
  thread.start()
  thread.join()
try:
  follow()
except RuntimeError:
  logging.exception("Save thread failed.")
Writer()
warnings.warn(f"Error writing a compiled program: {{full}}")
"""
FULL = [
  "OSError(errno.ENOSPC, 'No space left on device')",
  "OSError(errno.EDQUOT, 'Disk quota exceeded')",
  "ValueError('RESOURCE_EXHAUSTED: Error writing d/07: Failed to write 125116 bytes')",
]


def stderr(error, quiet=True):
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM.format(error=error, quiet=quiet)],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stderr


@pytest.mark.parametrize("error", FULL)
def test_writers_say_nothing_of_a_full_disk(error):
  assert stderr(error) == ""


@pytest.mark.parametrize(
  ("error", "quiet"), [(FULL[0], False), ("KeyError('a defect')", True)], ids=["before", "defect"]
)
def test_everything_else_is_still_printed(error, quiet):
  text = stderr(error, quiet)
  for words in ("in work", "in follow", "Save thread failed", "in __del__", "compiled program"):
    assert words in text
