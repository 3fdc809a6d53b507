"""Scores in per cent: the numbers of seqeval, of XTREME and of the SQuAD v1.1 script.

A scorer counts per example (a row of numbers) and then makes one score of all rows.
"""

import collections
import itertools
import re
import string
from collections.abc import Iterator, Sequence

Chunk = tuple[str, int, int]  # type, first and last position
TagLists = Sequence[Sequence[str]]  # per sentence, a tag per word


def chunk_counts(gold: TagLists, predicted: TagLists, strict: bool = False) -> list[list[float]]:
  """Returns the numbers of correct, predicted and gold chunks (entities) of each sentence.

  A chunk counts in the sentence of its last tag, because the lenient scorer starts some in an
  earlier sentence.

  Args:
    gold: tags of each sentence.
    predicted: as gold; the same lengths.
    strict: False reads ill-formed tags as conlleval does (an I- that continues nothing starts an
      entity), the number of the literature; True is strict IOB2 (only B- starts an entity).

  Raises:
    ValueError: the lengths differ.

  Reference: seqeval's default mode, and its mode='strict' with scheme=IOB2.
  """
  _check_lengths(gold, predicted)
  find = _strict_chunks if strict else lenient_chunks
  gold_chunks, predicted_chunks = set(find(_joined(gold))), set(find(_joined(predicted)))
  sentence_of = [index for index, tags in enumerate(gold) for _ in (*tags, "O")]
  rows: list[list[float]] = [[0, 0, 0] for _ in gold]
  found = gold_chunks & predicted_chunks, predicted_chunks, gold_chunks
  for column, chunks in enumerate(found):
    for _, _, last in chunks:
      rows[sentence_of[last]][column] += 1
  return rows


def micro_average(rows: Sequence[Sequence[float]]) -> dict[str, float]:
  """Returns precision, recall and F1 of all rows of `chunk_counts`, in per cent; 0 if undefined."""
  correct, predicted, gold = (sum(row[column] for row in rows) for column in range(3))

  def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0

  return {
    "precision": share(100 * correct, predicted),
    "recall": share(100 * correct, gold),
    "f1": share(200 * correct, predicted + gold),
  }


def tag_counts(gold: TagLists, predicted: TagLists) -> list[list[float]]:
  """Returns the numbers of right tags and of words of each sentence; raises as `chunk_counts`."""
  _check_lengths(gold, predicted)
  pairs = zip(gold, predicted, strict=True)
  return [[sum(map(str.__eq__, tags, others)), len(tags)] for tags, others in pairs]


def tag_accuracy(rows: Sequence[Sequence[float]]) -> float:
  """Returns the share of right tags in all rows of `tag_counts`, in per cent; 0 if undefined."""
  right, words = (sum(row[column] for row in rows) for column in range(2))
  return 100 * (right / words) if words else 0.0


def means(rows: Sequence[Sequence[float]]) -> list[float]:
  """Returns the mean of each column of numbers in 0..1, in per cent."""
  return [100 * sum(column) / len(rows) for column in zip(*rows, strict=True)]


def answer_scores(answers: Sequence[str], prediction: str | None) -> tuple[float, float]:
  """Returns (F1, exact match) of one question, both in 0..1: the best over its gold answers.

  Args:
    answers: gold texts.
    prediction: text; None, which scores 0, where there is none.

  Reference: the SQuAD v1.1 script, which XTREME uses for every language of TyDiQA and XQuAD. The
  scripts of MLQA and KorQuAD strip other punctuation and articles and split other words.
  """
  if prediction is None:
    return 0.0, 0.0
  exact = max((_normal(prediction) == _normal(answer) for answer in answers), default=False)
  return max((_word_f1(prediction, answer) for answer in answers), default=0.0), float(exact)


def _check_lengths(gold: TagLists, predicted: TagLists) -> None:
  if len(gold) != len(predicted):
    raise ValueError(f"{len(gold)} gold sentences but {len(predicted)} predicted ones")
  for index, (g, p) in enumerate(zip(gold, predicted, strict=True)):
    if len(g) != len(p):
      raise ValueError(f"sentence {index} has {len(g)} gold tags but {len(p)} predicted ones")


def _joined(sentences: TagLists) -> list[str]:
  """Returns one sequence with an O after each sentence, which is what seqeval scores."""
  return [tag for tags in sentences for tag in itertools.chain(tags, "O")]


def lenient_chunks(tags: Sequence[str]) -> Iterator[Chunk]:
  """Yields the chunks by conlleval's rules, for any scheme letters; the last tag must be O.

  A chunk that ends is reported from the last position where one started. Whether a chunk ends and
  whether one starts are two questions, as in seqeval. This shows on raw part-of-speech tags. Of
  CCONJ SCONJ (equal types, S starts) only the second is a chunk. An X that begins a sentence starts
  no chunk, because its type and that of the O before it are both '_'; its chunk has an older start.
  """
  first, previous_letter, previous_type = 0, "O", ""
  for i, tag in enumerate(tags):
    letter, kind = tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_"
    changes = kind != previous_type
    if (
      previous_letter in "ES"
      or (previous_letter in "BI" and letter in "BSO")
      or (previous_letter not in "O." and changes)
    ):
      yield previous_type, first, i - 1
    if (
      letter in "BS"
      or (previous_letter in "ESO" and letter in "EI")
      or (letter not in "O." and changes)
    ):
      first = i
    previous_letter, previous_type = letter, kind


def _strict_chunks(tags: Sequence[str]) -> Iterator[Chunk]:
  """Yields each B-X with the I-X that follow it directly."""
  first: int | None = None
  for i, tag in enumerate(tags):
    if first is not None and tag != "I-" + tags[first][2:]:
      yield tags[first][2:], first, i - 1
      first = None
    if tag.startswith("B-"):
      first = i


def _normal(text: str) -> str:
  """Returns the text in lower case, without ASCII punctuation and English articles, single spaces."""
  text = "".join(char for char in text.lower() if char not in string.punctuation)
  return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _word_f1(prediction: str, answer: str) -> float:
  predicted, gold = _normal(prediction).split(), _normal(answer).split()
  common = sum((collections.Counter(predicted) & collections.Counter(gold)).values())
  if not common:
    return 0.0
  precision, recall = common / len(predicted), common / len(gold)
  return 2 * precision * recall / (precision + recall)
