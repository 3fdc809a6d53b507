"""Memory of compiled steps: the compiler's own figures, and what makes a step fit the device.

A step is compiled from shapes alone. The program is kept, so a run whose step was compiled here does
not compile it again.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from negint import out_of_memory
from negint.errors import UserError
from negint.method import parallel, steps
from negint.method.phi import init_theta_and_phi
from negint.method.state import state_of
from negint.method.tree import Tree
from negint.options import AUTO, REMATS, RunOptions
from negint.out_of_memory import Remedies, amount

MARGIN = 0.1  # share of the limit left to what the compiler does not count, such as fragmentation
LOWER_BATCH = "Lower --config.batch_size."  # where a step of an analysis does not fit
LOOKING = (  # said before the wait
  "This run needs more memory than there is. Now looking for options that make it fit, which compiles "
  "a few programs and can take minutes."
)
HELPS = 0.75  # where a step should have fitted and did not, a remedy leaves at most this share


class Need(NamedTuple):
  """Bytes that a program takes on one device."""

  arguments: int  # state and batch
  outputs: int
  aliased: int  # outputs in the place of arguments
  temporaries: int
  code: int

  @property
  def total(self) -> int:
    """All of them, each byte once."""
    return self.arguments + self.outputs - self.aliased + self.temporaries + self.code


class Limit(NamedTuple):
  """Bytes that one device has for a run."""

  bytes: int
  of: str  # the device's name

  def holds(self, need: Need) -> bool:
    """Whether a program fits, with the margin."""
    return need.total <= (1 - MARGIN) * self.bytes

  def __str__(self) -> str:
    return f"{amount(self.bytes)} {self.of}, of which {MARGIN:.0%} stay free"


class Choice(NamedTuple):
  """What a step does about its memory, and why."""

  remat: str  # of REMATS
  needs: dict[str, Need]  # of each remat that was compiled
  limit: Limit | None  # None: not known

  def __str__(self) -> str:
    start = f"model.remat=auto chose {self.remat}: "
    if self.limit is None:
      return f"{start}the memory of this device is not known."
    words = {"none": "without rematerialisation", "layer": "with it"}
    parts = [f"{amount(need.total)} {words[remat]}" for remat, need in self.needs.items()]
    return f"{start}a step needs {' and '.join(parts)}, and there are {self.limit}."


def limit() -> Limit | None:
  """Returns the memory of one device: the accelerator's, or what is free on the machine of a CPU."""
  if (device := out_of_memory.device_memory()) is not None:
    return Limit(device.limit, f"for JAX on {device.kind}")
  host = out_of_memory.host_memory()
  if host is None or jax.local_devices()[0].platform != "cpu":
    return None
  return Limit(host.free // jax.local_device_count(), "free on this machine")


def need_of(compiled: Any) -> Need:  # Any: a class of JAX's stages
  """Returns the memory of a compiled program."""
  sizes = compiled.memory_analysis()
  return Need(
    sizes.argument_size_in_bytes,
    sizes.output_size_in_bytes,
    sizes.alias_size_in_bytes,
    sizes.temp_size_in_bytes,
    sizes.generated_code_size_in_bytes,
  )


def choose(
  need: Callable[[str], Need], available: Limit | None, otherwise: Callable[[], str]
) -> Choice:
  """Returns the cheapest remat whose step fits the device; the processes of a run agree on it.

  Args:
    need: a value of REMATS -> the memory of a step.
    available: memory of the device.
    otherwise: returns a sentence that says what would fit, for a step that does not.

  Raises:
    UserError: the step does not fit.
  """
  if available is None:
    return Choice(REMATS[-1], {}, None)
  needs: dict[str, Need] = {}
  for remat in REMATS:
    needs[remat] = need(remat)
    if parallel.everywhere(available.holds(needs[remat])):
      return Choice(remat, needs, available)
  raise UserError(
    f"a step needs {amount(needs[remat].total)} even with model.remat={remat}, and there are "
    f"{available}. {otherwise()}"
  )


def remat_of(
  run: RunOptions, available: Limit | None, say: Callable[[str], object] = print
) -> Choice:
  """Returns the choice of a pretraining run; arguments as of `advice`, errors as of `choose`."""
  return choose(
    lambda remat: step_need(with_remat(run, remat)), available, lambda: advice(run, available, say)
  )


def with_remat(run: RunOptions, remat: str) -> RunOptions:
  """Returns the options with another model.remat."""
  return _replace(run, model=run.model.replace(remat=remat))


def advice(run: RunOptions, available: Limit | None, say: Callable[[str], object] = print) -> str:
  """Returns a sentence that says what would make a pretraining run fit.

  Args:
    run: it does not fit.
    available: memory of the device.
    say: receives the sentence that says what takes so long.
  """
  say(LOOKING)
  found = available and remedy(run, available.holds)
  if not found:
    return "Choose a smaller model: none of its other options would make it fit."
  return f"It fits with {found[0]}, which needs {amount(found[1].total)}."


def arguments(run: RunOptions) -> tuple[Any, ...]:
  """Returns the shapes of a training step's arguments, in the order of `steps.make_train_step`."""
  state = parallel.replicated_shapes(state_shapes(run))
  length, held_out = run.data.sequence_length, run.held_out_languages
  languages = (len(run.languages),) if run.surgery.enabled else ()
  rows: dict[str, tuple[int, ...]] = {"tokens": (run.batch_size, *languages, length)}
  if run.meta.own_slots:
    rows["inner"] = (run.batch_size, length)
  if held_out:
    rows["held_out"] = (run.meta.batch_size, held_out, length)
  batch = parallel.split_shapes(
    {name: jax.ShapeDtypeStruct(shape, np.int32) for name, shape in rows.items()}
  )
  languages_m = jax.ShapeDtypeStruct((held_out,), np.int32) if held_out else None
  rate, language = (jax.ShapeDtypeStruct((), dtype) for dtype in (np.float32, np.int32))
  return state, batch, rate, language, languages_m


def state_shapes(run: RunOptions) -> Tree:
  """Returns the shapes of a run's state."""
  return jax.eval_shape(lambda: state_of(run))


def step_need(run: RunOptions) -> Need:
  """Returns the memory of a training step, which is compiled and kept."""
  return need_of(steps.make_train_step(run).lower(*arguments(run)).compile())


def evaluation_need(run: RunOptions) -> Need:
  """Returns the memory of an evaluation beside the state of the training."""
  shapes = jax.eval_shape(lambda: init_theta_and_phi(run.model, jax.random.key(0)))
  length = run.data.sequence_length
  rows = dict.fromkeys(("lengths", "rows"), (run.eval_batch_size,))
  batch = parallel.split_shapes(
    {
      name: jax.ShapeDtypeStruct(shape, np.int32)
      for name, shape in {"tokens": (run.eval_batch_size, length), **rows}.items()
    }
  )
  unigram = parallel.replicated_shapes(jax.ShapeDtypeStruct((run.model.vocab_size,), np.float32))
  language = jax.ShapeDtypeStruct((), np.int32)
  params = parallel.replicated_shapes(shapes)
  need = need_of(steps.make_eval_step(run).lower(params, batch, language, unigram).compile())
  return need._replace(arguments=need.arguments + beside_weights(run))


def beside_weights(run: RunOptions) -> int:
  """Returns the bytes of the state of a training beside theta and phi."""
  state = state_shapes(run)
  return size_of(state) - size_of((state.theta, state.phi))


def size_of(shapes: Tree) -> int:
  """Returns the bytes of arrays, or of what has their shapes."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def remedy(run: RunOptions, fits: Callable[[Need], bool]) -> tuple[str, Need] | None:
  """Returns (flags, memory) of the least change that makes a run fit; None if there is none.

  The changes that keep the results come first: rematerialisation, then more parts of a batch. Then
  come bfloat16 and the smallest batches.

  Args:
    run: its steps or its evaluations do not fit.
    fits: whether the memory of a step or an evaluation is small enough.
  """
  step_of, evaluation_of = functools.cache(step_need), functools.cache(evaluation_need)
  chosen: list[str] = []
  need = evaluation_of(run)
  if not fits(need):
    smaller = [_replace(run, eval_batch_size=size) for size in _eval_batches(run)]
    place = bisect.bisect_left(smaller, True, key=lambda each: fits(evaluation_of(each)))
    if place == len(smaller):
      return None
    run, need = smaller[place], evaluation_of(smaller[place])
    chosen = [f"--config.eval.batch_size={run.eval_batch_size}"]
  if not chosen or not fits(step_of(run)):
    rungs = list(_rungs(run))
    place = bisect.bisect_left(rungs, True, key=lambda rung: fits(step_of(rung[1])))
    if place == len(rungs):
      return None
    flags, changed = rungs[place]
    chosen, need = [*chosen, *flags], step_of(changed)
  return " ".join(chosen), need


def remedies(run: RunOptions, say: Callable[[str], object]) -> Remedies:
  """Returns (flags, share of the memory that they leave) of what helps a run that ran out of it.

  Memory can run out although the compiler's figures fit, where other programs hold some of it. With
  several processes the share is an estimate, and nothing is compiled.

  Args:
    run: its memory ran out.
    say: receives the sentence that says what takes so long.
  """
  if parallel.num_processes() > 1:
    # The other processes may wait in a step, and would never answer a question. XLA asks them, too,
    # when it compiles for GPUs: each tries out some of the kernels (xla_gpu_shard_autotuning).
    return [
      (f"--config.train.accumulate={parts}", run.accumulate / parts)
      for parts in _more_parts(run)[:1]
    ]
  available = limit()
  if available and size_of(state_shapes(run)) > available.bytes:
    return []
  say(LOOKING)
  if run.model.remat == AUTO:
    run = with_remat(run, _by_limit(run, available))
  before = max(step_need(run).total, evaluation_need(run).total)
  most = min(HELPS * before, (1 - MARGIN) * available.bytes if available else math.inf)
  found = remedy(run, lambda need: need.total <= most)
  return [(found[0], found[1].total / before)] if found else []


def _by_limit(run: RunOptions, available: Limit | None) -> str:
  """Returns the remat that `auto` means on this device; the one of least memory where none fits."""
  for remat in REMATS[:-1]:
    if available and available.holds(step_need(with_remat(run, remat))):
      return remat
  return REMATS[-1]


def _rungs(run: RunOptions) -> Iterator[tuple[list[str], RunOptions]]:
  """Yields flags and the options that they make; each takes less memory than the one before."""
  flags: list[str] = []
  if run.model.remat != REMATS[-1]:
    flags, run = [f"--config.model.remat={REMATS[-1]}"], with_remat(run, REMATS[-1])
    yield flags, run
  for parts in _more_parts(run):
    run = _replace(run, accumulate=parts)
    yield [*flags, f"--config.train.accumulate={parts}"], run
  if run.accumulate > 1:
    flags = [*flags, f"--config.train.accumulate={run.accumulate}"]
  if run.model.dtype == "float32" and run.meta.gradient != "finite_difference":
    run = _replace(run, model=run.model.replace(dtype="bfloat16"))
    flags = [*flags, "--config.model.dtype=bfloat16"]
    yield flags, run
  unit = parallel.num_devices() * run.accumulate
  if run.batch_size > unit or (run.held_out_languages and run.meta.batch_size > unit):
    flags = [*flags, f"--config.train.batch_size={unit}"]
    if run.held_out_languages:
      flags = [*flags, f"--config.meta.batch_size={unit}"]
    meta = dataclasses.replace(run.meta, batch_size=unit)
    yield flags, _replace(run, batch_size=unit, meta=meta)


def _more_parts(run: RunOptions) -> list[int]:
  """Returns the legal values of train.accumulate above the run's own, ascending."""
  shares = run.batch_size // parallel.num_devices()
  if run.held_out_languages:
    shares = math.gcd(shares, run.meta.batch_size // parallel.num_devices())
  return [parts for parts in range(run.accumulate + 1, shares + 1) if shares % parts == 0]


def _eval_batches(run: RunOptions) -> Iterator[int]:
  """Yields the sizes of smaller evaluation batches, each about half of the one before."""
  size, unit = run.eval_batch_size, parallel.num_devices()
  while size := size // 2 // unit * unit:
    yield size


def _replace(run: RunOptions, **changes: object) -> RunOptions:
  return dataclasses.replace(run, **changes)  # type: ignore[arg-type]  # of the fields' types
