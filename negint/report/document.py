"""The report as files: report.md, report.html with its figures inside, tables/*.csv, figures/*."""

import csv
import html
import io
import pathlib
import re
from dataclasses import dataclass

from negint.errors import UserError
from negint.report import (
  ablation,
  added,
  claims,
  difference_tables,
  figures,
  layout,
  run_tables,
  score_tables,
  worth,
)
from negint.report.cells import collect
from negint.report.comparisons import Comparer
from negint.report.drawing import Figure
from negint.report.layout import Missing, Section, Table
from negint.report.records import Study
from negint.run.files import write_text

_CSS = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 72em; margin: 2em auto;
  padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.25em; margin-top: 2.2em } h3 { font-size: 1em }
table { border-collapse: collapse; font-size: 0.85em; font-variant-numeric: tabular-nums;
  display: block; overflow-x: auto }
th, td { padding: 0.25em 0.7em; text-align: left; white-space: nowrap;
  border-bottom: 1px solid #e4e4e4 }
thead th { border-bottom: 1.5px solid #222 }
th[colspan] { padding-top: 0.9em }
p { max-width: 48em } .note, figcaption { color: #555; font-size: 0.9em; max-width: 52em }
figure { margin: 1.5em 0 } figure svg { max-width: 100%; height: auto }
"""


@dataclass(frozen=True)
class Report:
  """Everything that is written, in its order."""

  summary: str  # one line: how many runs there are
  sections: list[Section]  # before the figures
  figures: list[Figure]  # as drawn
  last: list[Section]  # after the figures: what is missing, and where everything comes from


def write_report(study: Study, out: pathlib.Path) -> Report:
  """Writes the report of a study into the folder `out`, over an earlier report.

  Raises:
    UserError: `out` is a file or holds something that is not a report.
  """
  claim(out)
  report = build(study, out / "figures")
  for section in [*report.sections, *report.last]:
    write_text(out / "tables" / f"{section.name}.csv", comma_separated(section))
  write_text(out / "report.html", as_html(report, out / "figures"))
  write_text(out / "report.md", as_markdown(report))
  names = {section.name for section in [*report.sections, *report.last]}
  remove_others(out / "tables", names, (".csv",))
  remove_others(out / "figures", {figure.name for figure in report.figures}, (".svg", ".png"))
  return report


def claim(out: pathlib.Path) -> None:
  """Makes the folders of a report.

  Raises:
    UserError: `out` is a file or holds something that is not a report.
  """
  if out.exists() and not out.is_dir():
    raise UserError(f"--out={out} is a file; choose an empty or a new folder.")
  if out.exists() and any(out.iterdir()) and not (out / "report.md").exists():
    raise UserError(
      f"--out={out} is not empty and holds no report (no report.md); choose an empty or a new folder."
    )
  for folder in ("tables", "figures"):
    (out / folder).mkdir(parents=True, exist_ok=True)


def remove_others(folder: pathlib.Path, names: set[str], suffixes: tuple[str, ...]) -> None:
  """Removes files of an earlier report that this one does not have.

  Args:
    folder: where the files are.
    names: of this report's files, without suffixes.
    suffixes: of the files that may be removed.
  """
  for path in folder.iterdir():
    if path.suffix in suffixes and path.stem not in names:
      path.unlink()


def build(study: Study, folder: pathlib.Path) -> Report:
  """Returns all sections and draws the figures into `folder`."""
  cells = collect(study)
  comparer = Comparer(cells, study)
  missing: list[Missing] = []
  worths = worth.Worths(cells, comparer)
  stated, parts = claims.sections(study, comparer)
  tables = [stated, worth.section(study, worths, missing)]
  tables.append(difference_tables.interference_section(cells, comparer, missing))
  tables.append(run_tables.data_section(study))
  missing += score_tables.absent(cells)
  specs = sorted(
    (*score_tables.TABLES, score_tables.TABLE4, score_tables.TABLE5), key=lambda spec: spec.name
  )
  for spec in specs:
    tables.append(score_tables.score_section(spec, cells, comparer, missing))
    if spec in score_tables.TABLES:
      tables.append(difference_tables.difference_section(spec, cells, comparer))
  tables.append(ablation.section(cells, comparer))
  tables.append(added.section(cells, comparer, missing))
  tables.append(parts)
  tables.append(run_tables.compute_section(study))
  tables.append(run_tables.gradient_section(study, missing))
  tables.append(run_tables.pruning_section(study, missing))
  drawn = figures.draw_all(study, worths, comparer, folder, missing)
  last = [missing_section(study, missing), run_tables.provenance_section(study)]
  return Report(summary(study, cells.scales), [t for t in tables if t.tables], drawn, last)


def summary(study: Study, scales: list[str]) -> str:
  """Returns one line that counts the finished runs of each kind."""
  counts = {
    "pretraining": len(study.pretraining),
    "fine-tuning": len(study.tuning),
    "gradient similarity": len(study.of("gradient_similarity")),
    "pruning": len(study.of("pruning")),
  }
  runs = layout.listed(f"{count} {kind}" for kind, count in counts.items() if count)
  return f"Finished runs: {runs}. Scales: {layout.listed(scales)}. “{layout.EMPTY}” means not run."


def missing_section(study: Study, missing: list[Missing]) -> Section:
  """Returns two tables: cells and figures without data, and runs that cannot be used."""
  section = Section("missing", "What is missing or could not be read")
  section.note = (
    "To fill a cell, make the pretraining run of its row and then run `python -m negint.main "
    "--config=configs/<task>.py:<language>[,zero_shot] --config.init_from=<pretraining run>`."
  )
  if missing:
    rows = [[each.part, each.what] for each in missing]
    section.tables.append(Table("Not run", ["part", "missing"], rows))
  if study.problems:
    rows = [[problem.workdir, problem.reason] for problem in sorted(study.problems)]
    section.tables.append(Table("Not used", ["workdir", "reason"], rows))
  if not section.tables:
    section.note = "Nothing."
  return section


def comma_separated(section: Section) -> str:
  """Returns the section's data as CSV.

  A section without data gives its tables as shown, with their titles in the first column.
  """
  file = io.StringIO()
  writer = csv.writer(file, lineterminator="\n")
  if section.data_header:
    writer.writerow(section.data_header)
    writer.writerows([layout.exact(value) for value in row] for row in section.data)
    return file.getvalue()
  header = None
  for table in section.tables:
    title = [table.title] if table.title else []
    if table.header != header:
      header = table.header
      writer.writerow([*(["table"] if title else []), *header])
    writer.writerows([*title, *row] for row in table.rows)
  return file.getvalue()


def as_markdown(report: Report) -> str:
  """Returns the text of report.md."""
  parts = ["# Negative interference: report", report.summary]
  for section in report.sections:
    parts += markdown_section(section)
  if report.figures:
    parts.append("## Figures")
  for figure in report.figures:
    parts.append(f"### {figure.title}")
    parts.append(f"![{figure.title}](figures/{figure.name}.png)")
    parts.append(figure.caption)
  for section in report.last:
    parts += markdown_section(section)
  return "\n\n".join(parts) + "\n"


def markdown_section(section: Section) -> list[str]:
  """Returns the paragraphs of a section in Markdown."""
  parts = [f"## {section.heading}", *([section.note] if section.note else [])]
  for table in section.tables:
    parts += [f"### {table.title}"] if table.title else []
    lines = [markdown_row(table.header), "|" + "---|" * len(table.header)]
    for row in table.rows:
      full = [f"**{row[0]}**"] + [""] * (len(table.header) - 1) if len(row) == 1 else row
      lines.append(markdown_row(full))
    parts.append("\n".join(lines))
  return parts


def markdown_row(cells: list[str]) -> str:
  """Returns a row of a Markdown table."""
  texts = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
  texts = (re.sub("<(?=[a-z])", "&lt;", text) for text in texts)  # not a tag
  return f"| {' | '.join(texts)} |"


def as_html(report: Report, folder: pathlib.Path) -> str:
  """Returns the text of report.html, which holds its figures and needs no other file.

  Args:
    report: what to write.
    folder: where the figures' SVG files are.
  """
  parts = [
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
    f"<title>Negative interference: report</title><style>{_CSS}</style></head><body>",
    f"<h1>Negative interference: report</h1><p>{html.escape(report.summary)}</p>",
  ]
  for section in report.sections:
    parts += html_section(section)
  parts += ["<h2>Figures</h2>"] if report.figures else []
  for figure in report.figures:
    drawing = (folder / f"{figure.name}.svg").read_text(encoding="utf-8")
    drawing = drawing[drawing.index("<svg") :]  # without the XML prologue, which HTML forbids
    caption = html.escape(figure.caption)
    parts.append(f"<h3>{html.escape(figure.title)}</h3>")
    parts.append(f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>")
  for section in report.last:
    parts += html_section(section)
  return "\n".join([*parts, "</body></html>"]) + "\n"


def html_section(section: Section) -> list[str]:
  """Returns the elements of a section in HTML."""
  parts = [f"<h2>{html.escape(section.heading)}</h2>"]
  if section.note:
    note = re.sub("`([^`]*)`", r"<code>\1</code>", html.escape(section.note))
    parts.append(f'<p class="note">{note}</p>')
  for table in section.tables:
    parts += [f"<h3>{html.escape(table.title)}</h3>"] if table.title else []
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
    parts.append(f"<table><thead><tr>{cells}</tr></thead><tbody>")
    parts += [html_row(row, len(table.header)) for row in table.rows]
    parts.append("</tbody></table>")
  return parts


def html_row(row: list[str], width: int) -> str:
  """Returns a row of an HTML table of `width` columns."""
  if len(row) == 1:
    return f'<tr><th colspan="{width}">{html.escape(row[0])}</th></tr>'
  return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>"
