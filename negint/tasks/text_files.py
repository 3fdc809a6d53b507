"""Text files of the tasks: UTF-8 lines, two columns, and the position of a mistake."""

import re
from collections.abc import Sequence

from negint.errors import UserError
from negint.tasks.examples import Report, count
from negint.tasks.task import Labels, Path

_PREFIX = re.compile(r"[a-z]+(-[a-z]+)*:")

_Sentences = list[list[tuple[str, str]]]  # per sentence, pairs (word, tag)


def where(path: Path, line: int) -> str:
  """Returns 'path, line 3', as all messages name a position."""
  return f"{path}, line {line}"


def read_text(path: Path) -> str:
  """Returns the text of a UTF-8 file without its byte order mark.

  Raises:
    UserError: the file is missing, empty or not UTF-8 (with the line of the first bad byte).
  """
  try:
    with open(path, "rb") as file:
      data = file.read()
  except OSError as error:
    raise UserError(
      f"Cannot read {path}: {error.strerror}. Check the path and its rights."
    ) from None
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    # error.object is what was decoded, without the byte order mark that error.start leaves out.
    line = error.object[: error.start].count(b"\n") + 1
    byte = error.object[error.start]
    raise UserError(
      f"{where(path, line)}: byte 0x{byte:02x} is not UTF-8. Task files must be UTF-8; convert "
      f"this one, for example with 'iconv -f <its encoding> -t UTF-8'."
    ) from None
  if not text.strip():
    raise UserError(
      f"{path} is empty: a task file needs at least one example. Remove or refill it."
    )
  return text


def read_lines(path: Path) -> list[str]:
  """Returns the lines of a UTF-8 file; only LF and CR LF end a line.

  `str.splitlines` also breaks at U+2028, U+0085 and others, which real tokens contain.
  """
  lines = read_text(path).split("\n")
  return [line[:-1] if line.endswith("\r") else line for line in lines]


def read_columns(path: Path, labels: Labels, report: Report) -> _Sentences:
  """Returns the sentences of a two-column file, each a list of pairs (word, tag).

  A line is `word<TAB>tag` or `word tag`; a blank line ends a sentence. WikiAnn writes `ar:word`; the
  prefix is removed if all words of the file have the same one. Lines that start with -DOCSTART-
  separate documents and are skipped.

  Args:
    path: the file.
    labels: the legal tags.
    report: counts of repairs, updated in place.

  Raises:
    UserError: a line does not have two columns, or its tag is not in `labels`.
  """
  sentences: _Sentences = []
  sentence: list[tuple[str, str]] = []
  for number, line in enumerate(read_lines(path), start=1):
    if not line.strip(" \t") or line.startswith("-DOCSTART-"):
      if sentence:
        sentences.append(sentence)
      sentence = []
      continue
    word, tag = _two_columns(line, path, number)
    if tag not in labels:
      raise UserError(unknown_tag(path, number, tag, labels))
    sentence.append((word, tag))
  if sentence:
    sentences.append(sentence)
  return _without_empty(_without_prefix(sentences, report), report)


def unknown_tag(path: Path, line: int, tag: str, labels: Labels) -> str:
  """Returns the message for a tag outside the tag set."""
  return (
    f"{where(path, line)}: unknown tag '{tag}'. The tag must be one of {', '.join(labels)}. "
    f"Map the file's tags to these, or check that this is the right task's file."
  )


def _two_columns(line: str, path: Path, number: int) -> Sequence[str]:
  """Returns the word and the tag of a line."""
  # Spaces separate only where there is no tab, so that a tab-separated word may hold a space.
  # Other white space (U+00A0, U+200B) is part of the word.
  fields = line.split("\t") if "\t" in line else line.strip(" ").split(" ")
  fields = [field.strip(" ") for field in fields]
  if "\t" not in line:
    fields = [field for field in fields if field]
  if len(fields) != 2:
    raise UserError(
      f"{where(path, number)}: {len(fields)} column(s) in '{line[:60]}'. Each line must hold a "
      f"word and its tag, separated by a tab or spaces; a blank line ends a sentence."
    )
  return fields


def _without_prefix(sentences: _Sentences, report: Report) -> _Sentences:
  """Returns the sentences without the language prefix that all their words have."""
  first = _PREFIX.match(sentences[0][0][0]) if sentences else None
  if not first:
    return sentences
  prefix = first.group()
  if not all(word.startswith(prefix) for sentence in sentences for word, _ in sentence):
    return sentences
  count(report, "language prefixes removed", sum(map(len, sentences)))
  return [[(word[len(prefix) :], tag) for word, tag in sentence] for sentence in sentences]


def _without_empty(sentences: _Sentences, report: Report) -> _Sentences:
  kept = [[(word, tag) for word, tag in sentence if word] for sentence in sentences]
  count(report, "words without text dropped", sum(map(len, sentences)) - sum(map(len, kept)))
  return [sentence for sentence in kept if sentence]
