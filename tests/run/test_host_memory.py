"""host_memory: a step's temporaries are not mapped anew, and malloc has no holes to look through."""

import platform
import subprocess
import sys

import pytest

from negint.run import host_memory

needs_glibc = pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="mallopt and mallinfo2 are glibc's"
)

FAULTS = """
import resource, sys
if sys.argv[1] == "kept":
  from negint.run import host_memory
  assert host_memory.keep_freed()
import jax, jax.numpy as jnp
# Temporaries of 64 MiB, more than any threshold up to which glibc recycles blocks by itself.
step = jax.jit(lambda x: jnp.outer(x, x) @ x)
x = jnp.arange(4096.0)
faults = []
for _ in range(40):  # the first ones find memory that the process does not have yet
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  step(x).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults)[20])
"""

HOLES = """
import ctypes, sys
from negint.run import host_memory
assert host_memory.keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

class Info(ctypes.Structure):  # mallinfo2(3)
  names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
  _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc.mallinfo2.restype = Info

def holes():
  info = libc.mallinfo2()
  return info.fordblks - info.keepcost  # free bytes that are not the end of the heap

def resident():
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * 4096

blocks = [libc.malloc(4096 + 37 * number % 100_000) for number in range(10_000)]
for block, number in zip(blocks, range(10_000)):
  ctypes.memset(block, 1, 4096 + 37 * number % 100_000)
for block in blocks[::2]:
  libc.free(block)
before = holes(), resident()
if sys.argv[1] == "filled":
  host_memory.fill_holes()
print(*before, holes(), resident())
"""

COMPILED = """
import sys
from negint.run import host_memory
calls = []
host_memory.fill_holes, host_memory._LONG = lambda: calls.append(1), float(sys.argv[1])
host_memory.fill_holes_after_compiling()
import jax
jax.jit(lambda x: x * x + 1)(3.0)
print(len(calls))
"""


def printed(program, argument):
  done = subprocess.run([sys.executable, "-c", program, argument], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return [int(word) for word in done.stdout.split()]


@needs_glibc
@pytest.mark.slow
def test_temporaries_cost_no_page_faults_once_memory_is_kept():
  pages = 64 * 2**20 // 4096
  assert printed(FAULTS, "given back") > [pages // 2]
  assert printed(FAULTS, "kept") < [pages // 20]


@needs_glibc
def test_filled_holes_are_neither_searched_nor_resident():
  holes, resident, left, resident_later = printed(HOLES, "filled")
  assert left < holes / 10
  assert resident_later < resident - holes / 2
  holes, resident, left, resident_later = printed(HOLES, "as they are")
  assert left > 0.9 * holes > 200 * 2**20
  assert resident_later > resident - holes / 10


@pytest.mark.parametrize("seconds, fills", [("0", True), ("1000", False)])
def test_holes_are_filled_after_a_long_compilation(seconds, fills):
  assert (printed(COMPILED, seconds) > [0]) == fills


@pytest.mark.parametrize(
  "driver, platforms, here",
  [(False, None, True), (True, None, False), (True, "cuda", False), (True, "cpu", True)],
)
def test_freed_memory_is_kept_only_where_steps_use_it(
  driver, platforms, here, tmp_path, monkeypatch
):
  monkeypatch.setattr(host_memory, "_NVIDIA", tmp_path if driver else tmp_path / "nothing")
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  if platforms:
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
  assert host_memory.steps_are_here() == here
