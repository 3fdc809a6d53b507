"""Examples to fixed-shape arrays for a model, and a model's numbers back to tags and answers.

Sequences have XLM's form: `</s> sentence </s>`, and `</s> first </s> second </s>` for pairs, with
positions that run on. The tokenizer is any object with `encode(text) -> ids` and
`encode_with_offsets(text) -> (ids, [(begin, end)])`, offsets in characters of `text`. Texts are
brought to NFC, the form of the pretraining corpus, but for contexts, whose offsets would move.

Shapes: N rows, T = max_length. Every function returns (arrays, report); arrays always has
`tokens` [N, T] int32 padded with PAD and `lengths` [N] int32.
"""

import unicodedata

import numpy as np

from negint.errors import UserError
from negint.special_tokens import EOS, PAD, UNK
from negint.tasks.files import count

IGNORE = -100  # label of positions without one


def tagging(sentences, tokenizer, labels, max_length):
  """Makes rows for tagging: the label stands on a word's first subword, IGNORE elsewhere.

  A sentence that does not fit is split at word boundaries into several rows, never cut. A word
  whose tokenisation is empty becomes UNK; a word that is longer than a row keeps its first
  pieces (counted).

  Args:
    sentences: list of TaggedSentence.
    tokenizer: see the module.
    labels: tag names; a tag's index is its label.
    max_length: T, the two `</s>` included.

  Returns:
    (arrays, report) with, beyond tokens and lengths, `labels` [N, T] int32, and for
    `tags_from_ids`: `sentence` [N] int32, the row's sentence; `word` [N, T] int32, the word whose
    first subword stands there, -1 elsewhere.
  """
  capacity = _capacity(max_length, 2)
  label_ids = {label: index for index, label in enumerate(labels)}
  cache, report = {}, {}
  rows, label_rows, word_rows, sentence_of = [], [], [], []
  for index, sentence in enumerate(sentences):
    pieces = [_word_pieces(word, tokenizer, capacity, cache, report) for word in sentence.words]
    parts = _split(pieces, capacity)
    count(report, "sentences split over several rows", len(parts) > 1)
    for first, last in parts:
      tokens, row_labels, row_words = [EOS], [IGNORE], [-1]
      for word in range(first, last):
        rest = len(pieces[word]) - 1
        tokens += pieces[word]
        row_labels += [label_ids[sentence.tags[word]]] + [IGNORE] * rest
        row_words += [word] + [-1] * rest
      rows.append(tokens + [EOS])
      label_rows.append(row_labels)
      word_rows.append(row_words)
      sentence_of.append(index)
  arrays = _rows(rows, max_length)
  arrays["labels"] = _padded(label_rows, max_length, IGNORE)
  arrays["sentence"] = np.array(sentence_of, np.int32)
  arrays["word"] = _padded(word_rows, max_length, -1)
  return arrays, report


def tags_from_ids(ids, arrays, labels):
  """Merges predicted label ids [N, T] into tags per sentence, in the order of the sentences.

  Returns:
    A list with a list of tags for every sentence given to `tagging`, one tag a word.
  """
  sentences = [[] for _ in range(int(arrays["sentence"].max(initial=-1)) + 1)]
  # Rows of a sentence follow one another, and words within a row, so appending keeps the order.
  for row, column in zip(*np.nonzero(arrays["word"] >= 0), strict=True):
    sentences[arrays["sentence"][row]].append(labels[ids[row, column]])
  return sentences


def qa_windows(questions, tokenizer, max_length, stride=128, max_question=64):
  """Makes rows `</s> question </s> window </s>` for extractive question answering.

  Windows begin `stride` tokens apart (fewer where a window is shorter) until one reaches the end
  of the context. A row whose window does not hold the whole first answer points at position 0,
  as in XTREME's training.

  Args:
    questions: list of Question.
    tokenizer: see the module.
    max_length: T.
    stride: tokens from the start of one window to the start of the next.
    max_question: tokens of a question that are kept; longer ones are cut (counted).

  Returns:
    (arrays, report) with, beyond tokens and lengths, `starts` and `ends` [N] int32, positions of
    the answer's first and last token, and for `answers_from_logits`: `question` [N] int32, the
    row's question; `begin` and `end` [N, T] int32, character offsets into the context, -1
    outside the window.
  """
  if stride < 1:
    raise UserError(f"stride={stride} must be at least 1 token, and is best below max_length.")
  _capacity(max_length, 3 + max_question)
  report = {}
  rows, spans, question_of, begins, ends = [], [], [], [], []
  for index, question in enumerate(questions):
    asked = _encode(question.question, tokenizer)
    count(report, "questions cut", len(asked) > max_question)
    head = [EOS, *asked[:max_question], EOS]
    ids, offsets = tokenizer.encode_with_offsets(question.context)
    answer = _token_span(offsets, question.answers[0]) if question.answers else None
    held = 0
    for first, last in _windows(len(ids), max_length - len(head) - 1, stride):
      inside = answer is not None and first <= answer[0] and answer[1] < last
      shift = len(head) - first
      rows.append([*head, *ids[first:last], EOS])
      spans.append((answer[0] + shift, answer[1] + shift) if inside else (0, 0))
      begins.append([-1] * len(head) + [begin for begin, _ in offsets[first:last]])
      ends.append([-1] * len(head) + [end for _, end in offsets[first:last]])
      question_of.append(index)
      held += inside
    count(report, "questions whose answer fits no window", question.answers != () and not held)
  arrays = _rows(rows, max_length)
  span_array = np.array(spans, np.int32).reshape(-1, 2)
  arrays["starts"], arrays["ends"] = span_array[:, 0], span_array[:, 1]
  arrays["question"] = np.array(question_of, np.int32)
  arrays["begin"] = _padded(begins, max_length, -1)
  arrays["end"] = _padded(ends, max_length, -1)
  return arrays, report


