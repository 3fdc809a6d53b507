"""negint's own training steps, as a run takes them: the same options, programs and batches."""

import importlib
import itertools
import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from launch.benchmark.race import Contender
from negint import options, pretrain
from negint.data.sampling import BatchSampler
from negint.method import flops, memory, optim, parallel, steps
from negint.method.state import init_state
from negint.options import RunOptions
from negint.plan import measure, pretraining

STEPS = ("plain", *options.META_GRADIENTS)
SCALES = {"sample": "sample", "base": "base", "paper": "paper", "tiny": "sample"}  # by size
BATCH_SIZES = {  # {platform: {size: sequences per step that fit}}
  "cpu": {"sample": 32, "base": 8, "paper": 2, "tiny": 4},
  "gpu": {"sample": 32, "base": 128, "paper": 64, "tiny": 4},
}
# By default XLA's CPU compiler orders a program for speed, and so keeps what rematerialisation frees.
FOR_MEMORY = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
BATCHES = 4  # different batches, which the timed steps take in turn


class Case(NamedTuple):
  """One training step."""

  size: str  # one of SCALES
  step: str  # one of STEPS
  dtype: str  # of the matrix products
  batch_size: int  # sequences
  remat: str = ""  # none | layer; empty: the scale's own


def platform() -> str:
  """Returns "cpu" or "gpu"; any other platform counts as a GPU."""
  return "cpu" if jax.local_devices()[0].platform == "cpu" else "gpu"


