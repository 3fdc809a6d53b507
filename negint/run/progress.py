"""Progress bars on stderr, and times in words."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
  """Returns tqdm's bar of steps on stderr, drawn rarely where nobody watches it (a log file).

  Args:
    iterable: what the bar counts; None where `update` is called.
    options: of tqdm.
  """
  interval = 0.2 if sys.stderr.isatty() else 10.0
  options = {"unit": "step", "dynamic_ncols": True, "mininterval": interval, **options}
  return tqdm(iterable, **options)


def duration(seconds: float) -> str:
  """Returns a time as a person says it."""
  if seconds < 90:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
  minutes, rest = divmod(round(seconds), 60)
  if minutes < 10:
    return f"{minutes} min {rest} s"
  hours = seconds / 3600
  if hours < 1.5:
    return f"{minutes} min"
  return f"{hours:.1f} hours" if hours < 72 else f"{hours / 24:.1f} days"
