"""Natural language inference: pairs of sentences from tables, JSON, and XNLI in TFDS."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from negint.errors import UserError
from negint.tasks import lab_examples, scoring, tfds_source
from negint.tasks.examples import PAIR_LABELS, Pair, Report, count
from negint.tasks.features import Arrays, Tokenizer, capacity, encode, token_arrays
from negint.tasks.json_files import (
  ENDINGS,
  first_field,
  has_values,
  label_name,
  names_beside,
  read_records,
)
from negint.tasks.outputs import PairLabel
from negint.tasks.pairs import two_texts
from negint.tasks.rows import check_width, read_rows
from negint.tasks.task import PLAIN, Batch, Labels, Limits, Path, Reading, Rows, Task
from negint.tasks.text_files import where

LABELS = PAIR_LABELS
UNKNOWN = -1  # number of a label that training does not have
_SPELLINGS = {"contradictory": "contradiction"}  # as XNLI's files in XTREME have it
_NO_GOLD = "-"  # SNLI and MultiNLI mark pairs without a majority label like this
_MISSING = (_NO_GOLD, "", "hidden")
_DROPPED = "pairs without a gold label dropped"
_FIELDS = (  # names of the premise, the hypothesis and the label, in lower case
  ("premise", "sentence1", "sentence_a", "text_a"),
  ("hypothesis", "hypo", "sentence2", "sentence_b", "text_b"),
  ("gold_label", "label", "entailment_label", "entailment_judgment"),
)
_LANGUAGE = ("language", "lang")
_THREE = (
  "Without a header, each line must hold premise, hypothesis and label, separated by tabs. (XTREME's "
  "scripts remove the labels of their test files; put the original file, xnli.test.tsv, there.)"
)
_TWO = (
  "Without a header, each line must hold premise and hypothesis, separated by a tab, and perhaps the "
  "label as a third column."
)
_Record = tuple[dict[str, Any], str]  # values by name in lower case; place


def read_file(path: Path, reading: Reading = PLAIN) -> tuple[list[Pair], Report]:
  """Returns the pairs of a file, and a report.

  The file has a header (or JSON fields) that names its columns, as XNLI, MultiNLI, SICK and GLUE
  do, or the three columns premise, hypothesis, label. Where a column names the language, the rows
  of other languages are left out. Pairs without a gold label ('-') or with an empty sentence are
  dropped and counted.

  Raises:
    UserError: the file cannot be read, a column is missing, or the language is not there; with file
      and line.
  """
  report: Report = {}
  examples: list[Pair] = []
  languages: set[str] = set()
  names = reading.names or names_beside(path, _FIELDS[2])
  for record, place in _records(path, reading.labelled, report):
    premise, hypothesis = (_field(record, names, place) for names in _FIELDS[:2])
    language = str(record[key]) if (key := first_field(record, _LANGUAGE)) else reading.language
    languages.add(language)
    if reading.language and _plain(language) != _plain(reading.language):
      count(report, "pairs in other languages left out")
      continue
    premise, hypothesis = (
      _in_language(text, language, place).strip() for text in (premise, hypothesis)
    )
    if not reading.labelled:
      examples.append(Pair(premise, hypothesis, ""))
      continue
    label = _field(record, _FIELDS[2], place)
    if label in (None, -1, "-1"):  # the package datasets numbers a missing label so
      label = _NO_GOLD
    if isinstance(label, str) and label.isdecimal():  # files of columns know no numbers
      label = int(label)
    label = spelled(label_name(label, names, place))
    _add(examples, premise, hypothesis, None if label in _MISSING else label, report)
  wanted = _plain(reading.language)
  if wanted and languages and wanted not in map(_plain, languages):
    raise UserError(
      f"{path} has no pair in language '{reading.language}'. It has {', '.join(sorted(languages))}. "
      "Put the file of this language there."
    )
  if not examples and (dropped := report.get(_DROPPED)):
    raise UserError(
      f"{path}: none of its {dropped} pairs has a gold label, so there is nothing to learn or to "
      "score. Many test files come without labels; put a labelled file there."
    )
  return examples, report


def spelled(label: str) -> str:
  """Returns a label as all readers give it: in lower case, and by its usual name."""
  label = label.strip().lower()
  return _SPELLINGS.get(label, label)


def read_tfds(
  builder: str, split: str, language: str, data_dir: str | None
) -> tuple[list[Pair], Report]:
  """Returns the pairs of `xnli` in one language, or of a builder with plain texts, and a report.

  Raises:
    UserError: as `tfds_source.open_split`, or the builder lacks the language.
  """
  report: Report = {}
  examples: list[Pair] = []
  needs = ("premise", "hypothesis", "label")
  rows, features = tfds_source.open_split(builder, split, data_dir, needs)
  names = tfds_source.label_names(features["label"])
  source = f"The TFDS builder '{builder}'"
  for row in rows:
    premise, hypothesis = (_in_language(row[key], language, source) for key in needs[:2])
    label = spelled(names[row["label"]]) if row["label"] >= 0 else None
    _add(examples, premise.strip(), hypothesis.strip(), label, report)
  return examples, report


def features(
  pairs: Sequence[Pair], tokenizer: Tokenizer, labels: Labels, limits: Limits
) -> tuple[Arrays, Report]:
  """Returns rows of a premise and a hypothesis with `labels` [N] int32, and what was cut.

  A label that is not in `labels` is UNKNOWN.

  A pair that does not fit loses the last token of its longer side until it does (counted).
  """
  special = tokenizer.special
  begin, between, end = special.begin, special.between, special.end
  around = len(begin) + len(between) + len(end)
  budget = capacity(limits.max_length, around + 1) + 1  # at least one token for each side
  cache: dict[str, list[int]] = {}
  report: Report = {}
  rows, seconds = [], []
  for pair in pairs:
    first, second = (
      list(encode(text, tokenizer, cache)) for text in (pair.premise, pair.hypothesis)
    )
    count(report, "pairs cut", len(first) + len(second) > budget)
    while len(first) + len(second) > budget:
      (first if len(first) > len(second) else second).pop()
    rows.append([*begin, *first, *between, *second, *end])
    seconds.append(len(begin) + len(first) + len(between))
  arrays = token_arrays(rows, limits.max_length, special, seconds)
  ids = {label: index for index, label in enumerate(labels)}
  arrays["labels"] = np.array([ids.get(pair.label, UNKNOWN) for pair in pairs], np.int32)
  return arrays, report


def loss(scores: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
  """Returns the cross-entropy of the rows' labels: (sum in nats, number of rows).

  Args:
    scores: [B, labels].
    batch: `labels` [B] and `lengths` [B].
  """
  there_B = (batch["lengths"] > 0).astype(jnp.float32)
  loss_B = optax.softmax_cross_entropy_with_integer_labels(scores, batch["labels"])
  return jnp.sum(loss_B * there_B), jnp.sum(there_B)


def decode(
  scores: np.ndarray, arrays: Arrays, pairs: Sequence[Pair], labels: Labels, limits: Limits
) -> list[str]:
  """Returns the best label of each pair; scores are [N, labels]."""
  del arrays, pairs, limits
  return [labels[index] for index in scores.argmax(-1)]


def given(value: Any, place: str) -> Pair:
  """Returns a pair without its label.

  Args:
    value: (premise, hypothesis), or an object of JSON with these or the names in XNLI and MultiNLI.
    place: of the value, for messages.

  Raises:
    UserError: it is neither, or one of the two is empty.
  """
  return Pair(*two_texts(value, _FIELDS[:2], place), "")


def outputs(
  scores: np.ndarray, arrays: Arrays, pairs: Sequence[Pair], labels: Labels, limits: Limits
) -> list[PairLabel]:
  """Returns the best label of each pair and the probabilities of all; scores are [N, labels]."""
  chosen = decode(scores, arrays, pairs, labels, limits)
  shares = np.exp(scores - scores.max(-1, keepdims=True))
  shares /= shares.sum(-1, keepdims=True)
  return [
    PairLabel(pair.premise, pair.hypothesis, label, dict(zip(labels, map(float, row), strict=True)))
    for pair, label, row in zip(pairs, chosen, shares, strict=True)
  ]


def per_example(pairs: Sequence[Pair], predicted: Sequence[str]) -> Rows:
  """Returns for each pair whether its label is right, 0 or 1."""
  return [[int(pair.label == label)] for pair, label in zip(pairs, predicted, strict=True)]


def scores(rows: Rows) -> dict[str, float]:
  """Returns the share of right labels in per cent."""
  (accuracy,) = scoring.means(rows)
  return {"accuracy": accuracy}


def majority(training: Sequence[Pair], pairs: Sequence[Pair]) -> list[str]:
  """Returns the most frequent label of the training data for each pair."""
  labels = collections.Counter(pair.label for pair in training)
  return [labels.most_common(1)[0][0]] * len(pairs)


def as_text(predicted: Sequence[str]) -> str:
  """Returns one label per line."""
  return "".join(f"{label}\n" for label in predicted)


def _records(path: Path, labelled: bool, report: Report) -> Iterator[_Record]:
  """Yields the rows of a file, each with the names of its fields; `labelled`: a label is one."""
  if has_values(path):
    for record, place in read_records(path, report):
      yield {name.lower(): value for name, value in record.items()}, place
    return
  needed = _FIELDS if labelled else _FIELDS[:2]
  header: list[str] = []
  for row in read_rows(path, report, spaces=False):
    names = [field.lower() for field in row.fields]
    if all(any(name in names for name in known) for known in needed):
      header = names
    elif row.fields and header:
      fields = row.fields + [""] * (len(header) - len(row.fields)) * _has_all(
        header, row.fields, needed
      )
      check_width(
        path, row._replace(fields=fields), len(header), "The header names that many columns."
      )
      yield dict(zip(header, fields, strict=True)), where(path, row.line)
    elif row.fields:
      if labelled or len(row.fields) != len(needed):
        check_width(path, row, len(_FIELDS), _THREE if labelled else _TWO)
      names = [known[0] for known in _FIELDS]
      yield dict(zip(names, row.fields, strict=False)), where(path, row.line)


def _has_all(header: list[str], fields: list[str], needed: Sequence[tuple[str, ...]]) -> bool:
  """Returns whether a line that may lack its last columns has those that are read."""
  return all(any(name in header[: len(fields)] for name in known) for known in needed)


def _field(record: dict[str, Any], names: tuple[str, ...], place: str) -> Any:
  """Returns the value of the first of the names that a record has."""
  name = first_field(record, names)
  if name is None:
    raise UserError(
      f"{place}: it has the fields {', '.join(record)} and none of {', '.join(names)}. Rename the "
      "field."
    )
  return record[name]


def _add(
  examples: list[Pair], premise: str, hypothesis: str, label: str | None, report: Report
) -> None:
  """Adds a pair, or counts why it is dropped."""
  if label is None:
    count(report, _DROPPED)
  elif not premise or not hypothesis:
    count(report, "pairs with an empty sentence dropped")
  else:
    examples.append(Pair(premise, hypothesis, label))


def _plain(language: str) -> str:
  """Returns a language code in the form for comparisons: "pt-BR" in a file is the run's "pt_br"."""
  return language.replace("-", "_").lower()


