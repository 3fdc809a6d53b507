"""The whole study from one command: pretraining, tasks and analyses of every system.

  python -m launch.study --preset=lab --seeds=5
  python -m launch.study --preset=paper --languages=ar,fr --scale=base --tasks_dir=<folder>
  python -m negint.report --runs=runs --out=report

It runs what is not finished yet, continues after a failure, and lists the failures at its end.
`--pack=study.tar.xz` writes what is finished into one small file without weights. `--done=study.tar.xz`
counts what is in such a file as finished, on any machine.
"""

import contextlib
import pathlib
import shlex
import sys

from absl import flags

from launch.study import execute, finished, lab, matching, matrix, sharing, slurm
from launch.study.jobs import TASKS, Study
from negint import command_line
from negint.errors import UserError
from negint.run.pack import pack, unpacked

PRESET = flags.DEFINE_enum(
  "preset",
  "lab",
  matrix.PRESETS,
  "lab: artificial languages, which need no data; paper: real languages, with your text",
)
RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs, logs and SLURM scripts")
LANGUAGES = flags.DEFINE_list(
  "languages", None, "Target languages, each with English (paper; default: the paper's six)"
)
SYSTEMS = flags.DEFINE_list("systems", None, "Systems (default: the preset's)")
TASKS_FLAG = flags.DEFINE_list("tasks", None, "Tasks (default: all four; --tasks= is none)")
PARTS = flags.DEFINE_list("parts", None, f"Parts of the lab's study: {', '.join(lab.PARTS)}")
SCALE = flags.DEFINE_string(
  "scale",
  None,
  f"Scale of the paper preset: {', '.join(matrix.SCALES)} (default: {matrix.SCALE})",
)
SEEDS = flags.DEFINE_integer("seeds", 1, "How many pretraining runs each system has (seeds 1 to n)")
QUICK = flags.DEFINE_bool("quick", False, "The lab in 20 minutes: fewer systems, tasks and steps")
TASKS_DIR = flags.DEFINE_string("tasks_dir", "", "Folder of labelled data; empty: the lab or TFDS")
MATCH = flags.DEFINE_list(
  "match",
  None,
  "Runs of each system: at equal steps, target_tokens (as much text of the target as JointPair), "
  "flops (JointPair's FLOPs), or several (default: steps, and all three in the lab)",
)
XLM = flags.DEFINE_string("xlm", "", "Hugging Face XLM checkpoint, for the XLM row (paper preset)")
JOBS = flags.DEFINE_integer(
  "jobs",
  None,
  "Jobs at once; each gets its share of the cores and of a GPU's memory (default: 2; with --gpus as "
  "many as fit)",
)
GPUS = flags.DEFINE_integer("gpus", 0, "GPUs to spread the jobs over; 0: leave that to JAX")
PRETRAIN_FLAGS = flags.DEFINE_string("pretrain_flags", "", "Flags added to every pretraining")
TASK_FLAGS = flags.DEFINE_string("task_flags", "", "Flags added to every fine-tuning")
ANALYSIS_FLAGS = flags.DEFINE_string("analysis_flags", "", "Flags added to every analysis")
DRY_RUN = flags.DEFINE_bool(
  "dry_run", False, "Print the commands in order and an estimate of their time; run nothing"
)
PLAN = flags.DEFINE_bool("plan", False, "Measure what the study takes, in minutes, and run nothing")
SLURM = flags.DEFINE_bool(
  "slurm", False, "Write what is left as SLURM array scripts to <runs>/slurm; run nothing"
)
PACK = flags.DEFINE_string("pack", "", "Write the finished runs into this file; run nothing")
DONE = flags.DEFINE_list("done", [], "Packs whose runs count as finished")


