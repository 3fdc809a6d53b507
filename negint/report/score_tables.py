"""Tables 2-7: scores by system and language, as the paper lays them out.

`score_section` appends the cells that it leaves empty to `missing`.
"""

from dataclasses import dataclass

from negint.report import layout, published
from negint.report.cells import ENGLISH, Cells, Column, Key, Row, column_order, row_order
from negint.report.comparisons import Comparer
from negint.report.layout import SCORE_NAMES, SETTING_NAMES, TASK_NAMES, Missing, Section, Table

NOTE = (
  "Per cent: mean ± sample standard deviation (number of runs). In brackets: the paper's value, "
  "whose labelled data may be others than yours. Averages, ours and the paper's, are over its languages that "
  "were run, where these are two or more, and stand in rows that have all of them."
)
DATA_HEADER = (
  *("table", "scale", "task", "setting", "system", "language", "score"),
  *("mean", "standard_deviation", "deviation_over", "runs", "published"),
  *("low", "high", "interval_covers"),
)


@dataclass(frozen=True)
class Spec:
  """One table of the paper."""

  name: str  # of its block in published.toml
  heading: str  # of its section
  tasks: tuple[tuple[str, tuple[str, ...]], ...]  # (task, its scores)
  settings: tuple[str, ...]  # within | zero_shot | english
  systems: tuple[str, ...] = ()  # its rows; empty: all that the paper or the study has


TABLES = (
  Spec(
    "table2", "Table 2: NER and POS", (("ner", ("f1",)), ("pos", ("f1",))), ("within", "zero_shot")
  ),
  Spec("table3", "Table 3: question answering", (("qa", ("f1",)),), ("within", "zero_shot")),
  Spec("table6", "Table 6: natural language inference", (("nli", ("accuracy",)),), ("zero_shot",)),
  Spec(
    "table7",
    "Table 7: question answering in full",
    (("qa", ("f1", "exact_match")),),
    ("within", "zero_shot"),
  ),
)
TABLE4 = Spec(
  "table4",
  "Table 4: a third, similar language",
  (("ner", ("f1",)), ("pos", ("f1",))),
  ("within", "zero_shot"),
  ("joint_pair", "joint_tri"),
)
TABLE5 = Spec(
  "table5",
  "Table 5: size of the corpus",
  (("ner", ("f1",)), ("pos", ("f1",)), ("qa", ("f1", "exact_match"))),
  ("within", "english"),
  ("mono", "joint_pair"),
)


@dataclass(frozen=True)
class Block:
  """The rows of one table in one setting, and where their cells are."""

  spec: Spec  # the table
  scale: str  # of the runs
  task: str  # that was fine-tuned on
  scores: tuple[str, ...]  # shown in each cell
  setting: str  # within | zero_shot | english
  columns: list[Column]  # the languages
  averaged: list[Column]  # those of the paper that were run, or all if none was; empty: no average

  def key(self, row: Row, column: Column) -> Key:
    """Returns the key of a cell."""
    if self.setting != "english":
      return Key(self.scale, self.task, self.setting, row, column)
    english = ENGLISH[self.scale == "lab"]  # Table 5 tests the column's pair on its English
    tested = column._replace(language=english, pair=f"{column.language}-{english}")
    return Key(self.scale, self.task, "within", row, tested)

  def published(self, row: Row, column: str) -> list[float | None]:
    """Returns the paper's value of each score in a cell."""
    if row.variant or self.scale == "lab":
      return [None] * len(self.scores)
    where = (self.spec.name, self.task)
    return [published.value(*where, s, self.setting, row.system, column) for s in self.scores]

  def published_average(self, row: Row) -> list[float | None]:
    """Returns the paper's average of each score: as printed, or over `averaged` where these are fewer."""
    languages = published.columns(self.spec.name, self.task, self.scores[0], self.setting)
    if {column.published for column in self.averaged} >= set(languages):
      return self.published(row, "avg")
    columns = [self.published(row, column.published) for column in self.averaged]
    means: list[float | None] = []
    for values in zip(*columns, strict=True):
      known = [value for value in values if value is not None]
      means.append(sum(known) / len(known) if len(known) == len(values) else None)
    return means

  def rows(self, cells: Cells) -> list[Row]:
    """Returns the rows of the paper and of the study, in the order of the paper."""
    names = published.rows(self.spec.name, self.task, self.scores[0], self.setting)
    tested = {self.key(Row(""), column).column for column in self.columns}
    setting = "within" if self.setting == "english" else self.setting
    found = [k.row for k in cells.find(self.scale, self.task, setting) if k.column in tested]
    apart = {  # have tables of their own
      row
      for column in cells.main_columns(self.scale)
      for row in cells.ablation(self.scale, column)
      if row.without_steps.variant
    }
    ours = {row for row in found if not row.adds_language} - apart
    wanted = self.spec.systems
    if self.scale == "lab":
      names = [name for name in names if name != "xlm"]  # speaks no artificial language
    rows = {Row(name) for name in names} | {r for r in ours if not wanted or r.system in wanted}
    return sorted(rows, key=row_order)


