"""Training steps: equal on one and two devices, and which parameters they move."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from toy import (
  all_held_out,
  assert_same_bits,
  batch_of,
  counted_compilations,
  keeping,
  random_tokens,
  relative_difference,
  slow,
  step_on,
  toy_run,
)

from negint.method import memory, parallel, steps
from negint.method.phi import merge_params, select_language
from negint.method.state import init_state, state_of
from negint.options import META_GRADIENTS

RATE = np.float32(0.05)
ONE_LAYER = dict(model__num_layers=1)  # compiles in half the time, and nothing here is about depth


def with_inner(batch):
  """The batch with a second training batch, of other tokens."""
  return {**batch, "inner": random_tokens(4, *batch["tokens"].shape)}


@pytest.mark.parametrize(
  ("system", "gradient", "variant"),
  [
    ("joint_pair", "grad_of_grad", "paper"),
    slow("adpt", "grad_of_grad", "paper"),
    slow("meta_adpt", "grad_of_grad", "paper"),
    ("meta_adpt", "forward_over_reverse", "paper"),
    slow("meta_adpt", "forward_over_reverse", "release"),
    slow("meta_adpt", "finite_difference", "paper"),
    slow("pcgrad", "none", "paper"),
    slow("gradvac", "none", "paper"),
  ],
)
def test_two_devices_with_half_the_batch_equal_one(system, gradient, variant):
  run = toy_run(
    system,
    **ONE_LAYER,
    model__dropout=0.0,
    meta__gradient=gradient,
    meta__variant=variant,
    meta__inner_learning_rate=0.3,
    surgery__ema_rate=0.5,
    train__schedule="constant",
    train__warmup_steps=0,
  )
  run = keeping(run)
  state = init_state(run.model, run.optimiser, 0, meta_slots=run.meta.own_slots)
  surgery = run.surgery.enabled
  batch = batch_of(8, 24, 4 if run.meta.enabled else None, uneven=True, surgery=surgery)
  if variant == "release":
    batch = with_inner(batch)
  one, metrics = step_on(1, run)(state, batch, 1)
  two, metrics_of_two = step_on(2, run)(state, batch, 1)
  for name, value in metrics.items():
    tolerance = 5e-3 if "finite" in gradient and "second" in name else 1e-4
    np.testing.assert_allclose(metrics_of_two[name], value, rtol=tolerance, atol=1e-6, err_msg=name)
  # Gradients, as Adam's first moments: 0.1 of each.
  assert relative_difference(two.theta_slots.mu, one.theta_slots.mu) < 1e-5
  if one.phi:
    assert relative_difference(two.phi_slots.mu, one.phi_slots.mu) < 1e-4
  if variant == "release":
    assert relative_difference(two.meta_slots.mu, one.meta_slots.mu) < 1e-4
  if system == "gradvac":
    np.testing.assert_allclose(two.rho_LL, one.rho_LL, rtol=1e-4, atol=1e-6)
    assert np.any(one.rho_LL)


def test_a_mean_of_device_means_would_be_seen(monkeypatch):
  """Negative control of the test above: the average of local means is another number."""

  def wrong(options, masked, language, dropout_key):
    def loss(theta, phi_i, part):
      params = merge_params(theta, phi_i)
      total, count = steps.losses.mlm_loss(options.model, params, masked, language)
      return total / count

    return loss

  run = keeping(toy_run("joint_pair", **ONE_LAYER, model__dropout=0.0))
  state = init_state(run.model, run.optimiser, 0)
  batch = batch_of(8, 24, uneven=True)
  one, _ = step_on(1, run)(state, batch, 1)
  monkeypatch.setattr(steps, "local_loss", wrong)
  two, _ = step_on(2, run)(state, batch, 1)
  assert relative_difference(two.theta_slots.mu, one.theta_slots.mu) > 1e-2


@pytest.mark.slow
def test_steps_with_drawn_languages_average_to_the_step_with_all():
  """A language has the same held-out masks whichever other languages the batch holds."""
  run = toy_run(
    "meta_adpt",
    **ONE_LAYER,
    languages=("xb", "xc", "xa"),
    model__dropout=0.0,
    meta__inner_learning_rate=0.3,
    train__clip_norm=1e9,
  )
  run = keeping(run)
  state = init_state(run.model, run.optimiser, 0)
  batch = batch_of(4, 24, 4, num_languages=3, uneven=True)
  step = step_on(2, run)
  full, _ = step(state, batch, 2)
  found = []
  for drawn in ([0, 2], [1, 2]):
    some = {**batch, "held_out": batch["held_out"][:, drawn]}
    moved, _ = step(state, some, 2, np.int32(drawn))
    found.append(moved.phi_slots.mu)
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *found)
  assert relative_difference(mean, full.phi_slots.mu) < 1e-5
  assert relative_difference(found[0], full.phi_slots.mu) > 1e-3


@pytest.mark.parametrize("system", ["adpt", slow("ffn"), slow("attn"), "meta_adpt"])
def test_the_parameters_of_other_languages_stay_unchanged(system):
  run = toy_run(system, 2, **ONE_LAYER, train__weight_decay=0.1, train__warmup_steps=0)
  step = steps.make_train_step(run)
  batch = batch_of(4, 24, 2 if run.meta.enabled else None)
  batch, held_out = parallel.split(batch), all_held_out(batch)
  state = parallel.replicate(init_state(run.model, run.optimiser, 0))
  state, _ = step(
    state, batch, RATE, np.int32(0), held_out
  )  # language 0 has moments now: momentum could move it
  before = jax.device_get((state.phi, state.phi_slots))
  state, _ = step(state, batch, RATE, np.int32(1), held_out)
  after = jax.device_get((state.phi, state.phi_slots))
  assert_same_bits(select_language(after, 0), select_language(before, 0))
  moved = [
    not np.array_equal(a, b)
    for a, b in zip(
      jax.tree.leaves(select_language(after, 1)),
      jax.tree.leaves(select_language(before, 1)),
      strict=True,
    )
  ]
  assert all(moved)


MOVING = dict(
  ONE_LAYER,
  model__dropout=0.0,
  train__learning_rate=0.05,
  train__schedule="constant",
  train__warmup_steps=0,
)


def test_the_releases_step_is_a_joint_step_and_then_a_meta_step_on_the_second_batch(monkeypatch):
  """Its three parts come from adpt's step and from the paper's step, with slots for each update."""
  joint, paper = toy_run("adpt", **MOVING), toy_run("meta_adpt", **MOVING)
  release = toy_run("meta_adpt", **MOVING, meta__variant="release")
  start = init_state(release.model, release.optimiser, 0, meta_slots=True)
  batch = with_inner(batch_of(4, 24, 2))
  found, metrics = step_on(1, release)(start, batch, 1)

  first = {"tokens": batch["tokens"]}
  plain = init_state(joint.model, joint.optimiser, 0)
  assert_same_bits((plain.theta, plain.phi), (start.theta, start.phi))
  after, joint_metrics = step_on(1, joint)(plain, first, 1)
  assert_same_bits((found.theta, found.theta_slots), (after.theta, after.theta_slots))
  assert_same_bits(found.phi_slots, after.phi_slots)
  assert metrics["loss"] == joint_metrics["loss"] and found.step == 1

  second = {"tokens": batch["inner"], "held_out": batch["held_out"]}
  noise = steps._noise
  monkeypatch.setattr(steps, "_noise", lambda run, state: noise(run, state).of(2))
  between = after.replace(step=start.step, phi_slots=start.meta_slots)
  expected, _ = step_on(1, paper)(between, second, 1)
  assert relative_difference(found.phi, expected.phi) < 1e-6
  assert relative_difference(found.meta_slots.mu, expected.phi_slots.mu) < 1e-6
  assert relative_difference(found.phi_slots.mu, expected.phi_slots.mu) > 0.1  # negative control
  assert_same_bits(select_language(found.phi, 0), select_language(start.phi, 0))


@pytest.mark.slow
def test_phi_takes_its_gradient_from_held_out_text_where_that_is_asked():
  """Theta's gradient is adpt's, phi_i's the first-order meta-gradient without a look-ahead."""
  fields = MOVING | dict(train__clip_norm=1e9)
  run = keeping(toy_run("adpt", **fields, train__phi_split="meta"))
  state = init_state(run.model, run.optimiser, 0)
  batch = batch_of(4, 24, 2, uneven=True)
  own = {**batch, "held_out": batch["held_out"][:, 1:]}
  found, metrics = step_on(2, run)(state, own, 1, np.int32([1]))

  train = {"tokens": batch["tokens"]}
  plain, plain_metrics = step_on(1, keeping(toy_run("adpt", **fields)))(state, train, 1)
  assert relative_difference(found.theta_slots.mu, plain.theta_slots.mu) < 1e-5
  assert relative_difference(found.phi_slots.mu, plain.phi_slots.mu) > 0.1  # another text
  np.testing.assert_allclose(metrics["loss"], plain_metrics["loss"], rtol=1e-6)

  no_look_ahead = dict(meta__gradient="first_order", meta__inner_learning_rate=1e-30)
  first_order = keeping(toy_run("meta_adpt", **fields, **no_look_ahead))
  expected, _ = step_on(1, first_order)(state, own, 1, np.int32([1]))
  twice = jax.tree.map(lambda mu: 2 * mu, expected.phi_slots.mu)  # Eq. 3 divides by L = 2
  assert relative_difference(found.phi_slots.mu, twice) < 1e-5


