"""Loss scaling, with which float16 holds small gradients.

float16 rounds numbers below 6e-8 to zero, and most derivatives of a loss are smaller. Every derivative
is therefore taken of the loss times a scale, and divided by it in float32 as soon as it is there.
Where a derivative overflows, the step is skipped and the scale halves. After GROWTH_STEPS steps
without overflow it doubles. Other dtypes have no scale, and their arithmetic has no trace of it.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import struct

from negint.method.tree import Tree

START = 2.0**15
FLOOR = 1.0  # a step that is not finite at this scale ends the run
LARGEST = 2.0**24  # where gradients vanish, no larger scale would help
GROWTH_STEPS = 1000  # finite steps in a row after which the scale doubles
TANGENT_NORM = 2.0**-10  # of a tangent, in units of theta's norm, so that float16 holds it
LOGGED = ("loss_scale", "skipped_share", "learning_rate")  # metrics that a skipped step has, too

State = TypeVar("State", bound=Any)  # a PyTreeNode with the fields `step` and `loss_scale`


class LossScale(struct.PyTreeNode):
  """The scale of a run's losses, and what decides when it changes."""

  scale: jax.Array  # factor of every loss, a power of two, float32 scalar
  finite_steps: jax.Array  # since the scale last changed, int scalar
  skipped: jax.Array  # steps that were skipped, int scalar

  def after(self, finite: jax.Array) -> "LossScale":
    """The scale after a step; below FLOOR, where the step was not finite at FLOOR."""
    grows = finite & (self.finite_steps + 1 >= GROWTH_STEPS)
    larger = jnp.where(grows, jnp.minimum(2 * self.scale, LARGEST), self.scale)
    return LossScale(
      scale=jnp.where(finite, larger, jnp.maximum(self.scale, FLOOR) / 2),
      finite_steps=jnp.where(finite & ~grows, self.finite_steps + 1, 0),
      skipped=self.skipped + ~finite,
    )


def first() -> LossScale:
  """The scale before the first step."""
  zero = jnp.zeros((), jnp.int32)
  return LossScale(jnp.full((), START, jnp.float32), zero, jnp.copy(zero))


def needed(dtype: str) -> bool:
  """Whether losses are scaled where matrix products have this dtype."""
  return dtype == "float16"


def scale_of(state: Any) -> jax.Array | None:  # Any: a TrainState or a TuneState
  """The scale of a state's losses; None without scaling, where the state has no such field."""
  loss_scale: LossScale | None = getattr(state, "loss_scale", None)
  return None if loss_scale is None else loss_scale.scale


def scaled(loss: Callable[..., jax.Array], scale: jax.Array | None) -> Callable[..., jax.Array]:
  """The loss times the scale; None: the loss itself."""
  return loss if scale is None else lambda *arguments: loss(*arguments) * scale


def unscaled(tree: Tree, scale: jax.Array | None) -> Tree:
  """A derivative of a scaled loss without its scale; None: the tree itself."""
  return tree if scale is None else jax.tree.map(lambda leaf: leaf / scale, tree)


def grad(
  loss: Callable[..., jax.Array], argnums: int | tuple[int, ...], scale: jax.Array | None
) -> Callable[..., Tree]:
  """`jax.grad` of a loss, computed at a scale; None: as it is."""
  gradient = jax.grad(scaled(loss, scale), argnums)
  return lambda *arguments: unscaled(gradient(*arguments), scale)


def value_and_grad(
  loss: Callable[..., jax.Array], argnums: int | tuple[int, ...], scale: jax.Array | None
) -> Callable[..., tuple[jax.Array, Tree]]:
  """`jax.value_and_grad` of a loss, computed at a scale; None: as it is."""
  derivative = jax.value_and_grad(scaled(loss, scale), argnums)
  return lambda *arguments: unscaled(derivative(*arguments), scale)


def enlarged(tangent: Tree, theta: Tree, scale: jax.Array | None) -> tuple[Tree, jax.Array | None]:
  """A tangent of theta at a length that suits float16, and what it multiplies a derivative by.

  The tangent passes through float16, too, and is often as small as a learning rate. A derivative along
  a tangent is linear in it, so a longer tangent gives the same derivative, times a factor.

  Args:
    tangent: like theta.
    theta: where the derivative is taken.
    scale: of the loss; None: nothing is scaled, and the tangent stays as it is.

  Returns:
    (the tangent, the factor to divide the derivative by, which includes `scale`; None without it).
  """
  if scale is None:
    return tangent, None
  norm = optax.tree.norm(tangent)
  factor = jnp.where(norm > 0, TANGENT_NORM * optax.tree.norm(theta) / norm, 1.0)
  return jax.tree.map(lambda leaf: leaf * factor, tangent), factor * scale


def settled(
  before: State, after: State, metrics: dict[str, jax.Array]
) -> tuple[State, dict[str, jax.Array]]:
  """The state that a step at a scale ends with, and its metrics with those of the scale.

  The step is skipped unless all its metrics are finite: the state then keeps all its bits but those
  of `step` and `loss_scale`. The metrics must have the norm of each gradient, averaged over devices.

  Args:
    before: the step.
    after: what the step made of it.
    metrics: of the step, scalars.
  """
  finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
  chosen = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, before)
  loss_scale = before.loss_scale.after(finite)
  state = chosen.replace(step=after.step, loss_scale=loss_scale)
  skipped = 1.0 - finite.astype(jnp.float32)
  return state, {**metrics, "loss_scale": loss_scale.scale, "skipped_share": skipped}
