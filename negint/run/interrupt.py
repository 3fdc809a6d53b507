"""SIGTERM, Ctrl-C and a lost terminal: a run that is asked to stop saves its state first."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType

from negint.errors import Interrupted

SAME_REQUEST = 5.0  # seconds in which a signal that comes again asks for nothing new


class Interruption:
  """Remembers that the run was asked to stop.

  A loop that saves its state calls `asked` after each step. A measurement that has no state of its
  own calls `poll`. A second Ctrl-C ends the process at once. So does a SIGTERM or SIGHUP that comes
  again, but only after SAME_REQUEST seconds: whoever stops a whole group of processes and the study
  that started them each send one.

  Attributes:
    agree: number of a signal, or 0 -> the number that all processes of the run act on now.
  """

  def __init__(self) -> None:
    self.agree: Callable[[int], int] = lambda number: number
    self._number = 0
    self._first: dict[int, float] = {}  # number of a signal -> when it came first

  def __call__(self, number: int, frame: FrameType | None) -> None:
    """Handles a signal."""
    del frame
    self._number = number
    now = time.monotonic()
    is_urgent = now - self._first.setdefault(number, now) > SAME_REQUEST
    if is_urgent or number == signal.SIGINT:
      signal.signal(number, signal.SIG_DFL)
    if is_urgent:
      signal.raise_signal(number)

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
  """Catches the signals inside the block and gives the Interruption to ask.

  SIGHUP stays ignored where it is: `nohup` asked for that.
  """
  interruption = Interruption()
  numbers = [signal.SIGTERM, signal.SIGINT]
  if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
    numbers.append(signal.SIGHUP)
  previous = {number: signal.signal(number, interruption) for number in numbers}
  try:
    yield interruption
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
