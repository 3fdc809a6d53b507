"""The jobs of a study as SLURM array scripts: one array per level of the dependencies."""

import pathlib
import shlex
from collections.abc import Sequence

from launch.study.execute import command
from launch.study.jobs import Job
from negint.run.files import write_text

MAX_ARRAY = 1000  # tasks of an array; SLURM's default MaxArraySize allows indices up to 1,000
SCRIPT = """#!/bin/bash
#SBATCH --job-name=negint-{name}
#SBATCH --array=1-{count}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node=1
#SBATCH --output={folder}/%x-%a.log
# Add your cluster's partition, account and time limit here. A job that reached its limit
# resumes when you submit it again.
cd {root}
eval "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {folder}/{name}.txt)"
"""


def levels(jobs: list[Job]) -> list[list[Job]]:
  """Returns jobs by the number of these jobs that must be finished before them, one after another."""
  level: dict[str, int] = {}
  for job in jobs:
    level[job.name] = level.get(job.model.name, -1) + 1 if job.model else 0
  return [
    [job for job in jobs if level[job.name] == number]
    for number in range(max(level.values(), default=-1) + 1)
  ]


def write(jobs: list[Job], runs: str) -> pathlib.Path:
  """Writes `<runs>/slurm/`: lists of commands, an array script for each list, and submit.sh.

  Each level of the dependencies has one list, or several where it has more than MAX_ARRAY jobs.

  Returns:
    The path of submit.sh, which submits the levels, each after the one before has ended.
  """
  folder = (pathlib.Path(runs) / "slurm").absolute()
  submit = ["#!/bin/bash", "set -e"]
  after = ""
  for number, level in enumerate(levels(jobs)):
    parts = [level[i : i + MAX_ARRAY] for i in range(0, len(level), MAX_ARRAY)]
    names = []
    for part, some in enumerate(parts, 1):
      name = f"level{number}_{part}" if len(parts) > 1 else f"level{number}"
      names.append(name)
      script = _write_array(folder, name, some, runs)
      submit.append(f"{name}=$(sbatch --parsable {after}{shlex.quote(str(script))})")
    after = "--dependency=afterany" + "".join(f":${name}" for name in names) + " "
  write_text(folder / "submit.sh", "\n".join(submit) + "\n")
  return folder / "submit.sh"


def _write_array(folder: pathlib.Path, name: str, jobs: Sequence[Job], runs: str) -> pathlib.Path:
  """Writes a list of commands and the script that runs each as one task; returns the script's path."""
  lines = "".join(shlex.join(command(job, runs)) + "\n" for job in jobs)
  write_text(folder / f"{name}.txt", lines)
  script = SCRIPT.format(
    name=name,
    count=len(jobs),
    folder=shlex.quote(str(folder)),
    root=shlex.quote(str(pathlib.Path.cwd())),
  )
  write_text(folder / f"{name}.sbatch", script)
  return folder / f"{name}.sbatch"
