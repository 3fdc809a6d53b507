"""Equivalent monolingual tokens as a table, and as the report's first figure."""

import collections
import dataclasses
import functools
import math
import pathlib

import numpy as np

from negint.report import budgets, drawing, layout
from negint.report.budgets import Worth
from negint.report.cells import Cells, Column, Key, Row, column_order, row_order
from negint.report.comparisons import Comparer
from negint.report.drawing import COLOURS, Axes, Bar, Figure
from negint.report.layout import EMPTY, MEASURE_NAMES, Missing, Section, Table
from negint.report.records import Run, Study

MEASURES = ("ner", "pos", "qa", "perplexity")
TITLE = "Equivalent monolingual tokens"
_NOTE = (
  "What each model's scores within the target language are worth in text of that language alone. Mono's runs "
  "of several lengths give each score as a curve over tokens; a model's score lies on the curve at m tokens. "
  "The model saw n tokens of the language. Cells: m / n with its 95 % interval (seeds). Below 1, the other "
  "languages interfere; above 1, they help. “>” and “<”: the score lies beyond the ends of the curve; “…”: "
  "the interval does. Bits: perplexity, as bits per character where runs have it. Held-out tokens are further "
  "text, which meta systems read, and adpt with `phi_split=meta`."
)
_CAPTION = (
  "First panel: a score of Mono over the tokens that it saw, and how a model's score is read off it. Others: "
  "tokens of the target language alone that a model's scores are worth, m, over the tokens of that language "
  "that it saw, n. Left of 1 (below 1), other languages interfere; beyond 1, they help. Lines: 95 % "
  "intervals; an arrow leaves the lengths at which Mono was run, and a hollow point says that the score itself "
  "does."
)
DATA_HEADER = (
  *("scale", "system", "language", "measure", "tokens_seen", "tokens_worth", "beyond"),
  *("low", "high", "interval_covers", "seeds"),
)


class Worths:
  """Finds what each cell is worth, once."""

  def __init__(self, cells: Cells, comparer: Comparer):
    self.cells = cells
    self.comparer = comparer
    self.of = functools.cache(functools.partial(budgets.worth, comparer))

  def rows(self, scale: str) -> dict[Column, dict[Row, dict[str, Worth]]]:
    """Returns {column: {row: {measure: worth}}} of all systems, in the order of tables."""
    found: dict = collections.defaultdict(lambda: collections.defaultdict(dict))
    for key in budgets.systems(self.cells, scale):
      if each := self.of(key):
        found[key.column][key.row][key.task] = each
    return {
      column: {row: found[column][row] for row in sorted(found[column], key=row_order)}
      for column in sorted(found, key=column_order)
    }


def section(study: Study, worths: Worths, missing: list[Missing]) -> Section:
  """Returns the table of equivalent tokens, with what each system read and computed."""
  found = Section("equivalent_tokens", TITLE, _NOTE, data_header=DATA_HEADER)
  for scale in worths.cells.scales:
    rows = worths.rows(scale)
    if not rows:
      what = (
        "needs mono runs of two or more lengths (`--config.train.steps`), and a model beside them"
      )
      missing.append(Missing(f"{TITLE}, scale {scale}", what))
      continue
    names = [MEASURE_NAMES[task] for task in MEASURES]
    header = ["system", "n", "tokens of others", "held-out tokens", "FLOPs", *names]
    table = Table(f"Worth in tokens, scale {scale}", header, [])
    for column, systems in rows.items():
      table.rows.append([f"{column.label}; {_curve_label(systems)}"])
      for row, each in systems.items():
        cost = _costs(worths.cells, Key(scale, "perplexity", "within", row, column))
        seen = next(iter(each.values())).seen
        texts = [f"{seen:,.0f}", *cost, *(each[m].text if m in each else EMPTY for m in MEASURES)]
        table.rows.append([row.label, *texts])
        found.data += [_data(scale, row, column, m, each[m]) for m in MEASURES if m in each]
    found.tables.append(table)
  if found.tables:
    found.note += _example(worths) + " " + layout.coverage(row[-2] for row in found.data)
  return found


def _data(scale: str, row: Row, column: Column, measure: str, found: Worth) -> tuple:
  name = MEASURE_NAMES[measure]
  ends = found.low, found.high, found.over, found.seeds
  beyond = ("below the curve", "", "above the curve")[found.beyond + 1]
  return (scale, row.label, column.label, name, found.seen, found.tokens, beyond, *ends)


def _curve_label(systems: dict[Row, dict[str, Worth]]) -> str:
  """Returns what the longest curve of a column is made of."""
  every = [found for each in systems.values() for found in each.values()]
  longest = max(every, key=lambda found: len(found.curve))
  points = layout.listed(f"{tokens / 1e6:.3g}" for tokens in longest.curve)
  return f"Mono at {points} million tokens{' of the whole corpus' * longest.is_whole}"


