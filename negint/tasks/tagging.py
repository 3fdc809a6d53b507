"""What the tagging tasks share: a label per word, on the word's first subword."""

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from negint.errors import UserError
from negint.tasks.examples import Report, TaggedSentence, count
from negint.tasks.features import Arrays, Tokenizer, capacity, encode, padded, token_arrays
from negint.tasks.outputs import PlainSentence, TaggedWords
from negint.tasks.task import Batch, Labels, Limits, Task
from negint.tasks.words import split_words

IGNORE = -100  # label of a position that has none

Tags = list[list[str]]  # per sentence, a tag per word


# Any: Task checks the fields' names when the record is made.
def tagging_task(**fields: Any) -> Task[TaggedSentence, Tags]:
  """Returns the record of a task; `fields` are those of Task that tagging tasks do not share."""
  fields = {"relabel": relabel, "outputs": outputs, **fields}
  return Task(
    labels_of=lambda sentence: sentence.tags,
    group_of=lambda sentence: sentence.words,
    features=features,
    targets=("labels",),
    first_position=False,
    loss=loss,
    decode=decode,
    tags_words=True,
    given=given,
    majority=majority,
    prediction_extension="tsv",
    as_text=as_text,
    **fields,
  )


def relabel(sentence: TaggedSentence, rename: Callable[[str], str]) -> TaggedSentence:
  """Returns the sentence with other tags."""
  return TaggedSentence(sentence.words, tuple(map(rename, sentence.tags)))


def features(
  sentences: Sequence[TaggedSentence], tokenizer: Tokenizer, labels: Labels, limits: Limits
) -> tuple[Arrays, Report]:
  """Returns rows with the label of each word on its first subword, and what was cut.

  A sentence that does not fit is split at word boundaries into several rows, never cut. A word
  without tokens becomes UNK. A word longer than a row keeps its first subwords.

  Returns:
    (arrays, report) with, beyond tokens and lengths, `labels` [N, T] int32, IGNORE where no word
    starts or its tag is not in `labels`; `sentence` [N] int32, the row's sentence; `word` [N, T]
    int32, the word that starts there, -1 where none does.
  """
  begin, end = tokenizer.special.begin, tokenizer.special.end
  room = capacity(limits.max_length, len(begin) + len(end))
  label_ids = {label: index for index, label in enumerate(labels)}
  cache: dict[str, list[int]] = {}
  report: Report = {}
  rows, label_rows, word_rows, sentence_of = [], [], [], []
  for index, sentence in enumerate(sentences):
    pieces = [encode(word, tokenizer, cache, word=True) for word in sentence.words]
    count(report, "words longer than a row cut", sum(len(ids) > room for ids in pieces))
    pieces = [ids[:room] for ids in pieces]
    parts = _split(pieces, room)
    count(report, "sentences split over several rows", len(parts) > 1)
    for first, last in parts:
      tokens, row_labels, row_words = [*begin], [IGNORE] * len(begin), [-1] * len(begin)
      for word in range(first, last):
        rest = len(pieces[word]) - 1
        tokens += pieces[word]
        row_labels += [label_ids.get(sentence.tags[word], IGNORE)] + [IGNORE] * rest
        row_words += [word] + [-1] * rest
      rows.append([*tokens, *end])
      label_rows.append(row_labels)
      word_rows.append(row_words)
      sentence_of.append(index)
  arrays = token_arrays(rows, limits.max_length, tokenizer.special)
  arrays["labels"] = padded(label_rows, limits.max_length, IGNORE)
  arrays["sentence"] = np.array(sentence_of, np.int32)
  arrays["word"] = padded(word_rows, limits.max_length, -1)
  return arrays, report


