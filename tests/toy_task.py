"""A task that the project does not have: sentences that praise or blame, in text files of their own."""

import collections
import dataclasses
import pathlib

import numpy as np

from negint.tasks import features as shared
from negint.tasks import nli, scoring
from negint.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Opinion:
  text: str
  label: str


def read_file(path, reading):
  del reading
  lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
  return [Opinion(text, label) for label, text in (line.split(": ") for line in lines)], {}


def features(examples, tokenizer, labels, limits):
  begin, end = tokenizer.special.begin, tokenizer.special.end
  room = shared.capacity(limits.max_length, len(begin) + len(end))
  rows = [[*begin, *shared.encode(each.text, tokenizer)[:room], *end] for each in examples]
  arrays = shared.token_arrays(rows, limits.max_length, tokenizer.special)
  arrays["opinion"] = np.array([labels.index(each.label) for each in examples], np.int32)
  return arrays, {}


def loss(scores, batch):
  return nli.loss(scores, {"labels": batch["opinion"], "lengths": batch["lengths"]})


def majority(training, examples):
  label = collections.Counter(each.label for each in training).most_common(1)[0][0]
  return [label] * len(examples)


OPINION = Task(
  name="opinion",
  labels=("praise", "blame"),
  main_score="right",
  columns=("correct",),
  extensions=("txt",),
  read_file=read_file,
  labels_of=lambda example: (example.label,),
  group_of=lambda example: example.text,
  features=features,
  targets=("opinion",),
  first_position=True,
  loss=loss,
  decode=lambda scores, arrays, examples, labels, limits: [labels[i] for i in scores.argmax(-1)],
  per_example=lambda examples, found: [
    [int(a.label == b)] for a, b in zip(examples, found, strict=True)
  ],
  scores=lambda rows: {"right": scoring.means(rows)[0]},
  majority=majority,
  xtreme_name="opinions",
  prediction_extension="txt",
  as_text="\n".join,
)
