"""Progress bars on stderr."""

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
