"""Measures what negint's training steps cost on this device, in time and in memory.

  python -m launch.benchmark                          # plain and meta steps, float32 and bfloat16
  python -m launch.benchmark --peer=torch             # beside the same steps in PyTorch
  python -m launch.benchmark --measure=memory         # compile at the paper's shape and run nothing
  python -m launch.benchmark --measure=host           # tokenising, sampling, imports, start-up
  python -m launch.benchmark --show=launch/benchmarks/<device>.json

Results are merged into launch/benchmarks/<device>.json; launch/benchmarks/README.md explains them.
This file owns the flags, and sets the process up before JAX is imported.
"""

import os
import pathlib

from absl import flags

from launch.benchmark import results, table
from negint import command_line, options
from negint.run import host_memory

MEASURES = ("steps", "memory", "host")

MEASURE = flags.DEFINE_enum(
  "measure", "steps", MEASURES, "Time steps, compile them for their memory, or time the host's work"
)
SIZES = flags.DEFINE_list(
  "sizes", None, "sample, base, paper (default: sample,base; on a GPU all; memory: paper)"
)
STEPS = flags.DEFINE_list(
  "steps", ["plain", *options.META_GRADIENTS], "plain and values of meta.gradient"
)
DTYPES = flags.DEFINE_list(
  "dtypes",
  ["float32", "bfloat16"],
  f"Dtypes of the matrix products, of {', '.join(options.DTYPES)}",
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", 0, "Sequences per step; 0: what fits the size")
REMAT = flags.DEFINE_enum(
  "remat", "", ("", *options.REMATS), "Rematerialisation (default: the config's; memory: both)"
)
ROUNDS = flags.DEFINE_integer("rounds", 10, "Times that each step is timed")
PEER = flags.DEFINE_enum("peer", "none", ("none", "torch"), "Time the same steps in PyTorch, too")
QUICK = flags.DEFINE_bool("quick", False, "Tiny models and two rounds, to see that all works")
OUT = flags.DEFINE_string("out", "", "JSON file (default: launch/benchmarks/<device>.json)")
SHOW = flags.DEFINE_string("show", "", "Print a JSON file of results as Markdown and do no more")


def main() -> None:
  """Measures, or shows what was measured.

  Raises:
    UserError: the flags ask for something that cannot be done.
  """
  if SHOW.value:
    print(table.markdown(results.read(pathlib.Path(SHOW.value))))
    return
  options.check_at_least("--rounds", ROUNDS.value, 1)
  options.check_at_least("--batch_size", BATCH_SIZE.value, 0)
  set_up_process()
  from launch.benchmark import measure  # imports JAX

  request = measure.Request(
    sizes=tuple(SIZES.value or ()),
    steps=tuple(STEPS.value),
    dtypes=tuple(DTYPES.value),
    batch_size=BATCH_SIZE.value,
    remat=REMAT.value,
    rounds=ROUNDS.value,
    peer=PEER.value,
    quick=QUICK.value,
    out=OUT.value,
  )
  print(table.markdown(measure.measure(MEASURE.value, request)))


def set_up_process() -> None:
  """Sets what JAX and the C library read once, before JAX is imported and allocates."""
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves GPU memory to a peer
  # As runs of the small scales do; a peer in this process gains from it, too.
  if host_memory.steps_are_here() and host_memory.keep_freed():
    host_memory.fill_holes_after_compiling()


if __name__ == "__main__":
  command_line.run("benchmark", main, example="--sizes=sample,base")
