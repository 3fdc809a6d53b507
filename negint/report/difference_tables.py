"""Tables of differences from JointPair, and the table of negative interference."""

from negint.report import layout, statistics
from negint.report.cells import Cells, Column, Key, Row, column_order
from negint.report.comparisons import Comparer, Difference, average
from negint.report.layout import SCORE_NAMES, SETTING_NAMES, TASK_NAMES, Missing, Section, Table
from negint.report.score_tables import Block, Spec, blocks, header, is_empty, labels, main_settings

NOTE = (
  "Points, 95 % interval and two-sided p of a paired bootstrap over the test examples "
  f"({statistics.RESAMPLES:,} resamples, both systems on the same examples; seeds paired, their "
  "number in parentheses). Intervals say nothing about seeds that were not run."
)
DATA_HEADER = (
  *("table", "scale", "task", "setting", "system", "language", "score"),
  *("difference", "low", "high", "p", "pairs_of_seeds"),
)


def difference_section(spec: Spec, cells: Cells, comparer: Comparer) -> Section:
  """Returns the table with every row minus JointPair, without the rows that have no difference."""
  heading = f"{spec.heading.split(':')[0]}: difference from JointPair"
  section = Section(f"{spec.name}_differences", heading, NOTE, data_header=DATA_HEADER)
  for scale in cells.scales:
    for task, scores in spec.tasks:
      parts = blocks(spec, cells, scale, task, scores)
      if is_empty(spec, parts, cells):
        continue
      for score in scores:
        title = f"{TASK_NAMES[task]}, {SCORE_NAMES[score]}, scale {scale}"
        table = Table(title, header(parts[0]), [])
        for block in parts:
          rows = [
            [row.label, *difference_cells(block, row, score, comparer, section)]
            for row in block.rows(cells)
            if row != Row("joint_pair")
          ]
          rows = [row for row in rows if set(row[1:]) != {layout.EMPTY}]
          table.rows += [[SETTING_NAMES[block.setting]], *rows] if rows else []
        section.tables += [table] if table.rows else []
      section.note = NOTE + main_settings(cells, scale, task, section.note[len(NOTE) :])
  return section


def difference_cells(
  block: Block, row: Row, score: str, comparer: Comparer, section: Section
) -> list[str]:
  """Returns the texts of a row and adds its numbers to the section's data."""
  found = {}
  for column in block.columns:
    key = block.key(row, column)
    found[column] = comparer.difference(key, comparer.baseline(key), score)
  named: list[tuple[str, Difference | None]] = [(c.label, each) for c, each in found.items()]
  if block.averaged:
    named.append(("avg", average([found[column] for column in block.averaged])))
  return [write(section, (*labels(block, row, name), score), each) for name, each in named]


def write(section: Section, where: tuple, found: Difference | None) -> str:
  """Returns a difference as text and adds its numbers to the section's data.

  Args:
    section: where the numbers go.
    where: the first fields of the data's row, as DATA_HEADER names them.
    found: the difference; None gives an empty cell.
  """
  if found is None:
    return layout.EMPTY
  interval = found.interval
  bounds = (interval.low, interval.high, interval.p) if interval else (None, None, None)
  section.data.append((*where, found.value, *bounds, found.seeds))
  return layout.difference(found.value, interval, found.seeds)


def interference(
  cells: Cells, comparer: Comparer, scale: str, task: str, column: Column, score: str
) -> Difference | None:
  """Returns Mono minus JointPair, fine-tuned and tested on one language.

  A positive value means that the languages of the pair interfere.
  """
  subsample = 0 if column.pair else column.subsample
  alone = column._replace(pair="", subsample=subsample)
  mono = Key(scale, task, "within", Row("mono"), alone)
  return comparer.difference(mono, mono._replace(row=Row("joint_pair"), column=column), score)


def interference_section(cells: Cells, comparer: Comparer, missing: list[Missing]) -> Section:
  """Returns the table of Mono minus JointPair, within-language, by language and task."""
  heading = "Negative interference: Mono minus JointPair, within-language"
  note = f"{NOTE} Positive values: the model of one language alone is better."
  section = Section("interference", heading, note, data_header=DATA_HEADER)
  tasks = ("ner", "pos", "qa")
  for scale in cells.scales:
    columns = {
      key.column
      for task in tasks
      for key in cells.find(scale, task, "within")
      if key.row == Row("joint_pair")
    }
    alone = []
    table = Table(f"F1, scale {scale}", ["language", *(TASK_NAMES[task] for task in tasks)], [])
    for column in sorted(columns, key=column_order):
      texts = []
      for task in tasks:
        where = ("interference", scale, task, "within", "Mono - JointPair", column.label, "f1")
        found = interference(cells, comparer, scale, task, column, "f1")
        texts.append(write(section, where, found))
      if set(texts) == {layout.EMPTY}:
        alone.append(column.label)
      else:
        table.rows.append([column.label, *texts])
    section.tables += [table] if table.rows else []
    if alone or not columns:
      what = f"no Mono beside JointPair: {layout.listed(alone)}" if alone else "no JointPair"
      missing.append(Missing(f"Negative interference, scale {scale}", what))
  return section
