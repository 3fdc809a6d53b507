"""Labelled data of a task, a language and a split: from local files, from the lab, or from TFDS."""

import contextlib
import dataclasses
import glob
import itertools
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from negint.data import tables
from negint.data.lab.language import make_language
from negint.data.opener import COMPRESSIONS, open_bytes
from negint.errors import UserError
from negint.language_codes import canonical
from negint.options import LabOptions
from negint.tasks import labels, tfds_source
from negint.tasks.examples import SPLITS, Report, count
from negint.tasks.task import Reading, Task, TfdsReader

SPLIT_SEED = 0  # of the halves of a dev set where no test set exists

# How files name the splits; the first that is there is read.
_SPLIT_WORDS = {
  "train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",),
}  # fmt: skip

Example = TypeVar("Example")
Loaded = tuple[list[Any], Report]  # Any: the task's own examples


@dataclasses.dataclass(frozen=True)
class SourceOptions:
  """Where labelled data come from; configs/tasks.py says what each field means."""

  tasks_dir: str = ""  # folder of local files; empty: the lab, or TFDS
  tfds: str = ""  # names of TFDS builders, joined by +
  tfds_train: str = ""  # those of the training split where they are others; empty: tfds
  tfds_dir: str = ""  # folder of prepared TFDS data; empty: the default of TFDS
  labels: str = ""  # labels, and old=new for others, joined by commas; empty: the training data's
  tag_column: str = ""  # column of the tags in files: number from 1, or name; empty: the last
  lab_train: int = 0  # training examples that the lab makes
  lab_dev: int = 0  # dev examples that the lab makes
  lab_test: int = 0  # test examples that the lab makes


def load(
  task: Task,
  source: SourceOptions,
  lab: LabOptions | None,
  language: str,
  split: str,
  *,
  selects: bool = True,
) -> Loaded:
  """Returns (examples, report) of one split of a task's data in one language.

  Where there is no test set, the dev set is the test set, and the report says so. A run that selects
  by the same dev set has one half of it as 'dev' and the other as 'test', by a fixed seed. The
  training examples are those that can be learned from. Labels are renamed as `source.labels` says.

  Args:
    task: the task.
    source: where the data lie.
    lab: the world of the lab if the model speaks its languages, else None.
    language: its code, for example 'ar'.
    split: 'train', 'dev' or 'test'.
    selects: whether the run selects by the dev set of this language.

  Raises:
    UserError: nothing there, malformed data, or an argument that is not legal.
  """
  examples, report = _read(task, source, lab, language, split, selects)
  if split == "train":
    examples = task.for_training(examples, report)
  what = f"{source.tasks_dir or source.tfds or 'The lab'}, {language}"
  _check_some(examples, what, task, language, split)
  return labels.rename(task, labels.parse(source.labels), examples), report


def check_test_set(
  task: Task, source: SourceOptions, lab: LabOptions | None, language: str, *, selects: bool
) -> None:
  """Raises UserError where the test set of a language is missing or cannot be scored.

  It reads the test set and keeps nothing of it, so that a run does not find out after its training.
  """
  if source.tasks_dir or lab is None:
    _read(task, source, lab, language, "test", selects)


def paths_of(tasks_dir: str, task: Task, language: str, split: str) -> list[str]:
  """Returns the files of a split; empty if there is none.

  It is `<folder>/<language>/<split>.<ending>` or, as XTREME's scripts lay it out,
  `<folder>/<split>-<language>.<ending>`, in a folder with the task's name or XTREME's name of it.
  Several files are the parts of a split, as the Hugging Face Hub and the package datasets name them
  (`train-00000-of-00002`, `train/0000`), or the language's treebanks of Universal Dependencies
  under their own names.
  """
  for folder, word, code in _names(task, language, split):
    places = (
      f"{code}/{word}",
      f"{word}-{code}",
      f"{code}/{word}-*-of-*|{code}/{word}/*[0-9]",
      *task.files(code, word),
    )
    for place, extension in itertools.product(places, (*task.extensions, "")):
      if "*" in place and not extension:
        continue  # it would stand for any ending
      found: dict[str, str] = {}  # name without the compression's ending: one of its files
      for stem, compression in itertools.product(place.split("|"), COMPRESSIONS):
        name = f"{stem}.{extension}{compression}" if extension else f"{stem}{compression}"
        for path in glob.glob(os.path.join(glob.escape(tasks_dir), folder, name)):
          if os.path.isfile(path):
            found.setdefault(path.removesuffix(compression), path)
      if found:
        return sorted(found.values())
  return []


