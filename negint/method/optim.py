"""Learning rates, clipping and Adam: the rules that turn gradients into updates.

Adam's moments have the structure of the parameters they move, so phi's slots carry phi's leading
language axis and a language that was not sampled keeps its slots bit for bit.
"""

import jax
import jax.numpy as jnp
import optax

from negint.options import OptimiserOptions


def learning_rate(options: OptimiserOptions, step):
  """Learning rate of the update number `step` (0-based, traced).

  `inverse_sqrt` is XLM's: linear from 1e-7 over the warm-up, then peak * sqrt(warmup / step).
  `linear` warms up the same way and falls to zero at `steps`; `constant` only warms up.
  """
  step = jnp.asarray(step, jnp.float32)
  peak, warmup = options.learning_rate, max(options.warmup_steps, 1)
  warm = 1e-7 + (peak - 1e-7) * step / warmup
  after = {
    "inverse_sqrt": peak * jnp.sqrt(warmup / jnp.maximum(step, warmup)),
    "linear": peak * (options.steps - step) / max(options.steps - warmup, 1),
    "constant": jnp.full_like(step, peak),
  }[options.schedule]
  return jnp.where(step < options.warmup_steps, warm, after)


def adam(options: OptimiserOptions) -> optax.GradientTransformation:
  """Adam's direction without the rate; weight decay, if any, moves every parameter as in XLM.

  XLM adds eps before it corrects the bias; optax, here, after. At eps = 1e-8 the two agree.
  """
  direction = optax.scale_by_adam(b1=options.b1, b2=options.b2, eps=options.eps)
  if not options.weight_decay:
    return direction
  return optax.chain(direction, optax.add_decayed_weights(options.weight_decay))


def init_slots(options: OptimiserOptions, theta, phi):
  """(slots of theta, slots of phi with its leading axis, counts included)."""
  transform = adam(options)
  return transform.init(theta), jax.vmap(transform.init)(phi) if phi else {}


def update(options: OptimiserOptions, rate, params, slots, gradient):
  """One step down `gradient` at the learning rate `rate`: (params, slots)."""
  direction, slots = adam(options).update(gradient, slots, params)
  return jax.tree.map(lambda p, d: p - rate * d.astype(p.dtype), params, direction), slots


def clip(tree, max_norm: float):
  """(tree scaled to a global norm of at most max_norm, its norm before)."""
  norm = optax.tree.norm(tree)
  factor = jnp.minimum(1.0, max_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
  return jax.tree.map(lambda leaf: leaf * factor, tree), norm


def adam_scale(options: OptimiserOptions, slots):
  """Preconditioner of an Adam look-ahead: gradient -> 1 / (sqrt(nu_hat) + eps), a constant.

  nu_hat includes the gradient at hand, as Adam's own step would. A coordinate that never had a
  gradient gets 0 instead of 1/eps: it does not move, and must not dominate a finite difference.
  """
  adam_state = slots if isinstance(slots, optax.ScaleByAdamState) else slots[0]
  correction = 1.0 - options.b2 ** (adam_state.count + 1.0)

  def one(g, nu):
    nu_hat = (options.b2 * nu + (1.0 - options.b2) * g**2) / correction
    return jnp.where(nu_hat > 0, 1.0 / (jnp.sqrt(nu_hat) + options.eps), 0.0)

  return lambda gradient: jax.tree.map(one, jax.lax.stop_gradient(gradient), adam_state.nu)