def _costs(cells: Cells, key: Key) -> list[str]:
  """Returns the tokens of other languages, the held-out tokens and the FLOPs of a model."""
  runs: list[Run] = [tested.run for tested in cells.cells.get(key, {}).values()]
  if not runs:
    return [EMPTY] * 3
  language = key.column.language
  others = [sum(n for code, n in r.origin.tokens.items() if code != language) for r in runs]
  held_out = [run.result["held_out_tokens_seen"] for run in runs]
  flops = [run.result["flops"] for run in runs]
  return [f"{np.mean(others):,.0f}", f"{np.mean(held_out):,.0f}", f"{np.mean(flops):.3g}"]


def _example(worths: Worths) -> str:
  """Returns a sentence that reads one cell aloud."""
  for scale in worths.cells.scales:
    for column, systems in worths.rows(scale).items():
      for row, each in systems.items():
        for measure, found in each.items():
          how = ("less than ", "", "more than ")[found.beyond + 1]
          return (
            f" For example, {row.label}'s {MEASURE_NAMES[measure]} in {column.label} is worth {how}"
            f"{found.tokens / 1e6:.3g} million tokens of {column.language} alone, having seen "
            f"{found.seen / 1e6:.3g} million."
          )
  return ""


def figure(worths: Worths, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws m / n of every system, and of JointPair over similarity and over corpus size."""
  rows = worths.rows(scale)
  main = [c for c in worths.cells.main_columns(scale) if c in rows]
  dial = [c for c in rows if c.similarity is not None and not c.subsample]
  sizes = sorted(
    (c for c in rows if c.subsample or c in main), key=lambda c: c.subsample or math.inf
  )
  lines = {
    "similarity": dial if len(dial) > 1 else [],
    "corpus size": sizes if any(c.subsample for c in sizes) and scale == "lab" else [],
  }
  lines = {title: columns for title, columns in lines.items() if columns}
  if not main and not lines:
    return None
  figure, axes = drawing.panels(1 + len(main) + len(lines), 2, 2.9)
  _draw_reading(axes[0], worths, scale, (main or dial or sizes)[0])
  for ax, column in zip(axes[1:], main, strict=False):
    _draw_systems(ax, {row: each for row, each in rows[column].items() if not row.variant})
    ax.set_title(f"Systems, {column.label}", loc="left")
  for ax, (title, columns) in zip(axes[1 + len(main) :], lines.items(), strict=True):
    _draw_line(ax, columns, [rows[c].get(Row("joint_pair"), {}) for c in columns])
    ax.set_title(f"JointPair by {title}", loc="left")
  shown = [m for m in MEASURES if any(m in each for s in rows.values() for each in s.values())]
  for measure in shown:
    axes[1].plot([], [], color=COLOURS[measure], marker="o", label=MEASURE_NAMES[measure])
  figure.legend(loc="outside upper center", ncols=len(shown), frameon=False)
  found = (w.over for systems in rows.values() for each in systems.values() for w in each.values())
  caption = f"{_CAPTION} {layout.coverage(found)}".strip()
  drawn = drawing.save(figure, folder, "0", scale, caption)
  return dataclasses.replace(drawn, title=f"{TITLE}, scale {scale}")


def _draw_reading(ax: Axes, worths: Worths, scale: str, column: Column) -> None:
  """Draws Mono's curve of one measure, and how a system's score is read off it."""
  rows = worths.rows(scale)[column]
  row = Row("joint_pair") if Row("joint_pair") in rows else next(iter(rows))
  measure, found = next(iter(rows[row].items()))
  comparer, side = worths.comparer, budgets.sign(measure)
  key = Key(scale, measure, "within", row, column)
  curve = [
    (tokens / 1e6, mean)
    for tokens, _, mean in budgets.scores_by_tokens(comparer, budgets.lengths(worths.cells, key)[0])
  ]
  own = comparer.score(key)
  ax.set_xscale("log")
  for tokens, each in curve:
    if each.interval:
      ax.plot(
        [tokens] * 2, [each.interval.low, each.interval.high], color=COLOURS["mono"], linewidth=0.9
      )
  ax.plot(
    [tokens for tokens, _ in curve],
    [each.value for _, each in curve],
    color=COLOURS["mono"],
    marker="o",
    markersize=3.5,
  )
  ax.annotate("Mono", (curve[-1][0], curve[-1][1].value), (-4, 4 * side),
              textcoords="offset points", ha="right", color=COLOURS["mono"], fontsize=8)  # fmt: skip
  if own:
    x, y, colour = found.seen / 1e6, own.value, COLOURS["joint_pair"]
    ax.plot(x, y, color=colour, marker="o", markersize=3.5)
    ax.plot([x, found.tokens / 1e6], [y, y], color=colour, linewidth=0.9, linestyle=":")
    floor = ax.get_ylim()[0]
    lines = sorted([(x, "n"), (found.tokens / 1e6, "m")])
    for (place, name), (side_of_line, offset) in zip(
      lines, (("right", -3), ("left", 3)), strict=True
    ):
      ax.plot([place, place], [floor, y], color=colour, linewidth=0.9, linestyle=":")
      ax.annotate(name, (place, floor), (offset, 2), textcoords="offset points", ha=side_of_line,
                  color=colour, fontsize=8)  # fmt: skip
    from_left = (ax.transData + ax.transAxes.inverted()).transform((x, y))[0]
    offset, end = (5, "left") if from_left < 0.2 else (-5, "right")  # there it would be on the axis
    ax.annotate(row.label, (x, y), (offset, 0), textcoords="offset points", ha=end, color=colour,
                va="bottom" if side > 0 else "top", fontsize=8)  # fmt: skip
    ax.set_ylim(floor, None)
  ax.set_title(f"How m is read: {MEASURE_NAMES[measure]}, {column.label}", loc="left")
  ax.set_xlabel(f"million tokens of {column.language} seen")
  ax.set_ylabel(MEASURE_NAMES[measure] if side < 0 else f"{MEASURE_NAMES[measure]}, per cent")
  drawing.plain_ratios(ax.xaxis)


def _bar(found: Worth) -> Bar:
  """Returns a worth as a point; beyond Mono's curve it is the end of the curve, open to that side."""
  ends = (found.low, found.high) if found.has_interval else (found.tokens, found.tokens)
  low, high = (None if end is None else end / found.seen for end in ends)
  is_open_below, is_open_above = found.beyond < 0, found.beyond > 0
  return Bar(
    found.ratio,
    None if is_open_below else low,
    None if is_open_above else high,
    is_known=found.beyond == 0,
  )


def _offsets(count: int) -> np.ndarray:
  return 0.16 * (np.arange(count) - (count - 1) / 2)


def _draw_systems(ax: Axes, systems: dict[Row, dict[str, Worth]]) -> None:
  """Draws one line of points per system, the first on top."""
  measures = [m for m in MEASURES if any(m in each for each in systems.values())]
  ax.set_xscale("log")
  everything = [_bar(w) for each in systems.values() for w in each.values()]
  ax.set_xlim(drawing.limits_of([*everything, Bar(1.0, 1.0, 1.0)], log=True))
  for measure, offset in zip(measures, _offsets(len(measures)), strict=True):
    places = [k for k, each in enumerate(systems.values()) if measure in each]
    found = [_bar(each[measure]) for each in systems.values() if measure in each]
    drawing.bars(ax, np.array(places) + offset, found, colour=COLOURS[measure], upright=False)
  ax.axvline(1, color="black", linewidth=0.7)
  ax.set_yticks(range(len(systems)), [row.label for row in systems])
  ax.set_ylim(len(systems) - 0.5, -0.5)
  ax.set_xlabel("m / n")
  drawing.plain_ratios(ax.xaxis)


def _draw_line(ax: Axes, columns: list[Column], worths: list[dict[str, Worth]]) -> None:
  """Draws one line per measure over the columns, at equal distances."""
  measures = [m for m in MEASURES if any(m in each for each in worths)]
  ax.set_yscale("log")
  everything = [_bar(w) for each in worths for w in each.values()]
  ax.set_ylim(drawing.limits_of([*everything, Bar(1.0, 1.0, 1.0)], log=True))
  for measure, offset in zip(measures, _offsets(len(measures)), strict=True):
    places = np.array([k for k, each in enumerate(worths) if measure in each]) + offset
    found = [_bar(each[measure]) for each in worths if measure in each]
    ax.plot(places, [each.value for each in found], color=COLOURS[measure], linewidth=0.8)
    drawing.bars(ax, places, found, colour=COLOURS[measure], upright=True)
  ax.axhline(1, color="black", linewidth=0.7)
  is_size = any(column.subsample for column in columns)
  names = [f"{c.subsample:,}" if c.subsample else "all" for c in columns]
  labels = names if is_size else [f"{column.similarity:g}" for column in columns]
  ax.set_xticks(range(len(columns)), labels)
  ax.set_xlim(-0.5, len(columns) - 0.5)
  ax.set_xlabel("sentences of the target" if is_size else "similarity of the target to xa")
  ax.set_ylabel("m / n")
  drawing.plain_ratios(ax.yaxis)
