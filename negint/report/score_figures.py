"""Figures of task scores: Figure 1, and interference and transfer against similarity."""

import numpy as np

from negint.report import drawing
from negint.report.cells import ENGLISH, LABELS, Cells, Column, Key, Row
from negint.report.comparisons import Comparer
from negint.report.difference_tables import interference
from negint.report.drawing import COLOURS, Figure
from negint.report.layout import TASK_NAMES
from negint.report.score_tables import TABLES, table_columns

MAIN_SCORES = {"ner": "f1", "pos": "f1", "qa": "f1", "nli": "accuracy"}


def figure1(cells: Cells, scale: str, folder) -> Figure | None:
  """Bars of NER F1, within-language; None without a language that has Mono and JointPair."""
  columns, _ = table_columns(TABLES[0], cells, scale, "ner")
  scores = {
    system: {c: cells.pooled(Key(scale, "ner", "within", Row(system), c), "f1") for c in columns}
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
      if (pooled := scores[system][column]) is None:
        continue
      x = place + (index - (len(systems) - 1) / 2) * width
      name = LABELS[system] if column == columns[0] else None
      axes.bar(x, pooled.mean, 0.92 * width, color=COLOURS[system], label=name)
      deviation = pooled.deviation or 0
      if deviation:
        axes.errorbar(x, pooled.mean, deviation, color="black", linewidth=0.8, capsize=2)
      axes.text(
        *(x, pooled.mean + deviation + 1, f"{pooled.mean:.1f}"),
        ha="center",
        va="bottom",
        fontsize=8,
      )
  axes.set_xticks(range(len(columns)), [column.label for column in columns])
  axes.set_ylabel("NER F1, per cent")
  axes.set_ylim(0, 105)
  axes.grid(axis="x", visible=False)
  figure.legend(loc="outside upper center", ncols=len(systems), frameon=False)
  name = f"figure1_{scale}"
  drawing.save(figure, folder, name)
  caption = (
    "Named entities found by models fine-tuned and tested on one language: pretrained on it alone "
    "(Mono), with English (JointPair) and, where it was run, on a hundred languages (XLM). A JointPair "
    "bar below its Mono bar is negative interference. Error bars: standard deviation over seeds."
  )
  return Figure(name, f"Figure 1, scale {scale}", caption)


def figure5(cells: Cells, comparer: Comparer, folder) -> Figure | None:
  """The lab's dial: interference and zero-shot transfer against similarity."""
  keys = [key for key in cells.cells if key.scale == "lab" and key.row == Row("joint_pair")]
  columns = {k.column for k in keys if not k.column.pair and not k.column.subsample}
  columns = sorted(c for c in columns if c.similarity is not None and c.language not in ENGLISH)
  lines = {
    "interference": [_interference(cells, comparer, columns, task) for task in TASK_NAMES],
    "transfer": [_transfer(comparer, columns, task) for task in TASK_NAMES],
  }
  if all(len(points) < 2 for points in lines["interference"] + lines["transfer"]):
    return None
  figure, axes = drawing.panels(2, 2, 2.9)
  axes[0].axhline(0, color="black", linewidth=0.7)
  _draw(figure, axes[0], lines["interference"])
  axes[0].set_ylabel("Mono − JointPair, within-language, points")
  axes[0].set_title("interference", loc="left")
  _draw(figure, axes[1], lines["transfer"])
  axes[1].set_ylabel("JointPair, zero-shot score, per cent")
  axes[1].set_title("transfer", loc="left")
  drawing.save(figure, folder, "figure5_lab")
  caption = (
    "Artificial languages: what one language costs the other (left: above zero, the model of one "
    "language alone is better) and what it lends it (right: fine-tuned on xa, tested on the target) as "
    "the two become more alike. Error bars: 95 % bootstrap intervals over test examples."
  )
  return Figure("figure5_lab", "Figure 5, scale lab", caption)


def _interference(cells: Cells, comparer: Comparer, columns: list[Column], task: str):
  found = [
    interference(cells, comparer, "lab", task, column, MAIN_SCORES[task]) for column in columns
  ]
  return [(c.similarity, f, task) for c, f in zip(columns, found, strict=True) if f]


def _transfer(comparer: Comparer, columns: list[Column], task: str):
  keys = [Key("lab", task, "zero_shot", Row("joint_pair"), column) for column in columns]
  found = [comparer.score(key, MAIN_SCORES[task]) for key in keys]
  return [(c.similarity, f, task) for c, f in zip(columns, found, strict=True) if f]


def _draw(figure, axes, lines):
  """One line a task, its name at the right end; tasks a little apart so that error bars show."""
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
    style = dict(color=COLOURS[task], marker="o", markersize=3.5, capsize=2, elinewidth=0.8)
    axes.errorbar(x + shift, y, np.maximum([low, high], 0), **style)
    ends.append((y[-1], TASK_NAMES[task], COLOURS[task]))
  axes.set_xlabel("similarity of the target to xa")
  axes.set_xticks(sorted({similarity for points in lines for similarity, _, _ in points}))
  figure.canvas.draw()
  if ends:
    drawing.label_lines(axes, ends)