def loss(scores: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Returns the cross-entropy of the labelled positions: (sum in nats, number of labels).

  Args:
    scores: [B, T, labels].
    batch: `labels` [B, T], IGNORE where there is none, and `lengths` [B].
  """
  there_B = (batch["lengths"] > 0).astype(jnp.float32)
  weights_BxT = (batch["labels"] != IGNORE).astype(jnp.float32) * there_B[:, None]
  loss_BxT = optax.softmax_cross_entropy_with_integer_labels(
    scores, jnp.maximum(batch["labels"], 0)
  )
  return jnp.sum(loss_BxT * weights_BxT), jnp.sum(weights_BxT)


def decode(
  scores: np.ndarray,
  arrays: Arrays,
  examples: Sequence[TaggedSentence],
  labels: Labels,
  limits: Limits,
) -> Tags:
  """Returns the tags of each sentence, one per word: the best label of its first subword.

  Args:
    scores: [N, T, labels].
    arrays: what `features` returned for the examples.
    examples: the sentences.
    labels: the tag of each output.
    limits: not used.
  """
  del limits
  ids = scores.argmax(-1)
  sentences: Tags = [[] for _ in examples]
  # Rows of a sentence follow one another, and words within a row, so appending keeps the order.
  for row, column in zip(*np.nonzero(arrays["word"] >= 0), strict=True):
    sentences[arrays["sentence"][row]].append(labels[ids[row, column]])
  return sentences


# Any: whatever a user gives.
def given(value: Any, place: str) -> PlainSentence:
  """Returns a text or a list of words as a sentence without tags.

  Args:
    value: a text, which `split_words` splits; a list of words; or an object of JSON with `text`,
      `tokens` or `words`.
    place: of the value, for messages.

  Raises:
    UserError: it is none of these, or a word is empty.
  """
  if isinstance(value, Mapping):
    value = next((value[key] for key in ("tokens", "words", "text") if key in value), value)
  if isinstance(value, str):
    spans = tuple(split_words(value))
    return plain_sentence(tuple(value[begin:end] for begin, end in spans), value, spans)
  if not isinstance(value, Sequence) or not all(isinstance(word, str) for word in value):
    raise UserError(
      f"{place} is {str(value)[:60]!r}; tagging takes a text, a list of words, or JSON with the field "
      "text or tokens."
    )
  if not all(word.strip() for word in value):
    raise UserError(f"{place} has an empty word; take it out of {str(list(value))[:60]}.")
  return plain_sentence(tuple(value))


def plain_sentence(
  words: tuple[str, ...], text: str | None = None, spans: tuple[tuple[int, int], ...] | None = None
) -> PlainSentence:
  """Returns words as a sentence without tags.

  Args:
    words: the words.
    text: where they stand; None: spaces between them make one.
    spans: their places in `text`; None as `text`.
  """
  if text is None or spans is None:
    text = " ".join(words)
    ends = list(itertools.accumulate(len(word) + 1 for word in words))
    spans = tuple((end - 1 - len(word), end - 1) for word, end in zip(words, ends, strict=True))
  return PlainSentence(words, ("",) * len(words), text, spans)


def outputs(
  scores: np.ndarray,
  arrays: Arrays,
  examples: Sequence[TaggedSentence],
  labels: Labels,
  limits: Limits,
) -> list[TaggedWords]:
  """Returns the words of each sentence with their tags; arguments as `decode`."""
  tagged = zip(examples, decode(scores, arrays, examples, labels, limits), strict=True)
  plain = [
    (s if isinstance(s, PlainSentence) else plain_sentence(s.words), tags) for s, tags in tagged
  ]
  return [TaggedWords(s.text, s.words, s.spans, tuple(tags)) for s, tags in plain]


def as_conll(tagged: TaggedWords) -> str:
  """Returns a line `word<TAB>tag` per word and a blank line; white space in a word is one space."""
  pairs = zip(tagged.words, tagged.tags, strict=True)
  return "".join(f"{' '.join(word.split())}\t{tag}\n" for word, tag in pairs) + "\n"


def majority(training: Sequence[TaggedSentence], examples: Sequence[TaggedSentence]) -> Tags:
  """Returns the most frequent tag of the training data for every word."""
  tags = collections.Counter(tag for sentence in training for tag in sentence.tags)
  return [[tags.most_common(1)[0][0]] * len(sentence.tags) for sentence in examples]


def as_text(predicted: Tags) -> str:
  """Returns one tag per line and a blank line after each sentence."""
  return "".join("".join(f"{tag}\n" for tag in tags) + "\n" for tags in predicted)


def gold_tags(examples: Sequence[TaggedSentence]) -> list[tuple[str, ...]]:
  """Returns the tags of each sentence."""
  return [sentence.tags for sentence in examples]


def _split(pieces: list[list[int]], room: int) -> list[tuple[int, int]]:
  """Returns (first, last) ranges of words, each as long as fits."""
  parts, first, used = [], 0, 0
  for word, ids in enumerate(pieces):
    if used + len(ids) > room:
      parts.append((first, word))
      first, used = word, 0
    used += len(ids)
  return [*parts, (first, len(pieces))]
