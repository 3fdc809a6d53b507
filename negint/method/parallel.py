"""Devices and processes: the only file that names pmap, its collectives, meshes, jax.distributed.

A step is written for one device's share of the global batch. A differentiated function returns the
loss of this share, and `mean` averages its gradients over the devices. A reduction inside the
differentiated function would give wrong gradients under pmap.

Several processes form one run by taking the same steps in the same order. The axis of pmap then
spans the devices of all processes, and each process holds its own copy of replicated arrays.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from negint.errors import UserError
from negint.method.tree import Tree

AXIS = "batch"
HEARTBEAT_SECONDS = 30  # a process that is silent for longer counts as dead, and the others end


def start(
  coordinator: str | None = None, processes: int | None = None, number: int | None = None
) -> None:
  """Makes this process one of several that form one run. Call it before anything uses a device.

  Args:
    coordinator: host:port of process 0; None reads all three arguments from SLURM's environment.
    processes: processes of the run.
    number: of this process, from 0.

  Raises:
    UserError: the processes do not find each other, or have unequal numbers of devices.
  """
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM first
  try:
    jax.distributed.initialize(
      coordinator,
      processes,
      number,
      local_device_ids=None if coordinator else _devices_from_slurm(),
      cluster_detection_method="deactivate" if coordinator else "slurm",
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    # The first sum connects all devices; each has half a minute to reach it.
    unequal = jax.device_count() != jax.local_device_count() * jax.process_count()
    if not unequal:
      meet()
  except (ValueError, RuntimeError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(f"the processes did not find each other: {reason}") from None
  if unequal:
    raise UserError(
      f"this process has {jax.local_device_count()} of {jax.device_count()} devices; each of the "
      f"{jax.process_count()} processes needs the same number: hide the others with "
      "CUDA_VISIBLE_DEVICES."
    )


def _devices_from_slurm() -> list[int] | None:
  """Indices of all GPUs that SLURM shows this task; JAX would take only one per task of a node."""
  visible = os.environ.get("CUDA_VISIBLE_DEVICES")
  return list(range(len(visible.split(",")))) if visible else None


def num_processes() -> int:
  """Processes that form the run."""
  return jax.process_count()


def is_first() -> bool:
  """Whether this is the process that prints and writes files."""
  return jax.process_index() == 0


def num_devices() -> int:
  """Devices of all processes."""
  return jax.device_count()


def meet() -> None:
  """Waits until all processes have called it."""
  if num_processes() > 1:
    jax.block_until_ready(_on_all(lambda: total(1)))


def _on_all(function: Callable[..., Tree], *replicated: Tree) -> Tree:
  """The value of function(*replicated) on every device; must be equal on all of them."""
  mapped = jax.pmap(
    lambda _, arguments: function(*arguments), axis_name=AXIS, in_axes=(0, None), out_axes=None
  )
  return mapped(np.zeros(jax.local_device_count()), replicated)


class Agreement:
  """A number on which all processes agree: the largest that any of them gave.

  Every process calls it equally often and between the same steps. With several processes a call
  returns the largest number of the previous call (0 the first time). That result is ready, so no
  process waits for the step that its device is computing.
  """

  def __init__(self) -> None:
    self._largest = jax.pmap(lambda x: lax.pmax(x, AXIS), axis_name=AXIS, out_axes=None)
    self._before: jax.Array | None = None

  def __call__(self, number: int) -> int:
    """The number to act on, when this process gives `number`."""
    if num_processes() == 1:
      return number
    numbers = np.full(jax.local_device_count(), number, np.int32)
    before, self._before = self._before, self._largest(numbers)
    return 0 if before is None else int(before)


def from_first(tree: Tree | None, like: Tree) -> Tree | None:
  """The tree that the first process gives, on all processes; None if it gives None.

  Args:
    tree: of this process; only the first one's values count.
    like: a tree with the shapes and devices of the result.
  """

  def of_first(tree: Tree) -> Tree:
    first = lax.axis_index(AXIS) == 0
    return total(jax.tree.map(lambda x: x * first.astype(x.dtype), tree))

  if not _on_all(of_first, np.int32(tree is not None)):
    return None
  return _on_all(of_first, like if tree is None else tree)


def everywhere(fact: bool) -> bool:
  """Whether a fact holds on all processes; each must ask."""
  if num_processes() == 1:
    return fact
  return bool(_on_all(lambda number: lax.pmin(number, AXIS), np.int32(fact)))


def as_global(tree: Tree) -> Tree:
  """Replicated arrays as arrays of all processes' devices, from which a checkpoint is written."""
  if num_processes() == 1:
    return tree
  sharding = NamedSharding(Mesh(jax.devices(), (AXIS,)), PartitionSpec())

  def globally(x: jax.Array) -> jax.Array:
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(shards[0].shape, sharding, shards)

  return jax.tree.map(globally, tree)


