"""Memory of the host between training steps."""

import ctypes

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
  """Makes this process keep freed memory for its next allocation; before any thread has allocated.

  XLA allocates a step's temporaries anew at every step. glibc maps blocks of that size from the
  system and gives them back, so that a step on a CPU spends up to a third of its time on page
  faults. For small models only: the first steps leave behind several blocks (eight were seen) in
  which something small has found a place, before one of them is whole again.

  Returns:
    Whether the C library has these settings; others are left as they are.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError, TypeError):  # not glibc
    return False
  settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1}
  return all([mallopt(parameter, value) for parameter, value in settings.items()])
