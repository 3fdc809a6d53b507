"""What makes meta adapters work: every variant of adpt and meta_adpt beside both, as table and figure."""

import dataclasses
import pathlib

import numpy as np
from matplotlib import ticker

from negint.report import budgets, drawing, layout, statistics
from negint.report.cells import ABLATED, MAIN_SCORES, PERPLEXITY, Cells, Column, Key, Row
from negint.report.comparisons import Comparer
from negint.report.difference_tables import DATA_HEADER, Differences, add_coverage
from negint.report.drawing import BLACK, GREEN, SKY, Bar, Figure
from negint.report.layout import MEASURE_NAMES, Section, Table
from negint.report.statistics import Estimate

MEASURES = (
  *(("ner", "zero_shot"), ("pos", "zero_shot")),
  *(("ner", "within"), ("pos", "within")),
  (PERPLEXITY, "within"),
)
_NOTE = (
  "Variants of adpt and meta adpt; rows name the settings that differ from the main rows. First their scores: "
  "per cent, and bits of held-out text (seeds). Then each row minus adpt, and minus meta adpt: points, bits "
  "saved, so that more is better. Second order: its share in the norms of the meta-gradient's two terms, mean "
  "over updates. A star: p below 0.05 over seeds after Holm's correction for the table."
)
_CAPTION = (
  "Variants of adpt and meta adpt minus adpt; right is better. Points of F1; the last panel: bits saved on "
  "held-out text. The dashed line is meta adpt. Lines: 95 % intervals; an arrow leaves the panel."
)


def better(
  comparer: Comparer, scale: str, column: Column, row: Row, reference: str, measure: tuple[str, str]
) -> Estimate | None:
  """Returns by how much a row is better than a system's main row; None where one was not run."""
  task, setting = measure
  ours, theirs = (Key(scale, task, setting, r, column) for r in (row, Row(reference)))
  if ours == theirs:
    return None
  pair = (ours, theirs) if budgets.sign(task) > 0 else (theirs, ours)
  return comparer.difference(*pair)


def label(row: Row) -> str:
  """Returns a row's label; all its settings are those of pretraining."""
  return row.label.replace("pretraining ", "")


def section(cells: Cells, comparer: Comparer) -> Section:
  """Returns the tables of differences; without tables if there is no variant."""
  heading = "What makes meta adapters work"
  found = Section("ablation", heading, _NOTE, data_header=DATA_HEADER)
  for scale in cells.scales:
    for column in cells.main_columns(scale):
      names = cells.ablation(scale, column)
      if names:
        found.tables.append(_scores(comparer, scale, column, names))
      for reference in ABLATED if names else ():
        title = f"Minus {Row(reference).label.strip('+ ')}, {column.label}, scale {scale}"
        table = Differences(title, ["variant", *map(_name, MEASURES)])
        for row in names:
          texts: list = [label(row)]
          for task, setting in MEASURES:
            what = f"{label(row)} - {reference}"
            where = ("ablation", scale, task, setting, what, column.label, MAIN_SCORES[task])
            texts.append((where, better(comparer, scale, column, row, reference, (task, setting))))
          table.rows.append(texts)
        table.write(found)
  add_coverage(found)
  return found


def _scores(comparer: Comparer, scale: str, column: Column, names: list[Row]) -> Table:
  """Returns the table of scores, with what each variant computes and how much is second order."""
  header = ["variant", "FLOPs", "second order", *map(_name, MEASURES)]
  table = Table(f"Variants, {column.label}, scale {scale}", header, [])
  for row in names:
    found = [comparer.score(Key(scale, *measure, row, column)) for measure in MEASURES]
    pairs = zip(found, MEASURES, strict=True)
    facts = _facts(comparer.cells, Key(scale, PERPLEXITY, "within", row, column))
    scores = (layout.score(each, layout.digits(task)) for each, (task, _) in pairs)
    table.rows.append([label(row), *facts, *scores])
  return table


def _facts(cells: Cells, key: Key) -> list[str]:
  """Returns the FLOPs and the share of the second-order term of a variant's models."""
  results = [tested.run.result for tested in cells.cells.get(key, {}).values()]
  shares = [s for result in results if (s := result.get("second_order_share")) is not None]
  flops = cells.flops(key)
  return [
    layout.EMPTY if flops is None else f"{flops:.3g}",
    f"{np.mean(shares):.2%}" if shares else layout.EMPTY,
  ]


def _name(measure: tuple[str, str]) -> str:
  task, setting = measure
  return MEASURE_NAMES[task] + ("" if task == PERPLEXITY else f" {layout.SETTING_NAMES[setting]}")


def draw(cells: Cells, comparer: Comparer, scale: str, folder: pathlib.Path) -> list[Figure]:
  """Draws every variant minus adpt, one panel per measure: a figure for each target that has variants."""
  figures = []
  for column in cells.main_columns(scale):
    names = [row for row in cells.ablation(scale, column) if row != Row("adpt")]
    found = {
      measure: [better(comparer, scale, column, row, "adpt", measure) for row in names]
      for measure in MEASURES
    }
    found = {measure: each for measure, each in found.items() if any(each)}
    if found:
      figures.append(_draw(found, names, scale, column, folder))
  return figures


def _draw(
  found: dict[tuple[str, str], list[Estimate | None]],
  names: list[Row],
  scale: str,
  column: Column,
  folder: pathlib.Path,
) -> Figure:
  figure, axes = drawing.panels(len(found), len(found), 1.0 + 0.2 * len(names), share_y=True)
  for ax, (measure, estimates) in zip(axes, found.items(), strict=True):
    bars = [None if e is None else bar(e) for e in estimates]
    ax.set_xlim(drawing.limits_of_most([b for b in bars if b] + [Bar(0.0, 0.0, 0.0)]))
    for place, (row, each) in enumerate(zip(names, bars, strict=True)):
      colour = BLACK if not row.variant else GREEN if row.system == "meta_adpt" else SKY
      if each:
        drawing.bars(ax, np.array([place]), [each], colour=colour, upright=False)
      if each and row == Row("meta_adpt"):
        ax.axvline(each.value, color=BLACK, linewidth=0.8, linestyle="--")
    ax.axvline(0, color=BLACK, linewidth=0.7)
    ax.set_title(_name(measure).removesuffix("-language").replace(" ", "\n", 1), loc="left")
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.xaxis.set_major_locator(ticker.MaxNLocator(2))
  axes[0].set_yticks(range(len(names)), [label(row) for row in names])
  covers = layout.coverage(e.over for each in found.values() for e in each if e)
  number = "6" if scale == "lab" else f"6{column.language}"  # the lab has one target
  drawn = drawing.save(figure, folder, number, scale, f"{_CAPTION} {covers}".strip())
  return dataclasses.replace(
    drawn, title=f"Variants of meta adapters, {column.label}, scale {scale}"
  )


def bar(found: Estimate) -> Bar:
  """Returns an estimate as a point with its interval."""
  ends = found.interval or statistics.Interval(found.value, found.value, 1.0)
  return Bar(found.value, ends.low, ends.high)
