"""What is wrong with a run, in words for the report."""

from dataclasses import dataclass


class Damaged(Exception):
  """A file lacks what the report needs; the message says what."""


@dataclass(frozen=True, order=True)
class Problem:
  """A run, or a part of one, that the report leaves out."""

  workdir: str
  reason: str