def study_of_flags() -> Study:
  """Returns the study that the flags describe."""
  is_lab = PRESET.value == "lab"
  if QUICK.value and not is_lab:
    raise UserError("--quick is for --preset=lab; choose --languages and --systems instead.")
  of_paper = {"scale": SCALE.value, "xlm": XLM.value or None}
  if is_lab and (given := [name for name, value in of_paper.items() if value is not None]):
    raise UserError(f"--{given[0]} is for --preset=paper; add that, or leave --{given[0]} out.")
  sharing.check(JOBS.value, GPUS.value)
  scale = "lab" if is_lab else SCALE.value or matrix.SCALE
  defaults = {
    "languages": ("lab",) if is_lab else matrix.languages_of(scale),
    "systems": (*lab.SYSTEMS, *lab.EXTRA_SYSTEMS) if is_lab else matrix.PAPER_SYSTEMS,
    "tasks": TASKS,
    "match": matching.MATCHES if is_lab else ("steps",),
    "parts": lab.PARTS if is_lab else (),
  }
  if QUICK.value:
    defaults |= lab.QUICK
  asked = {
    "languages": LANGUAGES.value,
    "systems": SYSTEMS.value,
    "tasks": TASKS_FLAG.value,
    "match": MATCH.value,
    "parts": PARTS.value,
  }
  quick_flags = lab.quick_flags() if QUICK.value else ()
  return Study(
    preset=PRESET.value,
    runs=RUNS.value,
    scale=scale,
    seeds=SEEDS.value,
    tasks_dir=TASKS_DIR.value,
    xlm=XLM.value,
    pretrain_flags=(*quick_flags, *shlex.split(PRETRAIN_FLAGS.value)),
    task_flags=tuple(shlex.split(TASK_FLAGS.value)),
    analysis_flags=tuple(shlex.split(ANALYSIS_FLAGS.value)),
    **{n: tuple(defaults[n] if asked[n] is None else asked[n]) for n in defaults},
  )


def main() -> int | None:
  """Runs the study, or prints, writes or packs what was asked for; returns the exit code."""
  if PACK.value:
    return write_pack()
  study = study_of_flags()
  jobs = matrix.make_jobs(study)
  done = finished.in_packs([pathlib.Path(file) for file in DONE.value], jobs)
  if done.others:
    names = ", ".join(done.others[:3]) + ", ..." * (len(done.others) > 3)
    print(f"{len(done.others)} packed runs have another config than their job: {names}")
  if DRY_RUN.value:
    left = execute.unfinished(jobs, set(), done.finished)  # all commands, whatever is finished here
    print("\n".join(shlex.join(execute.command(job, RUNS.value)) for job in left))
    print(execute.estimate(left, JOBS.value or sharing.JOBS), file=sys.stderr)
    return None
  here = finished.in_folder(pathlib.Path(RUNS.value), jobs)
  left = execute.unfinished(jobs, here, done.finished)
  matrix.check_data(left)
  if SLURM.value and left:
    script = slurm.write(left, RUNS.value)
    print(f"{len(left)} of {len(jobs)} jobs are left. Submit them with: bash {script}")
    return None
  at_once = sharing.jobs_at_once(JOBS.value, jobs, GPUS.value, print)
  if PLAN.value:
    from launch.study import planned  # imports JAX's devices

    print(planned.plan(left, jobs, RUNS.value, at_once=at_once, gpus=GPUS.value))
    return None
  if code := execute.run(jobs, RUNS.value, at_once=at_once, gpus=GPUS.value, packed=done.finished):
    return code
  places = ",".join([RUNS.value, *DONE.value])
  print(f"All {len(jobs)} jobs are finished: python -m negint.report --runs={places} --out=report")
  return 0


def write_pack() -> None:
  """Packs the finished runs of --runs, and those of --done that are not there."""
  file = pathlib.Path(PACK.value)
  with contextlib.ExitStack() as stack:
    packs = [stack.enter_context(unpacked(pathlib.Path(each))) for each in DONE.value]
    count = pack([pathlib.Path(RUNS.value), *packs], file)
  print(f"{file} has {count} finished runs in {file.stat().st_size:,} bytes.")
  print(f"To draw it: python -m negint.report --runs={file} --out=report")


if __name__ == "__main__":
  command_line.run("study", main, example="--preset=lab")
