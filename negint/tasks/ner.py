"""Named entity recognition: two-column files and WikiAnn, in IOB2.

Tags are those of WikiAnn (Rahimi et al. 2019, https://aclanthology.org/P19-1015), the data of
arXiv 2010.03017, Section 3.2.
"""

from collections.abc import Sequence

from negint.tasks import lab_examples, scoring, tfds_source
from negint.tasks.examples import Report, TaggedSentence, count
from negint.tasks.tagging import Tags, gold_tags, tagging_task
from negint.tasks.task import Labels, Path, Rows
from negint.tasks.text_files import read_columns

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")


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


def read_file(path: Path, labels: Labels = LABELS) -> tuple[list[TaggedSentence], Report]:
  """Returns the sentences of a two-column file, see `read_columns`, and a report.

  Raises:
    UserError: not UTF-8, empty, a column missing or an unknown tag, with file and line.
  """
  report: Report = {}
  sentences = read_columns(path, labels, report)
  return [_sentence(pairs, report) for pairs in sentences], report


def read_tfds(
  builder: str, split: str, language: str, data_dir: str | None, labels: Labels
) -> tuple[list[TaggedSentence], Report]:
  """Returns the sentences of a TFDS builder with the features of `wikiann/<language>`, and a report.

  Raises:
    UserError: as `tfds_source.open_split`.
  """
  del language  # The builder's name has it.
  report: Report = {}
  examples = []
  rows, features = tfds_source.open_split(builder, split, data_dir, needs=("tokens", "tags"))
  names = tfds_source.label_names(features["tags"], builder, labels)
  for row in rows:
    pairs = [
      (word, names[tag])
      for word, tag in zip(map(tfds_source.text, row["tokens"]), row["tags"], strict=True)
      if word
    ]
    count(report, "words without text dropped", len(row["tokens"]) - len(pairs))
    if pairs:
      examples.append(_sentence(pairs, report))
  return examples, report


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


def _sentence(pairs: Sequence[tuple[str, str]], report: Report) -> TaggedSentence:
  words, tags = zip(*pairs, strict=True)
  repaired, repairs = repair_iob(tags)
  count(report, "ill-formed IOB tags repaired", repairs)
  return TaggedSentence(words, tuple(repaired))


NER = tagging_task(
  name="ner",
  labels=LABELS,
  main_score="f1",
  columns=(
    *("correct", "predicted", "gold"),
    *("strict_correct", "strict_predicted", "strict_gold"),
  ),
  extensions=("tsv",),
  read_file=read_file,
  read_tfds=read_tfds,
  make_lab=lab_examples.ner,
  per_example=per_example,
  scores=scores,
  xtreme_name="panx",
)
