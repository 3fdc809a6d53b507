"""The meta-gradient of phi_i (Eqs. 3, 4 and 8), by four routes.

Pure functions of losses; nothing here sees a model, a config or a device. theta are the parameters
shared by all L languages, phi_i those of language i. With
  g = grad_theta L_train_i(theta, phi_i),
  theta' = theta - beta * scale * g,
  v = grad_theta' (1/L) sum_j L_meta_j(theta', phi_j)
the meta-gradient is direct + second_order, where
  direct = (1/L) grad_phi_i L_meta_i(theta', phi_i),
  second_order = -beta * grad_phi_i <g, scale * v>.
The paper's Eq. 4 leaves out the factor -beta.

Losses are of one device's share of the batch, and `reduce` averages gradients over the devices. A
reduction inside a differentiated function would give wrong values under pmap.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from negint.method.accumulation import summed
from negint.method.loss_scale import enlarged, grad, scaled, unscaled
from negint.method.phi import select_language
from negint.method.tree import Index, Tree

TrainLoss = Callable[[Tree, Tree, Index], jax.Array]  # (theta, phi_i, part) -> scalar
HeldOutLoss = Callable[[Tree, Tree, Index, Index], jax.Array]  # (theta', phi_j, k, part) -> scalar


class MetaProblem(NamedTuple):
  """The losses of one meta step: of a training batch, and of a held-out batch of each of m languages.

  Each loss fixes its masks and dropout keys, so that every evaluation sees the same noise.
  """

  train_loss: TrainLoss  # the parts sum to L_train_i
  held_out_loss: HeldOutLoss  # the parts sum to L_meta_j, j the language at place k
  language: Index  # index i of the training batch's language
  num_languages: int  # L
  held_out_languages: jax.Array  # index of the language at each place k, [m]
  inner_rate: jax.Array | float  # beta
  scale: Callable[[Tree], Tree] | None = None  # g -> factors of g (Adam's); None: plain SGD
  reduce: Callable[[Tree], Tree] = lambda tree: tree  # averages a tree over devices
  parts: int = 1  # that each batch is computed in, one after another
  loss_scale: jax.Array | None = None  # factor of losses in derivatives (`loss_scale`); None: 1

  def weight(self, own: jax.Array) -> jax.Array:
    """The weight of one held-out language in the estimate of (1/L) sum_j L_meta_j.

    With one drawn from all L languages, it weighs 1. Otherwise language i is always held out and
    weighs 1/L, so that its term is exact; each of the m - 1 others weighs (L - 1) / (L (m - 1)). The
    expectation over the draws is the mean of all L losses in both cases.

    Args:
      own: whether the language is i, bool scalar.
    """
    total, held_out = self.num_languages, len(self.held_out_languages)
    if held_out == 1:
      return jnp.ones(())
    return jnp.where(own, 1 / total, (total - 1) / (total * (held_out - 1)))

  def whole(self, derivative: Callable[[Index], Tree]) -> Tree:
    """The derivative of the batch's loss, from the derivative of one part's loss."""
    return self.reduce(summed(derivative, self.parts))


class MetaGradient(NamedTuple):
  """The two terms of the meta-gradient, and the inner gradient behind them."""

  direct: Tree  # like phi_i
  second_order: Tree  # like phi_i
  inner_gradient: Tree  # g, like theta

  def total(self) -> Tree:
    """The meta-gradient, like phi_i."""
    return jax.tree.map(jnp.add, self.direct, self.second_order)

  def summary(self) -> dict[str, jax.Array]:
    """The scalars that a run logs.

    They are the norms of both terms and of g, the terms' cosine, and the second-order term's share
    in the sum of both norms.
    """
    direct, second = optax.tree.norm(self.direct), optax.tree.norm(self.second_order)
    tiny = jnp.finfo(direct.dtype).tiny
    cosine = optax.tree.vdot(self.direct, self.second_order) / jnp.maximum(direct * second, tiny)
    return {
      "meta/direct_norm": direct,
      "meta/second_order_norm": second,
      "meta/second_order_share": second / jnp.maximum(direct + second, tiny),
      "meta/direct_second_order_cosine": cosine,
      "meta/inner_gradient_norm": optax.tree.norm(self.inner_gradient),
    }


def look_ahead(problem: MetaProblem, theta: Tree, inner_gradient: Tree) -> tuple[Tree, Tree]:
  """The look-ahead (theta', beta * scale); derivatives see the second tree as a constant."""
  scale = problem.scale(inner_gradient) if problem.scale else jax.tree.map(jnp.ones_like, theta)
  factors = jax.lax.stop_gradient(jax.tree.map(lambda s: problem.inner_rate * s, scale))
  moved = jax.tree.map(lambda t, f, g: t - f * g, theta, factors, inner_gradient)
  return moved, factors


def held_out_gradients(problem: MetaProblem, theta: Tree, phi: Tree) -> tuple[Tree, Tree]:
  """The gradients (v, direct) of (1/L) sum_j L_meta_j(theta, phi_j) by theta and by phi_i.

  With m < L languages both are unbiased estimates (see `MetaProblem.weight`).
  """

  def gradients(k: Index, part: Index) -> tuple[Tree, Tree]:
    j = problem.held_out_languages[k]
    own = j == problem.language
    derivative = grad(problem.held_out_loss, (0, 1), problem.loss_scale)
    gradients = derivative(theta, select_language(phi, j), k, part)
    weight = problem.weight(own)
    v, direct = jax.tree.map(lambda g: g * weight.astype(g.dtype), gradients)
    return v, jax.tree.map(lambda g: jnp.where(own, g, 0), direct)

  return _over_held_out(problem, gradients)


def _over_held_out(problem: MetaProblem, function: Callable[[Index, Index], Tree]) -> Tree:
  """The sum of function(k, part) over the held-out languages' places k and parts, over devices.

  The terms are computed one after another, so that memory does not grow with the languages.
  """
  parts = problem.parts
  return problem.reduce(
    summed(
      lambda number: function(number // parts, number % parts),
      len(problem.held_out_languages) * parts,
    )
  )


def grad_of_grad(problem: MetaProblem, theta: Tree, phi: Tree) -> MetaGradient:
  """The exact meta-gradient, by `jax.grad` of a function that contains `jax.grad`.

  By the chain rule the derivative through theta' needs only v, the gradient of the held-out losses
  at theta'. It is taken after v, when the activations of the held-out losses are freed.
  """
  phi_i = select_language(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)
  loss = scaled(problem.train_loss, problem.loss_scale)
  tangent, factor = enlarged(tangent, theta, problem.loss_scale)

  def along_tangent(phi_inner: Tree, part: Index) -> jax.Array:
    return optax.tree.vdot(jax.grad(loss)(theta, phi_inner, part), tangent)

  derivative = problem.whole(lambda part: unscaled(jax.grad(along_tangent)(phi_i, part), factor))
  return MetaGradient(direct, jax.tree.map(jnp.negative, derivative), inner_gradient)


def _inner_gradient(problem: MetaProblem, theta: Tree, phi_i: Tree) -> Tree:
  """The gradient g of the whole training batch."""
  derivative = grad(problem.train_loss, 0, problem.loss_scale)
  return problem.whole(lambda part: derivative(theta, phi_i, part))


def _first_derivatives(
  problem: MetaProblem, theta: Tree, phi: Tree, phi_i: Tree
) -> tuple[Tree, Tree, Tree]:
  """The first-order trees (g, beta * scale * v, direct) of the whole batches."""
  inner_gradient = _inner_gradient(problem, theta, phi_i)
  theta_ahead, factors = look_ahead(problem, theta, inner_gradient)
  v, direct = held_out_gradients(problem, theta_ahead, phi)
  return inner_gradient, jax.tree.map(jnp.multiply, factors, v), direct


def forward_over_reverse(problem: MetaProblem, theta: Tree, phi: Tree) -> MetaGradient:
  """The exact meta-gradient, with second_order by one jvp.

  second_order = -d/d eps grad_phi_i L_train_i(theta + eps * beta * scale * v, phi_i) at eps = 0.
  """
  phi_i = select_language(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)
  loss = scaled(problem.train_loss, problem.loss_scale)
  tangent, factor = enlarged(tangent, theta, problem.loss_scale)

  def derivative_of(part: Index) -> Tree:
    def gradient(at: Tree) -> Tree:
      return jax.grad(loss, argnums=1)(at, phi_i, part)

    return unscaled(jax.jvp(gradient, (theta,), (tangent,))[1], factor)

  derivative = problem.whole(derivative_of)
  return MetaGradient(direct, jax.tree.map(jnp.negative, derivative), inner_gradient)


def finite_difference(
  problem: MetaProblem, theta: Tree, phi: Tree, *, radius: float
) -> MetaGradient:
  """The approximate meta-gradient of Eq. 8.

  Args:
    problem: losses of the step.
    theta: shared parameters.
    phi: language-specific parameters of all languages.
    radius: L2 distance of the two points from theta, so that eps = radius / |beta * scale * v|.
  """
  phi_i = select_language(phi, problem.language)
  inner_gradient, tangent, direct = _first_derivatives(problem, theta, phi, phi_i)
  norm = optax.tree.norm(tangent)
  step = radius / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)

  derivative = grad(problem.train_loss, 1, problem.loss_scale)

  def gradient_at(sign: float, part: Index) -> Tree:
    moved = jax.tree.map(lambda t, u: t + sign * step * u, theta, tangent)
    return derivative(moved, phi_i, part)

  def difference(part: Index) -> Tree:
    pair = gradient_at(1.0, part), gradient_at(-1.0, part)
    return jax.tree.map(lambda plus, minus: -(plus - minus) / (2 * step), *pair)

  return MetaGradient(direct, problem.whole(difference), inner_gradient)


def first_order(problem: MetaProblem, theta: Tree, phi: Tree) -> MetaGradient:
  """The direct term alone (an ablation). Only the held-out loss of language i counts."""
  phi_i = select_language(phi, problem.language)
  inner_gradient = _inner_gradient(problem, theta, phi_i)
  theta_ahead, _ = look_ahead(problem, theta, inner_gradient)
  derivative = grad(problem.held_out_loss, 1, problem.loss_scale)

  def own_gradient(k: Index, part: Index) -> Tree:
    gradient = derivative(theta_ahead, phi_i, k, part)
    own = problem.held_out_languages[k] == problem.language
    return jax.tree.map(lambda g: jnp.where(own, g / problem.num_languages, 0), gradient)

  direct = _over_held_out(problem, own_gradient)
  return MetaGradient(direct, jax.tree.map(jnp.zeros_like, direct), inner_gradient)


def meta_gradient(
  route: str, problem: MetaProblem, theta: Tree, phi: Tree, *, radius: float
) -> MetaGradient:
  """The meta-gradient of phi_i by one route.

  Args:
    route: one of options.META_GRADIENTS.
    problem: losses of the step.
    theta: shared parameters.
    phi: language-specific parameters of all languages, leaves [num_languages, ...].
    radius: of `finite_difference`.
  """
  if route == "finite_difference":
    return finite_difference(problem, theta, phi, radius=radius)
  routes = {
    "grad_of_grad": grad_of_grad,
    "forward_over_reverse": forward_over_reverse,
    "first_order": first_order,
  }
  return routes[route](problem, theta, phi)
