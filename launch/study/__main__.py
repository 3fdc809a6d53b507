"""The whole study from one command: pretraining, tasks and analyses of every system.

  python -m launch.study --preset=lab
  python -m launch.study --preset=paper --languages=ar,fr --scale=base --tasks_dir=<folder>
  python -m negint.report --runs=runs --out=report

It runs what is not finished yet, continues after a failure, and lists the failures at its end.
"""

import shlex

from absl import flags

from launch.study import execute, matrix, slurm
from negint import command_line
from negint.errors import UserError

PRESET = flags.DEFINE_enum(
  "preset", "lab", matrix.PRESETS, "lab: no data needed; paper: its tables"
)
RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs, logs and SLURM scripts")
LANGUAGES = flags.DEFINE_list("languages", None, "Target languages (paper; default: all six)")
SYSTEMS = flags.DEFINE_list("systems", None, "Systems (default: the preset's)")
TASKS = flags.DEFINE_list("tasks", None, "Tasks (default: ner,pos for the lab, else all four)")
SCALE = flags.DEFINE_string("scale", "base", "Scale of the paper preset: sample, base or paper")
SEEDS = flags.DEFINE_integer("seeds", 1, "Pretraining runs of each system, with seeds 1 ... n")
TASKS_DIR = flags.DEFINE_string("tasks_dir", "", "Folder of labelled data; empty: the lab or TFDS")
MATCH = flags.DEFINE_enum(
  "match", "steps", ("steps", "flops"), "Stop systems at equal steps, or at JointPair's FLOPs"
)
XLM = flags.DEFINE_string("xlm", "", "Hugging Face XLM checkpoint, for the XLM row (paper preset)")
JOBS = flags.DEFINE_integer("jobs", 2, "Jobs at once; each gets its share of the processor cores")
GPUS = flags.DEFINE_integer("gpus", 0, "GPUs to spread the jobs over; 0: leave that to JAX")
PRETRAIN_FLAGS = flags.DEFINE_string("pretrain_flags", "", "Flags added to every pretraining")
TASK_FLAGS = flags.DEFINE_string("task_flags", "", "Flags added to every fine-tuning")
ANALYSIS_FLAGS = flags.DEFINE_string("analysis_flags", "", "Flags added to every analysis")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands, in order, and run nothing")
SLURM = flags.DEFINE_bool("slurm", False, "Write SLURM array scripts to <runs>/slurm; run nothing")


def study_of_flags() -> matrix.Study:
  """Returns the study that the flags describe."""
  is_lab = PRESET.value == "lab"
  defaults = {
    True: (("lab",), matrix.LAB_SYSTEMS, matrix.LAB_TASKS),
    False: (matrix.languages_of(SCALE.value), matrix.PAPER_SYSTEMS, matrix.TASKS),
  }[is_lab]
  given = (LANGUAGES.value, SYSTEMS.value, TASKS.value)
  languages, systems, tasks = (
    tuple(mine or default) for mine, default in zip(given, defaults, strict=True)
  )
  if JOBS.value < 1:
    raise UserError(f"--jobs is {JOBS.value}; it must be at least 1.")
  return matrix.Study(
    preset=PRESET.value,
    runs=RUNS.value,
    languages=languages,
    systems=systems,
    tasks=tasks,
    scale="lab" if is_lab else SCALE.value,
    seeds=SEEDS.value,
    tasks_dir=TASKS_DIR.value,
    match=MATCH.value,
    xlm=XLM.value,
    pretrain_flags=tuple(shlex.split(PRETRAIN_FLAGS.value)),
    task_flags=tuple(shlex.split(TASK_FLAGS.value)),
    analysis_flags=tuple(shlex.split(ANALYSIS_FLAGS.value)),
  )


def main() -> int | None:
  """Runs the study, or prints or writes its commands; returns the exit code."""
  jobs = matrix.make_jobs(study_of_flags())
  if DRY_RUN.value:
    print("\n".join(shlex.join(execute.command(job, RUNS.value)) for job in jobs))
  elif SLURM.value:
    print(f"Submit with: bash {slurm.write(jobs, RUNS.value)}")
  else:
    return run(jobs)
  return None


def run(jobs: list[matrix.Job]) -> int:
  """Runs the jobs on this machine; returns the exit code."""
  execution = execute.Execution(
    jobs,
    RUNS.value,
    at_once=JOBS.value,
    gpus=GPUS.value,
    say=lambda text: print(text, flush=True),
  )
  execution.run()
  if execution.failures:
    execution.report_failures()
    return execute.EXIT_FAILED
  print(
    f"All {len(jobs)} jobs are finished: python -m negint.report --runs={RUNS.value} --out=report"
  )
  return 0


if __name__ == "__main__":
  command_line.run("study", main, example="--preset=lab")