@pytest.mark.parametrize("system", ["adpt", slow("meta_adpt")])
def test_phi_moves_at_its_own_rate(system):
  batch = batch_of(4, 24, 2 if system == "meta_adpt" else None)
  moved = {}
  for factor in (1.0, 0.5):
    run = toy_run(system, **MOVING, train__phi_rate=factor)
    state = init_state(run.model, run.optimiser, 0)
    after, _ = step_on(1, run)(state, batch, 1)
    moved[factor] = jax.tree.map(np.subtract, after.phi, state.phi)
    if system == "adpt":  # the meta step takes theta's gradient at the new phi_i
      moved[factor, "theta"] = after.theta
  half = jax.tree.map(lambda x: x / 2, moved[1.0])
  assert relative_difference(moved[0.5], half) < 1e-5
  if system == "adpt":
    assert_same_bits(moved[0.5, "theta"], moved[1.0, "theta"])


def test_phi_moves_before_theta_as_in_algorithm_1():
  """The step takes theta's gradient at the new phi_i; at the old phi_i it is another gradient."""
  run, joint = toy_run("meta_ffn", **MOVING), toy_run("ffn", **MOVING)
  state = init_state(run.model, run.optimiser, 0)
  batch = batch_of(4, 24, 2)
  meta, _ = step_on(1, run)(state, batch, 0)
  del batch["held_out"]
  moved = state.replace(phi=meta.phi, phi_slots=meta.phi_slots)
  joint_step = step_on(1, joint)
  expected, _ = joint_step(moved, batch, 0)
  assert relative_difference(meta.theta_slots.mu, expected.theta_slots.mu) < 1e-5
  old, _ = joint_step(state, batch, 0)
  assert relative_difference(meta.theta_slots.mu, old.theta_slots.mu) > 1e-3


