"""The labels of a run: those of its training data, or those that data.labels gives."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from negint.errors import UserError
from negint.tasks.examples import Report, count
from negint.tasks.task import Task

MOST = 2000  # more labels than any tag set has: the column is another one
_SHOWN = 5  # labels that a report names


@dataclasses.dataclass(frozen=True)
class LabelChoice:
  """What data.labels says."""

  names: tuple[str, ...] = ()  # the labels; empty: those of the training data
  renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # old label: new label

  def of_numbers(self) -> tuple[str, ...]:
    """Returns the names of labels that a file numbers: `names`, or those of 0=A,1=B and so on."""
    numbers = itertools.takewhile(self.renamed.__contains__, map(str, itertools.count()))
    return self.names or tuple(self.renamed[number] for number in numbers)


def parse(text: str) -> LabelChoice:
  """Returns the choice in a list such as 'PER,LOC,MISC=O': labels, and old=new for others.

  Raises:
    UserError: an entry lacks one side, or a label comes twice.
  """
  names: list[str] = []
  renamed: dict[str, str] = {}
  for entry in filter(None, (part.strip() for part in text.split(","))):
    old, equals, new = (side.strip() for side in entry.rpartition("="))
    if equals and not (old and new):
      raise UserError(
        f"data.labels has '{entry}'; an entry must be a label, or OLD=NEW to read the label OLD as "
        "NEW, for example --config.data.labels=PER,LOC,ORG,MISC=O."
      )
    if new in names and not equals or old in renamed:
      raise UserError(f"data.labels has '{old or new}' twice; name each label once.")
    if equals:
      renamed[old] = new
    else:
      names.append(new)
  return LabelChoice(tuple(names), renamed)


def rename(task: Task, choice: LabelChoice, examples: list[Any]) -> list[Any]:
  """Returns the examples with the labels that the choice renames."""
  if not choice.renamed:
    return examples
  renamed = {task.spelled(old): task.spelled(new) for old, new in choice.renamed.items()}
  return [task.relabel(each, lambda label: renamed.get(label, label)) for each in examples]


def choose(task: Task, choice: LabelChoice, training: Sequence[Any]) -> tuple[str, ...]:
  """Returns the labels of the head.

  Without names in the choice they are those of the training examples: the task's usual ones in
  their order, then the others by name.

  Args:
    task: the task.
    choice: of data.labels.
    training: the training examples, renamed.

  Raises:
    UserError: the training data have a label that the choice does not name, or far too many; or the
      task's labels cannot be chosen.
  """
  seen = collections.Counter(label for each in training for label in task.labels_of(each))
  if not seen:
    if choice != LabelChoice():
      raise UserError(f"data.labels is set, but task '{task.name}' has no labels; leave it out.")
    return task.labels
  if len(seen) > MOST:
    raise UserError(
      f"The training data of task '{task.name}' have {len(seen):,} labels, such as "
      f"'{min(seen)}': more than the {MOST:,} that a tag set can have. Name the column of the tags "
      "with --config.data.tag_column."
    )
  usual = [label for label in task.labels if label in seen]
  names = list(dict.fromkeys(map(task.spelled, choice.names)))
  labels = tuple(task.complete(names or [*usual, *sorted(set(seen) - set(usual))]))
  unnamed = [label for label in sorted(seen) if label not in labels]
  if unnamed:
    raise UserError(
      f"The training data of task '{task.name}' have the label '{unnamed[0]}' "
      f"({seen[unnamed[0]]:,} times), which data.labels does not name ({', '.join(labels)}). Add it, "
      f"or read it as another one with {unnamed[0]}=NEW."
    )
  return labels


def count_unknown(
  task: Task, labels: Sequence[str], examples: Sequence[Any], report: Report
) -> None:
  """Counts the labels of dev or test examples that the head does not have."""
  known = set(labels)
  unknown = collections.Counter(
    label for each in examples for label in task.labels_of(each) if label not in known
  )
  if unknown:
    names = [label for label, _ in unknown.most_common(_SHOWN)]
    names += ["..."] * (len(unknown) > _SHOWN)
    what = f"labels that training does not have ({', '.join(names)}), scored as wrong"
    count(report, what, unknown.total())
