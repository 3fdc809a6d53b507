"""Figures of task scores: Figure 1, and interference and transfer against similarity."""

import pathlib

import numpy as np

from negint.report import drawing, layout
from negint.report.cells import ENGLISH, LABELS, Cells, Column, Key, Row
from negint.report.comparisons import Comparer
from negint.report.difference_tables import interference
from negint.report.drawing import COLOURS, Axes, Canvas, Figure
from negint.report.layout import TASK_NAMES
from negint.report.score_tables import TABLES, table_columns
from negint.report.statistics import Estimate

_CAPTION_1 = (
  "Named entities found by models that were fine-tuned and tested on one language. The models were "
  "pretrained on that language alone (Mono) or with English (JointPair), for equally many updates. XLM, where "
  "it was run, knows a hundred languages. A JointPair bar below its Mono bar is negative interference. Error "
  "bars: 95 % intervals."
)
_CAPTION_5 = (
  "Artificial languages that become more alike from left to right. Interference: above zero, the model of "
  "one language alone is better than the model of both, at equal steps or at equal tokens of the target. "
  "Transfer: the model of both is fine-tuned on xa and tested on the target. Error bars: 95 % intervals."
)

Point = tuple[float, Estimate, str]  # (similarity, value, task)


def figure1(cells: Cells, comparer: Comparer, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws bars of NER F1, within-language; None if no language has Mono and JointPair."""
  columns, _ = table_columns(TABLES[0], cells, scale, "ner")
  scores = {
    system: {c: comparer.score(Key(scale, "ner", "within", Row(system), c)) for c in columns}
    for system in ("mono", "joint_pair", "xlm")
  }
  columns = [c for c in columns if scores["mono"][c] and scores["joint_pair"][c]]
  if not columns:
    return None
  systems = [system for system in scores if any(scores[system][c] for c in columns)]
  figure, (axes,) = drawing.panels(1, 1, 2.9)
  figure.set_size_inches(min(drawing.WIDTH, 2.4 + 0.42 * len(columns) * len(systems)), 2.9)
  width = 0.8 / len(systems)
  for index, system in enumerate(systems):
    for place, column in enumerate(columns):
      x = place + (index - (len(systems) - 1) / 2) * width
      if found := scores[system][column]:
        _draw_bar(axes, x, width, found, system, in_legend=column == columns[0])
  axes.set_xticks(range(len(columns)), [column.label for column in columns])
  axes.set_ylabel("NER F1, per cent")
  axes.set_ylim(0, 105)
  axes.grid(axis="x", visible=False)
  figure.legend(loc="outside upper center", ncols=len(systems), frameon=False)
  covers = layout.coverage(e.over for each in scores.values() for e in each.values() if e)
  return drawing.save(figure, folder, "1", scale, f"{_CAPTION_1} {covers}".strip())


def _draw_bar(
  axes: Axes, x: float, width: float, found: Estimate, system: str, *, in_legend: bool
) -> None:
  name = LABELS[system] if in_legend else None
  axes.bar(x, found.value, 0.92 * width, color=COLOURS[system], label=name)
  top = found.value
  if found.interval:
    errors = [[found.value - found.interval.low], [found.interval.high - found.value]]
    axes.errorbar(x, found.value, errors, color="black", linewidth=0.8, capsize=2)
    top = min(found.interval.high, 100)
  axes.text(x, top + 1, f"{found.value:.1f}", ha="center", va="bottom", fontsize=8)


def figure5(cells: Cells, comparer: Comparer, folder: pathlib.Path) -> Figure | None:
  """Draws interference and zero-shot transfer against the similarity of the lab's languages."""
  keys = [key for key in cells.cells if key.scale == "lab" and key.row == Row("joint_pair")]
  tested = {k.column for k in keys if not k.column.pair and not k.column.subsample}
  columns = sorted(c for c in tested if c.similarity is not None and c.language not in ENGLISH)
  panels = {
    ("interference at equal steps", "Mono − JointPair, points"): [
      _points(columns, [interference(comparer, "lab", task, c) for c in columns], task)
      for task in TASK_NAMES
    ],
    ("at equal tokens of the target", "Mono − JointPair, points"): [
      _points(columns, [interference(comparer, "lab", task, c, "tokens") for c in columns], task)
      for task in TASK_NAMES
    ],
    ("transfer", "JointPair, zero-shot, per cent"): [
      _points(columns, [_transfer(comparer, column, task) for column in columns], task)
      for task in TASK_NAMES
    ],
  }
  panels = {k: lines for k, lines in panels.items() if any(len(points) > 1 for points in lines)}
  if not panels:
    return None
  figure, axes = drawing.panels(len(panels), 3, 2.9)
  for ax, ((title, ylabel), lines) in zip(axes, panels.items(), strict=True):
    if "Mono" in ylabel:
      ax.axhline(0, color="black", linewidth=0.7)
    _draw(figure, ax, lines)
    ax.set_title(title, loc="left")
    ax.set_ylabel(ylabel)
  found = [e.over for lines in panels.values() for points in lines for _, e, _ in points]
  caption = f"{_CAPTION_5} {layout.coverage(found)}".strip()
  return drawing.save(figure, folder, "5", "lab", caption)


def _transfer(comparer: Comparer, column: Column, task: str) -> Estimate | None:
  return comparer.score(Key("lab", task, "zero_shot", Row("joint_pair"), column))


def _points(columns: list[Column], found: list[Estimate | None], task: str) -> list[Point]:
  pairs = zip(columns, found, strict=True)
  return [(c.similarity, f, task) for c, f in pairs if f and c.similarity is not None]


def _draw(figure: Canvas, axes: Axes, lines: list[list[Point]]) -> None:
  """Draws one line per task, with its name at the right end.

  Lines are shifted sideways a little, so that all error bars can be seen.
  """
  lines, ends = [points for points in lines if points], []
  width = np.ptp([similarity for points in lines for similarity, _, _ in points] or [0.0])
  for index, points in enumerate(lines):
    task = points[0][2]
    x = np.array([similarity for similarity, _, _ in points])
    shift = 0.014 * width * (index - (len(lines) - 1) / 2)
    y = np.array([found.value for _, found, _ in points])
    bounds = [found.interval for _, found, _ in points]
    low = [0 if b is None else v - b.low for v, b in zip(y, bounds, strict=True)]
    high = [0 if b is None else b.high - v for v, b in zip(y, bounds, strict=True)]
    drawing.error_bars(axes, x + shift, y, np.maximum([low, high], 0), colour=COLOURS[task])
    ends.append((y[-1], TASK_NAMES[task], COLOURS[task]))
  axes.set_xlabel("similarity of the target to xa")
  values = sorted({similarity for points in lines for similarity, _, _ in points})
  axes.set_xticks(values, [f"{value:g}" for value in values])
  figure.canvas.draw()
  if ends:
    drawing.label_lines(axes, ends)
