"""Extractive question answering: the answer is a span of the context.

A context longer than a row is read in windows that overlap. The head gives each position a score as
the start and a score as the end of the answer.
"""

import collections
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from negint.errors import UserError
from negint.tasks import lab_examples, scoring, squad
from negint.tasks.examples import NOWHERE, Question, Report, count
from negint.tasks.features import (
  Arrays,
  Tokenizer,
  capacity,
  encode,
  encode_with_offsets,
  padded,
  token_arrays,
)
from negint.tasks.json_files import ENDINGS
from negint.tasks.outputs import Answer
from negint.tasks.pairs import two_texts
from negint.tasks.task import Batch, Labels, Limits, Rows, Task

LABELS = ("start", "end")  # what the two outputs of the head score


def features(
  questions: Sequence[Question], tokenizer: Tokenizer, labels: Labels, limits: Limits
) -> tuple[Arrays, Report]:
  """Returns rows of a question and a window of its context, and what was cut.

  Windows begin `limits.stride` tokens apart (fewer where a window is shorter) until one reaches the
  end of the context. A row whose window does not hold the whole first answer that is in the context
  points at position 0, as in XTREME's training. A question longer than `limits.max_question` is cut (counted).

  Returns:
    (arrays, report) with, beyond tokens and lengths, `starts` and `ends` [N] int32, positions of
    the answer's first and last token; `question` [N] int32, the row's question; `begin` and `end`
    [N, T] int32, each token's character offsets in the context, -1 outside the window.

  Raises:
    UserError: the limits leave no room.
  """
  del labels
  if limits.stride < 1:
    raise UserError(
      f"data.stride is {limits.stride}; it must be at least 1 token, and is best below max_length."
    )
  special = tokenizer.special
  around = len(special.begin) + len(special.between) + len(special.end)
  capacity(limits.max_length, around + limits.max_question)
  report: Report = {}
  rows, heads, spans, question_of, begins, ends = [], [], [], [], [], []
  # The questions of one context mostly stand together.
  tokens_of = functools.lru_cache(1)(lambda text: encode_with_offsets(text, tokenizer))
  for index, question in enumerate(questions):
    asked = encode(question.question, tokenizer)
    count(report, "questions cut", len(asked) > limits.max_question)
    head = [*special.begin, *asked[: limits.max_question], *special.between]
    ids, offsets = tokens_of(question.context)
    places = [answer for answer in question.answers if answer[1] != NOWHERE]
    answer = _token_span(offsets, places[0]) if places else None
    held = 0
    for first, last in _windows(
      len(ids), limits.max_length - len(head) - len(special.end), limits.stride
    ):
      span = (0, 0)
      if answer is not None and first <= answer[0] and answer[1] < last:
        shift = len(head) - first
        span = (answer[0] + shift, answer[1] + shift)
        held += 1
      rows.append([*head, *ids[first:last], *special.end])
      heads.append(len(head))
      spans.append(span)
      begins.append([-1] * len(head) + [begin for begin, _ in offsets[first:last]])
      ends.append([-1] * len(head) + [end for _, end in offsets[first:last]])
      question_of.append(index)
    count(report, "questions whose answer fits no window", places != [] and not held)
  arrays = token_arrays(rows, limits.max_length, special, heads)
  span_array = np.array(spans, np.int32).reshape(-1, 2)
  arrays["starts"], arrays["ends"] = span_array[:, 0], span_array[:, 1]
  arrays["question"] = np.array(question_of, np.int32)
  arrays["begin"] = padded(begins, limits.max_length, -1)
  arrays["end"] = padded(ends, limits.max_length, -1)
  return arrays, report


