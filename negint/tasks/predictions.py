"""What a run writes of a test set: predictions for XTREME's scorer, and numbers per example."""

import pathlib
from typing import Any

from negint.run.files import write_json, write_text
from negint.tasks.task import Rows, Task


# Any: the task's own predictions.
def write(folder: pathlib.Path, task: Task, language: str, predicted: Any) -> pathlib.Path:
  """Writes the predictions of one test set where XTREME's `evaluate.py` looks for them.

  XTREME's scorer compares them with its own label files, example by example, in their order.

  Args:
    folder: parent of the tasks' folders.
    task: the task.
    language: code of the tested language.
    predicted: what `task.decode` returned.

  Returns:
    The path written, `<folder>/<XTREME's task>/test-<language>.<extension>`.
  """
  path = folder / task.xtreme_name / f"test-{language}.{task.prediction_extension}"
  write_text(path, task.as_text(predicted))
  return path


def write_per_example(folder: pathlib.Path, task: Task, language: str, rows: Rows) -> None:
  """Writes the rows of a test set, from which its scores follow, to <folder>/<language>.json."""
  write_json(folder / f"{language}.json", {"columns": list(task.columns), "rows": rows})
