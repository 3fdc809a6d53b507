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
