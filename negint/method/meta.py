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

from negint.method.accumulation import summed
from negint.method.phi import select_language

Tree = Any


class MetaProblem(NamedTuple):
  """One meta step's losses on one training batch and on a held-out batch of each of m languages.

  train_loss: (theta, phi_i, part) -> local scalar; the parts sum to L_train_i. Masks and dropout
    keys are fixed inside, so that every evaluation sees the same noise.
  held_out_loss: (theta', phi_j, j, part) -> local scalar; the parts sum to L_meta_j.
  language: index i of the training batch's language, traced.
  num_languages: L.
  held_out_languages: [m] indices, i and m - 1 others; all L, or drawn uniformly without replacement.
  inner_rate: beta, traced.
  scale: inner gradient -> tree that multiplies it (Adam's preconditioner), or None for plain SGD.
  reduce: averages a tree over devices.
  parts: that a batch is computed in, one after another.
  """

  train_loss: Callable[[Tree, Tree, jax.Array], jax.Array]
  held_out_loss: Callable[[Tree, Tree, jax.Array, jax.Array], jax.Array]
  language: jax.Array
  num_languages: int
  held_out_languages: jax.Array
  inner_rate: jax.Array | float
  scale: Callable[[Tree], Tree] | None = None
  reduce: Callable[[Tree], Tree] = lambda tree: tree
  parts: int = 1

  def whole(self, derivative: Callable[[jax.Array], Tree]) -> Tree:
    """The derivative of a batch's loss, from that of a part's loss on one device."""
    return self.reduce(summed(derivative, self.parts))


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

  With m < L languages v is an estimate without bias: i weighs 1/L, as it is never left out (so that
  direct stays exact), and each drawn one (L - 1) / (L (m - 1)).

  One sum over languages and parts, one after another, so that memory does not grow with L.
  """
  num_languages, num_drawn = problem.num_languages, len(problem.held_out_languages) - 1
  weight_of_drawn = (num_languages - 1) / (num_languages * max(num_drawn, 1))

  def gradients(number):
    j, part = problem.held_out_languages[number // problem.parts], number % problem.parts
    own = j == problem.language
    gradients = jax.grad(problem.held_out_loss, argnums=(0, 1))(
      theta, select_language(phi, j), j, part
    )
    weight = jnp.where(own, 1 / num_languages, weight_of_drawn)
    v, direct = jax.tree.map(lambda g: g * weight.astype(g.dtype), gradients)
    return v, jax.tree.map(lambda g: jnp.where(own, g, 0), direct)

  return problem.reduce(summed(gradients, len(problem.held_out_languages) * problem.parts))


def grad_of_grad(problem: MetaProblem, theta, phi) -> MetaGradient:
  """Exact: `jax.grad` of a function that contains `jax.grad`, reverse over reverse.

  The held-out losses enter through v, their gradient at theta': by the chain rule that is all
  that the derivative through theta' needs, and their activations are gone before it is taken.
  """
  phi_i = select_language(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)

  def along_tangent(phi_inner, part):
    return optax.tree.vdot(jax.grad(problem.train_loss)(theta, phi_inner, part), tangent)

  derivative = problem.whole(lambda part: jax.grad(along_tangent)(phi_i, part))
  return MetaGradient(direct, jax.tree.map(jnp.negative, derivative), inner_gradient)


def _inner_gradient(problem: MetaProblem, theta, phi_i):
  """g, of the whole training batch."""
  return problem.whole(lambda part: jax.grad(problem.train_loss)(theta, phi_i, part))


def _first_derivatives(problem: MetaProblem, theta, phi, phi_i):
  """(g, beta * scale * v, direct): all that is not second order, of the whole batch."""
  inner_gradient = _inner_gradient(problem, theta, phi_i)
  theta_ahead, factors = look_ahead(problem, theta, inner_gradient)
  v, direct = held_out_gradients(problem, theta_ahead, phi)
  return inner_gradient, jax.tree.map(jnp.multiply, factors, v), direct


def forward_over_reverse(problem: MetaProblem, theta, phi) -> MetaGradient:
  """Exact: -d/d eps of grad_phi L_train(theta + eps * beta * scale * v), by one jvp."""
  phi_i = select_language(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)

  def derivative_of(part):
    gradient = lambda t: jax.grad(problem.train_loss, argnums=1)(t, phi_i, part)  # noqa: E731
    return jax.jvp(gradient, (theta,), (tangent,))[1]

  derivative = problem.whole(derivative_of)
  return MetaGradient(direct, jax.tree.map(jnp.negative, derivative), inner_gradient)


def finite_difference(problem: MetaProblem, theta, phi, *, radius: float) -> MetaGradient:
  """Eq. 8 with step eps = radius / |beta * scale * v| around theta; approximate."""
  phi_i = select_language(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)
  norm = optax.tree.norm(tangent)
  step = radius / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)

  def gradient_at(sign, part):
    moved = jax.tree.map(lambda t, u: t + sign * step * u, theta, tangent)
    return jax.grad(problem.train_loss, argnums=1)(moved, phi_i, part)

  def difference(part):
    pair = gradient_at(1.0, part), gradient_at(-1.0, part)
    return jax.tree.map(lambda plus, minus: -(plus - minus) / (2 * step), *pair)

  return MetaGradient(direct, problem.whole(difference), inner_gradient)


def first_order(problem: MetaProblem, theta, phi) -> MetaGradient:
  """Ablation: the direct term alone, whose only loss is language i's."""
  phi_i = select_language(phi, problem.language)
  inner_gradient = _inner_gradient(problem, theta, phi_i)
  theta_ahead, _ = look_ahead(problem, theta, inner_gradient)

  def objective(phi_direct, part):
    loss = problem.held_out_loss(theta_ahead, phi_direct, problem.language, part)
    return loss / problem.num_languages

  direct = problem.whole(lambda part: jax.grad(objective)(phi_i, part))
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
