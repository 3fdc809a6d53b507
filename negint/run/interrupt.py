"""SIGTERM and Ctrl-C: a run that is asked to stop saves its state first."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from negint.errors import Interrupted


class Interruption:
  """Remembers that the run was asked to stop.

  A loop that saves its state calls `asked` after each step. A measurement that has no state of its
  own calls `poll`. A second signal of the same kind ends the process at once.

  Attributes:
    agree: number of a signal, or 0 -> the number that all processes of the run act on now.
  """

  def __init__(self) -> None:
    self.agree: Callable[[int], int] = lambda number: number
    self._number = 0

  def __call__(self, number: int, frame: FrameType | None) -> None:
    """Handles a signal."""
    del frame
    self._number = number
    signal.signal(number, signal.SIG_DFL)

  def asked(self) -> Interrupted | None:
    """Returns the exception to raise once the state is saved, or None to continue.

    The processes of a run must call this equally often.
    """
    number = self.agree(self._number)
    return Interrupted(f"stopped by {signal.Signals(number).name}") if number else None

  def poll(self) -> None:
    """Raises Interrupted if the run was asked to stop."""
    if stop := self.asked():
      raise stop


@contextlib.contextmanager
def caught() -> Iterator[Interruption]:
  """Catches both signals inside the block and gives the Interruption to ask."""
  interruption = Interruption()
  previous = {
    number: signal.signal(number, interruption) for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield interruption
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
