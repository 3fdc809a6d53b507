"""A batch computed in parts: the update of the whole batch, in the memory of a part."""

import dataclasses
import functools
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import (
  all_held_out,
  batch_of,
  keeping,
  random_tokens,
  relative_difference,
  slow,
  step_on,
  toy_run,
)

from negint.method import parallel, steps
from negint.method.accumulation import summed
from negint.method.state import init_state

ONE_LAYER = dict(model__num_layers=1)  # compiles in half the time, and nothing here is about depth


@pytest.fixture(autouse=True)
def freed_programs_of_each_test():
  yield
  jax.clear_caches()
  gc.collect()


def test_a_sum_counts_every_part_once_and_one_part_takes_no_loop():
  squares = lambda number: {"a": jnp.asarray(number) ** 2, "b": jnp.full(3, number)}  # noqa: E731
  for count in (1, 2, 5):
    total = jax.jit(lambda count=count: summed(squares, count))()
    assert total["a"] == sum(n**2 for n in range(count))
    np.testing.assert_array_equal(total["b"], [sum(range(count))] * 3)
  assert "scan" not in str(jax.make_jaxpr(lambda: summed(squares, 1))())
  assert "scan" in str(jax.make_jaxpr(lambda: summed(squares, 2))())


@pytest.mark.parametrize(
  ("system", "gradient", "dtype"),
  [
    slow("adpt", "grad_of_grad", "float32"),
    slow("pcgrad", "grad_of_grad", "float32"),
    slow("meta_adpt", "grad_of_grad", "float64"),
    slow("meta_adpt", "finite_difference", "float32"),
  ],
)
def test_a_batch_in_parts_gives_the_update_of_the_whole(system, gradient, dtype):
  """Parts that predict unequal numbers of tokens, too; test_meta.py tests every route."""
  run = toy_run(
    system,
    **ONE_LAYER,
    model__dropout=0.0,
    train__schedule="constant",
    train__warmup_steps=0,
    meta__inner_learning_rate=0.3,
    meta__gradient=gradient,
  )
  run, surgery = keeping(run), run.surgery.enabled
  batch = batch_of(8, 24, 8 if run.meta.enabled else None, uneven=True, surgery=surgery)
  with jax.enable_x64(dtype == "float64"):
    run = dataclasses.replace(run, model=run.model.replace(dtype=dtype))
    state = init_state(run.model, run.optimiser, 0)
    whole, metrics = step_on(1, run)(state, batch, 1)
    for num_devices, parts in [(1, 4), (2, 2)]:
      split = dataclasses.replace(run, accumulate=parts)
      ours, ours_metrics = step_on(num_devices, split)(state, batch, 1)
      rounding = 1e-5 if dtype == "float32" else 1e-12
      assert relative_difference(ours.theta_slots.mu, whole.theta_slots.mu) < rounding
      np.testing.assert_allclose(ours_metrics["gradient_norm"], metrics["gradient_norm"], 1e-4)
      if whole.phi:
        noise = 100 if gradient == "finite_difference" else 1  # of a difference of gradients
        assert relative_difference(ours.phi_slots.mu, whole.phi_slots.mu) < noise * rounding


@pytest.mark.parametrize("system", [slow("adpt"), slow("meta_adpt"), slow("pcgrad")])
def test_a_batch_in_parts_takes_less_memory(system):
  run = toy_run(system, **ONE_LAYER, model__max_length=64, data__sequence_length=64)
  surgery = run.surgery.enabled
  batch = batch_of(64, 64, 64 if run.meta.enabled else None, surgery=surgery)

  def temporaries(parts):
    step = functools.partial(steps.step_of(run), dataclasses.replace(run, accumulate=parts))
    mapped = jax.pmap(
      step, axis_name=parallel.AXIS, in_axes=(None, 0, None, None, None), out_axes=None
    )
    state = jax.eval_shape(lambda: init_state(run.model, run.optimiser, 0))
    share = jax.tree.map(lambda x: x[None], batch)
    inputs = np.float32(0.1), np.int32(0), all_held_out(batch)
    compiled = mapped.lower(state, share, *inputs).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(4) < 0.4 * temporaries(1)  # measured: 0.23, 0.11 in a meta step


def test_the_parts_of_a_batch_have_dropout_noise_of_their_own(monkeypatch):
  monkeypatch.setattr(parallel, "mean", lambda tree: tree)
  tokens = jnp.asarray(random_tokens(1, 4, 24))
  half = steps.masking.mask_tokens(
    jax.random.key(0), tokens, jnp.arange(4), num_predicted=8, vocab_size=200
  )
  masked = jax.tree.map(lambda x: jnp.concatenate([x, x]), half)

  @functools.partial(jax.jit, static_argnums=0)
  def losses_of_the_halves(run, state):
    loss = steps.local_loss(run, masked, 0, jax.random.key(1))
    return [loss(state.theta, state.phi, part) for part in (0, 1)]

  for dropout in (0.0, 0.5):
    run = toy_run("joint_pair", **ONE_LAYER, model__dropout=dropout, train__accumulate=2)
    first, second = losses_of_the_halves(run, init_state(run.model, run.optimiser, 0))
    assert (first == second) == (dropout == 0)
