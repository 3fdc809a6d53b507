"""Out of memory, on a device or on the host: recognised, and said in one sentence."""

import contextlib
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from negint.errors import UserError

# (flags, share of the memory that they leave), the best first
Remedies = Sequence[tuple[str, float]]
_WORDS = re.compile("RESOURCE_EXHAUSTED|out of memory|OUT_OF_MEMORY|ALLOC_FAILED", re.IGNORECASE)
_SIZE = re.compile(r"allocat\w*[^\d]{0,40}?([\d.]+) ?(bytes|[KMGTP]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, **{f"{letter}iB": 1024**n for n, letter in enumerate("KMGTP", 1)}}
_NAMED = 3  # options that the sentence names


class DeviceMemory(NamedTuple):
  """The memory of an accelerator."""

  kind: str  # its name
  limit: int  # bytes that JAX may take
  used: int  # bytes of them that arrays and programs hold now


class HostMemory(NamedTuple):
  """The memory of this machine."""

  total: int  # bytes
  free: int  # bytes that programs can still have


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
  failed = f"{amount(asked)} were asked for at once" if asked else "an allocation failed"
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
  parts = [f"{flags} (about {1 - share:.0%} less)" for flags, share in remedies[:_NAMED]]
  return f"Add {', or '.join(parts)}, with another --workdir."


def _asked(error: BaseException) -> int:
  """Returns the bytes of the allocation that failed, or 0 if the error does not say."""
  match = _SIZE.search(str(error))
  if not match:
    return 0
  unit = next(size for name, size in _UNITS.items() if name.lower() == match[2].lower())
  return int(float(match[1].rstrip(".")) * unit)


def device_memory() -> DeviceMemory | None:
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
  used = statistics.get("bytes_in_use", 0)
  return DeviceMemory(device.device_kind, statistics["bytes_limit"], used)


def host_memory() -> HostMemory | None:
  """Returns the memory of this machine, or of the part that this process may use; None: unknown."""
  path = pathlib.Path("/proc/meminfo")
  if not path.is_file():
    return None
  lines = (line.split() for line in path.read_text().splitlines())
  kilobytes = {words[0]: int(words[1]) for words in lines}
  total, free = kilobytes["MemTotal:"] * 1024, kilobytes["MemAvailable:"] * 1024
  group = pathlib.Path("/sys/fs/cgroup")  # of a container
  limit, used = (_number_in(group / name) for name in ("memory.max", "memory.current"))
  if limit is None:
    return HostMemory(total, free)
  total = min(total, limit)
  return HostMemory(total, min(free, total - min(used or 0, total) + _cache_of(group)))


def _number_in(file: pathlib.Path) -> int | None:
  """Returns the number that a file holds; None if it holds none."""
  text = file.read_text().strip() if file.is_file() else ""
  return int(text) if text.isdigit() else None


def _cache_of(group: pathlib.Path) -> int:
  """Returns the bytes of files that a container's `memory.current` counts, and that can be dropped."""
  file = group / "memory.stat"
  found = re.search(r"^inactive_file (\d+)$", file.read_text(), re.M) if file.is_file() else None
  return int(found[1]) if found else 0


def _of_device() -> str | None:
  memory = device_memory()
  if memory is None:
    return None
  return f"{amount(memory.limit)} for JAX on {memory.kind}, {amount(memory.used)} of them in use"


def _of_host() -> str:
  memory = host_memory()
  if memory is None:
    return "fewer than that on this machine"
  return f"{amount(memory.total)} on this machine, {amount(memory.free)} of them free"


def amount(count: float) -> str:
  """Returns a number of bytes as a person says it."""
  for unit in ("bytes", "KiB", "MiB", "GiB"):
    if count < 1024:
      return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
    count /= 1024
  return f"{count:.3g} TiB" if count < 1024 else f"{count:,.0f} TiB"
