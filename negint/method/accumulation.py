"""A batch computed in parts, one after another: the same arithmetic in the memory of one part.

The loss of a batch is the sum of the losses of its parts. A derivative of the batch's loss is
therefore the sum of the parts' derivatives, if all parts are differentiated at the same point and
along the same direction.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from negint.method.tree import Index, Tree


def summed(function: Callable[[Index], Tree], count: int) -> Tree:
  """The sum function(0) + ... + function(count - 1), leaf by leaf.

  Args:
    function: part number, an int scalar -> tree.
    count: parts, at least 1. With one part there is no loop.
  """
  if count == 1:
    return function(0)

  def add(total: Tree, number: jax.Array) -> tuple[Tree, None]:
    return jax.tree.map(jnp.add, total, function(number)), None

  shapes = jax.eval_shape(function, 0)
  start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  return jax.lax.scan(add, start, jnp.arange(count))[0]