def _in_language(value: Any, language: str, source: str) -> str:
  """Returns the text in one language of a Translation (Any), or a plain text as it is."""
  if not isinstance(value, dict):
    return tfds_source.text(value)
  if "translation" in value:  # TranslationVariableLanguages: two parallel sequences
    names = map(tfds_source.text, value["language"])
    value = dict(zip(names, value["translation"], strict=True))
  if language not in value:
    raise UserError(f"{source} has no language '{language}'. It has {', '.join(sorted(value))}.")
  return tfds_source.text(value[language])


NLI = Task(
  name="nli",
  labels=LABELS,
  main_score="accuracy",
  columns=("correct",),
  extensions=("tsv", "txt", *ENDINGS, "csv"),
  files=lambda language, split: (f"XNLI-1.0/xnli.{split}", f"xnli.{split}"),
  read_file=read_file,
  read_tfds=read_tfds,
  make_lab=lab_examples.nli,
  labels_of=lambda pair: (pair.label,),
  spelled=spelled,
  relabel=lambda pair, rename: Pair(pair.premise, pair.hypothesis, rename(pair.label)),
  group_of=lambda pair: pair.premise,  # XNLI has three hypotheses for each premise
  features=features,
  targets=("labels",),
  first_position=True,
  loss=loss,
  decode=decode,
  given=given,
  outputs=outputs,
  per_example=per_example,
  scores=scores,
  majority=majority,
  xtreme_name="xnli",
  prediction_extension="tsv",
  as_text=as_text,
)
