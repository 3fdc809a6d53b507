"""Learning rates, clipping and Adam: how gradients become updates.

Adam's moments (`slots`) have the structure of the parameters that they move. The slots of phi
therefore have phi's leading axis of languages, and a step on one language leaves the slots of the
others unchanged.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from negint.method.tree import Tree
from negint.options import AdamOptions, ScheduleOptions


def learning_rate(options: ScheduleOptions, step: int) -> np.float32:
  """Learning rate of one update, computed on the host.

  Every schedule rises linearly from 1e-7 to the peak over the warm-up. `inverse_sqrt` (XLM's
  AdamInverseSqrtWithWarmup) then is peak * sqrt(warmup / step), `linear` falls to zero at `steps`,
  and `constant` stays at the peak.

  The rate is an argument of a compiled step. Inside the step it would be a constant of the program,
  and each peak, warm-up and number of steps would compile anew.

  Args:
    options: peak, warm-up and schedule.
    step: number of the update from 0.
  """
  peak, warmup = options.learning_rate, max(options.warmup_steps, 1)
  if step < options.warmup_steps:
    return np.float32(1e-7 + (peak - 1e-7) * step / warmup)
  after = {
    "inverse_sqrt": peak * math.sqrt(warmup / max(step, warmup)),
    "linear": peak * (options.steps - step) / max(options.steps - warmup, 1),
    "constant": peak,
  }
  return np.float32(after[options.kind])


def adam(options: AdamOptions) -> optax.GradientTransformation:
  """Adam's direction without the learning rate; weight decay moves every parameter, as in XLM.

  XLM adds eps before the bias correction, optax after it. At eps = 1e-8 the two agree.
  """
  direction = optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=options.eps)
  if not options.weight_decay:
    return direction
  return optax.chain(direction, optax.add_decayed_weights(options.weight_decay))


def init_slots(options: AdamOptions, theta: Tree, phi: Tree) -> tuple[Tree, Tree]:
  """Adam's slots before the first update: (of theta, of phi). An empty tree has none.

  Every leaf of phi's slots, counts included, is [num_languages, ...].
  """
  transform = adam(options)
  of_theta = transform.init(theta) if theta else {}
  return of_theta, jax.vmap(transform.init)(phi) if phi else {}


def update(
  options: AdamOptions, rate: jax.Array | float, params: Tree, slots: Tree, gradient: Tree
) -> tuple[Tree, Tree]:
  """One Adam step down `gradient` at the learning rate `rate`: (params, slots) after it."""
  direction, slots = adam(options).update(gradient, slots, params)
  return jax.tree.map(lambda p, d: p - rate * d.astype(p.dtype), params, direction), slots


def clip(tree: Tree, max_norm: float) -> tuple[Tree, jax.Array]:
  """The tree scaled down to a global L2 norm of at most `max_norm`, and its norm before."""
  norm = optax.tree.norm(tree)
  factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
  return jax.tree.map(lambda leaf: leaf * factor, tree), norm


def adam_scale(options: AdamOptions, slots: Tree) -> Callable[[Tree], Tree]:
  """The preconditioner of a look-ahead by Adam: gradient -> 1 / (sqrt(nu_hat) + eps).

  nu_hat, the corrected second moment, includes the given gradient, as in Adam's own step. The result
  is a constant to derivatives. A coordinate that never had a gradient gets 0 instead of 1 / eps: it
  does not move, and a factor of 1e8 would dominate a finite difference.

  Args:
    options: those of Adam.
    slots: of the parameters that look ahead.
  """
  adam_state = slots if isinstance(slots, optax.ScaleByAdamState) else slots[0]

  def one(g: jax.Array, nu: jax.Array) -> jax.Array:
    correction = 1.0 - options.b2 ** (adam_state.count + 1).astype(nu.dtype)
    nu_hat = (options.b2 * nu + (1.0 - options.b2) * g**2) / correction
    return jnp.where(nu_hat > 0, 1.0 / (jnp.sqrt(nu_hat) + options.eps), 0.0)

  return lambda gradient: jax.tree.map(one, jax.lax.stop_gradient(gradient), adam_state.nu)