def blocks(spec: Spec, cells: Cells, scale: str, task: str, scores: tuple[str, ...]) -> list[Block]:
  """Returns the blocks of a table, one per setting."""
  columns, paper = table_columns(spec, cells, scale, task)
  tested = {key.column for setting in spec.settings for key in cells.find(scale, task, setting)}
  of_paper = [column for column in columns if column.language in paper] if not spec.systems else []
  averaged = [column for column in of_paper if column in tested] or of_paper
  averaged = averaged if len(averaged) > 1 else []
  return [Block(spec, scale, task, scores, s, columns, averaged) for s in spec.settings]


def table_columns(
  spec: Spec, cells: Cells, scale: str, task: str
) -> tuple[list[Column], list[str]]:
  """Returns (the columns of the paper and of the study, the languages of the paper)."""
  paper = published.columns(spec.name, task, spec_score(spec, task), spec.settings[0])
  paper = [] if scale == "lab" else paper
  found = {
    key.column
    for key in cells.cells
    if key.scale == scale and (key.task == task or scale == "lab") and not key.column.pair
  }
  found = {column for column in found if column.language not in ENGLISH}
  found -= added_columns(cells, scale)
  if spec.name == "table5":
    small = {column.language for column in found if column.subsample}
    keep = {c for c in found if c.language in small}
  elif spec.name == "table4":
    keys = [key for key in cells.cells if key.scale == scale and key.row.system == "joint_tri"]
    keep = {key.column for key in keys if key.column in found and not key.column.subsample}
  else:
    keep = {column for column in found if not column.subsample}
  keep |= {Column(n) for n in paper if n not in {column.published for column in keep}}
  return sorted(keep, key=column_order), paper


def added_columns(cells: Cells, scale: str) -> set[Column]:
  """Returns the languages that were added to a model, if no bilingual model has them as its target."""
  rows: dict[Column, set[Row]] = {}
  for key in cells.cells:
    if key.scale == scale:
      rows.setdefault(key.column, set()).add(key.row)
  return {
    column
    for column, found in rows.items()
    if any(row.adds_language for row in found)
    and all(row.adds_language or row.system == "mono" for row in found)
  }


def spec_score(spec: Spec, task: str) -> str:
  """Returns the first score of a task in a table."""
  return dict(spec.tasks)[task][0]


def score_section(spec: Spec, cells: Cells, comparer: Comparer, missing: list[Missing]) -> Section:
  """Returns the table with our scores beside the paper's, by scale and task."""
  section = Section(spec.name, spec.heading, NOTE, data_header=DATA_HEADER)
  for scale in cells.scales:
    for task, scores in spec.tasks:
      parts = blocks(spec, cells, scale, task, scores)
      where = f"{spec.heading.split(':')[0]}, {TASK_NAMES[task]}, scale {scale}"
      if is_empty(spec, parts, cells):
        missing.append(Missing(where, "no run"))
        continue
      names = "/".join(SCORE_NAMES[score] for score in scores)
      table = Table(f"{where} ({names})", header(parts[0]), [])
      for block in parts:
        table.rows.append([SETTING_NAMES[block.setting]])
        for row in block.rows(cells):
          table.rows.append([row.label, *score_cells(block, row, comparer, section)])
        if spec.name != "table7":  # whose gaps are Table 3's
          missing += gaps(block, cells, where)
      section.tables.append(table)
      section.note = NOTE + main_settings(cells, scale, task, section.note[len(NOTE) :])
  section.note += deviations(section)
  return section


def deviations(section: Section) -> str:
  """Returns the sentence that says which seeds the deviations of a table are over."""
  index = DATA_HEADER.index("deviation_over")
  over = {row[index] for row in section.data} - {None}
  if not over and section.data:
    return " One run in each cell: nothing says what other seeds would give."
  if over == {"pretraining"}:
    return " Deviations are over pretraining seeds, each with the mean over its fine-tuning seeds."
  if over == {"fine-tuning"}:
    return " Deviations are over the fine-tuning seeds of one pretrained model."
  if over:
    return (
      " Deviations are over pretraining seeds, each with the mean over its fine-tuning seeds. Where there "
      "is one pretrained model, they are over its fine-tuning seeds (`deviation_over` in the CSV file)."
    )
  return ""


def main_settings(cells: Cells, scale: str, task: str, before: str) -> str:
  """Returns the note `before`, with the settings of rows without a parenthesis if settings vary."""
  main = cells.main.get((scale, task))
  if not main:
    return before
  values = layout.listed(
    f"{name}={' or '.join(map(str, each))}{' (by column or system)' * (len(each) > 1)}"
    for name, each in main.items()
  )
  return f"{before} {TASK_NAMES[task]} rows without a parenthesis have {values} (scale {scale})."