def test_joint_training_gives_other_languages_no_gradient():
  """In joint training phi_j gets exactly zero from a batch of language i."""
  run = toy_run("adpt", **ONE_LAYER, model__dropout=0.0)
  state = init_state(run.model, run.optimiser, 0)
  tokens = jnp.asarray(batch_of(4, 24)["tokens"])

  def loss(phi):
    masked = steps.masking.mask_tokens(
      jax.random.key(0), tokens, jnp.arange(4), num_predicted=8, vocab_size=200
    )
    params = merge_params(state.theta, select_language(phi, 1))
    return steps.losses.mlm_loss(run.model, params, masked, 1)[0]

  gradient = jax.jit(jax.grad(loss))(state.phi)
  for leaf in jax.tree.leaves(gradient):
    assert not np.any(leaf[0]) and np.any(leaf[1])


def surgery_batch(conflicting):
  """Two languages that share all tokens, or none if conflicting."""
  tokens = random_tokens(3, 8, 24, vocab_size=100)
  return {"tokens": np.stack([tokens, tokens + 90 if conflicting else tokens], axis=1)}


def as_vector(tree):
  return np.asarray(jax.flatten_util.ravel_pytree(tree)[0], np.float64)


def gradients_by_hand(run, state):
  """A function: batch -> [(loss, gradient, shared part of the gradient)] of every language.

  Both gradients are vectors of all of theta; the shared part is zero in the language embedding. The
  function uses only the model's loss and the masks.
  """
  mask_key, _ = jax.random.split(jax.random.fold_in(state.key, state.step))

  @jax.jit
  @jax.value_and_grad
  def loss_and_gradient(theta, tokens, j):
    masked = steps.masking.mask_tokens(
      jax.random.fold_in(mask_key, j),
      tokens,
      jnp.arange(8),
      num_predicted=steps.masking.num_predicted(run.mask_rate, 24),
      vocab_size=run.model.vocab_size,
    )
    total, count = steps.losses.mlm_loss(run.model, theta, masked, j)
    return total / count

  def of_batch(batch):
    found = []
    for j in range(2):
      value, gradient = loss_and_gradient(state.theta, batch["tokens"][:, j], j)
      shared = gradient | {"language": jnp.zeros_like(gradient["language"])}
      found.append((value, as_vector(gradient), as_vector(shared)))
    return found

  return of_batch