def _names(task: Task, language: str, split: str) -> Iterable[tuple[str, str, str]]:
  """Returns the names in places of files: (folder of the task, the split, the language)."""
  folders = dict.fromkeys((task.name, task.xtreme_name))
  codes = dict.fromkeys((language, language.replace("_", "-")))
  return itertools.product(folders, _SPLIT_WORDS[split], codes)


def available(tasks_dir: str, task: Task) -> dict[str, tuple[str, ...]]:
  """Returns {language: its splits in the order train, dev, test} of a task, by the files there."""
  names = set()
  for folder in (task.name, task.xtreme_name):
    place = os.path.join(tasks_dir, folder)
    for name in os.listdir(place) if os.path.isdir(place) else ():
      for code in (name, name.partition("-")[2].partition(".")[0]):
        with contextlib.suppress(UserError):
          names.add(canonical(code))
  found = {
    name: tuple(s for s in SPLITS if paths_of(tasks_dir, task, name, s)) for name in sorted(names)
  }
  return {name: splits for name, splits in found.items() if splits}


def halves(
  examples: Sequence[Example], group_of: Callable[[Example], Hashable], seed: int = SPLIT_SEED
) -> tuple[list[Example], list[Example]]:
  """Returns a dev half and a test half of the examples, each in file order.

  Examples of one group stay on one side. Grouping by text keeps a passage or a repeated sentence
  from standing on both sides, where the dev half would tell about the test half.

  Args:
    examples: all of them.
    group_of: example -> key of its group.
    seed: seed of the shuffle of the groups.

  Returns:
    (dev half, test half); their sizes differ by less than one group.
  """
  groups: dict[Hashable, list[int]] = {}
  for index, example in enumerate(examples):
    groups.setdefault(group_of(example), []).append(index)
  members = list(groups.values())
  sides: tuple[list[int], list[int]] = ([], [])
  for position in np.random.default_rng(seed).permutation(len(members)):
    sides[len(sides[0]) > len(sides[1])].extend(members[position])
  dev, test = ([examples[index] for index in sorted(side)] for side in sides)
  return dev, test


def _read(
  task: Task,
  source: SourceOptions,
  lab: LabOptions | None,
  language: str,
  split: str,
  selects: bool,
) -> Loaded:
  """Returns the examples of a split as they are, from files, from the lab, or from TFDS."""
  if split not in SPLITS:
    raise UserError(f"split is '{split}'; it must be one of {', '.join(SPLITS)}.")
  if source.tasks_dir:
    return _from_files(task, source, language, split, selects)
  if lab is not None:
    if task.make_lab is None:
      raise UserError(
        f"The lab has no examples of task '{task.name}'. Name a folder of local files with "
        "--config.data.tasks_dir."
      )
    number = {"train": source.lab_train, "dev": source.lab_dev, "test": source.lab_test}[split]
    spoken = make_language(language, lab.similarity, lab.seed)
    return task.make_lab(spoken, lab.seed, split, number), {}
  names = (source.tfds_train if split == "train" else "") or source.tfds
  if task.read_tfds is None or not names:
    raise UserError(
      f"data.tfds is '{names}', which gives no data for task '{task.name}'. Name a folder of local "
      "files with --config.data.tasks_dir" + (" or a TFDS builder." if task.read_tfds else ".")
    )
  return _from_tfds(task, task.read_tfds, names, source.tfds_dir or None, language, split, selects)


