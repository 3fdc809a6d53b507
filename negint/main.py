"""`python -m negint.main --config=configs/<system>.py:<argument>`: flags, set-up, exit codes."""

import os
import pathlib
import re
import signal
import sys
import threading

from absl import app, flags, logging
from ml_collections import config_flags

from negint.errors import EXIT_USER_ERROR, Interrupted, NonFiniteLoss, UserError

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file and its argument, e.g. configs/meta_adpt.py:ar", lock_config=True
)
WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Folder of the run (default: runs/<system>-<languages>-<scale>-seed<k>, or <task>-... of it).",
)


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


def fail(error: Exception, code: int):
  """Prints the error as one sentence and exits; ml_collections wraps a config's own in a traceback."""
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  message = f"no field {error.args[0]}" if isinstance(error, KeyError) else str(error)
  if "Traceback (most recent call last)" in message:
    message = message.rpartition("Error: ")[2]
  print(f"negint: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(code)


def quiet_about_full_disks(args):
  """Background writers die loudly of a full disk, which the main thread reports in one sentence."""
  if not re.search("RESOURCE_EXHAUSTED|No space left|handle is closed", str(args.exc_value)):
    threading.__excepthook__(args)


def main(argv):
  del argv
  import jax  # after the flags: a typing mistake need not wait for it

  from negint import finetune, pretrain, workdir
  from negint.analysis import gradient_similarity, pruning

  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # orbax reports every file it renames
  config = CONFIG.value
  folder = (
    pathlib.Path(WORKDIR.value).expanduser() if WORKDIR.value else workdir.default_workdir(config)
  )
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute().parent / ".jax_cache"))
  # Until the training loop takes over, SIGTERM is as good as Ctrl-C.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  threading.excepthook = quiet_about_full_disks
  try:
    run = {
      "pretrain": pretrain.pretrain,
      "gradient_similarity": gradient_similarity.measure_similarity,
      "pruning": pruning.prune,
    }.get(config.task, finetune.finetune)
    run(config, folder)
  except (UserError, NonFiniteLoss, Interrupted) as error:
    fail(error, error.exit_code)
  except KeyboardInterrupt:
    fail(
      Interrupted(
        f"interrupted; {folder} keeps what was saved: start the same command again to go on."
      ),
      Interrupted.exit_code,
    )
  except OSError as error:
    fail(
      UserError(f"{error}; {folder} keeps its last checkpoint: mend the cause and start again."),
      EXIT_USER_ERROR,
    )


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
