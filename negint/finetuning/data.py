"""The inputs of a fine-tuning run: the pretrained model, and labelled examples as arrays."""

import dataclasses
from typing import Any

from negint.finetuning.options import FinetuneOptions
from negint.options import AUTO
from negint.pretrained.load import Pretrained
from negint.tasks import labels as label_sets
from negint.tasks import loading
from negint.tasks.examples import Report
from negint.tasks.features import Arrays


@dataclasses.dataclass(frozen=True)
class Split:
  """One split of the task's data in one language."""

  examples: list[Any]  # the task's own type
  arrays: Arrays  # the task's features of them
  report: Report  # what was repaired, dropped or cut


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What a run reads before it trains."""

  model: Pretrained
  labels: tuple[str, ...]  # one per output of the head
  train: Split
  dev: Split


def adapts(model: Pretrained) -> bool:
  """Whether a run chooses a model's dtype by its device.

  An imported model has no dtype of its own, and not all devices are fast in bfloat16.
  """
  imported = model.origin is None and model.model.dtype == "float32"
  return imported or model.model.dtype == "bfloat16"


def adapted(inputs: Inputs, dtype: str) -> Inputs:
  """Returns the inputs with a model that computes in a dtype; an imported one also chooses its remat."""
  options = inputs.model.model
  if dtype != options.dtype:  # devices without bfloat16 have no other attention than xla
    options = options.replace(dtype=dtype, attention="xla")
  if inputs.model.origin is None:
    options = options.replace(remat=AUTO)
  return dataclasses.replace(inputs, model=dataclasses.replace(inputs.model, model=options))


def read_split(
  run: FinetuneOptions, model: Pretrained, labels: tuple[str, ...], language: str, split: str
) -> Split:
  """Returns the examples of a dev or test set and their features.

  Raises:
    UserError: the data are missing or malformed, or do not fit the limits.
  """
  examples, report = loading.load(
    run.task, run.source, model.lab, language, split, selects=run.selects_by(language)
  )
  label_sets.count_unknown(run.task, labels, examples, report)
  return _with_features(run, model, labels, language, examples, report)


def read_training(run: FinetuneOptions, model: Pretrained) -> tuple[Split, tuple[str, ...]]:
  """Returns the training examples of the source language with their features, and the labels.

  The labels are those of the examples, or those that data.labels names.

  Raises:
    UserError: as `read_split`, or the examples have labels that data.labels does not name.
  """
  language = run.source_language
  examples, report = loading.load(run.task, run.source, model.lab, language, "train")
  labels = label_sets.choose(run.task, label_sets.parse(run.source.labels), examples)
  return _with_features(run, model, labels, language, examples, report), labels


# Any: the task's own type of examples.
def _with_features(
  run: FinetuneOptions,
  model: Pretrained,
  labels: tuple[str, ...],
  language: str,
  examples: list[Any],
  report: Report,
) -> Split:
  tokenizer = model.tokenizer.for_language(language)
  arrays, cut = run.task.features(examples, tokenizer, labels, run.limits)
  return Split(examples, arrays, {**report, **cut})
