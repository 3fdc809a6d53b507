"""Named entity recognition: files of tagged words and WikiAnn, brought to IOB2.

The usual tags are those of WikiAnn (Rahimi et al. 2019, https://aclanthology.org/P19-1015), the data
of arXiv 2010.03017, Section 3.2. The types of a run are those of its training data.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from negint.errors import UserError
from negint.tasks import lab_examples, scoring, tagging, tfds_source
from negint.tasks.examples import Report, TaggedSentence, count
from negint.tasks.features import Arrays
from negint.tasks.json_files import ENDINGS
from negint.tasks.outputs import EntityText, NamedEntity
from negint.tasks.tagged_files import Sentence, Word, read_tagged
from negint.tasks.tagging import Tags, gold_tags, tagging_task
from negint.tasks.task import PLAIN, Labels, Limits, Path, Reading, Rows

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
TAG_FIELDS = ("ner_tags", "ner", "tags", "labels", "entities")

_PREFIXED = re.compile(r"([BIESLUM])[-_](.+)")
_AS_IOB2 = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}  # of IOBES, BILOU and BMES


def repair_iob(tags: Sequence[str]) -> tuple[list[str], int]:
  """Returns (tags in well-formed IOB2, number of repairs).

  An I-X that follows O, another type or the start of the sentence becomes B-X. The lenient scorer
  of conlleval reads it as one anyway.
  """
  repaired: list[str] = []
  previous = "O"
  for tag in tags:
    if tag.startswith("I-") and previous[1:] != tag[1:]:
      tag = "B" + tag[1:]
    repaired.append(tag)
    previous = tag
  return repaired, sum(old != new for old, new in zip(tags, repaired, strict=True))


def to_iob2(sentences: Sequence[Sentence], report: Report) -> list[TaggedSentence]:
  """Returns the sentences of one file with tags in IOB2.

  The file's tags may be in IOB1, IOB2, IOBES, BILOU, BMES, or types alone (neighbours of one type
  are then one entity). Which it is follows from all of them; what changes is counted.

  Raises:
    UserError: a tag is in none of these.
  """
  words = [word for sentence in sentences for word in sentence]
  tags = {word.tag for word in words}
  if "O" in tags and not any(map(_PREFIXED.fullmatch, tags)):
    changed = [[word.tag if word.tag == "O" else f"I-{word.tag}" for word in s] for s in sentences]
    return _repaired(sentences, changed, "tags without B- and I- brought to IOB2", report)
  for word in words:
    if word.tag != "O" and not _PREFIXED.fullmatch(word.tag):
      raise UserError(
        f"{word.place}: unknown tag '{word.tag}' of the word '{word.form}'. A tag must be O, or a "
        "type after B- or I-, such as B-PER (IOB1, IOB2), or after one of B-, I-, E-, L-, S-, U-. "
        "Check the file, or name the column of the tags with --config.data.tag_column."
      )
  changed = [[_iob2_letter(word.tag) for word in sentence] for sentence in sentences]
  moved = sum(word.tag[0] in _AS_IOB2 for word in words)
  count(report, "IOBES or BILOU tags brought to IOB2", moved)
  what = "ill-formed IOB tags repaired"
  if not moved and _is_iob1(changed):
    what = "IOB1 tags brought to IOB2"
  return _repaired(sentences, changed, what, report)


def read_file(path: Path, reading: Reading = PLAIN) -> tuple[list[TaggedSentence], Report]:
  """Returns the sentences of a file of tagged words, see `read_tagged`, and a report.

  Raises:
    UserError: the file cannot be read, a word has no tag, or a tag is unknown; with file and line.
  """
  report: Report = {}
  sentences = read_tagged(path, reading, TAG_FIELDS, report)
  if not reading.labelled:
    return [tagging.plain_sentence(tuple(w.form for w in words)) for words in sentences], report
  return to_iob2(sentences, report), report


def read_tfds(
  builder: str, split: str, language: str, data_dir: str | None
) -> tuple[list[TaggedSentence], Report]:
  """Returns the sentences of a TFDS builder with the features of `wikiann/<language>`, and a report.

  Raises:
    UserError: as `tfds_source.open_split`, or a tag is unknown.
  """
  del language  # The builder's name has it.
  report: Report = {}
  sentences = []
  rows, features = tfds_source.open_split(builder, split, data_dir, needs=("tokens", "tags"))
  names = tfds_source.label_names(features["tags"])
  for row in rows:
    sentence = [
      Word(word, names[tag], f"the TFDS builder '{builder}'")
      for word, tag in zip(map(tfds_source.text, row["tokens"]), row["tags"], strict=True)
      if word
    ]
    count(report, "words without text dropped", len(row["tokens"]) - len(sentence))
    if sentence:
      sentences.append(sentence)
  return to_iob2(sentences, report), report


def complete(labels: Sequence[str]) -> tuple[str, ...]:
  """Returns O, then B- and I- of each type; the labels may be tags or types."""
  types = dict.fromkeys(label[2:] if label[:2] in ("B-", "I-") else label for label in labels)
  types.pop("O", None)
  return ("O", *(f"{letter}-{kind}" for kind in types for letter in "BI"))


def relabel(sentence: TaggedSentence, rename: Callable[[str], str]) -> TaggedSentence:
  """Returns the sentence with other tags; `rename` may know tags or types."""

  def renamed(tag: str) -> str:
    if rename(tag) != tag or tag == "O":
      return rename(tag)
    kind = rename(tag[2:])
    return kind if kind == "O" else tag[:2] + kind

  tags, _ = repair_iob([renamed(tag) for tag in sentence.tags])
  return TaggedSentence(sentence.words, tuple(tags))


def per_example(examples: Sequence[TaggedSentence], predicted: Tags) -> Rows:
  """Returns the numbers of entities of each sentence, lenient and strict, see `NER.columns`."""
  gold = gold_tags(examples)
  lenient = scoring.chunk_counts(gold, predicted)
  strict = scoring.chunk_counts(gold, predicted, strict=True)
  return [[*row, *more] for row, more in zip(lenient, strict, strict=True)]


def scores(rows: Rows) -> dict[str, float]:
  """Returns micro-averaged precision, recall and F1, and strict F1, in per cent."""
  lenient = scoring.micro_average([row[:3] for row in rows])
  return {**lenient, "strict_f1": scoring.micro_average([row[3:] for row in rows])["f1"]}


def outputs(
  scores: np.ndarray,
  arrays: Arrays,
  examples: Sequence[TaggedSentence],
  labels: Labels,
  limits: Limits,
) -> list[EntityText]:
  """Returns the words of each sentence with tags and entities; arguments as `tagging.decode`.

  An entity is what the lenient scorer counts as one: an I-X that continues nothing begins it, too.
  """
  found = []
  for tagged in tagging.outputs(scores, arrays, examples, labels, limits):
    entities = []
    for kind, first, last in scoring.lenient_chunks([*tagged.tags, "O"]):
      begin, end = tagged.spans[first][0], tagged.spans[last][1]
      entities.append(NamedEntity(kind, tagged.text[begin:end], begin, end))
    found.append(EntityText(tagged.text, tagged.words, tagged.spans, tagged.tags, tuple(entities)))
  return found


def _iob2_letter(tag: str) -> str:
  """Returns a tag with B or I in the place of the letters of other schemes."""
  match = _PREFIXED.fullmatch(tag)
  return f"{_AS_IOB2.get(match[1], match[1])}-{match[2]}" if match else tag


def _is_iob1(sentences: Sequence[Sequence[str]]) -> bool:
  """Returns whether B- stands only between neighbours of one type, so that I- begins entities."""
  begun_by_i = False
  for tags in sentences:
    previous = "O"
    for tag in tags:
      if tag.startswith("B-") and previous[1:] != tag[1:]:
        return False
      begun_by_i |= tag.startswith("I-") and previous[1:] != tag[1:]
      previous = tag
  return begun_by_i


def _repaired(
  sentences: Sequence[Sentence], tags: Sequence[Sequence[str]], what: str, report: Report
) -> list[TaggedSentence]:
  """Returns the words with their tags in well-formed IOB2; counts the repairs as `what`."""
  examples = []
  for sentence, given in zip(sentences, tags, strict=True):
    repaired, repairs = repair_iob(given)
    count(report, what, repairs)
    examples.append(TaggedSentence(tuple(word.form for word in sentence), tuple(repaired)))
  return examples


NER = tagging_task(
  name="ner",
  labels=LABELS,
  main_score="f1",
  columns=(
    *("correct", "predicted", "gold"),
    *("strict_correct", "strict_predicted", "strict_gold"),
  ),
  extensions=("tsv", "conll", "txt", "iob2", *ENDINGS, "csv", "conllu"),
  read_file=read_file,
  read_tfds=read_tfds,
  make_lab=lab_examples.ner,
  relabel=relabel,
  complete=complete,
  outputs=outputs,
  per_example=per_example,
  scores=scores,
  xtreme_name="panx",
)
