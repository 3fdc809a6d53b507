"""What negint's training steps cost on this device, in time and in memory.

  python -m launch.benchmark                          # plain and meta steps, float32 and bfloat16
  python -m launch.benchmark --peer=torch             # beside the same steps in PyTorch
  python -m launch.benchmark --memory                 # compile only, at the paper's shape
  python -m launch.benchmark --feed                   # tokenising, sampling, imports, start-up
  python -m launch.benchmark --show=launch/benchmarks/<device>.json

Steps of a size run in turns, in a new order each round, so that the noise of a busy machine reaches
all of them alike. Results are merged into launch/benchmarks/<device>.json.
"""

import json
import os
import pathlib
import platform
import re
import sys
import tempfile

from absl import app, flags, logging

ROOT = pathlib.Path(__file__).resolve().parents[2]
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves GPU memory to a peer

from negint.run import host_memory  # noqa: E402

host_memory.keep_freed()  # as small runs do; a peer in this process has it, too

import jax  # noqa: E402
import jaxlib  # noqa: E402
import numpy as np  # noqa: E402

from launch.benchmark import feed, race, table, timed_steps  # noqa: E402
from negint import options  # noqa: E402
from negint.errors import UserError  # noqa: E402
from negint.run.files import write_json  # noqa: E402

SIZES = flags.DEFINE_list("sizes", None, "toy, base, paper (default: toy,base; on a GPU all)")
STEPS = flags.DEFINE_list("steps", list(timed_steps.STEPS), "plain and values of meta.gradient")
DTYPES = flags.DEFINE_list("dtypes", list(options.DTYPES), "Dtypes of the matrix products")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Sequences of a step; 0: what fits the size")
REMAT = flags.DEFINE_enum(
  "remat", "", ("", *options.REMATS), "Empty: the config's; both with --memory"
)
ROUNDS = flags.DEFINE_integer("rounds", 10, "Times that each step is timed")
PEER = flags.DEFINE_enum("peer", "none", ("none", "torch"), "Run the same steps in PyTorch, too")
MEMORY = flags.DEFINE_bool("memory", False, "Compile at the paper's shape, and run nothing")
FEED = flags.DEFINE_bool("feed", False, "Measure the host's side instead of the steps")
QUICK = flags.DEFINE_bool("quick", False, "Tiny models, two rounds: whether everything works")
OUT = flags.DEFINE_string("out", "", "JSON file (default: launch/benchmarks/<device>.json)")
SHOW = flags.DEFINE_string("show", "", "Print a JSON file of results as Markdown, and do no more")

MEMORY_BATCH_SIZE = 128  # sequences of 256 tokens


def main(argv):
  try:
    if len(argv) > 1:
      raise UserError(f"{argv[1]!r} is not a flag; flags look like --sizes=toy,base.")
    logging.set_verbosity(logging.WARNING)  # JAX reports the backends that it does not find
    if SHOW.value:
      print(table.markdown(read(pathlib.Path(SHOW.value))))
      return
    check_flags()
    print(table.markdown(measure()))
  except UserError as error:
    print(f"benchmark: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


def check_flags():
  options.check_at_least("--rounds", ROUNDS.value, 1)
  options.check_at_least("--batch_size", BATCH_SIZE.value, 0)
  if MEMORY.value and FEED.value:
    raise UserError("--memory and --feed are measurements of their own; give one of them.")


def measure() -> dict:
  """What the flags ask for, in the form of the JSON file: {"steps": {size: group}}, {"memory": group}
  or {"feed": group}; a group has an environment and rows."""
  if FEED.value:
    known = read(out_file()) if out_file().exists() else {}
    rows = feed.rows(fastest_step(known), quick=QUICK.value, say=say)
    return save({"feed": {"environment": environment(), "rows": rows}})
  with tempfile.TemporaryDirectory() as folder:
    # The timed compilation fills the cache; the step's own, which takes the same program, reads it.
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    return measure_memory() if MEMORY.value else measure_steps()


def measure_steps() -> dict:
  on_gpu = timed_steps.platform() == "gpu"
  sizes = SIZES.value or ["toy", "base", *["paper"] * on_gpu]
  sizes, rounds = (["tiny"], 2) if QUICK.value else (sizes, ROUNDS.value)
  cases = timed_steps.cases_of(sizes, STEPS.value, DTYPES.value, BATCH_SIZE.value, REMAT.value)
  peer = load_peer() if PEER.value == "torch" else None
  results = {}
  for size in dict.fromkeys(sizes):
    of_size = [case for case in cases if case.size == size]
    contenders = [timed_steps.Step(case) for case in of_size]
    contenders += [timed_steps.Matmul(size, dtype) for dtype in dict.fromkeys(DTYPES.value)]
    contenders += peer.contenders(of_size, say) if peer else []
    at_start = environment(peer)
    rows = race.race(contenders, rounds, say)
    results[size] = {"environment": at_start, "rows": rows}
    save({"steps": results})  # the next size may take an hour
  return {"steps": results}


def measure_memory() -> dict:
  size, batch_size = "paper", BATCH_SIZE.value or MEMORY_BATCH_SIZE
  if QUICK.value:
    size, batch_size = "tiny", BATCH_SIZE.value
  rows = []
  for remat in [REMAT.value] if REMAT.value else options.REMATS:
    cases = timed_steps.cases_of([size], STEPS.value, DTYPES.value, batch_size, remat)
    for case in cases:
      say(f"compiling {case.step}, {case.dtype}, remat {remat}")
      rows.append(timed_steps.memory_row(case))
  return save({"memory": {"environment": environment(), "rows": rows}})


def load_peer():
  try:
    from launch.benchmark import torch_peer
  except ImportError as error:
    raise UserError(f"--peer=torch needs PyTorch ({error}): pip install torch.") from error
  return torch_peer


def fastest_step(results: dict) -> dict | None:
  """The measured row that takes the most batches a second."""
  groups = results.get("steps", {}).values()
  rows = [row for group in groups for row in group["rows"] if row["step"] != "matmul"]
  return min(rows, key=lambda row: np.median(row["seconds"]), default=None)


def device_name() -> str:
  kind = jax.local_devices()[0].device_kind
  if timed_steps.platform() == "cpu":
    info = pathlib.Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    kind = found[1].strip() if found else platform.processor() or kind
    return f"{kind}, {timed_steps.cores()} cores"
  return f"{jax.local_device_count()} x {kind}"


def environment(peer=None) -> dict:
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


def out_file() -> pathlib.Path:
  slug = re.sub("[^a-z0-9]+", "-", device_name().lower()).strip("-")
  return pathlib.Path(OUT.value) if OUT.value else ROOT / "launch" / "benchmarks" / f"{slug}.json"


def save(results: dict) -> dict:
  """Merges the results into the file; a quick look is kept only where --out says so."""
  if QUICK.value and not OUT.value:
    return results
  path = out_file()
  merged = read(path) if path.exists() else {}
  steps = {**merged.get("steps", {}), **results.get("steps", {})}
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path, {**merged, **results, **({"steps": steps} if steps else {})})
  say(f"written to {path}")
  return results


def read(path: pathlib.Path) -> dict:
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"{path} is not a file of benchmark results ({error}).") from error


def say(text: str):
  print(f"benchmark: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
  app.run(main)
