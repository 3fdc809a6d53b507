"""What the benchmark measures: the time of steps, their memory, and the host's work.

Imports JAX, so `launch.benchmark.__main__` imports it only after it has set the process up.
"""

import os
import pathlib
import platform
import re
import sys
import tempfile
from types import ModuleType
from typing import NamedTuple

import jax
import jaxlib
import numpy as np

from launch.benchmark import host, race, timed_steps
from launch.benchmark import results as result_files
from negint import options
from negint.errors import UserError

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
MEMORY_BATCH_SIZE = 128  # sequences of 256 tokens


class Request(NamedTuple):
  """What the flags ask for."""

  sizes: tuple[str, ...] = ()  # of timed_steps.SCALES; empty: what fits the device
  steps: tuple[str, ...] = timed_steps.STEPS  # which steps
  dtypes: tuple[str, ...] = options.DTYPES  # of the matrix products
  batch_size: int = 0  # sequences per step; 0: what fits the size
  remat: str = ""  # none | layer; empty: the config's, or both for the memory
  rounds: int = 10  # times that each step is timed
  peer: str = "none"  # none | torch
  quick: bool = False  # tiny models, two rounds
  out: str = ""  # JSON file; empty: the device's own


def measure(what: str, request: Request) -> dict:
  """Returns results in the form of the JSON file, and merges them into that file.

  Args:
    what: "steps", "memory" or "host".
    request: what exactly.

  Raises:
    UserError: a size, step or dtype is unknown, or PyTorch is not installed.
  """
  if what == "host":
    return measure_host(request)
  with tempfile.TemporaryDirectory() as folder:
    # The timed compilation fills the cache; the step's own, which takes the same program, reads it.
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return measure_memory(request) if what == "memory" else measure_steps(request)


def measure_steps(request: Request) -> dict:
  """Times steps against each other, one size after the other."""
  on_gpu = timed_steps.platform() == "gpu"
  sizes = request.sizes or ("sample", "base", *["paper"] * on_gpu)
  sizes, rounds = (("tiny",), 2) if request.quick else (sizes, request.rounds)
  cases = timed_steps.cases_of(
    sizes, request.steps, request.dtypes, request.batch_size, request.remat
  )
  peer = load_peer() if request.peer == "torch" else None
  groups = {}
  for size in dict.fromkeys(sizes):
    of_size = [case for case in cases if case.size == size]
    contenders: list[race.Contender] = [timed_steps.Step(case) for case in of_size]
    contenders += [timed_steps.Matmul(size, dtype) for dtype in dict.fromkeys(request.dtypes)]
    contenders += peer.contenders(of_size, say) if peer else []
    at_start = environment(peer)
    groups[size] = {"environment": at_start, "rows": race.race(contenders, rounds, say)}
    save({"steps": groups}, request)  # after each size: the next one may take an hour
  return {"steps": groups}


def measure_memory(request: Request) -> dict:
  """Compiles steps at the paper's shape, or at the sizes asked for, and runs nothing."""
  sizes, batch_size = request.sizes or ("paper",), request.batch_size or MEMORY_BATCH_SIZE
  if request.quick:
    sizes, batch_size = ("tiny",), request.batch_size
  rows = []
  for remat in [request.remat] if request.remat else options.REMATS:
    for case in timed_steps.cases_of(sizes, request.steps, request.dtypes, batch_size, remat):
      say(f"compiling {case.step}, {case.dtype}, remat {remat}")
      rows.append(timed_steps.memory_row(case))
  return save({"memory": {"environment": environment(), "rows": rows}}, request)


def measure_host(request: Request) -> dict:
  """Times what the host does beside the device."""
  path = out_file(request)
  known = result_files.read(path) if path.exists() else {}
  rows = host.rows(fastest_step(known), quick=request.quick, say=say)
  return save({"host": {"environment": environment(), "rows": rows}}, request)


def load_peer() -> ModuleType:
  """Returns the module of the steps in PyTorch.

  Raises:
    UserError: PyTorch is not installed.
  """
  try:
    from launch.benchmark import torch_peer
  except ImportError as error:
    raise UserError(f"--peer=torch needs PyTorch ({error}): pip install torch.") from error
  return torch_peer


def fastest_step(results: dict) -> dict | None:
  """Returns the measured row that takes the most batches per second; None without any."""
  groups = results.get("steps", {}).values()
  rows = [row for group in groups for row in group["rows"] if row["step"] != "matmul"]
  return min(rows, key=lambda row: np.median(row["seconds"]), default=None)


def device_name() -> str:
  """Returns the name of the processor with its cores, or of the GPUs with their number."""
  kind = jax.local_devices()[0].device_kind
  if timed_steps.platform() == "cpu":
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    kind = found[1].strip() if found else platform.processor() or kind
    return f"{kind}, {timed_steps.cores()} cores"
  return f"{jax.local_device_count()} x {kind}"


def environment(peer: ModuleType | None = None) -> dict:
  """Returns the machine, its load and the versions."""
  return {
    "device": device_name(),
    "devices": jax.local_device_count(),
    "cores": timed_steps.cores(),
    "load": round(os.getloadavg()[0], 2),  # processes that wanted a core in the last minute
    "python": platform.python_version(),
    "jax": jax.__version__,
    "jaxlib": jaxlib.__version__,
    **(peer.versions() if peer else {}),
  }


def out_file(request: Request) -> pathlib.Path:
  """Returns the JSON file that results are merged into."""
  slug = re.sub("[^a-z0-9]+", "-", device_name().lower()).strip("-")
  return pathlib.Path(request.out) if request.out else FOLDER / f"{slug}.json"


def save(results: dict, request: Request) -> dict:
  """Merges results into the file and returns them; a quick look is kept only with --out."""
  if request.out or not request.quick:
    result_files.merge(out_file(request), results)
    say(f"written to {out_file(request)}")
  return results


def say(text: str) -> None:
  """Prints a line about the progress."""
  print(f"benchmark: {text}", file=sys.stderr, flush=True)
