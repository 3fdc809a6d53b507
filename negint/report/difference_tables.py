"""Tables of differences from JointPair, and of negative interference under three matchings."""

import dataclasses

from negint.report import budgets, layout, statistics
from negint.report.cells import MAIN_SCORES, PERPLEXITY, Cells, Column, Key, Row, column_order
from negint.report.comparisons import Comparer, Term, mean_of
from negint.report.layout import (
  MEASURE_NAMES,
  SCORE_NAMES,
  SETTING_NAMES,
  TASK_NAMES,
  Missing,
  Section,
  Table,
)
from negint.report.score_tables import Block, Spec, blocks, header, is_empty, labels, main_settings
from negint.report.statistics import Estimate

NOTE = (
  "Points with 95 % intervals (number of seeds). A star: two-sided p below 0.05 over pretraining seeds, "
  "after Holm's correction for all differences of the table. Systems on the same languages are paired by "
  f"their seeds, others are not; all see the same test examples ({statistics.RESAMPLES:,} resamples)."
)
_WITHIN = ("ner", "pos", "qa", PERPLEXITY)  # measures of interference
DATA_HEADER = (
  *("table", "scale", "task", "setting", "system", "language", "score"),
  *("difference", "low", "high", "p", "p_holm", "interval_covers", "seeds"),
)


@dataclasses.dataclass
class Differences:
  """A table of differences; `write` turns it into texts when all are known."""

  title: str  # of the table
  header: list[str]  # of the table
  rows: list[list[str | tuple[tuple, Estimate | None]]] = dataclasses.field(default_factory=list)
  # Each row: a label, then ((first fields of the data's row), difference); or one heading.

  def write(self, section: Section) -> None:
    """Adds the table and its numbers to a section, unless it is empty."""
    cells = [cell for row in self.rows for cell in row if isinstance(cell, tuple)]
    ps = {id(e): e.p for _, e in cells if e is not None and e.p is not None}
    holm = dict(zip(ps, statistics.holm(list(ps.values())), strict=True))
    if not any(e for _, e in cells):
      return
    table = Table(self.title, self.header, [])
    for row in self.rows:
      texts = [cell if isinstance(cell, str) else self._text(cell, holm, section) for cell in row]
      if len(row) == 1 or set(texts[1:]) != {layout.EMPTY}:
        table.rows.append(texts)
    table.rows = [
      row
      for row, after in zip(table.rows, [*table.rows[1:], [""]], strict=True)
      if len(row) > 1 or len(after) > 1  # a heading of rows that exist
    ]
    section.tables.append(table)

  def _text(
    self, cell: tuple[tuple, Estimate | None], holm: dict[int, float], section: Section
  ) -> str:
    where, found = cell
    if found is None:
      return layout.EMPTY
    interval, p_holm = found.interval, holm.get(id(found))
    ends = (interval.low, interval.high) if interval else (None, None)
    section.data.append((*where, found.value, *ends, found.p, p_holm, found.over, found.seeds))
    task = where[DATA_HEADER.index("task")]
    significant = p_holm is not None and p_holm < statistics.SIGNIFICANT
    return layout.difference(found, digits=layout.digits(task), significant=significant)


def add_coverage(section: Section) -> None:
  """Adds to a section's note what its intervals cover."""
  column = DATA_HEADER.index("interval_covers")
  section.note = f"{section.note} {layout.coverage(row[column] for row in section.data)}".strip()


def difference_section(spec: Spec, cells: Cells, comparer: Comparer) -> Section:
  """Returns the table with every row minus JointPair, without the rows that have no difference."""
  heading = f"{spec.heading.split(':')[0]}: difference from JointPair"
  section = Section(f"{spec.name}_differences", heading, NOTE, data_header=DATA_HEADER)
  section.note += (
    " Rows of other settings are compared with JointPair of the same settings, if it was run; rows of "
    "other updates also with JointPair's main row, if they cost as many FLOPs."
  )
  start = len(section.note)
  for scale in cells.scales:
    for task, scores in spec.tasks:
      parts = blocks(spec, cells, scale, task, scores)
      if is_empty(spec, parts, cells):
        continue
      for score in scores:
        title = f"{TASK_NAMES[task]}, {SCORE_NAMES[score]}, scale {scale}"
        table = Differences(title, header(parts[0]))
        for block in parts:
          table.rows.append([SETTING_NAMES[block.setting]])
          table.rows += [
            [row.label, *difference_cells(block, row, score, comparer)]
            for row in block.rows(cells)
            if row != Row("joint_pair")
          ]
        table.write(section)
      section.note = section.note[:start] + main_settings(cells, scale, task, section.note[start:])
  add_coverage(section)
  return section