def cores() -> int:
  """Returns how many processor cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def options_of(case: Case) -> RunOptions:
  """Returns the run that takes the step: JointPair, or adapters trained by the meta-gradient.

  Held-out batches are as large as training batches.
  """
  system = "joint_pair" if case.step == "plain" else "meta_adpt"
  config = importlib.import_module(f"configs.{system}").get_config(f"ar,{SCALES[case.size]}")
  if case.size == "tiny":
    config.model.update(num_layers=1, model_dim=16, num_heads=2, head_dim=8, ffn_dim=64)
    config.model.adapter_dim = 4
    config.data.update(vocab_size=64, sequence_length=8)
  config.model.dtype = case.dtype
  config.model.remat = case.remat or config.model.remat
  config.train.batch_size = config.meta.batch_size = case.batch_size
  if case.step != "plain":
    config.meta.gradient = case.step
  return options.from_config(config, parallel.num_devices())


def synthetic_sampler(run: RunOptions) -> BatchSampler:
  """Returns the sampler of the run over streams of random ids."""
  return pretrain.make_sampler(run, pretraining.random_cache(run))


def host_seconds(run: RunOptions, batches: int = 50) -> float:
  """Returns the median seconds that the host takes to sample and split one batch."""
  sampler, seconds = synthetic_sampler(run), []
  for number in range(batches):
    start = time.perf_counter()
    parallel.split(sampler.batch(number))
    seconds.append(time.perf_counter() - start)
  return float(np.median(seconds[1:]))  # the first one draws the epoch's order


def compile_step(
  run: RunOptions,
  train_step: Any,  # Any: a jitted function, whose type JAX does not name
  batch: dict[str, np.ndarray],
  compiler_options: dict | None = None,
) -> dict:
  """Compiles a step without running it.

  Args:
    run: the step's run.
    train_step: the step.
    batch: one batch of the run.
    compiler_options: of XLA.

  Returns:
    compile_seconds (tracing included), compiler_flops (a scan's body counted once) and memory in
    bytes per device: arguments, outputs, aliased (outputs in the place of donated arguments),
    temporaries, code, and their total.
  """
  state = memory.state_shapes(run)
  start = time.perf_counter()
  held_out = np.arange(run.held_out_languages, dtype=np.int32) if run.meta.enabled else None
  rate = optim.learning_rate(run.schedule, 0)
  lowered = train_step.lower(state, parallel.split(batch), rate, np.int32(0), held_out)
  compiled = lowered.compile(compiler_options)
  seconds = time.perf_counter() - start
  need = memory.need_of(compiled)
  found = {**need._asdict(), "total": need.total}
  cost = compiled.cost_analysis() or {}
  return {"compile_seconds": seconds, "compiler_flops": cost.get("flops"), "memory": found}


def describe(case: Case, run: RunOptions, by: str) -> dict:
  """Returns the part of a row that is known without running anything."""
  length = run.data.sequence_length
  return {
    "size": case.size,
    "step": case.step,
    "dtype": case.dtype,
    "by": by,
    "remat": run.model.remat,
    "batch_size": run.batch_size,
    "sequence_length": length,
    "tokens": run.batch_size * length,
    "flops": flops.step(run),
    "shape": f"{run.model.num_layers} layers, D {run.model.model_dim}, V {run.model.vocab_size:,}",
  }


def memory_row(case: Case) -> dict:
  """Returns a row of the memory table; the step is compiled, and need not fit this machine."""
  run = options_of(case)
  batch = synthetic_sampler(run).batch(0)
  return {
    **describe(case, run, "negint"),
    **compile_step(run, steps.make_train_step(run), batch, FOR_MEMORY),
  }


class Step(Contender):
  """A training step with a state of its own, which is donated and replaced as in training."""

  def __init__(self, case: Case):
    self.run = options_of(case)
    self._case = case
    self.row = describe(case, self.run, "negint")
    self.row["host_seconds"] = host_seconds(self.run)
    sampler = synthetic_sampler(self.run)
    batches = [
      (sampler.batch(n), sampler.language(n), sampler.held_out_languages(n)) for n in range(BATCHES)
    ]
    self._first_batch = batches[0][0]
    self._batches = itertools.cycle(batches)
    self._numbers = itertools.count()

  def compile(self) -> None:
    """Compiles the step, and puts the state on the device.

    Where model.remat is `auto`, compile_seconds has the time of the choice, too.
    """
    start = time.perf_counter()
    if self.run.model.remat == options.AUTO:
      remat = memory.remat_of(self.run, memory.limit()).remat
      self.run = memory.with_remat(self.run, remat)
      self.row.update(describe(self._case, self.run, "negint"))
    chosen = time.perf_counter() - start
    self._train_step = steps.make_train_step(self.run)
    self.row.update(compile_step(self.run, self._train_step, self._first_batch))
    self.row["compile_seconds"] += chosen
    state = init_state(self.run.model, self.run.optimiser, self.run.seed)
    self._state = jax.block_until_ready(parallel.replicate(state))

  def first_step(self) -> None:
    """Takes the first step, and on a GPU measures the bytes that a run of this step alone takes.

    They are memory["peak"]. The allocator knows only its highest mark, so a step that does not
    raise the mark has no peak.
    """
    device = jax.local_devices()[0]
    before = device.memory_stats()
    self.take(1)
    if not before:
      return
    peak = device.memory_stats()["peak_bytes_in_use"]
    if peak > before["peak_bytes_in_use"]:
      memory = self.row["memory"]
      memory["peak"] = memory["arguments"] + peak - before["bytes_in_use"]

  def take(self, count: int) -> None:
    """Takes steps and waits for the last one."""
    for _ in range(count):
      batch, language, held_out = next(self._batches)
      share = parallel.split(batch)
      rate = optim.learning_rate(self.run.schedule, next(self._numbers))
      self._state, metrics = self._train_step(
        self._state, share, rate, np.int32(language), held_out
      )
    jax.block_until_ready(self._state)
    self.row["loss"] = float(metrics["loss"])


def describe_matmul(size: str, dtype: str, by: str) -> tuple[int, dict]:
  """Returns (rows and columns of the matrices, the row of a matrix product)."""
  dim = 64 if size == "tiny" else measure.MATRIX[platform()]
  return dim, {"size": size, "step": "matmul", "dtype": dtype, "by": by, "flops": 2 * dim**3}


class Matmul(Contender):
  """A large product of two matrices on one device, whose rate the steps are compared with."""

  def __init__(self, size: str, dtype: str):
    dim, self.row = describe_matmul(size, dtype, "negint")
    left, right = jax.random.normal(jax.random.key(0), (2, dim, dim), jnp.dtype(dtype))
    self._operands = left, right
    self._product = jax.jit(jnp.matmul)

  def take(self, count: int) -> None:
    """Takes products and waits for the last one."""
    for _ in range(count):
      product = self._product(*self._operands)
    product.block_until_ready()


def cases_of(
  sizes: Iterable[str], names: Sequence[str], dtypes: Sequence[str], batch_size: int, remat: str
) -> list[Case]:
  """Returns every step of every size and dtype.

  Args:
    sizes: of SCALES.
    names: of STEPS.
    dtypes: of the matrix products.
    batch_size: sequences; 0: what fits the size on this platform.
    remat: none, layer, or empty for the scale's own.

  Raises:
    UserError: a size, step or dtype is unknown.
  """
  sizes = list(sizes)
  for size in sizes:
    options.check_choice("--sizes", size, tuple(SCALES))
  for name in names:
    options.check_choice("--steps", name, STEPS)
  for dtype in dtypes:
    options.check_choice("--dtypes", dtype, options.DTYPES)
  defaults = BATCH_SIZES[platform()]
  return [
    Case(size, step, dtype, batch_size or defaults[size], remat)
    for size, dtype, step in itertools.product(sizes, dtypes, names)
  ]
