"""Named entity recognition: readers for two-column files and WikiAnn, in IOB2.

Tags are those of WikiAnn (Rahimi et al. 2019, https://aclanthology.org/P19-1015), the data of
arXiv 2010.03017, Section 3.2.
"""

from negint.tasks import files, tfds_source
from negint.tasks.examples import TaggedSentence

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")


def repair_iob(tags):
  """Returns (tags in well-formed IOB2, number of repairs).

  An I-X that follows O, another type or the start of the sentence becomes B-X: what the lenient
  scorer of conlleval reads there anyway.
  """
  repaired, previous = [], "O"
  for tag in tags:
    if tag.startswith("I-") and previous[1:] != tag[1:]:
      tag = "B" + tag[1:]
    repaired.append(tag)
    previous = tag
  return repaired, sum(old != new for old, new in zip(tags, repaired, strict=True))


def read_file(path):
  """Reads a two-column file, see `files.read_columns`.

  Returns:
    (list of TaggedSentence, report).

  Raises:
    UserError: not UTF-8, empty, a column missing or an unknown tag, with file and line.
  """
  report = {}
  sentences = files.read_columns(path, LABELS, report)
  return [_sentence(*zip(*pairs, strict=True), report) for pairs in sentences], report


def read_tfds(builder, split, language, data_dir=None):
  """Reads a TFDS builder with the features of `wikiann/<language>`; otherwise as `read_file`."""
  del language  # Named in the builder.
  report, examples = {}, []
  rows, features = tfds_source.open_split(builder, split, data_dir, needs=("tokens", "tags"))
  names = tfds_source.label_names(features["tags"], builder, LABELS)
  for row in rows:
    pairs = [
      (word, names[tag])
      for word, tag in zip(map(tfds_source.text, row["tokens"]), row["tags"], strict=True)
      if word
    ]
    files.count(report, "words without text dropped", len(row["tokens"]) - len(pairs))
    if pairs:
      examples.append(_sentence(*zip(*pairs, strict=True), report))
  return examples, report


def _sentence(words, tags, report):
  tags, repairs = repair_iob(tags)
  files.count(report, "ill-formed IOB tags repaired", repairs)
  return TaggedSentence(tuple(words), tuple(tags))
