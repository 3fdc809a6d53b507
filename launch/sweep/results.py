"""What the runs of a sweep found: means over seeds, the best setting, tables."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import NamedTuple

from launch.sweep.grid import Setting, described
from negint.report import layout
from negint.report.document import markdown_row
from negint.report.statistics import Pooled, pool

SEED = "seed"


class Measure(NamedTuple):
  """A number that every run has."""

  name: str  # such as "perplexity of xb"
  lower_is_better: bool


@dataclasses.dataclass(frozen=True)
class Row:
  """A setting without its seed, and what its runs found."""

  setting: Setting
  found: dict[Measure, Pooled]  # over seeds


def measures(result: dict) -> dict[Measure, float]:
  """Returns the numbers of a pretraining or a fine-tuning; the first one chooses the best setting."""
  if "perplexity" in result:
    names = ("perplexity", "bits_per_character")
    return {
      Measure(f"{name.replace('_', ' ')} of {code}", True): value
      for name in names
      for code, value in result.get(name, {}).items()
    }
  scores = result["test"]
  main, tested = result["main_score"], result["language"]
  ordered = sorted(
    ((code, name) for code, found in scores.items() for name in found),
    key=lambda each: (each[0] != tested, each[1] != main),
  )
  return {Measure(f"{name} on {code}", False): scores[code][name] for code, name in ordered}


def rows(results: dict[Setting, dict]) -> list[Row]:
  """Returns a row per setting without its seed, in the order of the settings."""
  groups: dict[Setting, list[dict[Measure, float]]] = {}
  for setting, result in results.items():
    without = tuple(pair for pair in setting if pair[0] != SEED)
    groups.setdefault(without, []).append(measures(result))
  return [
    Row(setting, {m: pool(each[m] for each in found) for m in found[0]})
    for setting, found in groups.items()
  ]


def best(table: Sequence[Row], measure: Measure) -> float:
  """Returns the best mean of a measure."""
  choose = min if measure.lower_is_better else max
  return choose(row.found[measure].mean for row in table)


def as_markdown(spec: str, table: Sequence[Row], missing: Sequence[Setting]) -> str:
  """Returns the table of a sweep; the best of each column is bold.

  Args:
    spec: config and argument.
    table: its rows.
    missing: settings without a result.
  """
  columns = list(table[0].found)
  fields = [field for field, _ in table[0].setting]
  lines = [
    f"# Sweep of {spec}",
    "",
    "Mean ± sample standard deviation over seeds. Bold: the best of a column.",
    "",
    markdown_row([*fields, "runs", *(measure.name for measure in columns)]),
    "|" + "---|" * (len(fields) + 1 + len(columns)),
  ]
  for row in table:
    cells = [value for _, value in row.setting] + [str(row.found[columns[0]].count)]
    for measure in columns:
      text = layout.spread(row.found[measure], 2)
      is_best = row.found[measure].mean == best(table, measure)
      cells.append(f"**{text}**" if is_best else text)
    lines.append(markdown_row(cells))
  lines += ["", summary(table)]
  lines += [f"\nWithout a result: {described(setting)}." for setting in missing]
  return "\n".join(lines) + "\n"


def summary(table: Sequence[Row]) -> str:
  """Returns the sentence that names the best setting."""
  measure = next(iter(table[0].found))
  (chosen, *_) = (row for row in table if row.found[measure].mean == best(table, measure))
  where = described(chosen.setting) or "the only setting"
  return f"Best {measure.name}: {layout.spread(chosen.found[measure], 2)} at {where}."


def comma_separated(table: Sequence[Row]) -> str:
  """Returns the table as CSV: one line per setting and measure."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator="\n")
  fields = [field for field, _ in table[0].setting]
  writer.writerow([*fields, "measure", "mean", "standard_deviation", "runs", "best"])
  for row in table:
    for measure, pooled in row.found.items():
      writer.writerow(
        [value for _, value in row.setting]
        + [measure.name, layout.exact(pooled.mean), layout.exact(pooled.deviation), pooled.count]
        + [int(pooled.mean == best(table, measure))]
      )
  return file.getvalue()
