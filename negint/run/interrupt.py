"""SIGTERM and Ctrl-C: a run that is asked to stop saves its state first."""

import contextlib
import signal
from collections.abc import Callable

from negint.errors import Interrupted


class Interruption:
  """Remembers that the run was asked to stop; `poll` raises at a moment that suits the run.

  A second signal of the same kind ends the process at once, as if nothing were installed.

  Attributes:
    agree: number of a signal or 0 -> the one that all processes of the run act on at this moment.
  """

  def __init__(self):
    self.signal_name = None
    self.agree: Callable[[int], int] = lambda number: number

  def __call__(self, number, frame):
    del frame
    self.signal_name = signal.Signals(number).name
    signal.signal(number, signal.SIG_DFL)

  def asked(self) -> str | None:
    """The signal that stops the run, if any; the processes of a run must ask equally often."""
    number = self.agree(signal.Signals[self.signal_name] if self.signal_name else 0)
    return signal.Signals(number).name if number else None

  def poll(self):
    if name := self.asked():
      raise Interrupted(f"stopped by {name}")


@contextlib.contextmanager
def caught():
  """Catches both signals inside the block and gives the Interruption to poll."""
  interruption = Interruption()
  previous = {
    number: signal.signal(number, interruption) for number in (signal.SIGTERM, signal.SIGINT)
  }
  try:
    yield interruption
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)