@pytest.mark.parametrize("system", [slow("pcgrad"), "gradvac"])
def test_a_surgery_step_by_hand(system):
  """Where gradients agree, it moves by their sum; where they conflict, by their projections' sum."""
  run = toy_run(system, **ONE_LAYER, model__dropout=0.0, train__clip_norm=1e9)
  state = init_state(run.model, run.optimiser, 0)
  step, by_hand = step_on(1, run), gradients_by_hand(run, state)
  for conflicting in (False, True):
    batch = surgery_batch(conflicting)
    (loss_0, g_0, shared_0), (loss_1, g_1, shared_1) = by_hand(batch)
    product = shared_0 @ shared_1
    assert (product < 0) == conflicting
    expected = g_0 + g_1
    if conflicting:
      expected -= product / (shared_1 @ shared_1) * shared_1
      expected -= product / (shared_0 @ shared_0) * shared_0
    moved, metrics = step(state, batch, 0)
    assert relative_difference(10 * as_vector(moved.theta_slots.mu), expected) < 1e-4
    cosine = product / np.linalg.norm(shared_0) / np.linalg.norm(shared_1)
    np.testing.assert_allclose(metrics["surgery/cosine"], cosine, rtol=1e-4)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(expected), rtol=1e-4)
    np.testing.assert_allclose(
      [metrics["loss/xb"], metrics["loss/xa"]], [loss_0, loss_1], rtol=1e-5
    )
    if system == "gradvac":
      np.testing.assert_allclose(moved.rho_LL, 0.01 * cosine * (1 - np.eye(2)), rtol=1e-4)


@pytest.mark.parametrize("system", ["joint_pair", "pcgrad", "gradvac"])
def test_only_gradvac_moves_its_target_cosines(system):
  run = toy_run(system, **ONE_LAYER)
  state = init_state(run.model, run.optimiser, 0)
  moved, _ = step_on(1, run)(state, batch_of(4, 24, surgery=run.surgery.enabled), 0)
  assert moved.rho_LL.shape == (2, 2) and not np.any(state.rho_LL)
  assert np.any(moved.rho_LL) == (system == "gradvac")


@pytest.mark.parametrize("system", ["adpt", slow("meta_adpt")])
def test_the_step_compiles_once(system):
  """One program serves every language; a state that comes back from a step fits it."""
  run = toy_run(system, 2, **ONE_LAYER)
  step = steps.make_train_step(run)
  state = parallel.replicate(init_state(run.model, run.optimiser, 0))
  batch = batch_of(4, 24, 2 if run.meta.enabled else None)
  batch, held_out = parallel.split(batch), all_held_out(batch)
  counts = []
  with counted_compilations() as compiled:
    for language in (0, 1, 0, 1):
      state, metrics = step(state, batch, RATE, np.int32(language), held_out)
      jax.block_until_ready(metrics)
      counts.append(len(compiled))
  assert counts[0] > 0  # the listener listens
  assert counts[1:] == counts[:1] * 3


@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("joint_pair", {}),
    ("meta_adpt", {}),  # its inner step follows the schedule
    slow("meta_adpt", dict(meta__inner_optimiser="adam")),
    slow("meta_adpt", dict(meta__variant="release")),
    slow("adpt", dict(train__freeze_theta=True)),
    slow("pcgrad", {}),
    slow("adpt", dict(model__dtype="float16")),
  ],
)
def test_runs_that_differ_in_their_learning_rates_share_one_program(system, fields):
  def program(**changes):
    run = toy_run(system, **ONE_LAYER, **{**fields, **changes})
    return steps.make_train_step(run).lower(*memory.arguments(run)).as_text()

  others = dict(train__learning_rate=0.5, train__steps=70, train__warmup_steps=30)
  plain = program()
  assert program(**others, train__schedule="constant", seed=3) == plain
  assert program(train__clip_norm=0.5) != plain  # negative control


