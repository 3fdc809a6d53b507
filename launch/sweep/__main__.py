r"""A sweep from one command: every combination of the values of some fields, and which was best.

  python -m launch.sweep --config=configs/meta_adpt.py:lab \
    --grid=train.learning_rate=1e-3,2e-3 --grid=seed=1,2,3 --config.train.steps=600

It runs what is not finished yet, and writes a table (sweep.md, sweep.csv) and a plot per swept field
into --out. With `seed` in the grid, a setting's numbers are means over its seeds.
"""

import pathlib
import shlex
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from launch.study import execute, finished, matrix, sharing, slurm
from launch.sweep import grid, results
from launch.sweep.grid import Setting
from negint import command_line, config_file
from negint.errors import UserError
from negint.run.files import write_text
from negint.tasks.table import TASKS

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file and its argument, e.g. configs/mono.py:ar", lock_config=True
)
GRID = flags.DEFINE_multi_string("grid", [], "<field>=<value>,<value>; once for each swept field")
RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs, logs and SLURM scripts")
OUT = flags.DEFINE_string("out", "sweep", "Folder of the table and the plots")
JOBS = flags.DEFINE_integer(
  "jobs",
  None,
  "Jobs at once; each gets its share of the cores and of a GPU's memory (default: 2; with --gpus as "
  "many as fit)",
)
GPUS = flags.DEFINE_integer("gpus", 0, "GPUs to spread the jobs over; 0: leave that to JAX")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands, in order, and run nothing")
SLURM = flags.DEFINE_bool(
  "slurm", False, "Write what is left as SLURM array scripts to <runs>/slurm; run nothing"
)


def check_flags() -> None:
  """UserError where a flag is missing or has no legal value."""
  if CONFIG.value is None:
    raise UserError("--config is missing; for example --config=configs/meta_adpt.py:lab.")
  if not GRID.value:
    raise UserError("--grid is missing; for example --grid=train.learning_rate=1e-3,2e-3.")
  sharing.check(JOBS.value, GPUS.value)
  if CONFIG.value.task not in ("pretrain", *TASKS):
    raise UserError(
      f"--config is of task {CONFIG.value.task!r}, which has no score to sweep for; use a config of "
      f"pretraining or of {', '.join(TASKS)}."
    )


def main() -> int | None:
  """Runs the sweep, or prints or writes its commands; returns the exit code."""
  spec = config_flags.get_config_filename(flags.FLAGS["config"])
  overrides = config_file.fields_among(sys.argv[1:])
  jobs = grid.make_jobs(spec, overrides, grid.parse(GRID.value), RUNS.value)
  in_order = list(jobs.values())
  if DRY_RUN.value:
    for job in in_order:
      print(shlex.join(execute.command(job, RUNS.value)))
    return None
  here = finished.in_folder(pathlib.Path(RUNS.value), in_order)
  left = execute.unfinished(in_order, here, ())
  matrix.check_data(left)
  if SLURM.value and left:
    script = slurm.write(left, RUNS.value)
    print(f"{len(left)} of {len(jobs)} jobs are left. Submit them with: bash {script}")
    print("When all are finished, start the same command without --slurm for its table.")
    return None
  at_once = sharing.jobs_at_once(JOBS.value, in_order, GPUS.value, print)
  code = execute.run(in_order, RUNS.value, at_once=at_once, gpus=GPUS.value)
  found = results.read(jobs, pathlib.Path(RUNS.value))
  if found:
    write(spec, found, [setting for setting in jobs if setting not in found])
  return code


def write(spec: str, found: dict[Setting, dict], missing: Sequence[Setting]) -> None:
  """Writes the tables and plots of a sweep into --out, and prints what was best."""
  from launch.sweep import plots  # matplotlib, which the runs do not need

  out = pathlib.Path(OUT.value)
  table = results.rows(found)
  drawn = plots.draw(table, out)
  pictures = "".join(f"\n![{name}]({name}.svg)\n" for name in drawn)
  text = results.as_markdown(spec, table, missing)
  write_text(out / "sweep.md", text + pictures)
  write_text(out / "sweep.csv", results.comma_separated(table))
  print(text)
  print(f"In {out}: sweep.md, sweep.csv, {len(drawn)} plots")


if __name__ == "__main__":
  command_line.run(
    "sweep",
    main,
    example="--grid=seed=1,2,3",
    before_flags=config_file.check_command_line,
    check_flags=check_flags,
  )
