"""The command line of the report: `python -m negint.report --runs=runs --out=report`."""

import contextlib
import pathlib

from absl import flags

from negint import command_line
from negint.errors import UserError
from negint.report.document import Report, write_report
from negint.report.records import read_study
from negint.run.pack import unpacked

_RUNS = flags.DEFINE_list(
  "runs", ["runs"], "Folders of runs, searched with all folders below, and packs of launch.study"
)
_OUT = flags.DEFINE_string(
  "out", "report", "Folder of the report; it may hold an earlier report, which is replaced."
)


def main() -> None:
  """Writes the report and prints what it holds."""
  out = pathlib.Path(_OUT.value)
  with contextlib.ExitStack() as packs:
    paths = map(pathlib.Path, _RUNS.value)
    folders = [packs.enter_context(unpacked(p)) if p.is_file() else p for p in paths]
    print(summary(write_report(read_study(*folders), out), out))


def check_flags() -> None:
  """UserError where a folder is not named."""
  for flag in (_RUNS, _OUT):
    if not flag.value:
      raise UserError(f"--{flag.name} is empty: python -m negint.report --runs=runs --out=report")


def summary(report: Report, out: pathlib.Path) -> str:
  """Returns what was written and what is missing, in a few lines."""
  gaps = {table.title: len(table.rows) for table in report.last[0].tables}
  lines = [report.summary]
  if gaps:
    counts = ", ".join(f"{title.lower()} {count}" for title, count in gaps.items())
    lines.append(f"Gaps, all listed in the report: {counts}")
  lines.append(
    f"In {out}: report.html, report.md, tables/, {len(report.figures)} figures in figures/"
  )
  return "\n".join(lines)


if __name__ == "__main__":
  command_line.run("negint.report", main, example="--runs=runs", check_flags=check_flags)
