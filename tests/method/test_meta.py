"""The meta-gradient: four routes to one number, and what each of them cannot do.

`meta.py` sees losses only. What holds for any loss is tested with those of a small network, which
compiles in a tenth of the time; what depends on the model's smoothness or parameters, with the model.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import relative_difference, slow, toy_model

from negint.method import losses, masking, meta, optim
from negint.method.phi import init_theta_and_phi, merge_params, select_language
from negint.options import META_GRADIENTS, AdamOptions

ADAM = AdamOptions(b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.0, clip_norm=5.0)
LANGUAGE = 1  # of the training batch


def small_problem(*, num_languages=2, parts=1, dtype="float64"):
  """A meta problem of a network with one hidden layer and an adapter for each language."""
  rng = np.random.default_rng(0)

  def array(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  theta = {"inner": array(5, 8), "outer": array(8, 3)}
  phi = {"down": array(num_languages, 8, 2), "up": array(num_languages, 2, 8)}
  held_out = {"x": array(num_languages, 12, 5), "y": array(num_languages, 12, 3)}
  train = {"x": array(12, 5), "y": array(12, 3)}

  def loss(theta, phi_i, batch, part):
    rows = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:])[part], batch)
    hidden = jnp.tanh(rows["x"] @ theta["inner"])
    hidden += jnp.tanh(hidden @ phi_i["down"]) @ phi_i["up"]
    return jnp.sum((hidden @ theta["outer"] - rows["y"]) ** 2) / batch["y"].size

  problem = meta.MetaProblem(
    train_loss=lambda theta, phi_i, part: loss(theta, phi_i, train, part),
    held_out_loss=lambda theta, phi_k, k, part: loss(
      theta, phi_k, select_language(held_out, k), part
    ),
    language=jnp.asarray(LANGUAGE),
    num_languages=num_languages,
    held_out_languages=jnp.arange(num_languages),
    inner_rate=0.01,
    parts=parts,
  )
  return problem, theta, phi


def make_problem(model):
  """A meta problem of the model on random tokens, with adapters that are not near zero."""
  num_languages = model.num_languages
  theta, phi = jax.jit(init_theta_and_phi, static_argnums=0)(model, jax.random.key(0))
  rng = np.random.default_rng(9)
  phi = jax.tree.map(lambda x: x + 0.3 * rng.normal(size=x.shape).astype(x.dtype), phi)
  tokens = np.random.default_rng(0).integers(14, model.vocab_size, (num_languages + 1, 4, 24))
  tokens = tokens.astype(np.int32)

  @jax.jit
  def masked(key, tokens):
    return masking.mask_tokens(
      key, tokens, jnp.arange(4), num_predicted=8, vocab_size=model.vocab_size
    )

  *held_out, train = [masked(jax.random.key(number), each) for number, each in enumerate(tokens)]
  held_out = jax.tree.map(lambda *x: np.stack(x), *held_out)

  def loss(theta, phi_i, batch, i):
    total, _ = losses.mlm_loss(model, merge_params(theta, phi_i), batch, i)
    return total / batch.weights.sum()

  problem = meta.MetaProblem(
    train_loss=lambda theta, phi_i, part: loss(theta, phi_i, train, LANGUAGE),
    held_out_loss=lambda theta, phi_k, k, part: loss(
      theta, phi_k, jax.tree.map(lambda x: jnp.asarray(x)[k], held_out), k
    ),
    language=jnp.asarray(LANGUAGE),
    num_languages=num_languages,
    held_out_languages=jnp.arange(num_languages),
    inner_rate=0.3,
  )
  return problem, theta, phi


def run(route, problem, theta, phi, radius=0.01):
  return jax.jit(lambda theta, phi: meta.meta_gradient(route, problem, theta, phi, radius=radius))(
    theta, phi
  )


@pytest.mark.parametrize("specific", ["adapter", slow("ffn"), slow("attention")])
def test_exact_routes_agree_and_finite_differences_come_near(specific):
  problem, theta, phi = make_problem(toy_model(num_layers=1, specific=(specific,)))
  exact = run("grad_of_grad", problem, theta, phi)
  forward = run("forward_over_reverse", problem, theta, phi)
  assert relative_difference(forward.direct, exact.direct) < 1e-5
  assert relative_difference(forward.second_order, exact.second_order) < 1e-5
  near = run("finite_difference", problem, theta, phi)
  assert relative_difference(near.second_order, exact.second_order) < 5e-3
  assert relative_difference(near.total(), exact.total()) < 1e-3
  first = run("first_order", problem, theta, phi)
  assert relative_difference(first.direct, exact.direct) < 1e-5
  assert relative_difference(first.total(), exact.total()) > 0.05  # the term that is dropped counts


@pytest.mark.slow
def test_finite_differences_fail_with_relu():
  relu = toy_model(
    num_layers=1, specific=("adapter",), activation="relu", adapter_activation="relu"
  )
  problem, theta, phi = make_problem(relu)
  exact = run("grad_of_grad", problem, theta, phi)
  near = run("finite_difference", problem, theta, phi)
  assert relative_difference(near.second_order, exact.second_order) > 0.02
  forward = run("forward_over_reverse", problem, theta, phi)
  assert relative_difference(forward.second_order, exact.second_order) < 1e-5


def test_meta_gradient_is_the_derivative_of_the_meta_objective(float64):
  """Compares with differences of the objective of Eq. 3 itself, in float64."""
  problem, theta, phi = make_problem(
    toy_model(num_layers=1, specific=("adapter",), dtype="float64")
  )
  direction = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(3), x.shape[1:], x.dtype), phi
  )

  @jax.jit
  def objective(step):
    phi_i = jax.tree.map(lambda x, d: x[1] + step * d, phi, direction)
    gradient = jax.grad(problem.train_loss)(theta, phi_i, 0)
    ahead = jax.tree.map(lambda t, g: t - problem.inner_rate * g, theta, gradient)
    held = problem.held_out_loss(ahead, select_language(phi, 0), jnp.asarray(0), 0)
    return (held + problem.held_out_loss(ahead, phi_i, jnp.asarray(1), 0)) / 2

  slope = (objective(1e-5) - objective(-1e-5)) / 2e-5
  exact = run("grad_of_grad", problem, theta, phi).total()
  product = sum(
    jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(exact), jax.tree.leaves(direction), strict=True)
  )
  assert abs(slope - product) < 1e-8 * abs(slope)
  wrong = run("first_order", problem, theta, phi).total()
  product = sum(
    jnp.vdot(g, d) for g, d in zip(jax.tree.leaves(wrong), jax.tree.leaves(direction), strict=True)
  )
  assert abs(slope - product) > 1e-3 * abs(slope)


@pytest.mark.parametrize("route", META_GRADIENTS)
def test_a_batch_in_parts_gives_the_same_meta_gradient(route, float64):
  whole = run(route, *small_problem())
  tolerance = 1e-9 if route == "finite_difference" else 1e-12  # of a difference of gradients
  for parts in (2, 4):
    problem, theta, phi = small_problem(parts=parts)
    assert relative_difference(run(route, problem, theta, phi), whole) < tolerance
  forgetful = problem._replace(parts=3)  # negative control: the last part is left out
  assert relative_difference(run(route, forgetful, theta, phi), whole) > 1e-2


@pytest.mark.parametrize("route", META_GRADIENTS)
def test_two_devices_with_half_the_batch_give_the_same_meta_gradient(route, float64):
  whole = run(route, *small_problem())
  halves, theta, phi = small_problem(parts=2)

  def of_this_device(loss):
    return lambda *arguments: 2 * loss(*arguments[:-1], jax.lax.axis_index("device"))

  shared = halves._replace(
    train_loss=of_this_device(halves.train_loss),
    held_out_loss=of_this_device(halves.held_out_loss),
    reduce=lambda tree: jax.lax.pmean(tree, "device"),
    parts=1,
  )

  def on_devices(problem):
    gradient = lambda _: meta.meta_gradient(route, problem, theta, phi, radius=0.01)  # noqa: E731
    return jax.pmap(gradient, axis_name="device")(jnp.arange(2))

  found, alone = on_devices(shared), on_devices(shared._replace(reduce=halves.reduce))
  tolerance = 1e-9 if route == "finite_difference" else 1e-12  # of a difference of gradients
  for device in (0, 1):
    assert relative_difference(select_language(found, device), whole) < tolerance
    assert relative_difference(select_language(alone, device), whole) > 1e-2  # negative control


@pytest.mark.parametrize("route", ["grad_of_grad", "forward_over_reverse"])
@pytest.mark.parametrize("num_held_out", [2, 3])
def test_the_meta_gradients_of_all_draws_average_to_that_of_all_languages(
  route, num_held_out, float64
):
  problem, theta, phi = small_problem(num_languages=4, parts=2)
  others = (0, 2, 3)

  @jax.jit
  def gradients(languages):
    drawn = of_drawn(problem, languages)
    return (
      meta.meta_gradient(route, drawn, theta, phi, radius=0.0),
      meta.held_out_gradients(drawn, theta, phi),
    )

  full = gradients(jnp.arange(4))
  sampled = [
    gradients(jnp.asarray(sorted((LANGUAGE, *drawn))))
    for drawn in itertools.combinations(others, num_held_out - 1)
  ]
  mean = jax.tree.map(lambda *each: sum(each) / len(each), *sampled)
  (meta_mean, (v_mean, direct_mean)), (meta_full, (v_full, direct_full)) = mean, full
  for ours, theirs in [
    (meta_mean.direct, meta_full.direct),
    (meta_mean.second_order, meta_full.second_order),
    (meta_mean.total(), meta_full.total()),
    (v_mean, v_full),
    (direct_mean, direct_full),
  ]:
    assert relative_difference(ours, theirs) < 1e-12
  for alone, (v, _) in sampled:  # a draw is an estimate of v and has the direct term exactly
    assert relative_difference(alone.direct, meta_full.direct) < 1e-12
    assert relative_difference(v, v_full) > 1e-2


def of_drawn(problem, languages):
  """The problem with the held-out losses of some languages."""
  return problem._replace(
    held_out_languages=languages,
    held_out_loss=lambda theta, phi_j, k, part: problem.held_out_loss(
      theta, phi_j, languages[k], part
    ),
  )


@pytest.mark.parametrize("route", ["grad_of_grad", "forward_over_reverse", "finite_difference"])
def test_one_language_drawn_from_all_gives_an_unbiased_meta_gradient(route, float64):
  """Its direct term is zero where another language than i was drawn."""
  problem, theta, phi = small_problem(num_languages=4)
  gradients = jax.jit(
    lambda languages: meta.meta_gradient(
      route, of_drawn(problem, languages), theta, phi, radius=1e-4
    )
  )
  full = gradients(jnp.arange(4))
  sampled = [gradients(jnp.asarray([j])) for j in range(4)]
  mean = jax.tree.map(lambda *each: sum(each) / 4, *sampled)
  assert relative_difference(mean.direct, full.direct) < 1e-12
  tolerance = 1e-6 if route == "finite_difference" else 1e-12
  assert relative_difference(mean.second_order, full.second_order) < tolerance
  for j, alone in enumerate(sampled):
    assert relative_difference(alone.second_order, full.second_order) > 1e-2
    assert any(np.any(leaf) for leaf in jax.tree.leaves(alone.direct)) == (j == LANGUAGE)


def test_all_languages_count_alike_where_none_is_drawn(float64):
  """With all languages, v follows its definition, which knows no weights of drawn languages."""
  problem, theta, phi = small_problem(num_languages=3)

  @jax.jit
  def objective(theta, phi):
    return sum(problem.held_out_loss(theta, select_language(phi, j), j, 0) for j in range(3)) / 3

  v, direct = jax.jit(functools.partial(meta.held_out_gradients, problem))(theta, phi)
  expected_v, of_phi = jax.jit(jax.grad(objective, argnums=(0, 1)))(theta, phi)
  assert relative_difference(v, expected_v) < 1e-12
  assert relative_difference(direct, select_language(of_phi, 1)) < 1e-12


def test_adam_look_ahead_moves_by_the_rate_and_the_routes_agree():
  problem, theta, phi = small_problem(dtype="float32")
  slots, _ = optim.init_slots(ADAM, theta, phi)
  problem = problem._replace(scale=optim.adam_scale(ADAM, slots))
  exact = run("grad_of_grad", problem, theta, phi)
  ahead, _ = meta.look_ahead(problem, theta, exact.inner_gradient)
  moved = jax.tree.map(
    lambda a, t, g: jnp.abs(a - t)[jnp.abs(g) > 1e-5], ahead, theta, exact.inner_gradient
  )
  for leaf in jax.tree.leaves(moved):  # from empty slots, Adam's first step is rate * sign(g)
    np.testing.assert_allclose(leaf, 0.01, rtol=2e-2)
  forward = run("forward_over_reverse", problem, theta, phi)
  assert relative_difference(forward.second_order, exact.second_order) < 1e-4
  near = run("finite_difference", problem, theta, phi, radius=0.003)
  assert relative_difference(near.second_order, exact.second_order) < 0.05


def test_the_second_order_term_is_linear_in_the_inner_rate(float64):
  problem, theta, phi = small_problem()

  @jax.jit
  def gradient_at(inner_rate):
    return meta.grad_of_grad(problem._replace(inner_rate=inner_rate), theta, phi)

  one, two = gradient_at(1e-4), gradient_at(2e-4)
  doubled = jax.tree.map(lambda x: 2 * x, one.second_order)
  assert relative_difference(two.second_order, doubled) < 1e-2


def test_summary_reports_norms_and_cosine():
  tree = functools.partial(dict)
  gradient = meta.MetaGradient(
    tree(a=jnp.array([3.0, 4.0])), tree(a=jnp.array([-6.0, -8.0])), tree(a=jnp.array([2.0, 0.0]))
  )
  summary = gradient.summary()
  assert float(summary["meta/direct_norm"]) == pytest.approx(5.0)
  assert float(summary["meta/second_order_norm"]) == pytest.approx(10.0)
  assert float(summary["meta/second_order_share"]) == pytest.approx(2 / 3)
  assert float(summary["meta/direct_second_order_cosine"]) == pytest.approx(-1.0)
  assert float(summary["meta/inner_gradient_norm"]) == pytest.approx(2.0)
