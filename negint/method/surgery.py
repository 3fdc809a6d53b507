"""Gradients of several languages combined into one: PCGrad and GradVac.

Pure functions of the gradients as a stacked tree, leaves [L, ...], every language's taken as one
vector g_i of all leaves; nothing here sees a model, a config or a device. Whatever the methods add
to a gradient is a multiple of another, so all they do is done on L weights each and on the inner
products [L, L]; the vectors themselves are read twice, at the beginning and at the end.
"""

import jax
import jax.numpy as jnp


def pcgrad(gradients, key):
  """PCGrad (Yu et al. 2020, arXiv 2001.06782, Algorithm 1): what conflicts is projected away.

  Each g_i meets the other, original g_j in a random order; where their inner product is negative,
  g_i -= (g_i . g_j) / |g_j|^2 g_j. This is GradVac with a target cosine of zero.

  Args:
    gradients: stacked tree, leaves [L, ...].
    key: draws the orders; must be the same on every device.

  Returns:
    (sum of the g_i, leaves [...]; cosines of the gradients as they came, [L, L]).
  """
  num_languages = len(jax.tree.leaves(gradients)[0])
  target_LL = jnp.zeros((num_languages, num_languages), jnp.float32)
  combined, _, cosines_LL = gradvac(gradients, target_LL, key, rate=0.0)
  return combined, cosines_LL


@jax.default_matmul_precision("highest")  # a GPU's TensorFloat-32 would blur the angles
def gradvac(gradients, rho_LL, key, rate):
  """GradVac (Wang et al. 2020, arXiv 2010.05874, Algorithm 1), all of theta as one component.

  Each g_i meets the other, original g_j in a random order. Where their cosine r is below the target
  rho_ij, as much of g_j is added to g_i as makes it rho_ij:
    g_i += g_j |g_i| (rho sqrt(1 - r^2) - r sqrt(1 - rho^2)) / (|g_j| sqrt(1 - rho^2)).
  Then the target follows what was measured: rho_ij = (1 - rate) rho_ij + rate r.

  Args:
    gradients: stacked tree, leaves [L, ...].
    rho_LL: target cosines, zero at the start of a run; the diagonal plays no part.
    key: draws the orders; must be the same on every device.

  Returns:
    (sum of the g_i, leaves [...]; rho_LL of the next step; cosines of the gradients as they came,
    [L, L]).
  """
  gram_LL = _inner_products(gradients)
  norms_L = jnp.sqrt(jnp.diagonal(gram_LL))
  num_languages = len(norms_L)

  def visit_all(i, rho_L, key):
    """Language i's (weights of the original gradients, cosines that it measured), both [L]."""

    def visit(weights_L, j):
      rho = rho_L[j]
      norm = jnp.sqrt(jnp.maximum(weights_L @ gram_LL @ weights_L, 0.0))
      cosine = _cosine(weights_L @ gram_LL[:, j], norm, norms_L[j])
      # No finite weight makes a cosine exactly 1.
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
  combined = jax.tree.map(lambda leaf: jnp.tensordot(weights_L, leaf, axes=1), gradients)
  rho_LL = (1.0 - rate) * rho_LL + rate * measured_LL
  return combined, rho_LL, _cosine(gram_LL, norms_L[:, None], norms_L[None, :])


def _inner_products(gradients):
  """[L, L], of the vectors of all leaves."""
  rows = [leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(gradients)]
  return sum(row @ row.T for row in rows)


def _cosine(product, norm, other_norm):
  """In -1..1 despite rounding; 0 where a vector is zero, which has no direction."""
  return jnp.clip(_ratio(product, norm * other_norm), -1.0, 1.0)


def _ratio(a, b):
  """a / b, and 0 where b is 0."""
  return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
