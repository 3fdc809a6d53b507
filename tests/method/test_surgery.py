"""PCGrad and GradVac agree with values worked by hand and with loops written as in the papers."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from negint.method import surgery


def stacked(vectors):
  """Vectors [L, n] as gradients of two leaves of different shapes: [L, 1] and [L, n - 1, 1]."""
  vectors = jnp.asarray(vectors, jnp.float32)
  return {"bias": vectors[:, :1], "norm": {"kernel": vectors[:, 1:, None]}}


def flat(tree):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def square(target, size=2):
  return jnp.full((size, size), target, jnp.float32)


def cosine(a, b):
  return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def by_the_papers_lines(vectors, orders, rho=None, rate=0.0):
  """The pair (sum, rho of the next step); PCGrad without rho. orders: of the others, for each i."""
  total, after = np.zeros_like(vectors[0]), None if rho is None else rho.copy()
  for i, order in enumerate(orders):
    g = vectors[i].copy()
    for j in order:
      other = vectors[j]
      if rho is None:
        if g @ other < 0:
          g -= g @ other / (other @ other) * other
        continue
      r, t = cosine(g, other), rho[i, j]
      if r < t:
        up = np.linalg.norm(g) * (t * np.sqrt(1 - r**2) - r * np.sqrt(1 - t**2))
        g += other * up / (np.linalg.norm(other) * np.sqrt(1 - t**2))
      after[i, j] = (1 - rate) * t + rate * r
    total += g
  return total, after


PAIRS = {
  "conflicting": ([[1, 0], [-1, 1]], [0.5, 1.5]),  # (0.5, 0.5) and (0, 1)
  "opposite": ([[2, 0], [-1, 0]], [0, 0]),
  "orthogonal": ([[1, 0], [0, 2]], [1, 2]),
  "not conflicting": ([[1, 0], [1, 1]], [2, 1]),
  "in one leaf only": ([[1, 2], [-1, 3]], [0, 5]),
  "one is zero": ([[0, 0], [3, 1]], [3, 1]),
  "both are zero": ([[0, 0], [0, 0]], [0, 0]),
}


@pytest.mark.parametrize("case", PAIRS)
def test_pcgrad_of_two_by_hand(case):
  vectors, expected = PAIRS[case]
  combined, cosines = surgery.pcgrad(stacked(vectors), jax.random.key(0))
  np.testing.assert_allclose(flat(combined), expected, atol=1e-6)
  a, b = np.asarray(vectors, float)
  r = cosine(a, b) if a.any() and b.any() else 0.0
  np.testing.assert_allclose([cosines[0, 1], cosines[1, 0]], [r, r], atol=1e-6)


@pytest.mark.parametrize("case", PAIRS)
def test_gradvac_with_a_target_of_zero_is_pcgrad(case):
  vectors, expected = PAIRS[case]
  combined, rho, cosines = surgery.gradvac(stacked(vectors), square(0.0), jax.random.key(0), 0.01)
  np.testing.assert_allclose(flat(combined), expected, atol=1e-6)
  np.testing.assert_allclose(rho[0, 1], 0.01 * cosines[0, 1], atol=1e-7)


@pytest.mark.parametrize(
  ("vectors", "rho", "expected", "rho_after"),
  [
    # (1, 0.75) and (0.75, 1): 0.75 / 1.25 = 0.6; the average moves after its use.
    ([[1, 0], [0, 1]], [[0, 0.6], [0.6, 0]], [1.75, 1.75], [0.594, 0.594]),
    ([[1, 0], [0, 1]], [[0, 0.6], [0, 0]], [1, 1.75], [0.594, 0.0]),
    # Opposite, and so nothing is left to turn.
    ([[-2, 0], [1, 0]], [[0, 0.6], [-1, 0]], [1, 0], [0.584, -1.0]),
    # 3/5 is above the target, as -3/5 is in the last row.
    ([[1, 0], [3, 4]], [[0, 0.5], [0.5, 0]], [4, 4], [0.501, 0.501]),
    ([[0, 0], [3, 1]], [[0, 0.6], [0.6, 0]], [3, 1], [0.594, 0.594]),
    ([[1, 0], [-3, 4]], [[0, -0.7], [-0.7, 0]], [-2, 4], [-0.699, -0.699]),
  ],
)
def test_gradvac_of_two_by_hand(vectors, rho, expected, rho_after):
  combined, rho, _ = surgery.gradvac(stacked(vectors), jnp.array(rho), jax.random.key(0), 0.01)
  np.testing.assert_allclose(flat(combined), expected, atol=1e-5)
  np.testing.assert_allclose([rho[0, 1], rho[1, 0]], rho_after, atol=1e-6)
  np.testing.assert_array_equal(np.diagonal(rho), 0)


def test_gradvac_turns_a_gradient_to_the_target_and_no_other():
  """Turns the first of two gradients; a target of -1 leaves the second unchanged."""
  rng, turned = np.random.default_rng(0), 0
  vaccinate = jax.jit(surgery.gradvac)
  for _ in range(40):
    a, b = rng.normal(size=(2, 5)) * rng.uniform(0.1, 10, size=(2, 1))
    target = rng.uniform(-0.9, 0.9)
    rho = jnp.array([[0.0, target], [-1.0, 0.0]])
    combined, _, _ = vaccinate(stacked([a, b]), rho, jax.random.key(0), 0.01)
    found = flat(combined) - b
    if cosine(a, b) < target:
      turned += 1
      assert cosine(found, b) == pytest.approx(target, abs=1e-4)
      along = found - a  # only a multiple of b was added
      np.testing.assert_allclose(along - along @ b / (b @ b) * b, 0, atol=1e-4)
    else:
      np.testing.assert_allclose(found, a, atol=1e-5)
  assert 10 < turned < 30


THREE = np.array([[1.0, 0.2, -0.4], [-0.8, 1.0, 0.1], [-0.3, -0.9, 1.0]])  # all in conflict
ORDERS = list(itertools.product(*(((1, 2), (2, 1)), ((0, 2), (2, 0)), ((0, 1), (1, 0)))))
KEYS = 100


def orders_of(found, expected):
  """The number of the expected row that each found row equals."""
  distances = np.abs(found[:, None] - expected[None]).max(axis=-1)
  assert np.all(distances.min(axis=1) < 1e-5)
  gaps = np.abs(expected[:, None] - expected[None]).max(axis=-1) + np.eye(len(expected))
  assert gaps.min() > 1e-3  # no two orders give the same
  return distances.argmin(axis=1)


def test_pcgrad_of_three_meets_the_others_in_a_random_order():
  expected = np.stack([by_the_papers_lines(THREE, orders)[0] for orders in ORDERS])
  keys = jax.random.split(jax.random.key(0), KEYS)
  combined, _ = jax.vmap(functools.partial(surgery.pcgrad, stacked(THREE)))(keys)
  found = np.concatenate([np.reshape(leaf, (KEYS, -1)) for leaf in jax.tree.leaves(combined)], 1)
  assert set(orders_of(found, expected)) == set(range(8))  # each language's both orders


def test_gradvac_of_three_measures_what_it_turned():
  """The target follows the cosine of the gradient as changed so far, which also decides the turn."""
  rho, rate = np.array([[0.0, 0.5, -0.2], [0.3, 0.0, 0.1], [-0.1, 0.7, 0.0]]), 0.25
  expected = []
  for orders in ORDERS:
    total, after = by_the_papers_lines(THREE, orders, rho, rate)
    expected.append(np.concatenate([total, after.ravel()]))

  def one(key):
    combined, after, _ = surgery.gradvac(stacked(THREE), jnp.float32(rho), key, rate)
    leaves = [*jax.tree.leaves(combined), after]
    return jnp.concatenate([leaf.ravel() for leaf in leaves])

  found = jax.vmap(one)(jax.random.split(jax.random.key(1), KEYS))
  assert set(orders_of(np.asarray(found), np.stack(expected))) == set(range(8))


def test_a_target_of_one_is_finite():
  combined, rho, _ = surgery.gradvac(
    stacked([[1, 0], [0, 1]]), square(1.0), jax.random.key(0), 0.01
  )
  assert np.all(np.isfinite(flat(combined))) and np.all(np.isfinite(rho))


def test_the_rows_of_the_language_embedding_take_their_plain_gradients():
  """Row i has a gradient from language i alone: no angle and no projection includes these rows."""
  shared = [[1, 0], [-1, 1]]  # in conflict: (0.5, 0.5) and (0, 1) after the projections
  rows = jnp.zeros((2, 2, 3)).at[0, 0].set(30.0).at[1, 1].set(-40.0)  # [L, row, D]
  combined, cosines = surgery.pcgrad(stacked(shared) | {"language": rows}, jax.random.key(0))
  np.testing.assert_array_equal(combined.pop("language"), [[30.0] * 3, [-40.0] * 3])
  np.testing.assert_allclose(flat(combined), [0.5, 1.5], atol=1e-6)
  np.testing.assert_allclose(cosines[0, 1], -(2**-0.5), atol=1e-6)

  gradients = stacked([[1, 0], [0, 1]]) | {"language": rows}
  combined, rho, cosines = surgery.gradvac(gradients, square(0.6), jax.random.key(0), 0.01)
  np.testing.assert_array_equal(combined.pop("language"), [[30.0] * 3, [-40.0] * 3])
  np.testing.assert_allclose(flat(combined), [1.75, 1.75], atol=1e-5)
  np.testing.assert_allclose([rho[0, 1], cosines[0, 1]], [0.594, 0.0], atol=1e-6)
