"""Steps at a frozen theta: phi_i alone moves, as it would in an ordinary step."""

import jax
import numpy as np
import pytest
from toy import assert_same_bits, batch_of, relative_difference, slow, step_on, toy_run

from negint.method import flops, losses, masking, memory, optim, phi
from negint.method.state import init_state, state_of

FIELDS = dict(model__num_layers=1, model__dropout=0.0, train__clip_norm=1e6, train__warmup_steps=0)
LANGUAGE = 1


def frozen_run(system, **fields):
  return toy_run(system, train__freeze_theta=True, **{**FIELDS, **fields})


def first_state(run):
  """A state whose adapters are far from the identity, and whose slots are not zero."""
  state = init_state(run.model, run.optimiser, run.seed)
  moved = jax.tree.map(lambda x: x + 0.1, (state.theta, state.phi, state.theta_slots))
  return state.replace(theta=moved[0], phi=moved[1], theta_slots=moved[2])


def others(tree):
  return jax.tree.map(lambda leaf: np.delete(leaf, LANGUAGE, axis=0), tree)


def assert_only_phi_i_moved(before, after):
  assert int(after.step) == int(before.step) + 1
  assert_same_bits(after.theta, before.theta)
  assert_same_bits(after.theta_slots, before.theta_slots)
  assert_same_bits(others(after.phi), others(before.phi))
  assert_same_bits(others(after.phi_slots), others(before.phi_slots))
  own = [jax.tree.map(lambda leaf: leaf[LANGUAGE], tree.phi) for tree in (after, before)]
  assert relative_difference(*own) > 1e-4


@pytest.mark.parametrize("system", ["adpt", slow("ffn"), slow("attn")])
def test_phi_moves_as_in_a_joint_step_and_theta_not_at_all(system):
  batch = batch_of(4, 24)
  run = frozen_run(system)
  before = first_state(run)
  after, metrics = step_on(1, run)(before, batch, LANGUAGE)
  assert_only_phi_i_moved(before, after)
  joint, theirs = step_on(1, toy_run(system, **FIELDS))(before, batch, LANGUAGE)
  assert relative_difference(after.phi, joint.phi) < 1e-6
  assert float(metrics["loss"]) == pytest.approx(float(theirs["loss"]))
  with pytest.raises(AssertionError):  # negative control: the joint step moves theta
    assert_same_bits(joint.theta, before.theta)


def test_a_frozen_theta_has_no_slots_and_phi_moves_as_with_them():
  run = frozen_run("adpt")
  own, with_slots = state_of(run), init_state(run.model, run.optimiser, run.seed)
  of_theta = memory.size_of(own.theta)
  assert own.theta_slots == {}
  saved = memory.size_of(with_slots.replace(key=())) - memory.size_of(own.replace(key=()))
  assert 2 * of_theta <= saved <= 2 * of_theta + 8  # two moments and Adam's count
  step, batch = step_on(1, run), batch_of(4, 24)
  after, expected = (step(state, batch, LANGUAGE)[0] for state in (own, with_slots))
  assert_same_bits((after.phi, after.phi_slots), (expected.phi, expected.phi_slots))
  assert_only_phi_i_moved(own, after)
  assert state_of(toy_run("adpt", **FIELDS)).theta_slots != {}  # negative control


def test_phi_moves_by_the_held_out_loss_of_its_language_in_a_meta_step():
  run = frozen_run("meta_adpt", meta__batch_size=4)
  assert (run.sequences_per_step, run.held_out_sequences_per_step) == (0, 4)
  batch = batch_of(4, 24, held_out_rows=4, num_languages=1)
  before = first_state(run)
  after, _ = step_on(1, run)(before, batch, LANGUAGE, np.array([LANGUAGE], np.int32))
  assert_only_phi_i_moved(before, after)

  def held_out_loss(phi_i):  # by hand, with the masks of that language
    key = jax.random.split(jax.random.fold_in(before.key, before.step))[0]
    masked = masking.mask_tokens(
      jax.random.fold_in(key, LANGUAGE),
      batch["held_out"][:, 0],
      np.arange(4),
      num_predicted=masking.num_predicted(run.mask_rate, 24),
      vocab_size=run.model.vocab_size,
    )
    params = phi.merge_params(before.theta, phi_i)
    total, count = losses.mlm_loss(run.model, params, masked, LANGUAGE)
    return total / count

  phi_i, slots = (phi.select_language(t, LANGUAGE) for t in (before.phi, before.phi_slots))
  rate = optim.learning_rate(run.schedule, 0)
  gradient = jax.grad(held_out_loss)(phi_i)
  expected, _ = optim.update(run.optimiser, rate, phi_i, slots, gradient)
  assert relative_difference(phi.select_language(after.phi, LANGUAGE), expected) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("system", ["adpt", "meta_adpt"])
def test_two_devices_and_two_parts_do_what_one_does(system):
  run = frozen_run(system, meta__batch_size=4)
  held_out = dict(held_out_rows=4, num_languages=1) if run.meta.enabled else {}
  batch = batch_of(4, 24, **held_out)
  languages = np.array([LANGUAGE], np.int32) if held_out else None
  one, _ = step_on(1, run)(first_state(run), batch, LANGUAGE, languages)
  parts = frozen_run(system, meta__batch_size=4, train__accumulate=2)
  for devices, other in ((2, run), (1, parts)):
    again, _ = step_on(devices, other)(first_state(run), batch, LANGUAGE, languages)
    assert relative_difference(again.phi, one.phi) < 1e-5


def test_a_frozen_theta_saves_its_weight_gradients():
  plain = flops.step(toy_run("adpt", **FIELDS))
  by_phi = flops.step(frozen_run("adpt"))  # two thirds, and the weight gradients of the adapters
  assert 2 / 3 < by_phi / plain < 0.7
  by_phi_of_ffn = flops.step(frozen_run("ffn")) / flops.step(toy_run("ffn", **FIELDS))
  assert by_phi / plain < by_phi_of_ffn < 1  # more of the weights are phi
  meta = dict(meta__batch_size=8, train__batch_size=4)
  assert flops.step(frozen_run("meta_adpt", **meta)) == 2 * flops.step(frozen_run("adpt"))
