"""Devices: the only file that names pmap, its axis and its collectives.

A step is written for one device's share of the global batch. Losses stay local and gradients are
averaged (`mean`), never the loss inside a differentiated function: under pmap the transpose of a
reduction inside `grad` gives wrong values.
"""

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def num_devices() -> int:
  return jax.local_device_count()


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

  The batch is split on its leading device axis (`split`); everything else is replicated.
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
  return lambda state, batch, *replicated: mapped(state, batch, replicated)


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
  """One copy on every device, once, before the first step (or the step compiles twice)."""
  mesh = Mesh(jax.local_devices(), (AXIS,))
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split(batch):
  """Host batch with rows first, [B, ...], to one share a device, [devices, B / devices, ...]."""
  return jax.tree.map(lambda x: x.reshape(num_devices(), -1, *x.shape[1:]), batch)
