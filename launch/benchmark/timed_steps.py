"""negint's own training steps as the benchmark takes them: real options, programs and batches.

Every class here and in benchmark_torch has the same face: `row` (what is known of it), `compile`,
`first_step` and `take(count)`, which waits for the device.
"""

import importlib
import itertools
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from negint import options, pretrain
from negint.data.token_cache import TokenCache
from negint.method import flops, parallel, steps
from negint.method.state import init_state
from negint.options import RunOptions

STEPS = ("plain", *options.META_GRADIENTS)
SCALES = {"toy": "sample", "base": "base", "paper": "paper", "tiny": "sample"}
BATCH_SIZES = {  # sequences of a step that fit: platform -> size
  "cpu": {"toy": 32, "base": 8, "paper": 2, "tiny": 4},
  "gpu": {"toy": 32, "base": 128, "paper": 64, "tiny": 4},
}
MATMUL_DIM = {"cpu": 2048, "gpu": 8192}  # rows and columns of the matrices that give the rate
# XLA's CPU compiler orders a program for speed, which keeps alive what rematerialisation would free.
FOR_MEMORY = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
STREAM_TOKENS = 1 << 20  # of random ids, a language
BATCHES = 4  # different batches that the timed steps go round


class Case(NamedTuple):
  """One training step. remat: none, layer, or empty for the scale's own."""

  size: str
  step: str
  dtype: str
  batch_size: int
  remat: str = ""


def platform() -> str:
  """cpu or gpu; anything else is treated as a GPU."""
  return "cpu" if jax.local_devices()[0].platform == "cpu" else "gpu"


def cores() -> int:
  """Processor cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def options_of(case: Case) -> RunOptions:
  """The run whose step it is: JointPair, or adapters by the meta-gradient at equal batch sizes."""
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


def synthetic_sampler(run: RunOptions):
  """The sampler of the run, over streams of random ids."""
  rng = np.random.default_rng(0)
  dtype = np.uint16 if run.model.vocab_size <= 1 << 16 else np.uint32

  def streams():
    # Ids below 14 are special tokens.
    ids = rng.integers(14, run.model.vocab_size, (len(run.languages), STREAM_TOKENS))
    return list(ids.astype(dtype))

  cache = TokenCache(
    key="",
    tokenizer=None,
    streams={"train": streams(), "meta": streams()},
    num_sentences=[STREAM_TOKENS // 32] * len(run.languages),
    counts=None,
  )
  return pretrain.make_sampler(run, cache)


def host_seconds(run: RunOptions, batches: int = 50) -> float:
  """Median seconds that the host takes to sample and split one batch."""
  sampler, seconds = synthetic_sampler(run), []
  for number in range(batches):
    start = time.perf_counter()
    parallel.split(sampler.batch(number))
    seconds.append(time.perf_counter() - start)
  return float(np.median(seconds[1:]))  # the first one draws the epoch's order


def compile_step(run: RunOptions, train_step, batch, compiler_options=None) -> dict:
  """Compiles the step without running it.

  Returns:
    compile_seconds (tracing included), compiler_flops (a scan's body counted once) and memory in
    bytes a device: arguments, outputs, aliased (outputs that take the place of donated arguments),
    temporaries, and their total.
  """
  state = jax.eval_shape(lambda: init_state(run.model, run.optimiser, run.seed))
  start = time.perf_counter()
  held_out = np.arange(run.held_out_languages, dtype=np.int32) if run.meta.enabled else None
  lowered = train_step.lower(state, parallel.split(batch), np.int32(0), held_out)
  compiled = lowered.compile(compiler_options)
  seconds = time.perf_counter() - start
  sizes = compiled.memory_analysis()
  memory = {
    "arguments": sizes.argument_size_in_bytes,
    "outputs": sizes.output_size_in_bytes,
    "aliased": sizes.alias_size_in_bytes,
    "temporaries": sizes.temp_size_in_bytes,
  }
  memory["total"] = sum(memory.values()) - 2 * memory["aliased"]
  cost = compiled.cost_analysis() or {}
  return {"compile_seconds": seconds, "compiler_flops": cost.get("flops"), "memory": memory}


def describe(case: Case, run: RunOptions, by: str) -> dict:
  """The part of a row that is known without running anything."""
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
  """A row of the memory table: the step compiled at a shape that need not fit this machine."""
  run = options_of(case)
  batch = synthetic_sampler(run).batch(0)
  return {
    **describe(case, run, "negint"),
    **compile_step(run, steps.make_train_step(run), batch, FOR_MEMORY),
  }


class Step:
  """A training step with a state of its own, donated and replaced as in training."""

  def __init__(self, case: Case):
    self.run = options_of(case)
    self.row = describe(case, self.run, "negint")
    self.row["host_seconds"] = host_seconds(self.run)
    self._train_step = steps.make_train_step(self.run)
    sampler = synthetic_sampler(self.run)
    batches = [
      (sampler.batch(n), sampler.language(n), sampler.held_out_languages(n)) for n in range(BATCHES)
    ]
    self._first_batch = batches[0][0]
    self._batches = itertools.cycle(batches)

  def compile(self):
    self.row.update(compile_step(self.run, self._train_step, self._first_batch))
    state = init_state(self.run.model, self.run.optimiser, self.run.seed)
    self._state = jax.block_until_ready(parallel.replicate(state))

  def first_step(self):
    """Runs once; on a GPU memory["peak"] is what a run of this step alone takes, in bytes.

    The allocator knows only its highest mark, so a step that does not raise it has no peak.
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

  def take(self, count: int):
    for _ in range(count):
      batch, language, held_out = next(self._batches)
      share = parallel.split(batch)
      self._state, metrics = self._train_step(self._state, share, np.int32(language), held_out)
    jax.block_until_ready(self._state)
    self.row["loss"] = float(metrics["loss"])


class Matmul:
  """A large product of two matrices on one device: the rate that steps are held against."""

  def __init__(self, size: str, dtype: str):
    dim = 64 if size == "tiny" else MATMUL_DIM[platform()]
    self.row = {"size": size, "step": "matmul", "dtype": dtype, "by": "negint"}
    self.row["flops"] = 2 * dim**3
    left, right = jax.random.normal(jax.random.key(0), (2, dim, dim), jnp.dtype(dtype))
    self._operands = left, right
    self._product = jax.jit(jnp.matmul)

  def compile(self):
    pass

  def first_step(self):
    self.take(1)

  def take(self, count: int):
    for _ in range(count):
      product = self._product(*self._operands)
    product.block_until_ready()


def cases_of(sizes, names, dtypes, batch_size: int, remat: str) -> list[Case]:
  """Every step (`names`) of every size and dtype; batch_size 0: the size's own on this platform."""
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
