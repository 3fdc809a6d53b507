"""`python -m negint.main --config=configs/<system>.py:<argument>`: flags, set-up, which kind of run."""

import importlib
import os
import pathlib
import re
import sys
import threading

from absl import flags
from ml_collections import ConfigDict, config_flags

from negint import command_line, config_file, options
from negint.errors import Interrupted, NonFiniteLoss, UserError
from negint.run import full_disk, host_memory

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file and its argument, e.g. configs/meta_adpt.py:ar", lock_config=True
)
WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run (default: a folder in runs/, named after what runs and what you changed).",
)
DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "This process is one of several that form one pretraining run."
)
COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "host:port of process 0; needs --num_processes and --process_id. SLURM needs none of the three.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
PLAN = flags.DEFINE_bool(
  "plan", False, "Measure how long the run takes and what it needs; write nothing into its folder."
)

KINDS = {  # config.task -> module with its Kind; every task of negint.tasks is a fine-tuning
  "pretrain": "negint.pretrain",
  "gradient_similarity": "negint.analysis.gradient_similarity",
  "pruning": "negint.analysis.pruning",
}
FINETUNING = "negint.finetuning.finetune"
SECONDS_TO_LEAVE = 10  # that a process which fails alone waits for the others to end, too


def main() -> None:
  """Runs what the config asks for, in its folder."""
  config = CONFIG.value
  is_small = config.get("scale") in options.SMALL_SCALES
  keeps_freed = is_small and host_memory.steps_are_here() and host_memory.keep_freed()
  from negint.run import compiled, workdir  # JAX after the flags: a typing mistake need not wait

  if keeps_freed:
    host_memory.fill_holes_after_compiling()
  default = config_file.defaults(_config_spec())
  folder = (
    pathlib.Path(WORKDIR.value) if WORKDIR.value else workdir.default_workdir(config, default)
  )
  compiled.keep_in(folder.absolute().parent / ".jax_cache")
  full_disk.keep_writers_quiet()
  try:
    run_in(folder, config, default)
  except BaseException as error:
    if DISTRIBUTED.value and not isinstance(error, SystemExit | NonFiniteLoss | Interrupted):
      _leave_others(error, folder)
    if isinstance(error, KeyboardInterrupt):
      if PLAN.value:
        raise Interrupted(
          "interrupted; a plan writes nothing, so nothing is left behind."
        ) from None
      raise Interrupted(
        f"interrupted; {folder} keeps what was saved: start the same command again to resume."
      ) from None
    if isinstance(error, OSError) and command_line.is_outside(error):
      raise UserError(
        f"{error}; {folder} keeps its last checkpoint: fix the cause and start again."
      ) from error
    raise


def run_in(folder: pathlib.Path, config: ConfigDict, default: ConfigDict) -> None:
  """Runs or resumes the run; of several processes the first one prints.

  Args:
    folder: of the run.
    config: of the command line.
    default: the same config without the changes of flags.
  """
  from negint.method import parallel
  from negint.run import runner, workdir
  from negint.tasks.table import TASKS

  modules = {**KINDS, **dict.fromkeys(TASKS, FINETUNING)}
  if config.get("task") not in modules:
    raise UserError(f"task is {config.get('task')!r}; it must be one of {', '.join(modules)}.")
  kind = importlib.import_module(modules[config.task]).KIND
  if DISTRIBUTED.value:
    if int(_process_number()) == 0:
      print("Waiting for the other processes of this run, for at most 5 minutes.", flush=True)
    parallel.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
  try:
    config = kind.complete(config, default)
    if PLAN.value:
      from negint.plan import of_run, plan

      config = kind.decide(config, workdir.recorded(folder), print)
      print(plan.text(of_run.plan(kind.from_config(config, parallel.num_devices()), folder, print)))
      return
    runner.run(kind, config, folder, say=print if parallel.is_first() else lambda line: None)
  except (NonFiniteLoss, Interrupted) as error:  # all processes raise them at the same step
    if parallel.is_first():
      raise
    sys.exit(error.exit_code)


def check_flags() -> None:
  """UserError where a flag is missing or the flags of a distributed run do not fit together."""
  if CONFIG.value is None:
    raise UserError("--config is missing; for example --config=configs/meta_adpt.py:ar.")
  addresses = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
  given = [f"--{flag.name}" for flag in addresses if flag.value is not None]
  missing = [f"--{flag.name}" for flag in addresses if flag.value is None]
  if not DISTRIBUTED.value:
    if given:
      raise UserError(f"{given[0]} is for runs of several processes; add --distributed or drop it.")
    return
  if PLAN.value:
    raise UserError("--plan looks at one process; leave --distributed out.")
  if CONFIG.value.task != "pretrain":
    raise UserError(
      f"--distributed is for pretraining, and task {CONFIG.value.task!r} fits one machine: leave "
      "the flag out."
    )
  if given and missing:
    raise UserError(
      f"{' and '.join(given)} cannot do without {' and '.join(missing)}; give all three, or none of "
      "them in a SLURM step."
    )
  if missing and not {"SLURM_STEP_NODELIST", "SLURM_PROCID"} <= os.environ.keys():
    raise UserError(
      "--distributed finds no SLURM step in the environment; start the command with srun, or give "
      "--coordinator=<host>:<port> --num_processes=<n> --process_id=<0 ... n-1>."
    )
  if COORDINATOR.value and NUM_PROCESSES.value is not None and PROCESS_ID.value is not None:
    _check_addresses(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)


def _check_addresses(coordinator: str, num_processes: int, process_id: int) -> None:
  if not re.fullmatch(r"\S+:\d+", coordinator):
    raise UserError(
      f"--coordinator={coordinator} must be <host>:<port> of process 0, such as node01:12345."
    )
  if not 0 <= process_id < num_processes:
    raise UserError(
      f"--process_id={process_id} must be from 0 to --num_processes - 1, and --num_processes is "
      f"{num_processes}."
    )


def _process_number() -> str | int:
  return os.environ["SLURM_PROCID"] if PROCESS_ID.value is None else PROCESS_ID.value


def _config_spec() -> str:
  return config_flags.get_config_filename(flags.FLAGS["config"])


def _leave_others(error: BaseException, folder: pathlib.Path) -> None:
  """Ends one of several processes that fails alone; the others end when they miss it."""
  if re.search("Gloo|NCCL|coordination service", str(error)):
    lost = f"another process of this run has ended ({str(error).splitlines()[0]})"
    command_line.explain(
      "negint",
      f"{lost}; {folder} keeps its last checkpoint: start the same command again to resume.",
    )
    os._exit(Interrupted.exit_code)  # the usual way out waits for the other processes
  timer = threading.Timer(SECONDS_TO_LEAVE, os._exit, (getattr(error, "exit_code", 1),))
  timer.daemon = True
  timer.start()


if __name__ == "__main__":
  command_line.run(
    "negint",
    main,
    example="--config.train.steps=1000",
    before_flags=config_file.check_command_line,
    check_flags=check_flags,
  )