def loss(scores: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Returns the mean cross-entropy of an answer's start and end: (sum in nats, number of rows).

  Args:
    scores: [B, T, 2]; those of the padding do not count.
    batch: `starts`, `ends` and `lengths` [B].
  """
  valid_BxT = jnp.arange(scores.shape[1])[None] < batch["lengths"][:, None]
  scores = jnp.where(valid_BxT[..., None], scores, jnp.finfo(scores.dtype).min)
  there_B = (batch["lengths"] > 0).astype(jnp.float32)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  both_B = cross_entropy(scores[..., 0], batch["starts"])
  both_B += cross_entropy(scores[..., 1], batch["ends"])
  return jnp.sum(both_B * there_B) / 2, jnp.sum(there_B)


def decode(
  scores: np.ndarray,
  arrays: Arrays,
  questions: Sequence[Question],
  labels: Labels,
  limits: Limits,
) -> dict[str, str]:
  """Returns {question id: text}, cut from the context at the best span of all its windows.

  The best span has the largest sum of start and end score among those inside the window of at most
  `limits.max_answer` tokens. All spans are compared, not only those of the n best starts and ends.

  Args:
    scores: [N, T, 2] float, of starts and ends.
    arrays: what `features` returned for the questions.
    questions: the same list.
    labels: not used.
    limits: the longest answer.
  """
  found = outputs(scores, arrays, questions, labels, limits)
  return {question.id: answer.answer for question, answer in zip(questions, found, strict=True)}


# Any: whatever a user gives.
def given(value: Any, place: str) -> Question:
  """Returns a question without answers.

  Args:
    value: (question, context), or an object of JSON with `question` and `context`, and perhaps `id`.
    place: of the value, for messages.

  Raises:
    UserError: it is neither, or one of the two is empty.
  """
  asked, context = two_texts(value, (("question",), ("context",)), place)
  own_id = value.get("id", "") if isinstance(value, Mapping) else ""
  return Question(str(own_id), context, asked, ())


def outputs(
  scores: np.ndarray,
  arrays: Arrays,
  questions: Sequence[Question],
  labels: Labels,
  limits: Limits,
) -> list[Answer]:
  """Returns the best span of all windows of each question; arguments as `decode`."""
  del labels
  inside = arrays["begin"] >= 0
  first, last, best = _best_spans(scores, inside, limits.max_answer)
  top: dict[int, int] = {}  # question -> its row with the best span
  for row in map(int, np.flatnonzero(best > -np.inf)):
    index = int(arrays["question"][row])
    if index not in top or best[row] > best[top[index]]:
      top[index] = row
  # The logarithm of the sum over the start and over the end at all places of the context.
  whole = np.full((len(questions), 2), -np.inf)
  for row, index in enumerate(map(int, arrays["question"])):
    both = scores[row, inside[row]].astype(np.float64)
    if len(both):
      whole[index] = np.logaddexp(whole[index], np.logaddexp.reduce(both, axis=0))
  answers = []
  for index, question in enumerate(questions):
    if index not in top:
      answers.append(Answer(question.question, "", 0, 0, 0.0, question.id))
      continue
    row = top[index]
    begin = int(arrays["begin"][row, first[row]])
    text = question.context[begin : int(arrays["end"][row, last[row]])]
    begin += len(text) - len(text.lstrip())
    text = text.strip()
    score = float(np.exp(min(best[row] - whole[index].sum(), 0.0)))
    end = begin + len(text)
    answers.append(Answer(question.question, text, begin, end, score, question.id))
  return answers


def per_example(questions: Sequence[Question], predicted: Mapping[str, str]) -> Rows:
  """Returns (F1, exact match) of each question, in 0..1; a question without an answer has 0."""
  return [
    list(scoring.answer_scores([text for text, _ in q.answers], predicted.get(q.id)))
    for q in questions
  ]


def scores(rows: Rows) -> dict[str, float]:
  """Returns the mean F1 and exact match of all questions in per cent."""
  f1, exact_match = scoring.means(rows)
  return {"f1": f1, "exact_match": exact_match}


def majority(training: Sequence[Question], questions: Sequence[Question]) -> dict[str, str]:
  """Returns the most frequent answer of the training data for each question."""
  answers = collections.Counter(q.answers[0][0] for q in training if q.answers)
  return {q.id: answers.most_common(1)[0][0] for q in questions}


def as_text(predicted: Mapping[str, str]) -> str:
  """Returns a JSON object {question id: text}."""
  return json.dumps(predicted, ensure_ascii=False, indent=1) + "\n"


def _windows(length: int, width: int, stride: int) -> list[tuple[int, int]]:
  """Returns (first, last) ranges of tokens that together cover range(length)."""
  starts = range(0, max(length - width, 0) + min(stride, width), min(stride, width))
  return [(start, min(start + width, length)) for start in starts]


def _token_span(
  offsets: Sequence[tuple[int, int]], answer: tuple[str, int]
) -> tuple[int, int] | None:
  """Returns the first and the last token that overlap the answer, or None."""
  text, begin = answer
  end = begin + len(text)
  hits = [i for i, (b, e) in enumerate(offsets) if b < e and b < end and e > begin]
  return (hits[0], hits[-1]) if hits else None


def _best_spans(
  scores: np.ndarray, inside: np.ndarray, max_answer: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the first and last position of each row's best span, and its score; all [N].

  Args:
    scores: [N, T, 2] float, of starts and ends.
    inside: [N, T] bool, where a span may start and end.
    max_answer: the longest span in tokens.
  """
  starts = np.where(inside, np.asarray(scores[..., 0], np.float32), -np.inf)
  ends = np.where(inside, np.asarray(scores[..., 1], np.float32), -np.inf)
  rows, length = starts.shape
  best = np.full(rows, -np.inf, np.float32)
  first, last = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
  for extra in range(min(max_answer, length)):
    sums = starts[:, : length - extra] + ends[:, extra:]
    column = sums.argmax(axis=1)
    score = sums[np.arange(rows), column]
    better = score > best
    best = np.where(better, score, best)
    first, last = np.where(better, column, first), np.where(better, column + extra, last)
  return first, last, best


QA = Task(
  name="qa",
  labels=LABELS,
  main_score="f1",
  columns=("f1", "exact_match"),
  extensions=ENDINGS,
  files=squad.files,
  read_file=squad.read_file,
  read_tfds=squad.read_tfds,
  make_lab=lab_examples.qa,
  for_training=squad.for_training,
  group_of=lambda question: question.context,
  features=features,
  targets=("starts", "ends"),
  first_position=False,
  loss=loss,
  decode=decode,
  given=given,
  outputs=outputs,
  per_example=per_example,
  scores=scores,
  majority=majority,
  xtreme_name="tydiqa",
  prediction_extension="json",
  as_text=as_text,
)
