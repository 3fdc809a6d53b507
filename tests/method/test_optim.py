"""Learning rates at the corners of each schedule, clipping, and Adam compared with optax."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy import assert_same_bits, relative_difference

from negint.method import optim
from negint.options import SCHEDULES, AdamOptions, ScheduleOptions

OPTIONS = AdamOptions(b1=0.9, b2=0.98, eps=1e-8, weight_decay=0.0, clip_norm=5.0)
SCHEDULE = ScheduleOptions(steps=100, learning_rate=1e-2, warmup_steps=10, kind="inverse_sqrt")


def changed(**fields):
  return dataclasses.replace(OPTIONS, **fields)


def scheduled(**fields):
  return dataclasses.replace(SCHEDULE, **fields)


def tree_of(seed, scale=1.0):
  """A kernel, a LayerNorm scale and a bias."""
  rng = np.random.default_rng(seed)
  shapes = {"kernel": (3, 4), "norm": {"scale": (4,), "bias": (4,)}}
  return jax.tree.map(
    lambda shape: jnp.asarray(scale * rng.normal(size=shape), jnp.float32),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )


@pytest.mark.parametrize(
  ("schedule", "corners"),
  [
    ("inverse_sqrt", {0: 1e-7, 5: 5e-3, 10: 1e-2, 40: 5e-3, 1000: 1e-3}),
    ("linear", {0: 1e-7, 5: 5e-3, 10: 1e-2, 55: 5e-3, 99: 1e-2 / 90, 100: 0.0}),
    ("constant", {0: 1e-7, 5: 5e-3, 10: 1e-2, 99: 1e-2}),
  ],
)
def test_learning_rates_at_the_corners(schedule, corners):
  rate = functools.partial(optim.learning_rate, scheduled(kind=schedule))
  for step, expected in corners.items():
    np.testing.assert_allclose(rate(step), expected, rtol=1e-4, atol=1e-9)
  rates = [rate(step) for step in range(101)]
  assert np.all(np.diff(rates[:11]) > 0) and np.all(np.diff(rates[10:]) <= 0)


def rate_on_the_device(options, step):
  """The same formula in float32 inside a compiled program."""
  step = jnp.asarray(step, jnp.float32)
  peak, warmup = options.learning_rate, max(options.warmup_steps, 1)
  after = {
    "inverse_sqrt": peak * jnp.sqrt(warmup / jnp.maximum(step, warmup)),
    "linear": peak * (options.steps - step) / max(options.steps - warmup, 1),
    "constant": jnp.full_like(step, peak),
  }[options.kind]
  return jnp.where(step < options.warmup_steps, 1e-7 + (peak - 1e-7) * step / warmup, after)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
  ("peak", "warmup", "steps"), [(4e-3, 100, 3750), (1e-4, 4000, 500_000), (2e-3, 0, 30)]
)
def test_the_hosts_rates_are_those_of_float32_on_a_device(schedule, peak, warmup, steps):
  options = ScheduleOptions(steps, peak, warmup, schedule)
  on_device = jax.jit(functools.partial(rate_on_the_device, options))
  middle = (warmup + steps) // 2
  numbers = {0, 1, warmup // 2, max(warmup - 1, 0), warmup, warmup + 1, middle, steps - 1}
  for step in sorted(numbers | {steps, steps + 1, 2 * steps}):
    rate, expected = optim.learning_rate(options, step), on_device(step)
    assert rate.dtype == np.float32
    np.testing.assert_array_max_ulp(rate, np.asarray(expected), maxulp=2)


def test_the_xnli15_recipe_of_xlm():
  rate = functools.partial(optim.learning_rate, scheduled(learning_rate=1e-4, warmup_steps=4000))
  np.testing.assert_allclose(rate(0), 1e-7, rtol=1e-5)
  np.testing.assert_allclose(rate(4000), 1e-4, rtol=1e-5)
  np.testing.assert_allclose(rate(16_000), 5e-5, rtol=1e-5)


def test_one_update_is_adams():
  params, gradient = tree_of(0), tree_of(1)

  @jax.jit
  def both(params, gradient):
    slots, _ = optim.init_slots(OPTIONS, params, {})
    theirs = optax.adam(3e-3, b1=0.9, b2=0.98, eps=1e-8)
    updates, _ = theirs.update(gradient, theirs.init(params), params)
    ours, slots = optim.update(OPTIONS, 3e-3, params, slots, gradient)
    return ours, slots, optax.apply_updates(params, updates)

  ours, slots, theirs = both(params, gradient)
  assert relative_difference(ours, theirs) < 1e-7
  assert slots.count == 1
  assert relative_difference(slots.mu, jax.tree.map(lambda g: 0.1 * g, gradient)) < 1e-6
  step = jax.tree.map(lambda a, b: a - b, params, ours)
  np.testing.assert_allclose(step["kernel"], 3e-3 * np.sign(gradient["kernel"]), rtol=1e-3)


def test_the_first_update_of_a_run_is_tiny():
  @jax.jit
  def first(params, gradient):
    slots, _ = optim.init_slots(OPTIONS, params, {})
    return optim.update(OPTIONS, optim.learning_rate(SCHEDULE, 0), params, slots, gradient)[0]

  zeros = jax.tree.map(jnp.zeros_like, tree_of(0))
  moved = first(zeros, tree_of(1))
  np.testing.assert_allclose(np.abs(moved["kernel"]), 1e-7, rtol=1e-3)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_a_clipped_tree_has_at_most_the_norm_and_keeps_its_direction(factor):
  tree = tree_of(0, factor)
  clip = jax.jit(functools.partial(optim.clip, max_norm=0.5))
  clipped, norm = clip(tree)
  before = np.sqrt(sum(np.sum(np.square(x, dtype=np.float64)) for x in jax.tree.leaves(tree)))
  np.testing.assert_allclose(norm, before, rtol=1e-5)
  after = float(clip(clipped)[1])
  np.testing.assert_allclose(after, min(before, 0.5), rtol=1e-5)
  assert relative_difference(jax.tree.map(lambda x: x * (before / after), clipped), tree) < 1e-5
  assert relative_difference(clip(clipped)[0], clipped) < 1e-6
  if before < 0.5:
    assert_same_bits(clipped, tree)


def test_clipping_a_zero_gradient_gives_zeros():
  clipped, norm = optim.clip(jax.tree.map(jnp.zeros_like, tree_of(0)), 0.5)
  assert norm == 0.0 and not any(np.any(x) for x in jax.tree.leaves(clipped))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_weight_decay_moves_every_parameter(decay):
  options = changed(weight_decay=decay)

  @jax.jit
  def update(params):
    slots, _ = optim.init_slots(options, params, {})
    zeros = jax.tree.map(jnp.zeros_like, params)
    return optim.update(options, 0.5, params, slots, zeros)[0]

  params = tree_of(0)
  expected = jax.tree.map(lambda p: p * (1 - 0.5 * decay), params)
  assert relative_difference(update(params), expected) < 1e-6
  if not decay:
    assert_same_bits(update(params), params)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_look_aheads_scale_is_adams_and_zero_where_no_gradient_ever_was(decay):
  options = changed(b1=0.0, weight_decay=decay)

  @jax.jit
  def run(params, gradients):
    slots, _ = optim.init_slots(options, params, {})
    for gradient in gradients:
      before = slots
      params, slots = optim.update(options, 1e-2, params, slots, gradient)
    scale = optim.adam_scale(options, before)(gradients[-1])
    plain = changed(b1=0.0)
    adam_slots = slots if not decay else slots[0]
    direction = jax.tree.map(
      lambda g, nu: g / (jnp.sqrt(nu / (1 - 0.98**adam_slots.count)) + plain.eps),
      gradients[-1],
      adam_slots.nu,
    )
    return scale, direction

  gradients = [tree_of(seed) for seed in range(3)]
  for gradient in gradients:
    gradient["kernel"] = gradient["kernel"].at[0].set(0.0)
  gradients[-1]["kernel"] = gradients[-1]["kernel"].at[1].set(0.0)
  scale, direction = run(tree_of(9), gradients)
  assert relative_difference(jax.tree.map(jnp.multiply, scale, gradients[-1]), direction) < 1e-5
  assert not np.any(scale["kernel"][0])
  assert np.all(scale["kernel"][1] > 0) and np.all(scale["norm"]["bias"] > 0)


def test_the_look_aheads_scale_is_a_constant_to_derivatives():
  slots, _ = optim.init_slots(OPTIONS, tree_of(0), {})
  scale = optim.adam_scale(OPTIONS, slots)
  gradient = jax.jit(jax.grad(lambda g: jnp.sum(scale(g)["kernel"])))(tree_of(1))
  assert not any(np.any(x) for x in jax.tree.leaves(gradient))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_phis_slots_have_a_row_and_a_count_per_language(decay):
  options = changed(weight_decay=decay)
  phi = jax.tree.map(lambda x: jnp.stack([x, x, x]), tree_of(0))
  theta_slots, phi_slots = optim.init_slots(options, tree_of(0), phi)
  assert {leaf.shape[0] for leaf in jax.tree.leaves(phi_slots)} == {3}
  assert jax.tree.structure(theta_slots) == jax.tree.structure(phi_slots)
  for one, stacked in zip(jax.tree.leaves(theta_slots), jax.tree.leaves(phi_slots), strict=True):
    assert stacked.shape == (3, *one.shape)
  assert optim.init_slots(options, tree_of(0), {})[1] == {}
