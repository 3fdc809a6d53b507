"""A batch computed in parts, one after another: the arithmetic of all in the memory of one.

Losses of a batch are sums over its parts, and so is every derivative at points and along
directions that the parts share.
"""

import jax
import jax.numpy as jnp


def summed(function, count: int):
  """function(0) + ... + function(count - 1), trees; a single one without a loop."""
  if count == 1:
    return function(0)

  def add(total, number):
    return jax.tree.map(jnp.add, total, function(number)), None

  start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, 0))
  return jax.lax.scan(add, start, jnp.arange(count))[0]
