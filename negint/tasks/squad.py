"""Readers of questions: JSON in SQuAD's and in Hugging Face's layout, and TyDiQA-GoldP in TFDS."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from negint.errors import UserError
from negint.tasks import tfds_source
from negint.tasks.examples import NOWHERE, Question, Report, count
from negint.tasks.json_files import read_values
from negint.tasks.task import PLAIN, Path, Reading

# TyDiQA's question ids begin with the language's English name.
_TYDI_NAMES = {
  "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian",
  "ko": "korean", "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip
# What offsets may count beside characters: (name, encoding, bytes of a unit).
_UNITS = (("UTF-16 units", "utf-16-le", 2), ("UTF-8 bytes", "utf-8", 1))
_NEARLY_ALL = 0.95  # share of the answers that must stand at their offset for a unit to be that

_Unit = tuple[str, str, int]
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


def files(language: str, split: str) -> tuple[str, ...]:
  """Returns where TyDiQA and XTREME's scripts put a split, without its ending."""
  folder = f"tydiqa-goldp-v1.1-{split}"
  name = _TYDI_NAMES.get(language, language)
  return (
    f"{folder}/tydiqa.goldp.{language}.{split}",
    f"{folder}/tydiqa-goldp-{split}-{name}",
    f"{folder}/{folder}",
    folder,
  )


def read_file(path: Path, reading: Reading = PLAIN) -> tuple[list[Question], Report]:
  """Returns the questions of a JSON file or a table, and a report.

  The layout is that of SQuAD 1.1 and 2.0, data[].paragraphs[].{context, qas[].{id, question,
  answers[]}}, or that of the package datasets: an array or lines of {id, context, question,
  answers}. An answer that is not at its offset moves to its nearest occurrence; the offsets of the
  whole file may count UTF-16 units or UTF-8 bytes. An answer that its context does not have is kept
  for the score. A question without a gold text is left out. Entries with the same id and text, into
  which XTREME's files flatten several answers, become one question.

  Args:
    path: the file.
    reading: of a TyDiQA file with several languages, only the questions in `language` are kept.

  Raises:
    UserError: not text, not JSON, a key is missing or of another kind, two questions share an id,
      or no question has an answer; the message names the file and the line or the JSON path.
  """
  report: Report = {}
  raw: dict[str, _Raw] = {}
  for value, position in read_values(path, report):
    for entry, place in _entries(value, position, path, reading.labelled):
      same = raw.setdefault(entry[0], (*entry[:3], []))
      if same[:3] != entry[:3]:
        raise UserError(
          f"{path}: {_join(place, 'id')}: '{entry[0]}' is also the id of another question. Ids must "
          f"be unique, because predictions are named by them."
        )
      same[3].extend(entry[3])
  entries = list(raw.values())
  languages = {_tydi_name(identifier) for identifier, *_ in entries}
  if None not in languages and len(languages) > 1:
    kept = [entry for entry in entries if _tydi_name(entry[0]) == _TYDI_NAMES.get(reading.language)]
    count(report, "questions in other languages left out", len(entries) - len(kept))
    entries = kept
  if not reading.labelled:
    return [Question(*entry[:3], ()) for entry in entries], report
  return _questions(entries, path, report), report


def read_tfds(
  builder: str, split: str, language: str, data_dir: str | None
) -> tuple[list[Question], Report]:
  """Returns the questions of `tydi_qa/goldp` or another builder with SQuAD's features, and a report.

  TyDiQA's ids begin with the language ('arabic-...'); questions of other languages are left out.

  Raises:
    UserError: as `tfds_source.open_split`, or no question has an answer.
  """
  report: Report = {}
  raw: list[_Raw] = []
  needs = ("id", "context", "question", "answers")
  rows, _ = tfds_source.open_split(builder, split, data_dir, needs)
  for row in rows:
    identifier, context, question = (tfds_source.text(row[key]) for key in needs[:3])
    if _tydi_name(identifier) not in (None, _TYDI_NAMES.get(language)):
      continue
    texts = map(tfds_source.text, row["answers"]["text"])
    answers = zip(texts, map(int, row["answers"]["answer_start"]), strict=True)
    raw.append((identifier, context, question, list(answers)))
  return _questions(raw, f"the TFDS builder '{builder}'", report), report


def for_training(questions: list[Question], report: Report) -> list[Question]:
  """Returns the questions that can be learned from, each with the answers that its context has."""
  kept = []
  for question in questions:
    answers = tuple(answer for answer in question.answers if answer[1] != NOWHERE)
    if answers:
      kept.append(Question(question.id, question.context, question.question, answers))
  left_out = len(questions) - len(kept)
  count(report, "questions without an answer in their context left out of training", left_out)
  return kept


def _entries(
  value: Any,  # of JSON
  position: str,
  path: Path,
  labelled: bool,
) -> Iterator[tuple[_Raw, str]]:
  """Yields ((id, context, question, [(text, offset)]), JSON path) of every question in a value."""
  for list_of in ("data", "paragraphs"):
    if isinstance(value, dict) and list_of in value:
      for part, place in _items(value, list_of, position, path):
        yield from _entries(part, place, path, labelled)
      return
  if isinstance(value, dict) and "qas" in value:
    context = _value(value, "context", str, position, path)
    for entry, place in _items(value, "qas", position, path):
      identifier = str(_value(entry, "id", (str, int), place, path))
      yield _entry(identifier, context, entry, place, path, labelled), place
  elif isinstance(value, dict) and "context" in value:
    context = _value(value, "context", str, position, path)
    identifier = str(value.get("id", position))
    yield _entry(identifier, context, value, position, path, labelled), position
  elif not (isinstance(value, dict) and list(value) == ["header"]):  # MRQA's first line
    _value(value, "paragraphs" if position.startswith("data") else "data", list, position, path)