def difference_cells(
  block: Block, row: Row, score: str, comparer: Comparer
) -> list[tuple[tuple, Estimate | None]]:
  """Returns the cells of a row of `Differences`."""
  terms = {}
  for column in block.columns:
    key = block.key(row, column)
    terms[column] = (Term(1, key, score), Term(-1, comparer.baseline(key), score))
  if row == row.joint_pair:
    return [((), None) for _ in header(block)[1:]]
  named = [(column.label, comparer.estimate(each)) for column, each in terms.items()]
  if block.averaged:
    named.append(("avg", comparer.estimate(mean_of([terms[column] for column in block.averaged]))))
  return [((*labels(block, row, name), score), each) for name, each in named]


def interference(
  comparer: Comparer, scale: str, task: str, column: Column, matching: str = "steps"
) -> Estimate | None:
  """Returns how much better Mono is than JointPair, fine-tuned and tested on one language.

  A positive value means that the languages of the pair interfere.

  Args:
    comparer: of the study.
    scale: of the runs.
    task: whose main score is compared; "perplexity": bits, whose sign is turned.
    column: JointPair's.
    matching: a key of `budgets.MATCHINGS`: what Mono and JointPair have in common.
  """
  terms = budgets.mono_minus(
    comparer.cells, Key(scale, task, "within", Row("joint_pair"), column), matching
  )
  return comparer.estimate(terms) if terms else None


def _matchings(cells: Cells, scale: str, column: Column) -> dict[str, str]:
  """Returns {matching: what is equal}; those that compare the same runs are one: "steps, FLOPs"."""
  keys = [Key(scale, task, "within", Row("joint_pair"), column) for task in _WITHIN]
  found: dict[object, list[str]] = {}
  for matching in budgets.MATCHINGS:
    compared = tuple(budgets.mono_minus(cells, key, matching) for key in keys)
    found.setdefault(compared if any(compared) else matching, []).append(matching)
  return {
    names[0]: layout.listed(budgets.NAMES[name] for name in names) for names in found.values()
  }


def interference_section(cells: Cells, comparer: Comparer, missing: list[Missing]) -> Section:
  """Returns the table of Mono minus JointPair, within-language, by language, matching and task."""
  heading = "Negative interference: Mono minus JointPair, within-language"
  note = (
    f"{NOTE} Positive values: the model of one language alone is better. "
    f"{' '.join(budgets.MATCHINGS.values())} "
    "Between two lengths of Mono, its score is interpolated. Bits: of a held-out character where runs have "
    "them, else of a token; how many more JointPair needs. Matchings that compare the same runs share a row."
  )
  section = Section("interference", heading, note, data_header=DATA_HEADER)
  for scale in cells.scales:
    columns = {
      key.column
      for task in _WITHIN
      for key in cells.find(scale, task, "within")
      if key.row == Row("joint_pair") and (task != PERPLEXITY or not key.column.pair)
    }
    alone = []
    names = [MEASURE_NAMES[task] for task in _WITHIN]
    table = Differences(f"Interference, scale {scale}", ["language, at equal", *names])
    for column in sorted(columns, key=column_order):
      rows: list[list] = [[column.label]]
      for matching, equal in _matchings(cells, scale, column).items():
        name = f"Mono - JointPair at equal {equal}"
        rows.append([equal])
        for task in _WITHIN:
          where = ("interference", scale, task, "within", name, column.label, MAIN_SCORES[task])
          rows[-1].append((where, interference(comparer, scale, task, column, matching)))
      table.rows += rows
      if not any(found for row in rows[1:] for _, found in row[1:]):
        alone.append(column.label)
    table.write(section)
    if alone or not columns:
      what = f"no Mono beside JointPair: {layout.listed(alone)}" if alone else "no JointPair"
      missing.append(Missing(f"Negative interference, scale {scale}", what))
  add_coverage(section)
  return section
