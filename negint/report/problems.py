"""What is wrong with a run, in words that the report prints."""

from dataclasses import dataclass


class Damaged(Exception):
  """A file lacks something that the report needs; the message says what."""


@dataclass(frozen=True, order=True)
class Problem:
  """A run, or a part of one, that the report leaves out."""

  workdir: str  # of the run, relative to the folder of all runs
  reason: str  # what is wrong
