"""One plot per swept field: the measure that chooses the best setting, against the field's values."""

import pathlib
from collections.abc import Sequence

import numpy as np

from launch.sweep.grid import Setting, described
from launch.sweep.results import Row, columns
from negint.report import drawing

WIDE = 8.0  # ratio of the largest value to the smallest from which the axis is logarithmic
COLOURS = (
  drawing.BLUE,
  drawing.VERMILLION,
  drawing.GREEN,
  drawing.ORANGE,
  drawing.PURPLE,
  drawing.SKY,
  drawing.GREY,
  drawing.BLACK,
)


def draw(table: Sequence[Row], folder: pathlib.Path) -> list[str]:
  """Draws the plots of a sweep; returns the names of their files, without suffix.

  Args:
    table: rows of the sweep.
    folder: of the files.
  """
  fields: dict[str, list[str]] = {}
  for row in table:
    for field, value in row.setting:
      values = fields.setdefault(field, [])
      values += [value] if value not in values else []
  names = []
  for field, values in fields.items():
    if len(values) > 1:
      names.append(f"sweep_{field.replace('.', '_')}")
      with drawing.style():
        _draw(table, field, values, folder, names[-1])
  return names


def _draw(
  table: Sequence[Row], field: str, values: list[str], folder: pathlib.Path, name: str
) -> None:
  measure = columns(table)[0]
  places = _places(values)
  lines: dict[Setting, list[Row]] = {}  # by the other fields
  for row in (row for row in table if measure in row.found):
    others = tuple(pair for pair in row.setting if pair[0] != field)
    lines.setdefault(others, []).append(row)
  canvas, (axes,) = drawing.panels(1, 1, 3.2)
  ends = []
  for number, (others, rows) in enumerate(lines.items()):
    colour = COLOURS[number % len(COLOURS)]
    ordered = sorted(rows, key=lambda row: places[dict(row.setting)[field]])
    x = np.array([places[dict(row.setting)[field]] for row in ordered])
    found = [row.found[measure] for row in ordered]
    y = np.array([each.mean for each in found])
    deviations = np.array([each.deviation or 0.0 for each in found])
    drawing.error_bars(axes, x, y, deviations if deviations.any() else None, colour=colour)
    ends.append((float(y[-1]), described(others), colour))
  numbers = np.array(list(places.values()))
  if min(numbers) > 0 and max(numbers) / min(numbers) >= WIDE:
    axes.set_xscale("log")
  axes.set_xticks(numbers, list(places))
  axes.minorticks_off()
  axes.set_xlabel(field)
  axes.set_ylabel(measure.name)
  canvas.canvas.draw()
  drawing.label_lines(axes, ends)
  drawing.write(canvas, folder, name)


def _places(values: list[str]) -> dict[str, float]:
  """Returns where each value stands on the axis: at its number, or one after the other."""
  try:
    return {value: float(value) for value in values}
  except ValueError:
    return {value: float(place) for place, value in enumerate(values)}
