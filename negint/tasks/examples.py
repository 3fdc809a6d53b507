"""The example types that every downstream task is expressed in.

Readers of real corpora and the artificial lab both produce these three records, so that
fine-tuning never needs to know where an example came from. Nothing else belongs here.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TaggedSentence:
  """A sentence with one tag per word (IOB2 entity types or universal parts of speech)."""

  words: tuple[str, ...]
  tags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Question:
  """An extractive question; each answer is a pair (text, character offset in context)."""

  id: str
  context: str
  question: str
  answers: tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two sentences; the label says what the premise makes of the hypothesis.

  The label is one of 'entailment', 'neutral' and 'contradiction'.
  """

  premise: str
  hypothesis: str
  label: str
