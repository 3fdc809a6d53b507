"""What the runs of a sweep found: means over seeds, the best setting, tables."""

import csv
import dataclasses
import io
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from launch.study import finished
from launch.study.jobs import Job
from launch.sweep.grid import Setting, described
from negint.report import layout
from negint.report.document import markdown_row
from negint.report.statistics import Pooled, pool
from negint.run.files import read_json

SEED = "seed"


class Measure(NamedTuple):
  """A number that runs have."""

  name: str  # such as "perplexity of xb"
  lower_is_better: bool


@dataclasses.dataclass(frozen=True)
class Row:
  """A setting without its seed, and what its runs found."""

  setting: Setting
  found: dict[Measure, Pooled]  # over seeds


def read(jobs: Mapping[Setting, Job], runs: pathlib.Path) -> dict[Setting, dict]:
  """Returns the result of each setting whose run is finished.

  A run of another config in the folder of a job, which the job itself refuses, is none.

  Args:
    jobs: of the settings.
    runs: folder of the runs.
  """
  done = finished.in_folder(runs, list(jobs.values()))
  return {
    setting: read_json(
      runs / job.name / "result.json",
      f"the run in {runs / job.name}; delete it and start again",
    )
    for setting, job in jobs.items()
    if job.name in done
  }


def measures(result: dict) -> dict[Measure, float]:
  """Returns the numbers of a pretraining or a fine-tuning; the first one chooses the best setting.

  Bits per character compare tokenizers, perplexities per token do not. A test set never chooses: the
  dev set of the source language does.
  """
  if "perplexity" in result:
    names = ("bits_per_character", "perplexity")
    return {
      Measure(f"{name.replace('_', ' ')} of {code}", True): value
      for name in names
      for code, value in result.get(name, {}).items()
    }
  main, target = result["main_score"], result["language"]
  found = {}
  if result["seeds"]:  # the majority label has none
    dev = statistics.fmean(seed["dev"] for seed in result["seeds"])
    found[Measure(f"{main} on dev of {result['source_language']}", False)] = dev
  ordered = sorted(
    ((code, name) for code, scores in result["test"].items() for name in scores),
    key=lambda each: (each[0] != target, each[1] != main),
  )
  return found | {
    Measure(f"{name} on {code}", False): result["test"][code][name] for code, name in ordered
  }


def rows(results: dict[Setting, dict]) -> list[Row]:
  """Returns a row per setting without its seed, in the order of the settings."""
  groups: dict[Setting, list[dict[Measure, float]]] = {}
  for setting, result in results.items():
    without = tuple(pair for pair in setting if pair[0] != SEED)
    groups.setdefault(without, []).append(measures(result))
  return [
    Row(setting, {m: pool(each[m] for each in found if m in each) for m in _all(found)})
    for setting, found in groups.items()
  ]


def _all(found: Iterable[Iterable[Measure]]) -> list[Measure]:
  """Returns every measure once, in the order of their first place."""
  return list(dict.fromkeys(measure for each in found for measure in each))


def columns(table: Sequence[Row]) -> list[Measure]:
  """Returns the measures of a sweep; the first one chooses. Rows of other languages have others."""
  return _all(row.found for row in table)


def best(table: Sequence[Row], measure: Measure) -> float:
  """Returns the best mean of a measure."""
  choose = min if measure.lower_is_better else max
  return choose(row.found[measure].mean for row in table if measure in row.found)


def as_markdown(spec: str, table: Sequence[Row], missing: Sequence[Setting]) -> str:
  """Returns the table of a sweep; the best of each column is bold.

  Args:
    spec: config and argument.
    table: its rows.
    missing: settings without a result.
  """
  shown = columns(table)
  fields = [field for field, _ in table[0].setting]
  lines = [
    f"# Sweep of {spec}",
    "",
    "Mean ± sample standard deviation over seeds. Bold: the best of a column. The first column of numbers "
    "chooses the setting.",
    "",
    markdown_row([*fields, "runs", *(measure.name for measure in shown)]),
    "|" + "---|" * (len(fields) + 1 + len(shown)),
  ]
  for row in table:
    runs = max(pooled.count for pooled in row.found.values())
    cells = [value for _, value in row.setting] + [str(runs)]
    for measure in shown:
      if measure not in row.found:
        cells.append(layout.EMPTY)
        continue
      text = layout.spread(row.found[measure], 2)
      is_best = row.found[measure].mean == best(table, measure)
      cells.append(f"**{text}**" if is_best else text)
    lines.append(markdown_row(cells))
  lines += ["", summary(table)]
  lines += [f"\nWithout a result: {described(setting)}." for setting in missing]
  return "\n".join(lines) + "\n"


def summary(table: Sequence[Row]) -> str:
  """Returns the sentence that names the best setting."""
  measure = columns(table)[0]
  top = best(table, measure)
  chosen = next(r for r in table if measure in r.found and r.found[measure].mean == top)
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
