"""`python -m negint.main --config=configs/<system>.py:<argument>`: flags, set-up, exit codes."""

import functools
import os
import pathlib
import re
import signal
import sys
import threading

from absl import app, flags, logging
from ml_collections import config_flags

from negint.errors import EXIT_USER_ERROR, Interrupted, NonFiniteLoss, UserError
from negint.run import host_memory

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file and its argument, e.g. configs/meta_adpt.py:ar", lock_config=True
)
WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run (default: runs/<system>-<languages>-<scale>-seed<k>, or <task>-... of it).",
)
DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "This process is one of several that form one pretraining run."
)
COORDINATOR = flags.DEFINE_string(
  "coordinator", None, "host:port of process 0; with the two below where there is no SLURM."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")

SMALL_SCALES = ("sample", "lab")  # whose steps take little memory, and mostly run on a CPU
SECONDS_TO_LEAVE = 10  # that a process which fails alone waits for the others to end, too


def parse_flags(argv):
  """Parses flags; a mistake in them, or a config that refuses its argument, is one sentence."""
  try:
    for argument in argv[1:]:
      if match := re.fullmatch(r"--?config=(.*?)(:.*)?", argument):
        check_config_file(match[1])
    rest = flags.FLAGS(argv)
    if len(rest) > 1:
      raise UserError(f"{rest[1]!r} is not a flag; flags look like --config.train.steps=1000.")
    if CONFIG.value is None:
      raise UserError("--config is missing; for example --config=configs/meta_adpt.py:ar.")
    check_distributed()
    return rest
  except (
    flags.Error,
    UserError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    OSError,
  ) as error:
    fail(error, EXIT_USER_ERROR)


def check_config_file(path: str):
  """ml_collections would report a file that is not there late, and in other words."""
  if not os.path.isfile(path):
    there = sorted(
      p.name for p in pathlib.Path("configs").glob("*.py") if p.name not in ("base.py", "tasks.py")
    )
    raise UserError(
      f"--config names {path}, which is not a file (looked from {os.getcwd()}); configs/ has "
      f"{', '.join(there) or 'none here: run from the folder of the repository'}."
    )


def check_distributed():
  """The four flags of a distributed run fit each other and the environment."""
  wanted = (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
  given = [f"--{flag.name}" for flag in wanted if flag.value is not None]
  missing = [f"--{flag.name}" for flag in wanted if flag.value is None]
  if not DISTRIBUTED.value:
    if given:
      raise UserError(f"{given[0]} is for runs of several processes; add --distributed or drop it.")
    return
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
  if given:
    check_addresses(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)


def check_addresses(coordinator: str, num_processes: int, process_id: int):
  if not re.fullmatch(r"\S+:\d+", coordinator):
    raise UserError(
      f"--coordinator={coordinator} must be <host>:<port> of process 0, such as node01:12345."
    )
  if not 0 <= process_id < num_processes:
    raise UserError(
      f"--process_id={process_id} must be from 0 to --num_processes - 1, and --num_processes is "
      f"{num_processes}."
    )


def fail(error: Exception, code: int):
  """Prints the error as one sentence and exits; ml_collections wraps a config's own in a traceback."""
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  message = f"no field {error.args[0]}" if isinstance(error, KeyError) else str(error)
  if "Traceback (most recent call last)" in message:
    message = message.rpartition("Error: ")[2]
  explain(message)
  sys.exit(code)


def explain(message: str):
  print(f"negint: {' '.join(message.split())}", file=sys.stderr, flush=True)


def quiet_about_full_disks(args):
  """Background writers die loudly of a full disk, which the main thread reports in one sentence."""
  if not re.search("RESOURCE_EXHAUSTED|No space left|handle is closed", str(args.exc_value)):
    threading.__excepthook__(args)


def run_task(config, folder: pathlib.Path):
  """Runs what the config asks for, in the folder; of several processes the first one prints."""
  from negint import pretrain
  from negint.analysis import gradient_similarity, pruning
  from negint.finetuning import finetune
  from negint.method import parallel
  from negint.run import runner

  if DISTRIBUTED.value:
    number = os.environ.get("SLURM_PROCID") if PROCESS_ID.value is None else PROCESS_ID.value
    if int(number) == 0:
      print("Waiting for the other processes of this run, for at most 5 minutes.", flush=True)
    parallel.start(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
  # Until the training loop takes over, SIGTERM is as good as Ctrl-C.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  run = {
    "pretrain": pretrain.pretrain,
    "gradient_similarity": gradient_similarity.measure_similarity,
    "pruning": pruning.prune,
  }.get(config.task, functools.partial(runner.run, finetune.KIND))
  try:
    run(config, folder, say=print if parallel.is_first() else lambda line: None)
  except (NonFiniteLoss, Interrupted) as error:  # all processes raise them at the same step
    if parallel.is_first():
      raise
    sys.exit(error.exit_code)


def leave(error: BaseException, folder: pathlib.Path):
  """Ends one of several processes that fails alone; the others end when they miss it."""
  if re.search("Gloo|NCCL|coordination service", str(error)):
    lost = f"another process of this run has ended ({str(error).splitlines()[0]})"
    explain(f"{lost}; {folder} keeps its last checkpoint: start the same command again to go on.")
    os._exit(Interrupted.exit_code)  # nobody is left to take leave of
  code = getattr(error, "exit_code", 1)
  timer = threading.Timer(SECONDS_TO_LEAVE, os._exit, (code,))
  timer.daemon = True
  timer.start()


def main(argv):
  del argv
  config = CONFIG.value
  if config.get("scale") in SMALL_SCALES:
    host_memory.keep_freed()
  import jax  # after the flags: a typing mistake need not wait for it

  from negint.run import workdir

  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax reports every file it renames
  folder = (
    pathlib.Path(WORKDIR.value).expanduser() if WORKDIR.value else workdir.default_workdir(config)
  )
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute().parent / ".jax_cache"))
  threading.excepthook = quiet_about_full_disks
  try:
    run_task(config, folder)
  except (NonFiniteLoss, Interrupted) as error:
    fail(error, error.exit_code)
  except BaseException as error:
    if DISTRIBUTED.value and not isinstance(error, SystemExit):
      leave(error, folder)
    report(error, folder)


def report(error: BaseException, folder: pathlib.Path):
  """Ends with a sentence where the cause is outside, else with the traceback."""
  if isinstance(error, UserError):
    fail(error, error.exit_code)
  if isinstance(error, KeyboardInterrupt):
    words = f"interrupted; {folder} keeps what was saved: start the same command again to go on."
    fail(Interrupted(words), Interrupted.exit_code)
  if isinstance(error, OSError):
    words = f"{error}; {folder} keeps its last checkpoint: mend the cause and start again."
    fail(UserError(words), EXIT_USER_ERROR)
  raise error


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
