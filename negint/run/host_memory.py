"""Memory of the host between training steps."""

import ctypes

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
  """Makes this process keep freed memory for its next allocation.

  Call it before any thread has allocated. XLA allocates a step's temporaries anew at every step.
  glibc gets blocks of that size from the system and returns them, so that a step on a CPU spends up
  to a third of its time on page faults.

  For small models only. In the first steps small objects settle inside freed blocks. Such a block
  cannot serve as a whole again, so that the process keeps several of them (eight were seen).

  Returns:
    Whether the C library has these settings; others are left as they are.
  """
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError, TypeError):  # not glibc
    return False
  settings = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1, _ARENA_MAX: 1}
  succeeded = [mallopt(parameter, value) for parameter, value in settings.items()]
  return all(succeeded)
