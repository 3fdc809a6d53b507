"""host_memory: a step's temporaries are not mapped anew at every step."""

import platform
import subprocess
import sys

import pytest

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


def page_faults(how):
  done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.slow
def test_temporaries_cost_no_page_faults_once_memory_is_kept():
  pages = 64 * 2**20 // 4096
  assert page_faults("given back") > pages // 2
  assert page_faults("kept") < pages // 20
