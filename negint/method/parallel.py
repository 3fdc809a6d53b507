"""Devices and processes: the only file that names pmap, its collectives, meshes, jax.distributed.

A step is written for one device's share of the global batch. Losses stay local and gradients are
averaged (`mean`), never the loss inside a differentiated function: under pmap the transpose of a
reduction inside `grad` gives wrong values.

Several processes form one run by taking the same steps in the same order: pmap's axis then spans
the devices of all of them, and each holds its own copy of what is replicated.
"""

import os

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from negint.errors import UserError

AXIS = "batch"
HEARTBEAT_SECONDS = 30  # of silence, after which a process counts as dead and all the others end


def start(coordinator: str | None = None, processes: int | None = None, number: int | None = None):
  """Makes this process one of several that form one run; before anything touches a device.

  Args:
    coordinator: host:port of process 0; None reads all three from SLURM's environment.
    processes, number: how many there are, and which of them this is.

  Raises:
    UserError: the addresses make no sense, or the processes have unequal numbers of devices.
  """
  jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from us
  try:
    jax.distributed.initialize(
      coordinator,
      processes,
      number,
      local_device_ids=None if coordinator else _devices_from_slurm(),
      cluster_detection_method="deactivate" if coordinator else "slurm",
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    # The first sum connects all devices, which have half a minute to come to it.
    unequal = jax.device_count() != jax.local_device_count() * jax.process_count()
    if not unequal:
      meet()
  except (ValueError, RuntimeError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(f"the processes did not find each other: {reason}") from None
  if unequal:
    raise UserError(
      f"this process has {jax.local_device_count()} of {jax.device_count()} devices, but a run needs "
      f"equally many in each of its {jax.process_count()} processes; hide the others with "
      "CUDA_VISIBLE_DEVICES."
    )


def _devices_from_slurm() -> list[int] | None:
  """All GPUs that SLURM shows this task, where JAX would take one for each task of a node."""
  visible = os.environ.get("CUDA_VISIBLE_DEVICES")
  return list(range(len(visible.split(",")))) if visible else None


def num_processes() -> int:
  return jax.process_count()


def is_first() -> bool:
  """Whether this is the process that prints and writes files."""
  return jax.process_index() == 0


def num_devices() -> int:
  """Devices of all processes."""
  return jax.device_count()


def meet():
  """Returns when all processes have come here."""
  if num_processes() > 1:
    jax.block_until_ready(_on_all(lambda: total(1)))


def _on_all(function, *replicated):
  """function(*replicated) on the devices of all processes; outputs must be equal on all of them."""
  mapped = jax.pmap(
    lambda _, arguments: function(*arguments), axis_name=AXIS, in_axes=(0, None), out_axes=None
  )
  return mapped(np.zeros(jax.local_device_count()), replicated)


class Agreement:
  """The largest of the numbers that the processes call it with, so that all act on the same one.

  Every process calls it equally often, between the same steps. The answer of several processes is
  that of the call before: it is there without waiting for the step under way.
  """

  def __init__(self):
    self._largest = jax.pmap(lambda x: lax.pmax(x, AXIS), axis_name=AXIS, out_axes=None)
    self._before = None

  def __call__(self, number: int) -> int:
    if num_processes() == 1:
      return number
    numbers = np.full(jax.local_device_count(), number, np.int32)
    before, self._before = self._before, self._largest(numbers)
    return 0 if before is None else int(before)


def from_first(tree, like):
  """The first process's tree, with the shapes and devices of `like`; None where it gives None."""

  def of_first(tree):
    first = lax.axis_index(AXIS) == 0
    return total(jax.tree.map(lambda x: x * first.astype(x.dtype), tree))

  if not _on_all(of_first, np.int32(tree is not None)):
    return None
  data = _on_all(of_first, jax.tree.map(_data, like if tree is None else tree))
  return jax.tree.map(_like, data, like)


def as_global(tree):
  """Replicated arrays as arrays of all processes' devices, which a checkpoint is written from."""
  if num_processes() == 1:
    return tree
  sharding = NamedSharding(Mesh(jax.devices(), (AXIS,)), PartitionSpec())

  def globally(x):
    shards = [shard.data for shard in _data(x).addressable_shards]
    return _like(jax.make_array_from_single_device_arrays(shards[0].shape, sharding, shards), x)

  return jax.tree.map(globally, tree)


def _is_key(x) -> bool:
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _data(x):
  return jax.random.key_data(x) if _is_key(x) else x


def _like(data, x):
  return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x)) if _is_key(x) else data


def mean(tree):
  """Average over devices, inside a step."""
  return lax.pmean(tree, AXIS)


def total(tree):
  """Sum over devices, inside a step."""
  return lax.psum(tree, AXIS)


def device_key(key):
  """A key of this device's own, inside a step: dropout noise must differ between devices."""
  return jax.random.fold_in(key, lax.axis_index(AXIS))


def first_row(rows_per_device: int):
  """Number in the global batch of this device's first row, inside a step."""
  return lax.axis_index(AXIS) * rows_per_device


def pmap_step(step, *, donate_state: bool):
  """step(state, batch, *replicated) on every device; outputs must be equal on all of them.

  The batch is split on its leading device axis (`split`); everything else is replicated. What is
  returned has a `lower` as compiled functions of JAX have, to look at without running.
  """

  def call(state, batch, replicated):
    return step(state, batch, *replicated)

  mapped = jax.pmap(
    call,
    axis_name=AXIS,
    in_axes=(None, 0, None),
    out_axes=None,
    donate_argnums=0 if donate_state else (),
  )

  def call_mapped(state, batch, *replicated):
    return mapped(state, batch, replicated)

  call_mapped.lower = lambda state, batch, *replicated: mapped.lower(state, batch, replicated)
  return call_mapped


def pmap_rows(function):
  """function(params, batch, *replicated) -> rows, [B, ...] of the whole batch, on every device."""

  def call(params, batch, replicated):
    return function(params, batch, *replicated)

  mapped = jax.pmap(call, axis_name=AXIS, in_axes=(None, 0, None), out_axes=0)

  def joined(params, batch, *replicated):
    rows = mapped(params, batch, replicated)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(rows))

  return joined


def replicate(tree):
  """One copy on each of this process's devices, before the first step (or it compiles twice)."""
  mesh = Mesh(jax.local_devices(), (AXIS,))
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split(batch):
  """The global batch, rows first, [B, ...], to one share for each of this process's devices:
  [local devices, B / devices, ...]."""
  local = num_devices() // num_processes()
  first = jax.process_index() * local

  def shares(x):
    return x.reshape(num_devices(), -1, *x.shape[1:])[first : first + local]

  return jax.tree.map(shares, batch)
