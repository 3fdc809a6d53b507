"""Loss scaling: it changes no derivative, skips a step that overflows, and keeps small gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_meta
from toy import (
  assert_same_bits,
  batch_of,
  random_tokens,
  relative_difference,
  slow,
  step_on,
  toy_model,
  toy_run,
)

from negint.method import loss_scale, parallel, steps
from negint.method.loss_scale import LossScale
from negint.method.state import ScaledReleaseState, ScaledState, init_state
from negint.options import META_GRADIENTS

FIELDS = dict(
  model__num_layers=1,
  model__dropout=0.0,
  train__schedule="constant",
  train__warmup_steps=0,
  meta__inner_learning_rate=0.3,
  surgery__ema_rate=0.5,
)


def at_scale(scale):
  return LossScale(jnp.float32(scale), jnp.int32(0), jnp.int32(0))


def scaled_state(run, scale):
  """The first state of a run, with a loss scale whatever its dtype is."""
  state = init_state(run.model, run.optimiser, 0, meta_slots=run.meta.own_slots)
  fields = {**vars(state), "loss_scale": at_scale(scale)}
  return (ScaledReleaseState if run.meta.own_slots else ScaledState)(**fields)


def batch_for(run):
  batch = batch_of(4, 24, 4 if run.meta.enabled else None, surgery=run.surgery.enabled)
  if run.meta.own_slots:
    batch["inner"] = random_tokens(4, 4, 24)
  if run.freeze_theta and run.meta.enabled:
    batch["held_out"] = batch["held_out"][:, 1:]
  return batch


def moments(state):
  """Every gradient of a step, as Adam's first moments."""
  slots = [state.theta_slots.mu]
  if state.phi:
    slots.append(state.phi_slots.mu)
  return [*slots, state.meta_slots.mu] if hasattr(state, "meta_slots") else slots


@pytest.mark.parametrize("route", META_GRADIENTS)
def test_a_scale_changes_no_meta_gradient(route):
  problem, theta, phi = test_meta.small_problem(dtype="float32", parts=2)
  plain = test_meta.run(route, problem, theta, phi)
  for scale in (2.0**10, 2.0**15):
    found = test_meta.run(route, problem._replace(loss_scale=jnp.float32(scale)), theta, phi)
    assert relative_difference(found, plain) < 1e-5
    if route in ("grad_of_grad", "forward_over_reverse"):
      assert relative_difference(found.second_order, plain.second_order) < 1e-5


SYSTEMS = [
  ("joint_pair", {}),
  slow("adpt", dict(train__phi_split="meta")),
  slow("gradvac", {}),
  slow("pcgrad", {}),
  slow("adpt", dict(train__freeze_theta=True)),
  slow("meta_adpt", dict(train__freeze_theta=True)),
  slow("meta_adpt", dict(meta__variant="release")),
  slow("meta_adpt", dict(meta__inner_optimiser="adam", meta__inner_learning_rate=0.003)),
  *(slow("meta_adpt", dict(meta__gradient=route)) for route in META_GRADIENTS),
]


@pytest.mark.parametrize(("system", "fields"), SYSTEMS)
def test_a_scale_changes_no_step_in_float32(system, fields):
  run = toy_run(system, **{**FIELDS, **fields})
  batch, step = batch_for(run), step_on(1, run)
  if run.freeze_theta or run.phi_split == "meta":
    batch |= {"held_out": random_tokens(2, 4, 1, 24)} if run.held_out_languages else {}
    step = functools.partial(
      step, held_out_languages=np.int32([1]) if run.held_out_languages else None
    )
  start = init_state(run.model, run.optimiser, 0, meta_slots=run.meta.own_slots)
  plain, metrics = step(start, batch, 1)
  for scale in (2.0**10, 2.0**15):
    found, theirs = step(scaled_state(run, scale), batch, 1)
    difference = "finite_difference" in fields.values()  # of two gradients, which differ by little
    assert relative_difference(moments(found), moments(plain)) < (1e-3 if difference else 1e-5)
    for name, value in metrics.items():
      tolerance = 2e-2 if difference and "second" in name else 1e-4
      np.testing.assert_allclose(theirs[name], value, rtol=tolerance, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("adpt", {}),
    slow("gradvac", {}),
    slow("meta_adpt", {}),
    slow("meta_adpt", dict(meta__variant="release")),
    slow("meta_adpt", dict(meta__gradient="forward_over_reverse")),
    slow("meta_adpt", dict(meta__gradient="finite_difference")),
  ],
)
def test_a_step_that_overflows_is_skipped_until_its_scale_is_low_enough(system, fields):
  run = toy_run(system, **{**FIELDS, **fields}, model__dtype="float16")
  batch, step = batch_for(run), step_on(2, run)
  state, scale, skipped = scaled_state(run, 2.0**30), 2.0**30, 0
  while True:
    after, metrics = step(state, batch, 1)
    assert int(after.step) == int(state.step) + 1
    if not metrics["skipped_share"]:
      break
    skipped, scale = skipped + 1, scale / 2
    assert after.loss_scale.scale == metrics["loss_scale"] == scale
    assert int(after.loss_scale.skipped) == skipped and after.loss_scale.finite_steps == 0
    kept = state.replace(step=after.step, loss_scale=after.loss_scale)
    assert_same_bits(after, kept)
    state = after
  assert 0 < skipped < 25
  assert after.loss_scale.scale == scale and after.loss_scale.finite_steps == 1
  assert all(np.isfinite(value) for value in metrics.values())
  for moved, start in zip(moments(after), moments(state), strict=True):
    assert relative_difference(moved, start) > 1
  exact = toy_run(system, **{**FIELDS, **fields})
  plain = init_state(exact.model, exact.optimiser, 0, meta_slots=exact.meta.own_slots)
  expected, _ = step_on(2, exact)(plain.replace(step=state.step), batch, 1)
  for ours, theirs in zip(moments(after), moments(expected), strict=True):
    assert relative_difference(ours, theirs) < 0.01


