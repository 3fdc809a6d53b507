"""Memory of the host between training steps."""

import ctypes
import os
import pathlib

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_LARGEST, _SMALLEST = 2**26, 2**12  # bytes of the blocks by which holes are filled
_NVIDIA = pathlib.Path("/proc/driver/nvidia")  # of its driver; asking JAX would start it
_LONG = 0.5  # seconds of a compilation after which holes are worth filling


def steps_are_here() -> bool:
  """Whether training steps use this memory: no NVIDIA GPU is there, or JAX is told not to use it."""
  return os.environ.get("JAX_PLATFORMS") == "cpu" or not _NVIDIA.exists()


def keep_freed() -> bool:
  """Makes this process keep freed memory for its next allocation.

  Call it before any thread has allocated. XLA allocates a step's temporaries anew at every step.
  glibc gets blocks of that size from the system and returns them, so that a step on a CPU spends up
  to a third of its time on page faults.

  For small models on a CPU only. On a GPU steps allocate there, and the compiler's many threads would
  share one lock. In the first steps small objects settle inside freed blocks. Such a block
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


def fill_holes_after_compiling() -> None:
  """Calls `fill_holes` whenever JAX has compiled a large program. Only after `keep_freed`."""
  import jax  # `keep_freed` comes before this import

  def listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event.endswith("/backend_compile_duration") and duration_secs > _LONG:
      fill_holes()

  jax.monitoring.register_event_duration_secs_listener(listen)


def fill_holes() -> None:
  """Takes the free blocks between used ones away from malloc, for good. Only after `keep_freed`.

  The compiler leaves tens of thousands of them. At each allocation of a step malloc looks through
  them while the other threads wait: steps were seen to take 190 ms, and 130 once they were gone.
  Their pages go back to the system first, so that the process loses addresses and no memory.
  """
  libc = ctypes.CDLL(None)
  libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
  libc.free.argtypes = [ctypes.c_void_p]
  libc.sbrk.argtypes, libc.sbrk.restype = [ctypes.c_ssize_t], ctypes.c_void_p
  libc.malloc_trim(0)
  end = libc.sbrk(0)
  size = _LARGEST
  while size >= _SMALLEST:
    block = libc.malloc(size)
    if block is None or block + size > end:  # no hole is so large: it came from behind them
      libc.free(block)
      size //= 2
