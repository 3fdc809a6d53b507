"""Scores of the four tasks, plain: the numbers of seqeval, XTREME and the SQuAD v1.1 script.

Tagging and NLI scores are fractions, question answering scores are per cent, as in those tools.
"""

import collections
import itertools
import re
import string


def entity_scores(gold, predicted, strict=False):
  """Returns micro-averaged entity precision, recall and F1 (fractions; 0 where undefined).

  Args:
    gold: list of sentences, each a list of tags.
    predicted: the same for the predictions; same lengths.
    strict: False reads ill-formed tags as conlleval does (an I- that cannot go on starts an
      entity), the number of the literature; True is strict IOB2 (only B- starts an entity).

  Raises:
    ValueError: the lengths differ.

  Reference: seqeval's default mode, and its mode='strict' with scheme=IOB2.
  """
  return micro_average(chunk_counts(gold, predicted, strict))


def chunk_counts(gold, predicted, strict=False):
  """Returns [[correct, predicted, gold]] chunks, a row a sentence; see `entity_scores`.

  A chunk counts in the sentence of its last tag: the lenient scorer starts some in an earlier one.
  """
  _check_lengths(gold, predicted)
  find = _strict_chunks if strict else _lenient_chunks
  gold_chunks, predicted_chunks = set(find(_joined(gold))), set(find(_joined(predicted)))
  sentence_of = [index for index, tags in enumerate(gold) for _ in (*tags, "O")]
  rows = [[0, 0, 0] for _ in gold]
  found = gold_chunks & predicted_chunks, predicted_chunks, gold_chunks
  for column, chunks in enumerate(found):
    for _, _, last in chunks:
      rows[sentence_of[last]][column] += 1
  return rows


def micro_average(counts, unit=1):
  """Returns precision, recall and F1 of `chunk_counts`, in parts of `unit` (100: per cent)."""
  correct, predicted, gold = (sum(row[column] for row in counts) for column in range(3))

  def share(part, whole):
    return part / whole if whole else 0.0

  return {
    "precision": share(unit * correct, predicted),
    "recall": share(unit * correct, gold),
    "f1": share(2 * unit * correct, predicted + gold),
  }


def pos_scores(gold, predicted):
  """Returns {'accuracy', 'chunk_f1'} of universal part-of-speech tags, as fractions.

  `chunk_f1` is what XTREME reports as POS F1: seqeval on raw tags, which takes the first letter
  for the scheme and the rest for the type. Equal neighbours merge into one chunk, so one wrong
  tag can cost several chunks.

  Args and errors: as `entity_scores`.
  """
  return {
    "accuracy": tag_accuracy(gold, predicted),
    "chunk_f1": entity_scores(gold, predicted)["f1"],
  }


def tag_accuracy(gold, predicted):
  """Returns the share of right tags over all sentences; errors as `entity_scores`."""
  _check_lengths(gold, predicted)
  return accuracy([*itertools.chain(*gold)], [*itertools.chain(*predicted)])


def qa_scores(references, predictions):
  """Returns {'exact_match', 'f1'} in per cent, the best over the gold answers of each question.

  Args:
    references: {question id: gold answer texts}.
    predictions: {question id: text}; an id without a prediction scores 0.

  Reference: the SQuAD v1.1 script, which XTREME uses for every language of TyDiQA.
  """
  rows = [answer_scores(answers, predictions.get(name)) for name, answers in references.items()]
  total = len(rows) or 1
  return {
    "exact_match": 100 * sum(exact for _, exact in rows) / total,
    "f1": 100 * sum(f1 for f1, _ in rows) / total,
  }


def answer_scores(answers, prediction):
  """Returns (F1, exact match) of a question, both in 0..1: the best over its gold answers.

  Args:
    answers: gold texts.
    prediction: text; None, which scores 0, where there is none.
  """
  if prediction is None:
    return 0.0, 0.0
  exact = max((_normal(prediction) == _normal(answer) for answer in answers), default=False)
  return max((_word_f1(prediction, answer) for answer in answers), default=0.0), float(exact)


def accuracy(gold, predicted):
  """Returns the share of equal labels of two lists of the same length (ValueError otherwise)."""
  right = sum(g == p for g, p in zip(gold, predicted, strict=True))
  return right / len(gold) if gold else 0.0


def _check_lengths(gold, predicted):
  if len(gold) != len(predicted):
    raise ValueError(f"{len(gold)} gold sentences but {len(predicted)} predicted ones")
  for index, (g, p) in enumerate(zip(gold, predicted, strict=True)):
    if len(g) != len(p):
      raise ValueError(f"sentence {index} has {len(g)} gold tags but {len(p)} predicted ones")


def _joined(sentences):
  """One sequence with an O after each sentence, which is what seqeval scores."""
  return [tag for tags in sentences for tag in (*tags, "O")]


def _lenient_chunks(tags):
  """Yields (type, first, last) with conlleval's rules for any scheme letters.

  A chunk that ends is reported from the last position where one started. The two questions are
  asked apart, as in seqeval, which shows on raw part-of-speech tags: of CCONJ SCONJ (equal
  types, S starts) only the second is a chunk, and an X that begins a sentence does not start one
  (its type and that of the O before it are both '_'), so it is reported from an older start.
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


def _strict_chunks(tags):
  """Yields (type, first, last) of every B-X and the I-X that follow it directly."""
  first = None
  for i, tag in enumerate(tags):
    if first is not None and tag != "I-" + tags[first][2:]:
      yield tags[first][2:], first, i - 1
      first = None
    if tag.startswith("B-"):
      first = i


def _normal(text):
  """Lower case, without ASCII punctuation and English articles, single spaces."""
  text = "".join(char for char in text.lower() if char not in string.punctuation)
  return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _word_f1(prediction, answer):
  predicted, gold = _normal(prediction).split(), _normal(answer).split()
  common = sum((collections.Counter(predicted) & collections.Counter(gold)).values())
  if not common:
    return 0.0
  precision, recall = common / len(predicted), common / len(gold)
  return 2 * precision * recall / (precision + recall)
