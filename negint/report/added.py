"""A language that was added to a finished model, beside models that had it from the start."""

import statistics

from negint.report import layout
from negint.report.cells import (
  MAIN_SCORES,
  PERPLEXITY,
  Cells,
  Column,
  Key,
  Row,
  column_order,
  row_order,
)
from negint.report.comparisons import Comparer
from negint.report.layout import EMPTY, MEASURE_NAMES, Missing, Section, Table
from negint.report.statistics import Estimate

MEASURES = (
  *((task, setting) for setting in ("within", "zero_shot") for task in ("ner", "pos", "qa", "nli")),
  (PERPLEXITY, "within"),
)
_NOTE = (
  "A language added to a model that was trained without it (configs/add_language.py), a model of all three "
  "languages from the start, and models of the language alone. Per cent with 95 % intervals (seeds); bits of "
  "held-out text, fewer are better. Unknown pieces and pieces per word: of the tokenizer on this language, "
  "counted where a language was added; the other models may have the same tokenizer."
)
DATA_HEADER = (
  *("scale", "language", "system", "steps", "task", "setting", "score"),
  *("value", "low", "high", "interval_covers", "seeds"),
)


def section(cells: Cells, comparer: Comparer, missing: list[Missing]) -> Section:
  """Returns one table per added language; without tables if no language was added."""
  found = Section("added_language", "A language added later", _NOTE, data_header=DATA_HEADER)
  for scale in cells.scales:
    columns = {key.column for key in cells.cells if key.scale == scale and key.row.adds_language}
    for column in sorted(columns, key=column_order):
      if not column.pair:
        found.tables.append(_table(cells, comparer, scale, column, found))
  if not found.tables:
    missing.append(Missing(found.heading, "no run of configs/add_language.py"))
  covers = DATA_HEADER.index("interval_covers")
  found.note = f"{found.note} {layout.coverage(row[covers] for row in found.data)}".strip()
  return found


def _models(cells: Cells, scale: str, column: Column) -> list[tuple[Row, Column]]:
  """Returns the models that know the language: those it was added to, JointTri and Mono."""
  found = {
    (key.row, key.column)
    for key in cells.cells
    if key.scale == scale
    and key.column.language == column.language
    and key.column.similarity == column.similarity
    and (key.row.adds_language or key.row.system in ("joint_tri", "mono"))
  }
  return sorted(found, key=lambda model: (row_order(model[0]), column_order(model[1])))


def _table(cells: Cells, comparer: Comparer, scale: str, column: Column, section: Section) -> Table:
  rows: list[tuple[str, list[str], dict]] = []
  shown: set[tuple[str, str]] = set()
  for row, where in _models(cells, scale, column):
    found: dict[tuple[str, str], Estimate] = {}
    for task, setting in MEASURES:
      key = Key(scale, task, setting, row, where)
      if estimate := comparer.score(key):
        found[task, setting] = estimate
        interval = estimate.interval
        ends = (interval.low, interval.high) if interval else (None, None)
        name = row.label, _steps(cells, key), task, setting, MAIN_SCORES[task]
        numbers = estimate.value, *ends, estimate.over, estimate.seeds
        section.data.append((scale, column.label, *name, *numbers))
    shown |= found.keys()
    perplexity = Key(scale, PERPLEXITY, "within", row, where)
    rows.append((row.label, _facts(cells, perplexity), found))
  measures = [measure for measure in MEASURES if measure in shown]
  names = [
    MEASURE_NAMES[task] + ("" if task == PERPLEXITY else f" {layout.SETTING_NAMES[setting]}")
    for task, setting in measures
  ]
  title = f"{column.label}, scale {scale}"
  facts = ["steps", "its tokens", "held-out tokens", "unknown", "pieces/word"]
  table = Table(title, ["model", *facts, *names], [])
  for label, own, found in rows:
    texts = [layout.score(found.get(m), layout.digits(m[0])) for m in measures]
    table.rows.append([label, *own, *texts])
  return table


def _steps(cells: Cells, key: Key) -> str:
  steps = {tested.run.origin.steps or 0 for tested in cells.cells[key].values()}
  return " or ".join(f"{each:,}" for each in sorted(steps))


def _facts(cells: Cells, key: Key) -> list[str]:
  """Returns the steps, the tokens of the language, held-out ones, and how the tokenizer fits it."""
  if key not in cells.cells:
    return [EMPTY] * 5
  results = [tested.run.result for tested in cells.cells[key].values()]
  tokens = cells.tokens(key)
  held_out = statistics.fmean(result["held_out_tokens_seen"] for result in results)
  facts = [_steps(cells, key), EMPTY if tokens is None else f"{tokens:,.0f}", f"{held_out:,.0f}"]
  for name, text in (("unknown_pieces", "{:.2%}"), ("pieces_per_word", "{:.2f}")):
    values = [result[name][key.column.language] for result in results if name in result]
    facts.append(text.format(sum(values) / len(values)) if values else EMPTY)
  return facts
