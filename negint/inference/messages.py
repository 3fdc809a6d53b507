"""Messages of the commands, for callers that gave a path and no flag."""

import contextlib
from collections.abc import Iterator

from negint.errors import UserError


@contextlib.contextmanager
def without_flag(flag: str) -> Iterator[None]:
  """Takes a flag out of the message of a UserError in the block: "--runs=x" becomes "x"."""
  try:
    yield
  except UserError as error:
    raise UserError(str(error).replace(f"{flag}=", "")) from error
