"""How every command line begins and ends: flags, one sentence for a mistake, exit codes.

What the user can change (a mistake, a full disk, an interruption) ends in one sentence on stderr and
an exit code of `errors`. Everything else is a defect: it shows its traceback and exits with 1.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from negint.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, Interrupted, NonFiniteLoss, UserError

# Causes outside the program. A missing file is none of them: where a user names a file, the code
# looks for it and says so.
_OUTSIDE = {
  errno.EACCES,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EIO,
  errno.EISDIR,
  errno.EMFILE,
  errno.ENAMETOOLONG,
  errno.ENFILE,
  errno.ENOSPC,
  errno.ENOTDIR,
  errno.EPERM,
  errno.EROFS,
  errno.ESTALE,
}


def run(
  name: str,
  main: Callable[[], int | None],
  *,
  example: str,
  before_flags: Callable[[list[str]], None] = lambda argv: None,
  check_flags: Callable[[], None] = lambda: None,
) -> NoReturn:
  """Parses the flags, runs `main` and exits.

  Args:
    name: of the program; begins every sentence on stderr.
    main: returns the exit code, or None for 0.
    example: a flag as it looks, for the sentence about a word that is none.
    before_flags: gets the words of the command line before they are parsed; UserError as below.
    check_flags: raises UserError where the flags do not fit together.
  """

  def parse_flags(argv: list[str]) -> list[str]:
    try:
      before_flags(argv)
      rest = flags.FLAGS(argv)
      if len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; flags look like {example}.")
      check_flags()
    except (flags.Error, UserError) as error:
      fail(name, error, EXIT_USER_ERROR)
    return rest

  def guarded(argv: list[str]) -> int | None:
    del argv
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)  # libraries report every step
    try:
      return main()
    except (UserError, Interrupted, NonFiniteLoss) as error:
      fail(name, error, error.exit_code)
    except KeyboardInterrupt:
      fail(name, Interrupted("interrupted."), EXIT_INTERRUPTED)
    except OSError as error:
      if not is_outside(error):
        raise
      fail(name, error, EXIT_USER_ERROR)
    except (AssertionError, MemoryError, RuntimeError) as error:
      if not (found := about_the_machine(error)):
        raise
      explain(name, found)
      sys.exit(EXIT_USER_ERROR)

  # In place: ml_collections looks for the fields of the config there.
  sys.argv[1:] = map(with_home, sys.argv[1:])
  app.run(guarded, flags_parser=parse_flags)
  raise AssertionError("app.run exits")


def with_home(word: str) -> str:
  """Returns a flag with the home folder in the place of ~, which a shell leaves in --out=~/report."""
  flag, equals, value = word.partition("=")
  if not flag.startswith("-") or not equals:
    return word
  return flag + equals + ",".join(map(os.path.expanduser, value.split(",")))


def about_the_machine(error: BaseException) -> str | None:
  """Returns a sentence if memory is missing, or a device that JAX should use; None for other errors."""
  from negint import out_of_memory  # only to explain an error

  if out_of_memory.is_out_of_memory(error):
    return out_of_memory.sentence(error)
  if "jax" not in sys.modules:
    return None
  import jax

  try:
    jax.devices()
  except (AssertionError, RuntimeError) as refusal:  # JAX has no error of its own for this
    error = refusal
  else:
    return None
  wanted = os.environ.get("JAX_PLATFORMS")
  reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
  setting = f"JAX_PLATFORMS={wanted}, but this jax" if wanted else "JAX"
  return (
    f"{setting} finds no such device{reason}; install the jax of that device, such as jax[cuda12], or "
    f"{'unset JAX_PLATFORMS' if wanted else 'set JAX_PLATFORMS=cpu'}."
  )


def is_outside(error: OSError) -> bool:
  """Whether the system refused something (disk, rights, limits), which the user can change."""
  return error.errno in _OUTSIDE


def fail(name: str, error: BaseException, code: int) -> NoReturn:
  """Prints the error as one sentence and exits."""
  explain(name, str(error))
  sys.exit(code)


def explain(name: str, message: str) -> None:
  """Prints one line on stderr."""
  print(f"{name}: {' '.join(message.split())}", file=sys.stderr, flush=True)
