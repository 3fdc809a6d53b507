"""The inputs of a fine-tuning run: the pretrained model, and labelled examples as arrays."""

import dataclasses
from typing import Any

from negint.finetuning.options import FinetuneOptions
from negint.pretrained.load import Pretrained
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


def read_split(
  run: FinetuneOptions, model: Pretrained, labels: tuple[str, ...], language: str, split: str
) -> Split:
  """Returns the examples of a split and their features.

  Raises:
    UserError: the data are missing or malformed, or do not fit the limits.
  """
  examples, report = loading.load(run.task, run.source, model.lab, language, split, labels)
  tokenizer = model.tokenizer.for_language(language)
  arrays, cut = run.task.features(examples, tokenizer, labels, run.limits)
  return Split(examples, arrays, {**report, **cut})
