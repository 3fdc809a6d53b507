"""The examples of all tasks, and the report of what a reader changed in them.

Readers of real corpora and the artificial lab both make these records, so that fine-tuning does not
need to know where an example comes from.
"""

import dataclasses

SPLITS = ("train", "dev", "test")
PAIR_LABELS = ("entailment", "neutral", "contradiction")
NOWHERE = -1  # offset of an answer that its context does not have

Report = dict[str, int]  # name of a repair or a drop: how often it was made


@dataclasses.dataclass(frozen=True)
class TaggedSentence:
  """A sentence with one tag per word (IOB2 entity types or parts of speech)."""

  words: tuple[str, ...]
  tags: tuple[str, ...]  # as many as words


@dataclasses.dataclass(frozen=True)
class Question:
  """A question about a context, of which the answer is mostly a span."""

  id: str
  context: str
  question: str
  answers: tuple[tuple[str, int], ...]  # gold answers: (text, offset in characters or NOWHERE)


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two sentences, and whether the first one implies or contradicts the second."""

  premise: str
  hypothesis: str
  label: str  # mostly one of PAIR_LABELS


def count(report: Report, name: str, times: int | bool = 1) -> None:
  """Adds to one entry of a report; entries that stay at zero are left out."""
  if times:
    report[name] = report.get(name, 0) + int(times)