def _entry(
  identifier: str,
  context: str,
  entry: Any,  # of JSON
  position: str,
  path: Path,
  labelled: bool,
) -> _Raw:
  """Returns a question with its answers as they stand in the file; none if they are not read."""
  question = _value(entry, "question", str, position, path)
  if not labelled:
    return identifier, context, question, []
  if isinstance(entry, dict) and isinstance(entry.get("answers"), dict):  # parallel lists
    lists, place = entry["answers"], _join(position, "answers")
    texts, starts = (_value(lists, key, list, place, path) for key in ("text", "answer_start"))
    if len(texts) != len(starts):
      raise UserError(f"{path}: {place} has {len(texts)} text but {len(starts)} answer_start.")
    pairs = [{"text": text, "answer_start": at} for text, at in zip(texts, starts, strict=True)]
    entry = {"answers": pairs}
  answers = [
    (_value(answer, "text", str, at, path), _value(answer, "answer_start", int, at, path))
    for answer, at in _items(entry, "answers", position, path)
  ]
  return identifier, context, question, answers


def _items(parent: Any, key: str, position: str, path: Path) -> list[tuple[Any, str]]:
  """Returns the values of a list in JSON, each with its JSON path."""
  values = _value(parent, key, list, position, path)
  return [(value, f"{_join(position, key)}[{index}]") for index, value in enumerate(values)]


def _value(parent: Any, key: str, kind: Any, position: str, path: Path) -> Any:
  """Returns the value of a key in JSON; UserError unless it is of the kind (a type, or several)."""
  value = parent.get(key) if isinstance(parent, dict) else None
  if not isinstance(value, kind) or isinstance(value, bool):
    name = {str: "a string", int: "a whole number", list: "a list"}.get(kind, "a string or number")
    raise UserError(
      f"{path}: {_join(position, key)} is missing or is not {name}. The file must have the layout "
      f"of SQuAD: data[].paragraphs[] with context and qas[], each with id, question and answers[] "
      f"of text and answer_start; or be a list of objects with context, question and answers."
    )
  return value


def _join(position: str, key: str) -> str:
  """Returns the JSON path of a key."""
  if not position:
    return key
  return f"{position}: {key}" if re.fullmatch(r"line \d+", position) else f"{position}.{key}"


def _tydi_name(identifier: str) -> str | None:
  """Returns the language's name with which an id of TyDiQA begins, or None."""
  name = identifier.split("-")[0]
  return name if name in _TYDI_NAMES.values() else None


def _questions(raw: Iterable[_Raw], source: object, report: Report) -> list[Question]:
  """Returns the questions that have a gold text, with the places of their answers.

  Raises:
    UserError: there are questions, but none has one.
  """
  kept: list[_Raw] = []
  without = 0
  for identifier, context, question, answers in raw:
    answers = [(text, start) for text, start in answers if text.strip()]
    without += not answers
    if answers:
      kept.append((identifier, context, question, answers))
  if without and not kept:
    raise UserError(
      f"{source}: the answers of all {without} questions are empty, so there is nothing to learn or "
      "to score. XTREME's scripts empty the answers of their test files. Put the original files "
      "there, such as those of tydiqa-goldp-v1.1-dev.tgz."
    )
  count(report, "questions without a gold answer left out", without)
  unit = _unit_of_offsets(kept)
  questions = []
  for identifier, context, question, answers in kept:
    placed = []
    for text, start in answers:
      if unit:
        count(report, f"answer offsets read as {unit[0]}")
        start = _in_characters(start, context, unit)
      answer = align(text, start, context)
      count(report, "answers realigned", answer not in (None, (text, start)))
      count(report, "answers not in their context", answer is None)
      placed.append(answer or (text, NOWHERE))
    questions.append(Question(identifier, context, question, tuple(placed)))
  return questions


def _unit_of_offsets(raw: Iterable[_Raw]) -> _Unit | None:
  """Returns what the offsets of a file count, or None for characters.

  Only answers whose offset differs between the units can tell: nearly all of them must stand at the
  offset in the other unit, and more than in characters.
  """
  answers = [
    (text, start, context) for _, context, _, some in raw for text, start in some if text in context
  ]
  for unit in _UNITS:
    telling = hits = character_hits = 0
    for text, start, context in answers:
      place = _in_characters(start, context, unit)
      if place != start:
        telling += 1
        hits += context.startswith(text, place)
        character_hits += context.startswith(text, max(start, 0))
    if hits > character_hits and hits >= _NEARLY_ALL * telling:
      return unit
  return None


def _in_characters(start: int, context: str, unit: _Unit) -> int:
  """Returns an offset that counts units as one that counts characters."""
  if start <= 0 or context.isascii():
    return start
  _, encoding, size = unit
  return len(context.encode(encoding)[: start * size].decode(encoding, "ignore"))
