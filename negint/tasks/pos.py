"""Part-of-speech tagging: CoNLL-U, files of tagged words, and Universal Dependencies in TFDS.

The usual tags are the universal ones. Those of a run are the tags of its training data, such as a
language's own tags (XPOS).

Words follow XTREME's preparation of UD (arXiv 2003.11080): U+200C and spaces inside a word are
removed, and a sentence whose forms are all '_' but for at most one is dropped.

Multiword tokens are fused as XTREME does. The surface token of the range stays. Its tag is that of
its syntactic word nearest the root; of equally near ones, the tag that comes first in `_PRECEDENCE`.
Distances are those of the basic tree (columns 1 and 7). XTREME also counts enhanced edges and has
rankings of its own for es, fr and it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from negint.data.opener import kind_of
from negint.errors import UserError
from negint.tasks import lab_examples, scoring, tfds_source
from negint.tasks.examples import Report, TaggedSentence, count
from negint.tasks.json_files import ENDINGS, has_values
from negint.tasks.tagged_files import has_no_head, read_tagged
from negint.tasks.tagging import Tags, gold_tags, tagging_task
from negint.tasks.task import PLAIN, Path, Reading, Rows, in_language
from negint.tasks.text_files import read_lines, where

LABELS = (
  "ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM",
  "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X",
)  # fmt: skip

TREEBANKS = {  # of Universal Dependencies, as TFDS names them
  "ar": "ar_padt",
  "en": "en_ewt",
  "fr": "fr_gsd",
  "hi": "hi_hdtb",
  "ru": "ru_gsd",
  "te": "te_mtg",
}
_PRECEDENCE = (
  "VERB", "NOUN", "PROPN", "PRON", "ADJ", "NUM", "ADV", "INTJ", "AUX",
  "ADP", "DET", "PART", "CCONJ", "SCONJ", "X", "PUNCT", "SYM",
)  # fmt: skip
CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
NO_TAG = "X"  # of the words of a file that is read without its tags
TAG_FIELDS = ("upos", "pos_tags", "upos_tags", "pos", "xpos", "tags", "labels")
_ID = re.compile(r"(\d+)(?:([-.])(\d+))?")

_Words = dict[int, tuple[str, str, str, int]]  # ID: (form, tag, head, line)
_Ranges = list[tuple[int, int, str, int]]  # (first ID, last ID, form, line)
_Sentence = Sequence[tuple[str, str]]  # (word, tag)


def files(language: str, split: str) -> tuple[str, ...]:
  """Returns where the treebanks of a language lie under their own names, such as fr_gsd-ud-train.

  Large ones are in parts, such as ru_syntagrus-ud-train-a and de_hdt-ud-train-a-1.
  """
  return (f"{language}/*-ud-{split}|{language}/*-ud-{split}-*",)


def read_file(path: Path, reading: Reading = PLAIN) -> tuple[list[TaggedSentence], Report]:
  """Returns the sentences of a CoNLL-U file or of another file of tagged words, and a report.

  CoNLL-U is a .conllu file, and any file of columns whose first word has CoNLL-U's ten.

  Args:
    path: the file.
    reading: the column of the tags: of CoNLL-U, upos (by default), xpos, or a number.

  Raises:
    UserError: the file cannot be read, a line is malformed, or a word has no tag; with file and line.
  """
  report: Report = {}
  sentences: Iterable[_Sentence]
  if _is_conllu(path):
    column = _conllu_column(reading.tag_column) if reading.labelled else None
    sentences = [
      _fuse(words, ranges, path, report) for words, ranges in _blocks(path, column, report)
    ]
  else:
    tagged = read_tagged(path, reading, TAG_FIELDS, report)
    sentences = [
      [(word.form, word.tag if reading.labelled else NO_TAG) for word in sentence]
      for sentence in tagged
    ]
  return _cleaned(sentences, report), report


def read_tfds(
  builder: str, split: str, language: str, data_dir: str | None
) -> tuple[list[TaggedSentence], Report]:
  """Returns the sentences of TFDS's `universal_dependencies/<treebank>`, and a report.

  TFDS drops the ID column, so the length of a multiword range is unknown. Its syntactic words stay
  apart and are counted as 'multiword tokens kept apart'. Scores on such data and on CoNLL-U files
  are not comparable for languages with many clitics.

  Raises:
    UserError: as `tfds_source.open_split`.
  """
  del language  # The builder's name has it.
  report: Report = {}
  sentences = []
  needs = ("tokens", "upos", "head")
  rows, features = tfds_source.open_split(builder, split, data_dir, needs)
  names = tfds_source.label_names(features["upos"])
  for row in rows:
    words = [tfds_source.text(word) for word in row["tokens"]]
    tags = [names[tag] for tag in row["upos"]]
    headless = [has_no_head(tfds_source.text(head)) for head in row["head"]]
    ranges = [tag == "_" for tag in tags]
    count(report, "multiword tokens kept apart", sum(ranges))
    empty = sum(h and not r for h, r in zip(headless, ranges, strict=True))
    count(report, "empty nodes skipped", empty)
    kept = zip(words, tags, headless, ranges, strict=True)
    sentences.append([(word, tag) for word, tag, h, r in kept if not h and not r])
  return _cleaned(sentences, report), report


def treebank(builders: str, language: str) -> str:
  """Returns names of TFDS builders with the language's treebank in the place of `{treebank}`.

  Raises:
    UserError: no treebank of the language is known.
  """
  if "{treebank}" not in builders:
    return in_language(builders, language)
  if language not in TREEBANKS:
    raise UserError(
      f"no treebank of '{language}' is known by name, only of {', '.join(TREEBANKS)}; name one with "
      "--config.data.tfds=universal_dependencies/<treebank>, or give local files with "
      "--config.data.tasks_dir."
    )
  return in_language(builders.replace("{treebank}", TREEBANKS[language]), language)


def per_example(examples: Sequence[TaggedSentence], predicted: Tags) -> Rows:
  """Returns the numbers of chunks and of words of each sentence, see `POS.columns`."""
  gold = gold_tags(examples)
  chunks = scoring.chunk_counts(gold, predicted)
  words = scoring.tag_counts(gold, predicted)
  return [[*row, *more] for row, more in zip(chunks, words, strict=True)]


def scores(rows: Rows) -> dict[str, float]:
  """Returns micro-averaged chunk F1 and the share of right tags, in per cent."""
  chunks = scoring.micro_average([row[:3] for row in rows])
  return {"f1": chunks["f1"], "accuracy": scoring.tag_accuracy([row[3:] for row in rows])}


def _is_conllu(path: Path) -> bool:
  """Returns whether a file is CoNLL-U, by its ending or by the columns of its first word."""
  kind = kind_of(path)
  if kind == "csv" or has_values(path):
    return False
  lines = read_lines(path) if kind != "conllu" else []
  first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
  fields = first.split("\t")
  return kind == "conllu" or (len(fields) == len(CONLLU) and bool(_ID.fullmatch(fields[0])))


def _conllu_column(chosen: str) -> int:
  """Returns the column of the tags in CoNLL-U, from 0."""
  names = {name: column for column, name in enumerate(CONLLU)}
  numbers = {str(column + 1): column for column in names.values()}
  column = {"": names["upos"], **names, **numbers}.get(chosen.lower())
  if column is None:
    raise UserError(
      f"data.tag_column is '{chosen}'; CoNLL-U has the columns {', '.join(CONLLU)}. Give a name or a "
      "number from 1."
    )
  return column


def _blocks(path: Path, column: int | None, report: Report) -> Iterator[tuple[_Words, _Ranges]]:
  """Yields the words and the multiword ranges of each sentence; without a column all tags are NO_TAG."""
  words: _Words = {}
  ranges: _Ranges = []
  for number, line in enumerate(read_lines(path), start=1):
    if not line.strip():
      if words:
        yield words, ranges
      words, ranges = {}, []
    elif not line.startswith("#"):
      _add_line(line, words, ranges, path, number, column, report)
  if words:
    yield words, ranges


def _add_line(
  line: str,
  words: _Words,
  ranges: _Ranges,
  path: Path,
  number: int,
  column: int | None,
  report: Report,
) -> None:
  """Adds a line of CoNLL-U to the words or the ranges of its sentence."""
  fields = line.split("\t")
  if len(fields) != len(CONLLU):
    raise UserError(
      f"{where(path, number)}: {len(fields)} columns. CoNLL-U has 10 columns, separated by "
      f"tabs. For two columns (word, tag) name the file .tsv."
    )
  identifier = _ID.fullmatch(fields[0])
  if not identifier:
    raise UserError(
      f"{where(path, number)}: the ID '{fields[0]}' is none of 3 (a word), 3-4 (a multiword "
      f"token) and 3.1 (an empty node). Correct the first column."
    )
  first, kind, second = identifier.groups()
  if kind == ".":
    count(report, "empty nodes skipped")
  elif kind == "-":
    ranges.append((int(first), int(second), fields[1], number))
  elif int(first) != len(words) + 1:
    raise UserError(
      f"{where(path, number)}: word {first} follows word {len(words)}. IDs count 1, 2, 3 "
      f"and so on within a sentence; sentences are separated by blank lines."
    )
  else:
    tag = NO_TAG if column is None else fields[column]
    words[int(first)] = (fields[1], tag, fields[6], number)


def _fuse(words: _Words, ranges: _Ranges, path: Path, report: Report) -> list[tuple[str, str]]:
  """Returns the (word, tag) pairs of a sentence, each range as one word."""
  for form, tag, _, line in words.values():
    # Treebanks without their text have '_' forms, whose sentences are dropped further on.
    if tag in ("", "_") and form != "_":
      raise UserError(
        f"{where(path, line)}: the word '{form}' has no tag. Name the column of the tags with "
        "--config.data.tag_column (upos or xpos), or complete the file."
      )
  fused: dict[int, tuple[str, str] | None] = {}
  end = 0
  for first, last, form, line in ranges:
    if not end < first <= last <= len(words):
      raise UserError(
        f"{where(path, line)}: the range {first}-{last} overlaps another or leaves the "
        f"sentence of {len(words)} words. Ranges must be increasing and within the sentence."
      )
    parts = range(first, last + 1)
    head = min(parts, key=lambda part: (_depth(part, words), _rank(words[part][1])))
    fused[first] = (form, words[head][1])
    fused.update(dict.fromkeys(parts[1:]))
    end = last
  count(report, "multiword tokens fused", len(ranges))
  pairs = [fused.get(i, (form, tag)) for i, (form, tag, _, _) in words.items()]
  return [pair for pair in pairs if pair]


def _depth(word: int, words: Mapping[int, tuple[str, str, str, int]]) -> int:
  """Returns the number of words on the path from a word to the root."""
  depth, seen = 0, set()
  # A head outside the sentence, such as '_', counts as the root; `seen` stops at a cycle.
  while word in words and word not in seen:
    seen.add(word)
    head = words[word][2]
    word = int(head) if head.isdecimal() else 0
    depth += 1
  return depth


def _rank(tag: str) -> int:
  return _PRECEDENCE.index(tag) if tag in _PRECEDENCE else len(_PRECEDENCE)


def _cleaned(sentences: Iterable[_Sentence], report: Report) -> list[TaggedSentence]:
  """Returns the sentences as XTREME prepares them, without what has no form or no tag."""
  examples = []
  for pairs in sentences:
    blanks = sum(word == "_" for word, _ in pairs)
    if not pairs or (blanks and blanks >= len(pairs) - 1):
      count(report, "sentences without forms dropped")
      continue
    words = [word.replace("\u200c", "").replace(" ", "") for word, _ in pairs]
    changed = sum(new != old for new, (old, _) in zip(words, pairs, strict=True))
    count(report, "words with U+200C or spaces joined", changed)
    count(report, "words without text dropped", words.count(""))
    untagged = sum(tag == "_" for _, tag in pairs)
    count(report, "words without a tag dropped", untagged)
    tagged = zip(words, pairs, strict=True)
    kept = [(word, tag) for word, (_, tag) in tagged if word and tag != "_"]
    if kept:
      examples.append(TaggedSentence(*zip(*kept, strict=True)))
  return examples


POS = tagging_task(
  name="pos",
  labels=LABELS,
  main_score="f1",
  columns=("correct", "predicted", "gold", "right_tags", "words"),
  extensions=("conllu", "tsv", "conll", "txt", *ENDINGS, "csv"),
  files=files,
  read_file=read_file,
  read_tfds=read_tfds,
  builders=treebank,
  make_lab=lab_examples.pos,
  per_example=per_example,
  scores=scores,
  xtreme_name="udpos",
)
