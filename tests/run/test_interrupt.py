"""A run that is asked to stop: once, again at once, again later, and by a lost terminal."""

import os
import signal
import subprocess
import sys

import pytest

from negint.run import interrupt

AGAIN = """
import os, signal, time
from negint.run import interrupt
interrupt.SAME_REQUEST = {seconds}
with interrupt.caught() as interruption:
  os.kill(os.getpid(), {number})
  time.sleep(0.05)
  os.kill(os.getpid(), {number})
  time.sleep(0.05)
  raise SystemExit(interruption.asked().exit_code)
"""


@pytest.mark.usefixtures("heeds_hangup")
@pytest.mark.parametrize(
  ("number", "seconds", "code"),
  [
    (signal.SIGTERM, 5.0, 75),
    (signal.SIGHUP, 5.0, 75),
    (signal.SIGTERM, 0.01, -signal.SIGTERM),
    (signal.SIGHUP, 0.01, -signal.SIGHUP),
    (signal.SIGINT, 5.0, -signal.SIGINT),
  ],
)
def test_a_signal_again_is_the_same_request_only_for_a_moment(number, seconds, code):
  """A stop of a whole group reaches a job twice; a second Ctrl-C is a person's."""
  program = AGAIN.format(number=int(number), seconds=seconds)
  assert subprocess.run([sys.executable, "-c", program]).returncode == code


def test_a_lost_terminal_asks_to_stop_unless_it_is_ignored():
  before = signal.getsignal(signal.SIGHUP)
  try:
    for handler, is_asked in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
      signal.signal(signal.SIGHUP, handler)
      with interrupt.caught() as interruption:
        os.kill(os.getpid(), signal.SIGHUP)
        found = interruption.asked()
      assert (str(found) == "stopped by SIGHUP") if is_asked else found is None
      assert signal.getsignal(signal.SIGHUP) == handler
  finally:
    signal.signal(signal.SIGHUP, before)
