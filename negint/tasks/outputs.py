"""What prediction returns: the outputs of all tasks for texts without labels."""

import dataclasses

from negint.tasks.examples import TaggedSentence
from negint.tasks.words import Span


@dataclasses.dataclass(frozen=True)
class PlainSentence(TaggedSentence):
  """A sentence without tags, and where its words stand in a text."""

  text: str  # as given; of a list of words, the words with spaces between them
  spans: tuple[Span, ...]  # of each word, in characters of `text`


@dataclasses.dataclass(frozen=True)
class TaggedWords:
  """The words of a text with their tags."""

  text: str  # as given; of a list of words, the words with spaces between them
  words: tuple[str, ...]  # as they stand in `text`
  spans: tuple[Span, ...]  # (begin, end) of each word in characters of `text`
  tags: tuple[str, ...]  # one per word


@dataclasses.dataclass(frozen=True)
class NamedEntity:
  """A name in a text."""

  type: str  # such as PER
  text: str  # as it stands in the text
  begin: int  # first character in the text
  end: int  # first character behind it


@dataclasses.dataclass(frozen=True)
class EntityText(TaggedWords):
  """The words of a text with their tags, and the named entities that the tags make."""

  entities: tuple[NamedEntity, ...]  # in their order


@dataclasses.dataclass(frozen=True)
class Answer:
  """The answer to a question: a part of the context."""

  question: str  # as given
  answer: str  # as it stands in the context; empty where the context has no word
  begin: int  # first character in the context
  end: int  # first character behind it
  score: float  # 0..1: the probability of its start times that of its end, over the whole context
  id: str = ""  # of the question, where it has one


@dataclasses.dataclass(frozen=True)
class PairLabel:
  """The label of a pair of sentences."""

  premise: str  # as given
  hypothesis: str  # as given
  label: str  # the most probable one
  probabilities: dict[str, float]  # of all labels
