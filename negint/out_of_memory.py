"""Out of memory, on a device or on the host: recognised, and said in one sentence."""

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from negint.errors import UserError

# (flags, share of the memory that they leave), the best first
Remedies = Sequence[tuple[str, float]]
_WORDS = re.compile("RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|ALLOC_FAILED", re.IGNORECASE)
_SIZE = re.compile(r"allocat\w*[^\d]{0,40}?([\d.]+) ?(bytes|[KMGTP]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, **{f"{letter}iB": 1024**n for n, letter in enumerate("KMGTP", 1)}}
_NAMED = 3  # options that the sentence names


def is_out_of_memory(error: BaseException) -> bool:
  """Whether the error says that memory was missing; a full disk is another matter."""
  if isinstance(error, MemoryError):
    return True
  # XLA's errors are RuntimeErrors. tensorstore's ValueErrors with the same words are about a disk.
  text = str(error)
  return isinstance(error, RuntimeError) and bool(_WORDS.search(text)) and "No space" not in text


def sentence(error: BaseException, remedies: Remedies = ()) -> str:
  """Returns what was asked for, what there is, and what would help.

  Args:
    error: one for which `is_out_of_memory` holds.
    remedies: of this run, the most helpful first.
  """
  asked = _asked(error)
  failed = f"{_amount(asked)} were asked for at once" if asked else "an allocation failed"
  advice = "Free memory that other programs hold, or ask for more of it."
  return (
    f"Out of memory: {failed}, and there are {_of_device() or _of_host()}. "
    f"{_advice(remedies) if remedies else advice}"
  )


@contextlib.contextmanager
def reported(remedies: Callable[[], Remedies]) -> Iterator[None]:
  """Turns running out of memory inside the block into a UserError with this run's remedies."""
  try:
    yield
  except (MemoryError, RuntimeError) as error:
    if not is_out_of_memory(error):
      raise
    raise UserError(sentence(error, remedies())) from error


def _advice(remedies: Remedies) -> str:
  best, *others = [f"{flags} (about {1 - share:.0%} less)" for flags, share in remedies[:_NAMED]]
  also = f", then {', '.join(others)}" if others else ""
  return f"By a rough count {best} helps most{also}. Add one of them, with another --workdir."


def _asked(error: BaseException) -> int:
  """Returns the bytes of the allocation that failed, or 0 if the error does not say."""
  match = _SIZE.search(str(error))
  if not match:
    return 0
  unit = next(size for name, size in _UNITS.items() if name.lower() == match[2].lower())
  return int(float(match[1].rstrip(".")) * unit)


def _of_device() -> str | None:
  """Returns the memory of the accelerator; None for a CPU, or where JAX does not know it."""
  if "jax" not in sys.modules:
    return None
  import jax

  try:
    device = jax.local_devices()[0]
    statistics = device.memory_stats() or {}
  except RuntimeError:  # the device is gone
    return None
  if "bytes_limit" not in statistics:
    return None
  limit, used = statistics["bytes_limit"], statistics.get("bytes_in_use", 0)
  return f"{_amount(limit)} for JAX on {device.device_kind}, {_amount(used)} of them in use"


def _of_host() -> str:
  """Returns the memory of this machine, or of the part of it that this process may use."""
  path, limit = pathlib.Path("/proc/meminfo"), pathlib.Path("/sys/fs/cgroup/memory.max")
  if not path.is_file():
    return "fewer than that on this machine"
  lines = (line.split() for line in path.read_text().splitlines())
  kilobytes = {words[0]: int(words[1]) for words in lines}
  total, free = kilobytes["MemTotal:"] * 1024, kilobytes["MemAvailable:"] * 1024
  if limit.is_file() and (text := limit.read_text().strip()).isdigit():
    total = min(total, int(text))
    free = min(free, total)
  return f"{_amount(total)} on this machine, {_amount(free)} of them free"


def _amount(count: float) -> str:
  """Returns a number of bytes as a person says it."""
  for unit in ("bytes", "KiB", "MiB", "GiB"):
    if count < 1024:
      return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
    count /= 1024
  return f"{count:.3g} TiB" if count < 1024 else f"{count:,.0f} TiB"