def test_dropout_noise_differs_between_devices_and_masks_do_not_depend_on_them():
  run = toy_run("joint_pair", 2, model__dropout=0.0)

  def step(state, batch, language):
    masked = steps._mask(run, jax.random.key(0), batch["tokens"])
    key = parallel.device_key(jax.random.key(1))
    return jax.lax.all_gather((masked.positions, jax.random.bits(key)), parallel.AXIS)

  tokens = batch_of(4, 24)["tokens"]
  positions, bits = parallel.pmap_step(step, donate_state=False)(
    0, parallel.split({"tokens": tokens}), np.int32(0)
  )
  assert bits[0] != bits[1]
  whole = steps.masking.mask_tokens(
    jax.random.key(0),
    jnp.asarray(tokens),
    jnp.arange(4),
    num_predicted=positions.shape[-1],
    vocab_size=200,
  )
  np.testing.assert_array_equal(positions.reshape(whole.positions.shape), whole.positions)


@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("joint_pair", dict(train__accumulate=2, model__remat="layer")),
    ("gradvac", {}),
    *(
      slow("meta_adpt", dict(meta__gradient=route, meta__inner_optimiser="adam"))
      for route in META_GRADIENTS
    ),
  ],
)
def test_a_float32_step_mixes_no_dtypes(system, fields, monkeypatch):
  """Excludes Adam: optax needs implicit promotion there, as flax's LayerNorm does in bfloat16."""
  run = toy_run(system, **fields)
  surgery = run.surgery.enabled
  batch = batch_of(4, 24, 4 if run.meta.enabled else None, surgery=surgery)
  share = jax.tree.map(lambda x: x[None], batch)
  mapped = jax.vmap(
    functools.partial(steps.step_of(run), run),
    axis_name=parallel.AXIS,
    in_axes=(None, 0, None, None, None),
    axis_size=1,
  )

  def trace():
    state = jax.eval_shape(lambda: init_state(run.model, run.optimiser, 0))
    jax.eval_shape(mapped, state, share, RATE, np.int32(0), all_held_out(batch))

  with jax.numpy_dtype_promotion("strict"):
    with pytest.raises(ValueError, match="dtype_promotion=strict"):  # negative control: Adam's
      trace()
    monkeypatch.setattr(steps.optim, "update", lambda _, rate, params, slots, g: (params, slots))
    trace()


def test_a_surgery_without_a_function_is_refused():
  run = toy_run("pcgrad", **ONE_LAYER)
  state, gradients = state_of(run), {"w": jnp.ones((2, 3))}
  steps._combine(run, state, gradients, jax.random.key(0))  # negative control
  run = dataclasses.replace(run, surgery=dataclasses.replace(run.surgery, method="mine"))
  with pytest.raises(ValueError, match="no function combines gradients by 'mine'"):
    steps._combine(run, state, gradients, jax.random.key(0))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_training_state_has_no_typed_key(dtype):
  """With several processes pmap copies such keys to the host, and so waits for the step before."""
  state = jax.eval_shape(lambda: state_of(toy_run("meta_adpt", model__dtype=dtype, **ONE_LAYER)))
  kinds = {jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(state)}
  assert kinds == {False}


def test_the_terms_of_the_meta_gradient_are_those_that_a_step_logs():
  """By hand, as the docstring of steps.py says."""
  run = toy_run("meta_adpt", **ONE_LAYER)
  batch = batch_of(4, 24, 4)
  state = parallel.replicate(state_of(run))
  arguments = parallel.split(batch), np.float32(1e-3), np.int32(1), np.arange(2)
  look = parallel.pmap_step(functools.partial(steps.meta_gradient, run), donate_state=False)
  terms = look(state, *arguments)
  assert jax.tree.map(jnp.shape, terms.direct) == jax.tree.map(lambda x: x.shape[1:], state.phi)
  step = steps.make_train_step(run)
  _, metrics = step(state, *arguments)
  for name, value in terms.summary().items():
    assert float(metrics[name]) == pytest.approx(float(value), rel=1e-5), name
