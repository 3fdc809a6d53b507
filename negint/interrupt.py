"""SIGTERM and Ctrl-C: a run that is asked to stop saves its state first."""

import contextlib
import signal

from negint.errors import Interrupted


class Interruption:
  """Remembers that the run was asked to stop; `poll` raises at a moment that suits the run.

  A second signal of the same kind ends the process at once, as if nothing were installed.
  """

  def __init__(self):
    self.signal_name = None

  def __call__(self, number, frame):
    del frame
    self.signal_name = signal.Signals(number).name
    signal.signal(number, signal.SIG_DFL)

  def poll(self):
    if self.signal_name:
      raise Interrupted(f"stopped by {self.signal_name}")


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
