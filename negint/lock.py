"""One process at a time where two would spoil each other's files."""

import contextlib
import fcntl
import pathlib

from negint.errors import UserError


@contextlib.contextmanager
def exclusive(path: pathlib.Path, what: str):
  """Holds the lock file `path` while the block runs; the system frees it however the process ends.

  Raises:
    UserError: another process holds it; `what` says what that process is doing.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("a") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(f"Another process is {what} (it holds {path}): wait until it ends.") from None
    yield