def test_all_devices_skip_where_one_overflows(monkeypatch):
  run = toy_run("adpt", 2, **FIELDS, model__dtype="float16")
  local_loss = steps.local_loss

  def infinite_on_the_second_device(*arguments):
    loss = local_loss(*arguments)
    own = jnp.where(jax.lax.axis_index(parallel.AXIS) == 1, jnp.inf, 1.0)
    return lambda *at: loss(*at) * own

  monkeypatch.setattr(steps, "local_loss", infinite_on_the_second_device)
  step = jax.pmap(
    functools.partial(steps.step_of(run), run),
    axis_name=parallel.AXIS,
    in_axes=(None, 0, None, None),
    out_axes=0,
  )
  state = scaled_state(run, 4.0)
  after, metrics = step(state, parallel.split(batch_for(run)), np.float32(0.1), np.int32(1))
  np.testing.assert_array_equal(metrics["skipped_share"], [1, 1])
  for device in (0, 1):
    own = jax.tree.map(lambda leaf, device=device: leaf[device], after)
    assert_same_bits(
      (own.theta, own.phi, own.theta_slots), (state.theta, state.phi, state.theta_slots)
    )
    assert own.loss_scale.scale == 2.0


def test_the_scale_doubles_after_a_stretch_of_finite_steps_and_halves_at_once():
  after = jax.jit(lambda state, finite: state.after(finite))
  state = at_scale(8.0)
  for _ in range(loss_scale.GROWTH_STEPS - 1):
    state = after(state, True)
  assert state.scale == 8.0 and after(state, True).scale == 16.0
  assert after(after(state, True), True).finite_steps == 1, "counts anew"
  halved = after(state, False)
  assert (halved.scale, halved.finite_steps, halved.skipped) == (4.0, 0, 1)
  assert after(halved, True).scale == 4.0
  at_most = at_scale(loss_scale.LARGEST).replace(finite_steps=jnp.int32(10**6))
  assert after(at_most, True).scale == loss_scale.LARGEST
  lowest = after(at_scale(2.0), False)
  assert lowest.scale == loss_scale.FLOOR, "legal"
  assert after(lowest, False).scale < loss_scale.FLOOR
  assert after(after(lowest, False), False).scale > 0


def test_without_a_scale_float16_loses_small_gradients():
  """Negative control: a gradient of 1e-8, and a tangent that is as small as a learning rate."""
  x = jnp.linspace(0.1, 1.0, 8)

  def loss(w):
    hidden = jnp.tanh(x.astype(jnp.float16) @ w.astype(jnp.float16))
    return 1e-8 * jnp.sum(hidden.astype(jnp.float32))

  w = jnp.full((8, 3), 0.1)
  exact = 1e-8 * jnp.outer(x, 1 - jnp.tanh(x @ w) ** 2)
  assert not np.any(jax.grad(loss)(w))
  assert relative_difference(loss_scale.grad(loss, 0, jnp.float32(2.0**20))(w), exact) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("route", ["grad_of_grad", "forward_over_reverse"])
def test_without_a_scale_float16_loses_the_second_order_term(route):
  model = toy_model(num_layers=1, specific=("adapter",))
  (exact, theta, phi), (half, _, _) = (
    test_meta.make_problem(model.replace(dtype=dtype)) for dtype in ("float32", "float16")
  )
  rate = 1e-6  # as in warm-up
  expected = test_meta.run(route, exact._replace(inner_rate=rate), theta, phi).second_order
  half = half._replace(inner_rate=rate)
  lost = test_meta.run(route, half, theta, phi).second_order
  assert relative_difference(lost, expected) > 0.5
  for scale in (1.0, 2.0**10, 2.0**15):
    problem = half._replace(loss_scale=jnp.float32(scale))
    found = test_meta.run(route, problem, theta, phi).second_order
    assert relative_difference(found, expected) < 0.01


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_dtypes_have_no_trace_of_a_scale(dtype):
  """Their states have no field for it, so that older checkpoints are read, and gradients are JAX's."""
  run = toy_run("adpt", **FIELDS, model__dtype=dtype)
  state = init_state(run.model, run.optimiser, 0)
  assert not hasattr(state, "loss_scale") and loss_scale.scale_of(state) is None
  assert steps.step_of(run) is steps.joint_step
  square = lambda w: jnp.sum(w**2)  # noqa: E731
  program = lambda derivative: str(jax.make_jaxpr(derivative)(jnp.ones(3)))  # noqa: E731
  assert program(loss_scale.grad(square, 0, None)) == program(jax.grad(square))
  assert program(loss_scale.grad(square, 0, jnp.float32(2))) != program(jax.grad(square))
