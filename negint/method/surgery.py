"""Gradient surgery: the gradients of several languages combined into one by PCGrad or GradVac.

Pure functions of the gradients; nothing here sees a model, a config or a device. The gradients are a
stacked tree, a dict with leaves [L, ...], and g_i is the vector of all leaves of language i.

Both methods only add multiples of one gradient to another. Each result is therefore a weighted sum
of the L original gradients. The loops below change only these weights [L, L] and need only the
inner products [L, L], so the long vectors are read twice: for the products and for the final sum.

The parameters of OWN_ROWS have one row per language, and row i has a gradient from language i alone.
No two languages share a row, so these rows are in no angle and no projection: each row takes its
plain gradient.
"""

import jax
import jax.numpy as jnp

from negint.method.tree import Tree

OWN_ROWS = ("language",)  # parameters of theta with one row per language: the language embedding


def pcgrad(gradients: Tree, key: jax.Array) -> tuple[Tree, jax.Array]:
  """PCGrad (Yu et al. 2020, arXiv 2001.06782, Algorithm 1): projects conflicting gradients.

  Each g_i meets the original gradient g_j of every other language in a random order. Where their
  inner product is negative, g_i -= (g_i . g_j) / |g_j|^2 g_j. This is GradVac with a target cosine
  of zero.

  Args:
    gradients: stacked tree, leaves [L, ...].
    key: draws the orders; must be the same on every device.

  Returns:
    (sum of the changed g_i, leaves [...]; cosines of the original gradients without OWN_ROWS,
    [L, L]).
  """
  num_languages = len(jax.tree.leaves(gradients)[0])
  target_LL = jnp.zeros((num_languages, num_languages), jnp.float32)
  combined, _, cosines_LL = gradvac(gradients, target_LL, key, rate=0.0)
  return combined, cosines_LL


@jax.default_matmul_precision("highest")  # the TensorFloat-32 of GPUs would blur the angles
def gradvac(
  gradients: Tree, rho_LL: jax.Array, key: jax.Array, rate: float
) -> tuple[Tree, jax.Array, jax.Array]:
  """GradVac (Wang et al. 2020, arXiv 2010.05874, Algorithm 1), with theta as one component.

  Each g_i meets the original gradient g_j of every other language in a random order. Where their
  cosine r is below the target rho_ij, a multiple of g_j raises it to rho_ij:
    g_i += g_j |g_i| (rho sqrt(1 - r^2) - r sqrt(1 - rho^2)) / (|g_j| sqrt(1 - rho^2)).
  Then the target follows the cosine r: rho_ij = (1 - rate) rho_ij + rate r.

  Args:
    gradients: stacked tree, leaves [L, ...].
    rho_LL: target cosines, zero at the start of a run; the diagonal plays no part.
    key: draws the orders; must be the same on every device.
    rate: of the targets' moving average, 0..1.

  Returns:
    (sum of the changed g_i, leaves [...]; rho_LL of the next step; cosines of the original
    gradients without OWN_ROWS, [L, L]).
  """
  shared = {name: leaf for name, leaf in gradients.items() if name not in OWN_ROWS}
  own = {name: leaf for name, leaf in gradients.items() if name in OWN_ROWS}
  gram_LL = _inner_products(shared)
  norms_L = jnp.sqrt(jnp.diagonal(gram_LL))
  num_languages = len(norms_L)

  def visit_all(i: jax.Array, rho_L: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Language i's (weights of the original gradients, cosines with the others), both [L]."""

    def visit(weights_L: jax.Array, j: jax.Array) -> tuple[jax.Array, jax.Array]:
      rho = rho_L[j]
      norm = jnp.sqrt(jnp.maximum(weights_L @ gram_LL @ weights_L, 0.0))
      cosine = _cosine(weights_L @ gram_LL[:, j], norm, norms_L[j])
      # The bound keeps a target of 1 finite, which no finite weight reaches.
      sines = jnp.sqrt((1.0 - cosine**2) / jnp.maximum(1.0 - rho**2, jnp.finfo(rho.dtype).eps))
      weight = _ratio(norm, norms_L[j]) * (rho * sines - cosine)
      return weights_L.at[j].add(jnp.where(cosine < rho, weight, 0.0)), cosine

    others = (i + 1 + jax.random.permutation(key, num_languages - 1)) % num_languages
    alone_L = jnp.zeros_like(norms_L).at[i].set(1.0)
    weights_L, measured = jax.lax.scan(visit, alone_L, others)
    return weights_L, jnp.zeros_like(norms_L).at[others].set(measured)

  keys = jax.random.split(key, num_languages)
  weights_LL, measured_LL = jax.vmap(visit_all)(jnp.arange(num_languages), rho_LL, keys)
  weights_L = weights_LL.sum(axis=0)
  combined = jax.tree.map(lambda leaf: jnp.tensordot(weights_L, leaf, axes=1), shared)
  combined |= jax.tree.map(lambda leaf: leaf.sum(axis=0), own)
  rho_LL = (1.0 - rate) * rho_LL + rate * measured_LL
  return combined, rho_LL, _cosine(gram_LL, norms_L[:, None], norms_L[None, :])


def _inner_products(gradients: Tree) -> jax.Array:
  """Inner products of the languages' vectors, [L, L]."""
  rows = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)]
  return sum(row @ row.T for row in rows)


def _cosine(product: jax.Array, norm: jax.Array, other_norm: jax.Array) -> jax.Array:
  """Cosine in -1..1 despite rounding; 0 where a vector is zero and has no direction."""
  return jnp.clip(_ratio(product, norm * other_norm), -1.0, 1.0)


def _ratio(a: jax.Array, b: jax.Array) -> jax.Array:
  """The quotient a / b, and 0 where b is 0."""
  return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
