"""Readers of questions: SQuAD v1.1 JSON, and TyDiQA-GoldP in TFDS.

All answers of the questions they return stand in the context at their offset.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from negint.errors import UserError
from negint.tasks import tfds_source
from negint.tasks.examples import Question, Report, count
from negint.tasks.task import Labels, Path
from negint.tasks.text_files import read_text, where

# TyDiQA's question ids begin with the language's English name.
_TYDI_NAMES = {
  "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian",
  "ko": "korean", "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip

_Raw = tuple[str, str, str, list[tuple[str, int]]]  # id, context, question, answers as read


def align(text: str, start: int, context: str) -> tuple[str, int] | None:
  """Returns (text, offset) of the occurrence of an answer that is nearest to `start`, or None.

  A text that does not occur as it is may differ from the context in its white space. The text
  returned is the context's.
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


def read_file(path: Path, labels: Labels = ()) -> tuple[list[Question], Report]:
  """Returns the questions of a SQuAD v1.1 JSON file, and a report.

  The layout is data[].paragraphs[].{context, qas[].{id, question, answers[]}}. An answer that is not
  at its offset moves to its nearest occurrence, or is dropped. A question that keeps no answer is
  dropped. Entries with the same id and text, into which XTREME's files flatten several answers,
  become one question.

  Args:
    path: the file.
    labels: not used; questions have none.

  Raises:
    UserError: not UTF-8, not JSON, a key is missing or of another kind, or two questions share
      an id; the message names the file and the line or the JSON path.
  """
  del labels
  try:
    root = json.loads(read_text(path))
  except json.JSONDecodeError as error:
    raise UserError(
      f"{where(path, error.lineno)}: not JSON: {error.msg} at column {error.colno}. The file "
      f"must hold one JSON object in the layout of SQuAD v1.1."
    ) from None
  report: Report = {}
  raw: dict[str, _Raw] = {}
  for entry, position in _entries(root, path):
    same = raw.setdefault(entry[0], (*entry[:3], []))
    if same[:3] != entry[:3]:
      raise UserError(
        f"{path}: {position}.id: '{entry[0]}' is also the id of another question. Ids must be "
        f"unique, because predictions are named by them."
      )
    same[3].extend(entry[3])
  return _aligned(raw.values(), report), report


def read_tfds(
  builder: str, split: str, language: str, data_dir: str | None, labels: Labels
) -> tuple[list[Question], Report]:
  """Returns the questions of `tydi_qa/goldp` or another builder with SQuAD's features, and a report.

  TyDiQA's ids begin with the language ('arabic-...'); questions of other languages are left out.

  Raises:
    UserError: as `tfds_source.open_split`.
  """
  del labels
  report: Report = {}
  raw: list[_Raw] = []
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


def _entries(root: Any, path: Path) -> Iterator[tuple[_Raw, str]]:  # Any: of JSON
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


def _items(parent: Any, key: str, position: str, path: Path) -> list[tuple[Any, str]]:
  """Returns the values of a list in JSON, each with its JSON path."""
  values = _value(parent, key, list, position, path)
  start = f"{position}.{key}" if position else key
  return [(value, f"{start}[{index}]") for index, value in enumerate(values)]


def _value(parent: Any, key: str, kind: Any, position: str, path: Path) -> Any:
  """Returns the value of a key in JSON; UserError unless it is of the kind (a type, or several)."""
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


def _aligned(raw: Iterable[_Raw], report: Report) -> list[Question]:
  """Returns the questions with the answers that their contexts have."""
  questions = []
  for identifier, context, question, answers in raw:
    kept = []
    for text, start in answers:
      answer = align(text, start, context)
      if answer is None:
        count(report, "answers not in their context dropped")
        continue
      count(report, "answers realigned", answer != (text, start))
      kept.append(answer)
    if kept:
      questions.append(Question(identifier, context, question, tuple(kept)))
    else:
      count(report, "questions without an answer dropped")
  return questions