def find_files(task: Task, tasks_dir: str, language: str, split: str) -> tuple[list[str], bool]:
  """Returns (files of a split, whether they are the dev set for lack of a test set).

  Raises:
    UserError: there is no such folder or file.
  """
  if not os.path.isdir(tasks_dir):
    raise UserError(
      f"data.tasks_dir is {tasks_dir!r}, which is no folder (looked from {os.getcwd()}); name the one "
      f"that has {task.name}/{language}/{split}.{task.extensions[0]}."
    )
  shared = split != "train" and not paths_of(tasks_dir, task, language, "test")
  paths = paths_of(tasks_dir, task, language, "dev" if shared else split)
  if not paths:
    for folder, word, code in _names(task, language, split):
      for start in (f"{code}/{word}", f"{word}-{code}"):
        for other in glob.glob(os.path.join(glob.escape(tasks_dir), folder, f"{start}*")):
          if os.path.isfile(other) and not tables.is_table(other):
            with open_bytes(other):  # names an archive, and the command that helps
              pass
    there = available(tasks_dir, task)
    legal = "; ".join(f"{name}: {', '.join(splits)}" for name, splits in there.items())
    first, *others = task.extensions
    endings = f" (or .{', .'.join(others)})" if others else ""
    raise UserError(
      f"No {split} data for task '{task.name}' in language '{language}' under {tasks_dir}. It must "
      f"be {task.name}/{language}/{split}.{first}{endings}. There is: "
      f"{legal or 'nothing for this task'}."
    )
  return paths, shared


def _from_files(
  task: Task, source: SourceOptions, language: str, split: str, selects: bool
) -> Loaded:
  paths, shared = find_files(task, source.tasks_dir, language, split)
  names = labels.parse(source.labels).of_numbers()
  reading = Reading(language, source.tag_column, names)
  examples, report = _joined(task.read_file(path, reading) for path in paths)
  _check_some(examples, ", ".join(paths), task, language, split)
  return _halved(task, split, examples, report, selects) if shared else (examples, report)


def _from_tfds(
  task: Task,
  read: TfdsReader,
  names: str,
  data_dir: str | None,
  language: str,
  split: str,
  selects: bool,
) -> Loaded:
  """Returns the examples of all builders, one after the other, and the sum of their reports."""
  parts = []
  for builder in task.builders(names, language).split("+"):
    splits = tfds_source.splits(builder, data_dir)
    dev = next((n for n in (f"validation-{language}", "validation", "dev") if n in splits), "dev")
    shared = split != "train" and "test" not in splits
    name = "train" if split == "train" else dev if shared or split == "dev" else "test"
    part, part_report = read(builder, name, language, data_dir)
    whole = part, part_report
    parts.append(_halved(task, split, *whole, selects) if shared else whole)
  examples, report = _joined(parts)
  _check_some(examples, f"the TFDS builder(s) '{names}'", task, language, split)
  return examples, report


def _joined(parts: Iterable[Loaded]) -> Loaded:
  """Returns the examples of all parts, one after the other, and the sum of their reports."""
  examples: list[Any] = []
  report: Report = {}
  for part, part_report in parts:
    examples.extend(part)
    for what, times in part_report.items():
      count(report, what, times)
  return examples, report


def _halved(task: Task, split: str, examples: list[Any], report: Report, selects: bool) -> Loaded:
  """Returns the part of a dev set without a test set that the split has."""
  if not selects:
    count(report, "tested on dev for lack of a test set", len(examples))
    return examples, report
  count(report, "dev split in two for lack of a test set", len(examples))
  return halves(examples, task.group_of)[split == "test"], report


def _check_some(examples: list[Any], source: str, task: Task, language: str, split: str) -> None:
  if not examples:
    raise UserError(
      f"{source} gives no {split} example for task '{task.name}' in language '{language}'. All of "
      "them were dropped, or the source holds another language. Check the source."
    )