def mean(tree: Tree) -> Tree:
  """The average over devices, inside a step."""
  return lax.pmean(tree, AXIS)


def total(tree: Tree) -> Tree:
  """The sum over devices, inside a step."""
  return lax.psum(tree, AXIS)


def device_key(key: jax.Array) -> jax.Array:
  """A key for this device alone, inside a step: dropout noise must differ between devices."""
  return jax.random.fold_in(key, lax.axis_index(AXIS))


def first_row(rows_per_device: int) -> jax.Array:
  """The number in the global batch of this device's first row, inside a step."""
  return lax.axis_index(AXIS) * rows_per_device


class MappedStep:
  """A step on every device of the run: call it, or look at its program without running it."""

  def __init__(self, step: Callable[..., Tree], *, donate_state: bool) -> None:
    def call(state: Tree, batch: Tree, replicated: tuple[Tree, ...]) -> Tree:
      return step(state, batch, *replicated)

    self._mapped = jax.pmap(
      call,
      axis_name=AXIS,
      in_axes=(None, 0, None),
      out_axes=None,
      donate_argnums=0 if donate_state else (),
    )

  def __call__(self, state: Tree, batch: Tree, *replicated: Tree) -> Tree:
    """The outputs of step(state, batch, *replicated), which are equal on all devices."""
    return self._mapped(state, batch, replicated)

  def lower(
    self, state: Tree, batch: Tree, *replicated: Tree
  ) -> Any:  # Any: a class of JAX's stages
    """The lowered program, as of a function of `jax.jit`."""
    return self._mapped.lower(state, batch, replicated)


def pmap_step(step: Callable[..., Tree], *, donate_state: bool) -> MappedStep:
  """The step on every device of the run.

  Args:
    step: (state, batch, *replicated) -> tree, for one device's share of the batch. Its outputs must
      be equal on all devices.
    donate_state: frees the state's memory when the step is called; the caller must not use it again.

  Returns:
    A function of the state, the batch as `split` gives it, and what is replicated.
  """
  return MappedStep(step, donate_state=donate_state)


def pmap_rows(function: Callable[..., Tree]) -> Callable[..., Tree]:
  """The function on every device, with the rows of the whole batch as result.

  Args:
    function: (params, batch, *replicated) -> tree of rows [B / devices, ...] of one share.

  Returns:
    A function of params, the batch as `split` gives it, and what is replicated -> rows [B, ...].
  """

  def call(params: Tree, batch: Tree, replicated: tuple[Tree, ...]) -> Tree:
    return function(params, batch, *replicated)

  mapped = jax.pmap(call, axis_name=AXIS, in_axes=(None, 0, None), out_axes=0)

  def joined(params: Tree, batch: Tree, *replicated: Tree) -> Tree:
    rows = mapped(params, batch, replicated)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(rows))

  return joined


def replicate(tree: Tree) -> Tree:
  """One copy of the tree on each device of this process.

  A step compiles twice if its first state is not replicated.
  """
  mesh = Mesh(jax.local_devices(), (AXIS,))
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def replicated_shapes(tree: Tree) -> Tree:
  """The shapes of a tree with one copy on each device of this process, without any values."""
  everywhere = NamedSharding(Mesh(jax.local_devices(), (AXIS,)), PartitionSpec())
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree)


def split(batch: Tree) -> Tree:
  """The global batch [B, ...] as shares of this process's devices, [devices, B / all devices, ...]."""
  local = num_devices() // num_processes()
  first = jax.process_index() * local

  def shares(x: np.ndarray) -> np.ndarray:
    return x.reshape(num_devices(), -1, *x.shape[1:])[first : first + local]

  return jax.tree.map(shares, batch)


def split_shapes(batch: Tree) -> Tree:
  """The shapes of what `split` returns, from those of the global batch."""
  local = num_devices() // num_processes()

  def share(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((local, x.shape[0] // num_devices(), *x.shape[1:]), x.dtype)

  return jax.tree.map(share, batch)