def answers_from_logits(start_logits, end_logits, arrays, questions, max_answer=30):
  """Returns {question id: text}, cut from the context at the best span over all its windows.

  The best span maximises start + end logit among those inside the window of at most `max_answer`
  tokens; all are searched, not only the n best starts and ends.

  Args:
    start_logits, end_logits: [N, T] float.
    arrays: what `qa_windows` returned for `questions`.
    questions: the same list.
    max_answer: longest answer in tokens.
  """
  inside = arrays["begin"] >= 0
  starts = np.where(inside, np.asarray(start_logits, np.float32), -np.inf)
  ends = np.where(inside, np.asarray(end_logits, np.float32), -np.inf)
  rows, length = starts.shape
  best = np.full(rows, -np.inf, np.float32)
  first, last = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
  for extra in range(min(max_answer, length)):
    scores = starts[:, : length - extra] + ends[:, extra:]
    column = scores.argmax(axis=1)
    score = scores[np.arange(rows), column]
    better = score > best
    best = np.where(better, score, best)
    first, last = np.where(better, column, first), np.where(better, column + extra, last)
  answers, top = {question.id: "" for question in questions}, {}
  for row in np.flatnonzero(best > -np.inf):
    index = arrays["question"][row]
    if best[row] > top.get(index, -np.inf):
      top[index] = best[row]
      begin, end = arrays["begin"][row, first[row]], arrays["end"][row, last[row]]
      answers[questions[index].id] = questions[index].context[begin:end].strip()
  return answers


def pairs(examples, tokenizer, labels, max_length):
  """Makes rows `</s> premise </s> hypothesis </s>` with `labels` [N] int32.

  A pair that does not fit loses the last token of its longer side until it does (counted).
  """
  budget = _capacity(max_length, 4) + 1  # at least a token for each side
  cache, report, rows = {}, {}, []
  for pair in examples:
    first, second = (
      list(_encode(text, tokenizer, cache)) for text in (pair.premise, pair.hypothesis)
    )
    count(report, "pairs cut", len(first) + len(second) > budget)
    while len(first) + len(second) > budget:
      (first if len(first) > len(second) else second).pop()
    rows.append([EOS, *first, EOS, *second, EOS])
  arrays = _rows(rows, max_length)
  arrays["labels"] = np.array([labels.index(pair.label) for pair in examples], np.int32)
  return arrays, report


def _capacity(max_length, needed):
  if max_length <= needed:
    raise UserError(
      f"max_length={max_length} leaves no room: it must be above {needed}, the separators (and the "
      f"tokens kept of a question)."
    )
  return max_length - needed


def _encode(text, tokenizer, cache=None):
  """Token ids of a text in NFC, as in pretraining, or [UNK]; remembered in `cache` if given."""
  if cache is None:
    return list(tokenizer.encode(unicodedata.normalize("NFC", text))) or [UNK]
  if text not in cache:
    cache[text] = _encode(text, tokenizer)
  return cache[text]


def _word_pieces(word, tokenizer, capacity, cache, report):
  pieces = _encode(word, tokenizer, cache)
  count(report, "words longer than a row cut", len(pieces) > capacity)
  return pieces[:capacity]


def _split(pieces, capacity):
  """Returns [(first, last)] word ranges, each as long as fits."""
  parts, first, used = [], 0, 0
  for word, ids in enumerate(pieces):
    if used + len(ids) > capacity:
      parts.append((first, word))
      first, used = word, 0
    used += len(ids)
  return [*parts, (first, len(pieces))]


def _windows(length, width, stride):
  """Returns [(first, last)] token ranges that together cover range(length)."""
  starts = range(0, max(length - width, 0) + min(stride, width), min(stride, width))
  return [(start, min(start + width, length)) for start in starts]


def _token_span(offsets, answer):
  """Returns (first, last) tokens that overlap the answer, or None."""
  text, begin = answer
  end = begin + len(text)
  hits = [i for i, (b, e) in enumerate(offsets) if b < e and b < end and e > begin]
  return (hits[0], hits[-1]) if hits else None


def _padded(rows, length, fill):
  array = np.full((len(rows), length), fill, np.int32)
  for index, row in enumerate(rows):
    array[index, : len(row)] = row
  return array


def _rows(rows, max_length):
  lengths = np.array([len(row) for row in rows], np.int32)
  return {"tokens": _padded(rows, max_length, PAD), "lengths": lengths}
