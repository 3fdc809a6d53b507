"""Text files of the tasks: UTF-8 lines with positions, two-column layouts, where files lie.

What the words and tags mean belongs to the readers (`ner`, `pos`, `qa`, `nli`). A report is a
plain dictionary from the name of a repair or a drop to how often it was made.
"""

import os
import re

import numpy as np

from negint.errors import UserError

TASKS = ("ner", "pos", "qa", "nli")
SPLITS = ("train", "dev", "test")
EXTENSIONS = {"ner": ("tsv",), "pos": ("conllu", "tsv"), "qa": ("json",), "nli": ("tsv",)}

_PREFIX = re.compile(r"[a-z]+(-[a-z]+)*:")


def count(report, name, times=1):
  """Adds to one entry of a report; entries that stay at zero are left out."""
  if times:
    report[name] = report.get(name, 0) + int(times)


def where(path, line):
  """Returns 'path, line 3', the form in which every message names a position."""
  return f"{path}, line {line}"


def read_text(path):
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


def read_lines(path):
  """Returns the lines of a UTF-8 file; only line feeds (and CR LF) end a line.

  `str.splitlines` also breaks at U+2028, U+0085 and others, which occur inside real tokens.
  """
  lines = read_text(path).split("\n")
  return [line[:-1] if line.endswith("\r") else line for line in lines]


def read_columns(path, labels, report):
  """Reads a two-column file: `word<TAB>tag` or `word tag`, a blank line between sentences.

  WikiAnn writes `ar:word`; the prefix is removed when every word of the file has the same one.
  Lines that start with -DOCSTART- separate documents and are skipped.

  Args:
    path: the file.
    labels: the legal tags.
    report: counts of repairs, updated in place.

  Returns:
    A list of sentences, each a list of pairs (word, tag).

  Raises:
    UserError: a line has not two columns, or its tag is not in `labels`.
  """
  sentences, sentence = [], []
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


def unknown_tag(path, line, tag, labels):
  """Returns the message for a tag outside the tag set."""
  return (
    f"{where(path, line)}: unknown tag '{tag}'. The tag must be one of {', '.join(labels)}. "
    f"Map the file's tags to these, or check that this is the right task's file."
  )


def _two_columns(line, path, number):
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


def _without_prefix(sentences, report):
  first = _PREFIX.match(sentences[0][0][0]) if sentences else None
  if not first:
    return sentences
  prefix = first.group()
  if not all(word.startswith(prefix) for sentence in sentences for word, _ in sentence):
    return sentences
  count(report, "language prefixes removed", sum(map(len, sentences)))
  return [[(word[len(prefix) :], tag) for word, tag in sentence] for sentence in sentences]


def _without_empty(sentences, report):
  kept = [[(word, tag) for word, tag in sentence if word] for sentence in sentences]
  count(report, "words without text dropped", sum(map(len, sentences)) - sum(map(len, kept)))
  return [sentence for sentence in kept if sentence]


def find(tasks_dir, task, language, split):
  """Returns the path of `<tasks_dir>/<task>/<language>/<split>.<extension>`, or None."""
  for extension in EXTENSIONS[task]:
    path = os.path.join(tasks_dir, task, language, f"{split}.{extension}")
    if os.path.isfile(path):
      return path
  return None


def available(tasks_dir, task):
  """Returns {language: its splits in the order train, dev, test} of a task, by the files there."""
  folder = os.path.join(tasks_dir, task)
  names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
  found = {name: [s for s in SPLITS if find(tasks_dir, task, name, s)] for name in names}
  return {name: tuple(splits) for name, splits in found.items() if splits}


def halves(examples, group_of, seed=0):
  """Splits examples in two by a fixed seed; examples of one group stay on one side.

  Grouping by text keeps a passage or a repeated sentence from standing on both sides, which
  would let the dev half tell about the test half.

  Args:
    examples: a list.
    group_of: example -> hashable key of its group.
    seed: seed of the shuffle of the groups.

  Returns:
    (dev half, test half), each in file order; sizes differ by less than one group.
  """
  groups = {}
  for index, example in enumerate(examples):
    groups.setdefault(group_of(example), []).append(index)
  members = list(groups.values())
  sides = ([], [])
  for position in np.random.default_rng(seed).permutation(len(members)):
    sides[len(sides[0]) > len(sides[1])].extend(members[position])
  return tuple([examples[index] for index in sorted(side)] for side in sides)
