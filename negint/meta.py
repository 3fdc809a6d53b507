"""The meta-gradient of phi_i (Eqs. 3, 4 and 8): four ways to one number.

Pure functions of losses: nothing here sees a model, a config or a device. `reduce` averages a tree
over the devices that share the batch (the identity on one device). Losses are *local* and only
gradients are reduced: a reduction inside the differentiated function gives wrong values under pmap.

With g = grad_theta L_train_i(theta, phi_i), theta' = theta - beta * scale * g and
v = grad_theta' (1/L) sum_j L_meta_j(theta', phi_j), the meta-gradient is
  direct + second_order,  direct = (1/L) grad_phi_i L_meta_i(theta', phi_i),
  second_order = -beta * grad_phi_i <g, scale * v>.
The paper's Eq. 4 leaves out the factor -beta.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from negint import language as lang

Tree = Any


class MetaProblem(NamedTuple):
  """One meta step's losses on one training batch and one held-out batch a language.

  train_loss: (theta, phi_i) -> local scalar, L_train_i. Masks and dropout keys are fixed inside, so
    that every evaluation sees the same noise.
  held_out_loss: (theta', phi_j, j) -> local scalar, L_meta_j.
  language: index i of the training batch's language, traced.
  num_languages: L.
  inner_rate: beta, traced.
  scale: inner gradient -> tree that multiplies it (Adam's preconditioner), or None for plain SGD.
  reduce: averages a tree over devices.
  """

  train_loss: Callable[[Tree, Tree], jax.Array]
  held_out_loss: Callable[[Tree, Tree, jax.Array], jax.Array]
  language: jax.Array
  num_languages: int
  inner_rate: jax.Array | float
  scale: Callable[[Tree], Tree] | None = None
  reduce: Callable[[Tree], Tree] = lambda tree: tree


class MetaGradient(NamedTuple):
  """direct and second_order have phi_i's structure; their sum is the meta-gradient."""

  direct: Tree
  second_order: Tree
  inner_gradient: Tree

  def total(self) -> Tree:
    return jax.tree.map(jnp.add, self.direct, self.second_order)

  def summary(self) -> dict[str, jax.Array]:
    """The scalars that a run logs: both norms, their cosine, the inner gradient's norm."""
    direct, second = optax.tree.norm(self.direct), optax.tree.norm(self.second_order)
    tiny = jnp.finfo(direct.dtype).tiny
    cosine = optax.tree.vdot(self.direct, self.second_order) / jnp.maximum(direct * second, tiny)
    return {
      "meta/direct_norm": direct,
      "meta/second_order_norm": second,
      "meta/direct_second_order_cosine": cosine,
      "meta/inner_gradient_norm": optax.tree.norm(self.inner_gradient),
    }


def look_ahead(problem: MetaProblem, theta, inner_gradient):
  """theta' and the constant factors d theta' / d g (the tree beta * scale)."""
  scale = problem.scale(inner_gradient) if problem.scale else jax.tree.map(jnp.ones_like, theta)
  factors = jax.lax.stop_gradient(jax.tree.map(lambda s: problem.inner_rate * s, scale))
  moved = jax.tree.map(lambda t, f, g: t - f * g, theta, factors, inner_gradient)
  return moved, factors


def held_out_gradients(problem: MetaProblem, theta, phi):
  """(v, direct) at theta: gradients of (1/L) sum_j L_meta_j(theta, phi_j) by theta and by phi_i.

  Gradients are accumulated in a scan over languages, so that memory does not grow with L.
  """

  def add(total, language):
    gradients = jax.grad(problem.held_out_loss, argnums=(0, 1))(
      theta, lang.select(phi, language), language
    )
    v, direct = jax.tree.map(lambda g: g / problem.num_languages, gradients)
    direct = jax.tree.map(lambda g: jnp.where(language == problem.language, g, 0), direct)
    return jax.tree.map(jnp.add, total, (v, direct)), None

  start = jax.tree.map(jnp.zeros_like, (theta, lang.select(phi, problem.language)))
  total, _ = jax.lax.scan(add, start, jnp.arange(problem.num_languages))
  return problem.reduce(total)


def grad_of_grad(problem: MetaProblem, theta, phi) -> MetaGradient:
  """Exact: `jax.grad` of a function that contains `jax.grad`, reverse over reverse.

  The held-out losses enter through v, their gradient at theta': by the chain rule that is all
  that the derivative through theta' needs, and their activations are gone before it is taken.
  """
  phi_i = lang.select(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)

  def along_tangent(phi_inner):
    return optax.tree.vdot(jax.grad(problem.train_loss)(theta, phi_inner), tangent)

  second_order = jax.tree.map(jnp.negative, jax.grad(along_tangent)(phi_i))
  return MetaGradient(direct, problem.reduce(second_order), inner_gradient)


def _first_derivatives(problem: MetaProblem, theta, phi, phi_i):
  """(g, beta * scale * v, direct): all that is not second order, averaged over devices."""
  inner_gradient = problem.reduce(jax.grad(problem.train_loss)(theta, phi_i))
  theta_ahead, factors = look_ahead(problem, theta, inner_gradient)
  v, direct = held_out_gradients(problem, theta_ahead, phi)
  return inner_gradient, jax.tree.map(jnp.multiply, factors, v), direct


def forward_over_reverse(problem: MetaProblem, theta, phi) -> MetaGradient:
  """Exact: -d/d eps of grad_phi L_train(theta + eps * beta * scale * v), by one jvp."""
  phi_i = lang.select(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)
  _, derivative = jax.jvp(
    lambda t: jax.grad(problem.train_loss, argnums=1)(t, phi_i), (theta,), (tangent,)
  )
  second_order = problem.reduce(jax.tree.map(jnp.negative, derivative))
  return MetaGradient(direct, second_order, inner_gradient)


def finite_difference(problem: MetaProblem, theta, phi, *, radius: float) -> MetaGradient:
  """Eq. 8 with step eps = radius / |beta * scale * v| around theta; approximate."""
  phi_i = lang.select(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)
  norm = optax.tree.norm(tangent)
  step = radius / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)

  def gradient_at(sign):
    moved = jax.tree.map(lambda t, u: t + sign * step * u, theta, tangent)
    return jax.grad(problem.train_loss, argnums=1)(moved, phi_i)

  difference = jax.tree.map(
    lambda plus, minus: -(plus - minus) / (2 * step), gradient_at(1.0), gradient_at(-1.0)
  )
  return MetaGradient(direct, problem.reduce(difference), inner_gradient)


def first_order(problem: MetaProblem, theta, phi) -> MetaGradient:
  """Ablation: the direct term alone, whose only loss is language i's."""
  phi_i = lang.select(phi, problem.language)
  inner_gradient = problem.reduce(jax.grad(problem.train_loss)(theta, phi_i))
  theta_ahead, _ = look_ahead(problem, theta, inner_gradient)

  def objective(phi_direct):
    loss = problem.held_out_loss(theta_ahead, phi_direct, problem.language)
    return loss / problem.num_languages

  direct = problem.reduce(jax.grad(objective)(phi_i))
  return MetaGradient(direct, jax.tree.map(jnp.zeros_like, direct), inner_gradient)


def meta_gradient(route: str, problem: MetaProblem, theta, phi, *, radius: float) -> MetaGradient:
  """The meta-gradient by the route that `meta.gradient` names (options.META_GRADIENTS)."""
  if route == "finite_difference":
    return finite_difference(problem, theta, phi, radius=radius)
  routes = {
    "grad_of_grad": grad_of_grad,
    "forward_over_reverse": forward_over_reverse,
    "first_order": first_order,
  }
  return routes[route](problem, theta, phi)
