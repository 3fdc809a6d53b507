"""Natural language inference: readers for XNLI's tab-separated files and for TFDS."""

from negint.errors import UserError
from negint.tasks import files, tfds_source
from negint.tasks.examples import Pair

LABELS = ("entailment", "neutral", "contradiction")
_SPELLINGS = {**{label: label for label in LABELS}, "contradictory": "contradiction"}
_NO_GOLD = "-"  # SNLI and MultiNLI mark pairs without a majority label like this
_HEADER = ({"premise", "sentence1"}, {"hypothesis", "hypo", "sentence2"}, {"label", "gold_label"})


def read_file(path):
  """Reads `premise<TAB>hypothesis<TAB>label` lines; a header line and blank lines are skipped.

  Pairs without a gold label ('-') or with an empty sentence are dropped and counted. Quotation
  marks have no special meaning.

  Returns:
    (list of Pair, report).

  Raises:
    UserError: not UTF-8, empty, a column missing or an unknown label, with file and line.
  """
  report, examples = {}, []
  for number, line in enumerate(files.read_lines(path), start=1):
    if not line.strip():
      continue
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != 3:
      raise UserError(
        f"{files.where(path, number)}: {len(fields)} column(s) in '{line[:60]}'. Each line must "
        f"hold premise, hypothesis and label, separated by tabs."
      )
    if number == 1 and all(f.lower() in names for f, names in zip(fields, _HEADER, strict=True)):
      continue
    label = fields[2].lower()
    if label not in _SPELLINGS and label != _NO_GOLD:
      raise UserError(
        f"{files.where(path, number)}: unknown label '{fields[2]}'. The label must be one of "
        f"{', '.join(_SPELLINGS)}, or '{_NO_GOLD}' for a pair to leave out."
      )
    _add(examples, fields[0], fields[1], _SPELLINGS.get(label), report)
  return examples, report


def read_tfds(builder, split, language, data_dir=None):
  """Reads `xnli` (all languages side by side) or a builder with plain texts such as `multi_nli`.

  Raises:
    UserError: as `tfds_source.open_split`, or the builder lacks the language.
  """
  report, examples = {}, []
  needs = ("premise", "hypothesis", "label")
  rows, features = tfds_source.open_split(builder, split, data_dir, needs)
  names = tfds_source.label_names(features["label"], builder, LABELS)
  for row in rows:
    premise, hypothesis = (_in_language(row[key], language, builder) for key in needs[:2])
    label = names[row["label"]] if row["label"] >= 0 else None
    _add(examples, premise.strip(), hypothesis.strip(), label, report)
  return examples, report


def _add(examples, premise, hypothesis, label, report):
  if label is None:
    files.count(report, "pairs without a gold label dropped")
  elif not premise or not hypothesis:
    files.count(report, "pairs with an empty sentence dropped")
  else:
    examples.append(Pair(premise, hypothesis, label))


def _in_language(value, language, builder):
  """Returns the text in one language of a TFDS Translation, or a plain text as it is."""
  if not isinstance(value, dict):
    return tfds_source.text(value)
  if "translation" in value:  # TranslationVariableLanguages: two parallel sequences
    names = map(tfds_source.text, value["language"])
    value = dict(zip(names, value["translation"], strict=True))
  if language not in value:
    raise UserError(
      f"The TFDS builder '{builder}' has no language '{language}'. It has "
      f"{', '.join(sorted(value))}."
    )
  return tfds_source.text(value[language])
