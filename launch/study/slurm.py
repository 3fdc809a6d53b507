"""The jobs of a study as SLURM array scripts: one array a level of the dependencies."""

import pathlib
import shlex

from launch.study.execute import command
from launch.study.matrix import Job

SCRIPT = """#!/bin/bash
#SBATCH --job-name=negint-{level}
#SBATCH --array=1-{count}
#SBATCH --gpus-per-task=1
#SBATCH --output={folder}/%x-%a.log
# Add your cluster's partition, account and time limit here. A job that hits its limit goes on where
# it was when it is submitted again.
cd {root}
eval "$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {folder}/level{level}.txt)"
"""


def levels(jobs: list[Job]) -> list[list[Job]]:
  """Jobs by the length of their longest chain of needs; a level needs only those before it."""
  level = {}
  for job in jobs:
    level[job.name] = 1 + max((level[name] for name in job.needs), default=-1)
  return [
    [job for job in jobs if level[job.name] == number]
    for number in range(max(level.values(), default=-1) + 1)
  ]


def write(jobs: list[Job], runs: str) -> pathlib.Path:
  """Writes `<runs>/slurm/`: a list of commands and an array script a level, and submit.sh.

  Returns:
    The path of submit.sh, which submits the levels, each after the one before has ended.
  """
  folder = (pathlib.Path(runs) / "slurm").absolute()
  folder.mkdir(parents=True, exist_ok=True)
  submit = ["#!/bin/bash", "set -e"]
  for number, level in enumerate(levels(jobs)):
    lines = "".join(shlex.join(command(job, runs)) + "\n" for job in level)
    (folder / f"level{number}.txt").write_text(lines)
    script = SCRIPT.format(
      level=number,
      count=len(level),
      folder=shlex.quote(str(folder)),
      root=shlex.quote(str(pathlib.Path.cwd())),
    )
    (folder / f"level{number}.sbatch").write_text(script)
    after = f"--dependency=afterany:$level{number - 1} " if number else ""
    path = shlex.quote(str(folder / f"level{number}.sbatch"))
    submit.append(f"level{number}=$(sbatch --parsable {after}{path})")
  (folder / "submit.sh").write_text("\n".join(submit) + "\n")
  return folder / "submit.sh"
