"""Measurements that all plans share: seconds of a step, of a start, of a checkpoint, of a product."""

import contextlib
import os
import pathlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from negint.run.checkpoint import Checkpoints

BUDGET = 8.0  # seconds that a step is timed
FEWEST = 3  # steps that are timed, however long they take
MATRIX = {
  "cpu": 2048,
  "gpu": 8192,
}  # rows and columns of the product that the steps are compared with
IMPORTED = time.perf_counter()
Found = TypeVar("Found")


def seconds_of(take: Callable[[], Any], budget: float = BUDGET) -> float:
  """Returns the mean seconds of a call, whose program is compiled; several calls may overlap.

  Args:
    take: does a step and returns arrays of its end.
    budget: seconds after which no more calls are made.
  """
  jax.block_until_ready(take())
  start, count, group = time.perf_counter(), 0, 1
  while count < FEWEST or time.perf_counter() - start < budget:
    for _ in range(group):
      found = take()
    jax.block_until_ready(found)
    count += group
    spent = time.perf_counter() - start
    # Waiting keeps the host from preparing the next batch meanwhile, so groups grow to a second.
    group = max(1, min(2 * group, int(min(1.0, budget / 4) * count / spent)))
  return (time.perf_counter() - start) / count


def since_start() -> float:
  """Returns the seconds since this process began; without /proc, since this file was imported."""
  stat = pathlib.Path("/proc/self/stat")
  if not stat.is_file() or not hasattr(time, "CLOCK_BOOTTIME"):
    return time.perf_counter() - IMPORTED
  ticks = int(stat.read_text().rpartition(")")[2].split()[19])
  return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def as_next_time(compiles: Callable[[], Found]) -> tuple[Found, float, float]:
  """Returns what `compiles` returns, and its seconds once the cache on disk has its programs.

  Args:
    compiles: compiles and returns something.

  Returns:
    (what it returns, its seconds in the next process, the seconds that only this process needed).
  """
  with cache_misses() as misses:
    start = time.perf_counter()
    found = compiles()
    cold = time.perf_counter() - start
  if not misses:
    return found, cold, 0.0
  jax.clear_caches()
  start = time.perf_counter()
  found = compiles()
  return found, time.perf_counter() - start, cold


@contextlib.contextmanager
def cache_misses() -> Iterator[list[str]]:
  """Yields a list with one entry for each program that was compiled and put into the cache since."""
  seen: list[str] = []

  def listen(event: str, **_: Any) -> None:
    if event.endswith("compilation_cache/cache_misses"):
      seen.append(event)

  jax.monitoring.register_event_listener(listen)
  try:
    yield seen
  finally:
    jax.monitoring.unregister_event_listener(listen)


def matrix_rate(dtype: str) -> float:
  """Returns the FLOPs per second of a large matrix product on one device."""
  dim = MATRIX.get(jax.local_devices()[0].platform, MATRIX["gpu"])
  left, right = jax.random.normal(jax.random.key(0), (2, dim, dim), jnp.dtype(dtype))
  product = jax.jit(jnp.matmul)
  return 2 * dim**3 / seconds_of(lambda: product(left, right), budget=1.0)


class Numbered(struct.PyTreeNode):
  """A state as a checkpoint of any step."""

  step: np.ndarray  # int32 scalar
  state: Any  # a tree of arrays


def checkpoint_of(state: Any) -> tuple[int, float | None]:
  """Returns the bytes of a state and the seconds of writing it; None where the disk has no room.

  Writes into a temporary folder, which is deleted.
  """
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  if shutil.disk_usage(tempfile.gettempdir()).free < 3 * size:
    return size, None
  with tempfile.TemporaryDirectory(prefix="negint-plan-") as name:
    folder = pathlib.Path(name)
    with contextlib.closing(Checkpoints(folder, keep=1)) as checkpoints:

      def save(number: int) -> float:
        start = time.perf_counter()
        checkpoints.save(Numbered(np.array(number, np.int32), state))
        checkpoints.wait()
        return time.perf_counter() - start

      save(0)  # starts orbax's threads
      seconds = [save(1)]
      while sum(seconds) < BUDGET / 4 and len(seconds) < FEWEST:
        seconds.append(save(1 + len(seconds)))
  return size, statistics.median(seconds)
