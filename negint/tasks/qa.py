"""Extractive question answering: readers for SQuAD v1.1 JSON and TyDiQA-GoldP in TFDS.

Every answer that leaves here stands in its context at its offset.
"""

import json
import re

from negint.errors import UserError
from negint.tasks import files, tfds_source
from negint.tasks.examples import Question

# TyDiQA's question ids begin with the language's English name.
_TYDI_NAMES = {
  "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian",
  "ko": "korean", "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip


def align(text, start, context):
  """Returns (text, offset) of the occurrence of an answer that is nearest to `start`, or None.

  Where the text does not occur as it is, white space at its ends is given up and any white space
  between its words is accepted; the text returned is then the context's.
  """
  if start >= 0 and text.strip() and context.startswith(text, start):
    return text, start
  words = text.split()
  if not words:
    return None
  for pattern in (re.escape(text), r"\s+".join(map(re.escape, words))):
    # The lookahead finds overlapping occurrences too.
    found = [match.span(1) for match in re.finditer(f"(?=({pattern}))", context)]
    if found:
      begin, end = min(found, key=lambda span: abs(span[0] - start))
      return context[begin:end], begin
  return None


def read_file(path):
  """Reads SQuAD v1.1 JSON: data[].paragraphs[].{context, qas[].{id, question, answers[]}}.

  An answer that is not at its offset is realigned to its nearest occurrence, or dropped; a
  question that keeps no answer is dropped; both are counted. Entries with one id and the same
  text, into which XTREME's files flatten several answers, become one question.

  Returns:
    (list of Question, report).

  Raises:
    UserError: not UTF-8, not JSON, a key is missing or of another kind, or two questions share
      an id; the message names the file and the line or the JSON path.
  """
  try:
    root = json.loads(files.read_text(path))
  except json.JSONDecodeError as error:
    raise UserError(
      f"{files.where(path, error.lineno)}: not JSON: {error.msg} at column {error.colno}. The file "
      f"must hold one JSON object in the layout of SQuAD v1.1."
    ) from None
  report, raw = {}, {}
  for entry, position in _entries(root, path):
    same = raw.setdefault(entry[0], (*entry[:3], []))
    if same[:3] != entry[:3]:
      raise UserError(
        f"{path}: {position}.id: '{entry[0]}' is also the id of another question. Ids must be "
        f"unique, since predictions are keyed by them."
      )
    same[3].extend(entry[3])
  return _aligned(raw.values(), report), report


def read_tfds(builder, split, language, data_dir=None):
  """Reads `tydi_qa/goldp`, or a builder with SQuAD's features; otherwise as `read_file`.

  Questions of other languages are left out by the prefix of TyDiQA's ids ('arabic-...').
  """
  report, raw = {}, []
  needs = ("id", "context", "question", "answers")
  rows, _ = tfds_source.open_split(builder, split, data_dir, needs)
  for row in rows:
    identifier, context, question = (tfds_source.text(row[key]) for key in needs[:3])
    name = identifier.split("-")[0]
    if name in _TYDI_NAMES.values() and name != _TYDI_NAMES.get(language):
      continue
    texts = map(tfds_source.text, row["answers"]["text"])
    answers = zip(texts, map(int, row["answers"]["answer_start"]), strict=True)
    raw.append((identifier, context, question, list(answers)))
  return _aligned(raw, report), report


def _entries(root, path):
  """Yields ((id, context, question, [(text, offset)]), JSON path) of every question."""
  for article, at_article in _items(root, "data", "", path):
    for paragraph, at_paragraph in _items(article, "paragraphs", at_article, path):
      context = _value(paragraph, "context", str, at_paragraph, path)
      for entry, position in _items(paragraph, "qas", at_paragraph, path):
        identifier = str(_value(entry, "id", (str, int), position, path))
        question = _value(entry, "question", str, position, path)
        answers = [
          (_value(answer, "text", str, at, path), _value(answer, "answer_start", int, at, path))
          for answer, at in _items(entry, "answers", position, path)
        ]
        yield (identifier, context, question, answers), position


def _items(parent, key, position, path):
  values = _value(parent, key, list, position, path)
  start = f"{position}.{key}" if position else key
  return [(value, f"{start}[{index}]") for index, value in enumerate(values)]


def _value(parent, key, kind, position, path):
  value = parent.get(key) if isinstance(parent, dict) else None
  if not isinstance(value, kind) or isinstance(value, bool):
    name = {str: "a string", int: "a whole number", list: "a list"}.get(kind, "a string or number")
    place = f"{position}.{key}" if position else key
    raise UserError(
      f"{path}: {place} is missing or is not {name}. The file must have the layout of SQuAD v1.1: "
      f"data[].paragraphs[] with context and qas[], each with id, question and answers[] of text "
      f"and answer_start."
    )
  return value


def _aligned(raw, report):
  questions = []
  for identifier, context, question, answers in raw:
    kept = []
    for text, start in answers:
      answer = align(text, start, context)
      if answer is None:
        files.count(report, "answers not in their context dropped")
        continue
      files.count(report, "answers realigned", answer != (text, start))
      kept.append(answer)
    if kept:
      questions.append(Question(identifier, context, question, tuple(kept)))
    else:
      files.count(report, "questions without an answer dropped")
  return questions
