"""Finished runs as rows of a table, and what a run has logged as columns."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from negint.config_file import flatten
from negint.errors import UserError
from negint.inference.messages import without_flag
from negint.report.records import read_study
from negint.run.pack import unpacked
from negint.run.records import read_metrics

Row = dict[str, Any]  # Any: numbers and texts


def runs(folder: str | os.PathLike[str]) -> list[Row]:
  """Returns the finished runs below a folder, see `negint.runs`."""
  place = pathlib.Path(folder).expanduser()
  if place.is_file():
    with unpacked(place) as unpacked_runs:
      return _rows(unpacked_runs, place)
  with without_flag("--runs"):
    return _rows(place, place)


def _rows(folder: pathlib.Path, name: pathlib.Path) -> list[Row]:
  """Returns the rows of a folder, which the rows call `name`."""
  rows = []
  for run in read_study(folder).runs:
    origin = run.origin
    row: Row = {
      "run": str(name / run.workdir),
      "task": run.task,
      "system": origin.system,
      "languages": "-".join(origin.languages),
      "scale": origin.scale,
      "seed": run.settings.get("seed"),
      "steps": origin.steps,
    }
    row |= {name: value for name, value in _plain(run.result) if name not in row}
    rows.append(row | {f"config.{name}": value for name, value in _plain(run.settings)})
  return rows


def metrics(run: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Returns what a run has logged, see `negint.metrics`."""
  path = pathlib.Path(run).expanduser() / "metrics.jsonl"
  if not path.is_file():
    inside = sorted(str(other.parent) for other in path.parent.glob("seed*/*/metrics.jsonl"))
    hint = f"Name one of {', '.join(inside[:5])}." if inside else "Name the folder of a run."
    raise UserError(f"{path.parent} has no metrics.jsonl. {hint}")
  records = read_metrics(path)
  names = dict.fromkeys(name for record in records for name in record)
  columns = {name: np.array([record.get(name, np.nan) for record in records]) for name in names}
  return columns or {"step": np.array([], np.int64)}


def _plain(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
  """Yields the numbers and texts of a tree by their names; a list of them as one text."""
  for name, value in flatten(tree):
    if isinstance(value, list | tuple):
      if all(isinstance(each, str | int | float) for each in value):
        yield name, ", ".join(map(str, value))
    else:
      yield name, value