def is_empty(spec: Spec, parts: list[Block], cells: Cells) -> bool:
  """Returns whether the table has no result, or none with its third language or subsample."""
  keys = [b.key(row, c) for b in parts for row in b.rows(cells) for c in b.columns]
  found = [key for key in keys if key in cells.cells]
  if spec.name == "table4":
    found = [key for key in found if key.row.system == "joint_tri"]
  if spec.name == "table5":
    found = [key for key in found if key.column.subsample]
  return not found


def header(block: Block) -> list[str]:
  """Returns the names of the table's columns."""
  return ["system", *(c.label for c in block.columns), *(["avg"] if block.averaged else [])]


def score_cells(block: Block, row: Row, comparer: Comparer, section: Section) -> list[str]:
  """Returns the texts of a row and adds its numbers to the section's data."""
  texts, cells = [], comparer.cells
  for column in block.columns:
    pooled = [cells.pooled(block.key(row, column), score) for score in block.scores]
    theirs = block.published(row, column.published)
    texts.append(layout.bracketed(layout.scores(pooled), theirs))
    for score, each, printed in zip(block.scores, pooled, theirs, strict=True):
      if each is not None:
        over = each.over if each.deviation is not None else None
        spread = each.mean, each.deviation, over, each.count
        found = comparer.score(block.key(row, column), score)
        interval = found.interval if found else None
        ends = (interval.low, interval.high, found.over) if found and interval else (None,) * 3
        section.data.append((*labels(block, row, column.label), score, *spread, printed, *ends))
  if block.averaged:
    texts.append(average_cell(block, row, cells, section))
  return texts


def labels(block: Block, row: Row, column: str) -> tuple[str, ...]:
  """Returns the first fields of a row of the data, as DATA_HEADER names them."""
  return block.spec.name, block.scale, block.task, block.setting, row.label, column


def average_cell(block: Block, row: Row, cells: Cells, section: Section) -> str:
  """Returns the text of a row's average and adds its numbers to the section's data."""
  theirs, means = block.published_average(row), []
  for score, printed in zip(block.scores, theirs, strict=True):
    found = [cells.pooled(block.key(row, column), score) for column in block.averaged]
    pooled = [each for each in found if each is not None]
    if len(pooled) == len(found):
      means.append(sum(each.mean for each in pooled) / len(pooled))
      section.data.append(
        (*labels(block, row, "avg"), score, means[-1], None, None, None, printed)
        + (None, None, None)
      )
  complete = len(means) == len(block.scores)
  text = " / ".join(layout.number(mean) for mean in means) if complete else layout.EMPTY
  return layout.bracketed(text, theirs)


def gaps(block: Block, cells: Cells, where: str) -> list[Missing]:
  """Returns the empty cells of the paper's rows; rows with the same gaps share an entry.

  Systems and languages of which the scale has no run at all are left out: `absent` has them.
  """
  together: dict[str, list[str]] = {}
  expected = published.rows(block.spec.name, block.task, block.scores[0], block.setting)
  systems, languages = present(cells, block.scale)
  for row in block.rows(cells):
    empty = [c for c in block.columns if block.key(row, c) not in cells.cells]
    columns = [column.label for column in empty if column.language in languages]
    if columns and row.system in expected and row.system in systems and not row.variant:
      together.setdefault(layout.listed(columns), []).append(row.label)
  part = f"{where}, {SETTING_NAMES[block.setting]}"
  return [Missing(part, f"{layout.listed(rows)}: {columns}") for columns, rows in together.items()]


def present(cells: Cells, scale: str) -> tuple[set[str], set[str]]:
  """Returns (the systems, the languages) of which a scale has results."""
  keys = [key for key in cells.cells if key.scale == scale]
  return {key.row.system for key in keys}, {key.column.language for key in keys}


def absent(cells: Cells) -> list[Missing]:
  """Returns the systems and languages of the main tables of which a scale has no run."""
  found = []
  for scale in cells.scales:
    systems, languages = present(cells, scale)
    rows: list[str] = []
    columns: list[str] = []
    for spec, (task, scores) in ((table, each) for table in TABLES for each in table.tasks):
      for block in blocks(spec, cells, scale, task, scores):
        columns += [c.label for c in block.columns if c.language not in languages]
        rows += [row.label for row in block.rows(cells) if row.system not in systems]
    for what, names in (("of", rows), ("in", columns)):
      if names:  # a dict keeps their order, and each once
        text = f"any run {what} {layout.listed(dict.fromkeys(names))}"
        found.append(Missing(f"Tables 2 to 7, scale {scale}", text))
  return found
