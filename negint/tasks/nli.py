"""Natural language inference: pairs of sentences from tab-separated files and from XNLI in TFDS."""

import collections
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from negint.errors import UserError
from negint.special_tokens import EOS
from negint.tasks import lab_examples, scoring, tfds_source
from negint.tasks.examples import PAIR_LABELS, Pair, Report, count
from negint.tasks.features import Arrays, Tokenizer, capacity, encode, token_arrays
from negint.tasks.task import Batch, Labels, Limits, Path, Rows, Task
from negint.tasks.text_files import read_lines, where

LABELS = PAIR_LABELS
_SPELLINGS = {"contradictory": "contradiction"}  # as XNLI's files in XTREME have it
_NO_GOLD = "-"  # SNLI and MultiNLI mark pairs without a majority label like this
_HEADER = ({"premise", "sentence1"}, {"hypothesis", "hypo", "sentence2"}, {"label", "gold_label"})


def read_file(path: Path, labels: Labels = LABELS) -> tuple[list[Pair], Report]:
  """Returns the pairs of `premise<TAB>hypothesis<TAB>label` lines, and a report.

  A header line and blank lines are skipped. Pairs without a gold label ('-') or with an empty
  sentence are dropped and counted. Quotation marks have no special meaning.

  Raises:
    UserError: not UTF-8, empty, a column missing or an unknown label, with file and line.
  """
  report: Report = {}
  examples: list[Pair] = []
  for number, line in enumerate(read_lines(path), start=1):
    if not line.strip():
      continue
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != 3:
      raise UserError(
        f"{where(path, number)}: {len(fields)} column(s) in '{line[:60]}'. Each line must "
        f"hold premise, hypothesis and label, separated by tabs."
      )
    if number == 1 and all(f.lower() in names for f, names in zip(fields, _HEADER, strict=True)):
      continue
    label = fields[2].lower()
    label = _SPELLINGS.get(label, label)
    if label not in labels and label != _NO_GOLD:
      raise UserError(
        f"{where(path, number)}: unknown label '{fields[2]}'. The label must be one of "
        f"{', '.join(labels)}, or '{_NO_GOLD}' for a pair to leave out."
      )
    _add(examples, fields[0], fields[1], None if label == _NO_GOLD else label, report)
  return examples, report


def read_tfds(
  builder: str, split: str, language: str, data_dir: str | None, labels: Labels
) -> tuple[list[Pair], Report]:
  """Returns the pairs of `xnli` in one language, or of a builder with plain texts, and a report.

  Raises:
    UserError: as `tfds_source.open_split`, or the builder lacks the language.
  """
  report: Report = {}
  examples: list[Pair] = []
  needs = ("premise", "hypothesis", "label")
  rows, features = tfds_source.open_split(builder, split, data_dir, needs)
  names = tfds_source.label_names(features["label"], builder, labels)
  for row in rows:
    premise, hypothesis = (_in_language(row[key], language, builder) for key in needs[:2])
    label = names[row["label"]] if row["label"] >= 0 else None
    _add(examples, premise.strip(), hypothesis.strip(), label, report)
  return examples, report


def features(
  pairs: Sequence[Pair], tokenizer: Tokenizer, labels: Labels, limits: Limits
) -> tuple[Arrays, Report]:
  """Returns rows `</s> premise </s> hypothesis </s>` with `labels` [N] int32, and what was cut.

  A pair that does not fit loses the last token of its longer side until it does (counted).
  """
  budget = capacity(limits.max_length, 4) + 1  # at least one token for each side
  cache: dict[str, list[int]] = {}
  report: Report = {}
  rows = []
  for pair in pairs:
    first, second = (
      list(encode(text, tokenizer, cache)) for text in (pair.premise, pair.hypothesis)
    )
    count(report, "pairs cut", len(first) + len(second) > budget)
    while len(first) + len(second) > budget:
      (first if len(first) > len(second) else second).pop()
    rows.append([EOS, *first, EOS, *second, EOS])
  arrays = token_arrays(rows, limits.max_length)
  arrays["labels"] = np.array([labels.index(pair.label) for pair in pairs], np.int32)
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


def _add(
  examples: list[Pair], premise: str, hypothesis: str, label: str | None, report: Report
) -> None:
  """Adds a pair, or counts why it is dropped."""
  if label is None:
    count(report, "pairs without a gold label dropped")
  elif not premise or not hypothesis:
    count(report, "pairs with an empty sentence dropped")
  else:
    examples.append(Pair(premise, hypothesis, label))


def _in_language(value: Any, language: str, builder: str) -> str:
  """Returns the text in one language of a TFDS Translation (Any), or a plain text as it is."""
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


NLI = Task(
  name="nli",
  labels=LABELS,
  main_score="accuracy",
  columns=("correct",),
  extensions=("tsv",),
  read_file=read_file,
  read_tfds=read_tfds,
  make_lab=lab_examples.nli,
  group_of=lambda pair: pair.premise,  # XNLI has three hypotheses for each premise
  features=features,
  targets=("labels",),
  first_position=True,
  loss=loss,
  decode=decode,
  per_example=per_example,
  scores=scores,
  majority=majority,
  xtreme_name="xnli",
  prediction_extension="tsv",
  as_text=as_text,
)
