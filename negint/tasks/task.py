"""The record that says everything about one task."""

import dataclasses
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import jax
import numpy as np

from negint.data.lab.language import LabLanguage
from negint.tasks.examples import Report
from negint.tasks.features import Arrays, Tokenizer

Example = TypeVar("Example")
Predicted = TypeVar("Predicted")
Labels = Sequence[str]
Path = str | os.PathLike[str]
Rows = list[list[float]]
Batch = Mapping[str, jax.Array]
# Any: the task's own type of examples.
TfdsReader = Callable[[str, str, str, str | None], tuple[list[Any], Report]]


@dataclasses.dataclass(frozen=True)
class Limits:
  """How long the texts of an example may be, in subwords."""

  max_length: int  # row, separators included
  stride: int = 128  # QA: from the start of a window to the start of the next
  max_question: int = 64  # QA: question; the rest is cut off
  max_answer: int = 30  # QA: predicted answer


@dataclasses.dataclass(frozen=True)
class Reading:
  """What the reader of a file is told."""

  language: str = ""  # of the examples; rows that name another one are left out
  tag_column: str = ""  # of the tags: number from 1, or name; empty: the layout's own
  names: tuple[str, ...] = ()  # of the labels that a file numbers, from 0
  labelled: bool = True  # False: labels are not read; no example is left out for lack of one


PLAIN = Reading()


def no_files(language: str, split: str) -> tuple[str, ...]:
  """Returns (): a split's file has no further places."""
  del language, split
  return ()


def no_labels(example: Any) -> tuple[str, ...]:
  """Returns (): the labels of the task do not depend on its examples."""
  del example
  return ()


def unchanged(example: Any, rename: Callable[[str], str]) -> Any:
  """Returns the example as it is."""
  del rename
  return example


def all_of_them(examples: list[Any], report: Report) -> list[Any]:
  """Returns all examples."""
  del report
  return examples


def in_language(builders: str, language: str) -> str:
  """Returns names of TFDS builders with the language in the place of `{language}`."""
  return builders.replace("{language}", language)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task(Generic[Example, Predicted]):
  """A task: where its examples come from, what the model learns, what a prediction is worth.

  The labels of a run are those of its training data (`labels.choose`); functions that depend on
  them take them as an argument. N is the number of rows, T = max_length, B the rows of a batch.

  Attributes:
    read_file: (path, reading) -> (examples, report) of a local file.
    files: (language, split) -> further places of the split's files in the task's folder, without
      ending; a * stands for any letters, and | joins places whose files are read together.
    read_tfds: (builder, split, language, data_dir) -> (examples, report) of a TFDS builder; None
      where TFDS does not have the task.
    builders: (names, language) -> names of TFDS builders without placeholders.
    make_lab: (lab language, seed, split, number) -> examples of the artificial lab; None where the
      lab does not have the task.
    labels_of: example -> its labels; none where labels do not depend on the data.
    spelled: label as a user gives it -> as the readers give it.
    relabel: (example, label -> label) -> the example with other labels.
    complete: labels in order -> labels of the head, with those that these bring along.
    for_training: (examples, report) -> those that can be trained on; others are counted.
    group_of: example -> its group; a group stays whole where a dev set is split in two.
    features: (examples, tokenizer, labels, limits) -> (arrays, report); all arrays have N rows,
      `tokens` [N, T] is padded with PAD, `lengths` [N] counts its tokens.
    loss: (scores, batch) -> (sum in nats, weight). Rows of length 0 fill up a batch and count
      nothing. scores: [B, T, outputs], or [B, outputs] if `first_position`.
    decode: (scores of all rows, arrays, examples, labels, limits) -> predictions, one per example.
    tags_words: an example is one text, and its prediction a tag per word; else it is two texts.
    given: (what a user gives for prediction, its place for messages) -> the example without labels;
      None where the task predicts for test sets only.
    outputs: (as decode) -> what prediction returns, one per example, see `outputs`.
    per_example: (examples, predictions) -> a row of numbers per example, named by `columns`.
    scores: rows of per_example -> {score: per cent}.
    majority: (training examples, examples) -> predictions that ignore the text.
    as_text: predictions -> the contents of XTREME's file of them.
  """

  name: str
  labels: tuple[str, ...]  # usual labels, in their order; the head has one output per label
  main_score: str  # selects a checkpoint and stands in the paper's tables
  columns: tuple[str, ...]  # names of the numbers in a row of per_example

  extensions: tuple[str, ...]  # of local files, without the dot; the first that exists is read
  files: Callable[[str, str], Sequence[str]] = no_files
  read_file: Callable[[Path, Reading], tuple[list[Example], Report]]
  read_tfds: TfdsReader | None = None
  make_lab: Callable[[LabLanguage, int, str, int], list[Example]] | None = None
  labels_of: Callable[[Example], Sequence[str]] = no_labels
  spelled: Callable[[str], str] = str
  relabel: Callable[[Example, Callable[[str], str]], Example] = unchanged
  complete: Callable[[Sequence[str]], Sequence[str]] = tuple
  for_training: Callable[[list[Example], Report], list[Example]] = all_of_them
  group_of: Callable[[Example], Hashable]
  builders: Callable[[str, str], str] = in_language

  features: Callable[[Sequence[Example], Tokenizer, Labels, Limits], tuple[Arrays, Report]]
  targets: tuple[str, ...]  # names of the arrays that the loss reads
  first_position: bool  # the head reads the first position only, else every position
  loss: Callable[[jax.Array, Batch], tuple[jax.Array, jax.Array]]
  decode: Callable[[np.ndarray, Arrays, Sequence[Example], Labels, Limits], Predicted]
  tags_words: bool = False
  given: Callable[[Any, str], Example] | None = None
  outputs: Callable[[np.ndarray, Arrays, Sequence[Example], Labels, Limits], list[Any]] | None = (
    None
  )

  per_example: Callable[[Sequence[Example], Predicted], Rows]
  scores: Callable[[Rows], dict[str, float]]
  majority: Callable[[Sequence[Example], Sequence[Example]], Predicted]

  xtreme_name: str  # folder of predictions that XTREME's scorer looks for
  prediction_extension: str  # of a file of predictions, without the dot
  as_text: Callable[[Predicted], str]
