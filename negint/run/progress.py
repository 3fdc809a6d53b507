"""Progress bars on stderr."""

import sys

from tqdm import tqdm


def progress_bar(*args, **options) -> tqdm:
  """A bar of steps on stderr, drawn rarely where nobody watches it (a log file)."""
  interval = 0.2 if sys.stderr.isatty() else 10.0
  return tqdm(*args, unit="step", dynamic_ncols=True, mininterval=interval, **options)
