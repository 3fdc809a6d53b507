"""One process at a time where two would spoil each other's files."""

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator

from negint.errors import UserError


@contextlib.contextmanager
def exclusive(path: pathlib.Path, what: str, *, wait: bool = False) -> Iterator[None]:
  """Holds the lock file `path` while the block runs; the system frees it however the process ends.

  Args:
    path: the lock file; it stays when the lock is free.
    what: what its holder is doing, for the message.
    wait: whether to wait while another process holds it.

  Raises:
    UserError: another process holds it, and `wait` is False.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("a") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
      raise UserError(f"Another process is {what} (it holds {path}): wait until it ends.") from None
    yield


def is_held(path: pathlib.Path) -> bool:
  """Returns whether a process holds the lock file `path`; makes no file."""
  try:
    with path.open() as file:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # freed as the file closes
  except FileNotFoundError:
    return False
  except BlockingIOError:
    return True
  return False
