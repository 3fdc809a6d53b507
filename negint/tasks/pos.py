"""Part-of-speech tagging: readers for CoNLL-U, two-column files and Universal Dependencies in TFDS.

Words follow XTREME's preparation of UD (arXiv 2003.11080): U+200C and spaces inside a word are
removed, and a sentence whose forms are all '_' but for at most one is dropped.

Multiword tokens are fused as XTREME does: the surface token of the range stays, with the tag of
the one of its syntactic words that is nearest the root; among equally near ones the tag that
comes first in `_PRECEDENCE` decides. Distances are those of the basic tree (columns 1 and 7).
XTREME also counts enhanced edges and has rankings of its own for es, fr and it.
"""

import re

from negint.errors import UserError
from negint.tasks import files, tfds_source
from negint.tasks.examples import TaggedSentence

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
_ID = re.compile(r"(\d+)(?:([-.])(\d+))?")


def read_file(path):
  """Reads CoNLL-U (a path that ends in .conllu) or two columns (`files.read_columns`).

  Returns:
    (list of TaggedSentence, report).

  Raises:
    UserError: not UTF-8, empty, a malformed line or an unknown tag, with file and line.
  """
  report = {}
  if str(path).endswith(".conllu"):
    sentences = [_fuse(*block, path, report) for block in _blocks(path, report)]
  else:
    sentences = files.read_columns(path, LABELS, report)
  return _cleaned(sentences, report), report


def read_tfds(builder, split, language, data_dir=None):
  """Reads `universal_dependencies/<treebank>` of TFDS; otherwise as `read_file`.

  TFDS drops the ID column, so the length of a multiword range is unknown there: its syntactic
  words stay apart and are counted as 'multiword tokens kept apart'. Scores on such data and on
  CoNLL-U files are not comparable for languages with many clitics.
  """
  del language  # Named in the builder.
  report, sentences = {}, []
  needs = ("tokens", "upos", "head")
  rows, features = tfds_source.open_split(builder, split, data_dir, needs)
  names = tfds_source.label_names(features["upos"], builder, LABELS + ("_",))
  for row in rows:
    words = [tfds_source.text(word) for word in row["tokens"]]
    tags = [names[tag] for tag in row["upos"]]
    # Only ranges and empty nodes have no head; a range has no tag either.
    headless = [tfds_source.text(head) in ("None", "_") for head in row["head"]]
    ranges = [tag == "_" for tag in tags]
    files.count(report, "multiword tokens kept apart", sum(ranges))
    empty = sum(h and not r for h, r in zip(headless, ranges, strict=True))
    files.count(report, "empty nodes skipped", empty)
    kept = zip(words, tags, headless, ranges, strict=True)
    sentences.append([(word, tag) for word, tag, h, r in kept if not h and not r])
  return _cleaned(sentences, report), report


def _blocks(path, report):
  """Yields ({id: (form, tag, head, line)}, [range (first, last, form, line)]) per sentence."""
  words, ranges = {}, []
  for number, line in enumerate(files.read_lines(path), start=1):
    if not line.strip():
      if words:
        yield words, ranges
      words, ranges = {}, []
    elif not line.startswith("#"):
      _add_line(line, words, ranges, path, number, report)
  if words:
    yield words, ranges


def _add_line(line, words, ranges, path, number, report):
  fields = line.split("\t")
  if len(fields) != 10:
    raise UserError(
      f"{files.where(path, number)}: {len(fields)} columns. CoNLL-U has 10 columns, separated by "
      f"tabs. For two columns (word, tag) name the file .tsv."
    )
  identifier = _ID.fullmatch(fields[0])
  if not identifier:
    raise UserError(
      f"{files.where(path, number)}: the ID '{fields[0]}' is none of 3 (a word), 3-4 (a multiword "
      f"token) and 3.1 (an empty node). Correct the first column."
    )
  first, kind, second = identifier.groups()
  if kind == ".":
    files.count(report, "empty nodes skipped")
  elif kind == "-":
    ranges.append((int(first), int(second), fields[1], number))
  elif int(first) != len(words) + 1:
    raise UserError(
      f"{files.where(path, number)}: word {first} follows word {len(words)}. IDs count 1, 2, 3 "
      f"and so on within a sentence; sentences are separated by blank lines."
    )
  else:
    words[int(first)] = (fields[1], fields[3], fields[6], number)


def _fuse(words, ranges, path, report):
  for form, tag, _, line in words.values():
    # Treebanks without their text have '_' forms, whose sentences are dropped further on.
    if tag not in LABELS and not (tag == "_" and form == "_"):
      raise UserError(files.unknown_tag(path, line, tag, LABELS))
  fused, end = {}, 0
  for first, last, form, line in ranges:
    if not end < first <= last <= len(words):
      raise UserError(
        f"{files.where(path, line)}: the range {first}-{last} overlaps another or leaves the "
        f"sentence of {len(words)} words. Ranges must be increasing and within the sentence."
      )
    parts = range(first, last + 1)
    head = min(parts, key=lambda part: (_depth(part, words), _rank(words[part][1])))
    fused[first] = (form, words[head][1])
    fused.update(dict.fromkeys(range(first + 1, last + 1)))
    end = last
  files.count(report, "multiword tokens fused", len(ranges))
  pairs = [fused.get(i, (form, tag)) for i, (form, tag, _, _) in words.items()]
  return [pair for pair in pairs if pair]


def _depth(word, words):
  depth, seen = 0, set()
  # A head outside the sentence, such as '_', ends the way like the root; `seen` stops at a cycle.
  while word in words and word not in seen:
    seen.add(word)
    head = words[word][2]
    word = int(head) if head.isdecimal() else 0
    depth += 1
  return depth


def _rank(tag):
  return _PRECEDENCE.index(tag) if tag in _PRECEDENCE else len(_PRECEDENCE)


def _cleaned(sentences, report):
  examples = []
  for pairs in sentences:
    blanks = sum(word == "_" for word, _ in pairs)
    if not pairs or (blanks and blanks >= len(pairs) - 1):
      files.count(report, "sentences without forms dropped")
      continue
    words = [word.replace("\u200c", "").replace(" ", "") for word, _ in pairs]
    changed = sum(new != old for new, (old, _) in zip(words, pairs, strict=True))
    files.count(report, "words with U+200C or spaces joined", changed)
    files.count(report, "words without text dropped", words.count(""))
    untagged = sum(tag == "_" for _, tag in pairs)
    files.count(report, "words without a tag dropped", untagged)
    tagged = zip(words, pairs, strict=True)
    kept = [(word, tag) for word, (_, tag) in tagged if word and tag != "_"]
    if kept:
      examples.append(TaggedSentence(*map(tuple, zip(*kept, strict=True))))
  return examples
