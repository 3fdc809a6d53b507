"""FLOPs counted from shapes agree with those of compiled and traced programs."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.interpreters.partial_eval import dce_jaxpr
from toy import all_held_out, batch_of, slow, toy_model, toy_run

from negint.method import flops, losses, model, parallel, steps
from negint.method.masking import MaskedBatch, num_predicted
from negint.method.state import init_state
from negint.options import META_GRADIENTS

BATCH, LENGTH = 8, 64


def compilers_count(options, predicted):
  """FLOPs of the compiled gradient of the loss of a batch."""

  def loss(params, batch):
    return losses.mlm_loss(options, params, batch, 0)[0]

  params = jax.eval_shape(functools.partial(model.init_params, options), jax.random.key(0))
  rows = functools.partial(jax.ShapeDtypeStruct, (BATCH, predicted))
  batch = MaskedBatch(
    jax.ShapeDtypeStruct((BATCH, LENGTH), jnp.int32),
    rows(jnp.int32),
    rows(jnp.int32),
    rows(jnp.float32),
  )
  compiled = jax.jit(jax.grad(loss)).lower(params, batch).compile()
  return compiled.cost_analysis()["flops"]


def sized(**changes):
  return toy_model(
    vocab_size=1500,
    model_dim=128,
    num_heads=4,
    head_dim=32,
    ffn_dim=512,
    max_length=LENGTH,
    adapter_dim=32,
  ).replace(**changes)


@pytest.mark.parametrize("changes", [{}, dict(shared_adapter=True, head_dim=48, num_layers=1)])
def test_a_plain_steps_count_is_near_the_compilers(changes):
  options, predicted = sized(**changes), num_predicted(0.4, LENGTH)
  ours = 3 * BATCH * flops.forward(options, LENGTH, predicted)
  theirs = compilers_count(options, predicted)
  assert ours == pytest.approx(theirs, rel=0.15)
  all_rows = 3 * BATCH * flops.forward(options, LENGTH, LENGTH)
  assert all_rows != pytest.approx(theirs, rel=0.15)


def test_a_transform_before_the_softmax_is_one_more_square_matrix():
  options = sized()
  plain, more = (
    flops.forward(options.replace(softmax_transform=name), LENGTH, 10) for name in ("none", "gelu")
  )
  assert more - plain == 2 * 10 * options.model_dim**2


def run_of(system, **fields):
  return toy_run(system, train__batch_size=4, meta__batch_size=4, **fields)


def test_a_plain_step_is_three_forward_passes_and_most_of_a_fourth_with_rematerialisation():
  run = run_of("joint_pair")
  predicted = num_predicted(run.mask_rate, 24)
  sequence = flops.forward(run.model, 24, predicted)
  last_layer = flops.forward(run.model.replace(num_layers=1), 24, predicted)
  assert flops.step(run) == 4 * 3 * sequence
  again = flops.step(run_of("joint_pair", model__remat="layer")) - flops.step(run)
  assert again == 4 * (sequence - last_layer) > 0
  assert flops.step(toy_run("joint_pair", train__batch_size=8)) == 2 * flops.step(run)


@pytest.mark.parametrize("system", ["pcgrad", "gradvac"])
def test_a_surgery_step_costs_a_plain_step_a_language(system):
  plain = flops.step(run_of("joint_pair"))
  assert flops.step(run_of(system)) == 2 * plain
  assert flops.step(run_of(system, languages=("xb", "xc", "xa"))) == 3 * plain


@pytest.mark.parametrize(
  ("gradient", "ratio"),
  [("first_order", 1.7 + 1), ("grad_of_grad", 4.3 + 1), ("forward_over_reverse", 4.3 + 1)],
)
def test_a_meta_steps_cost_in_plain_steps(gradient, ratio):
  """Two languages and equal batches; a compiler measured the ratios."""
  plain = flops.step(run_of("adpt"))
  meta = flops.step(run_of("meta_adpt", meta__gradient=gradient))
  assert meta / plain == pytest.approx(ratio, rel=0.1)


def test_the_cost_of_held_out_batches_grows_with_their_size_and_the_languages():
  one = run_of("meta_adpt")
  twice = toy_run("meta_adpt", train__batch_size=4, meta__batch_size=8)
  plain = flops.step(run_of("adpt"))
  assert flops.step(twice) - flops.step(one) == 2 * plain
  three = run_of("meta_adpt", languages=("xb", "xc", "xa"))
  assert flops.step(three) - flops.step(one) == plain
  two_of_three = dict(languages=("xb", "xc", "xa"), meta__languages_per_step=2)
  assert flops.step(run_of("meta_adpt", **two_of_three)) == flops.step(one)


def test_a_first_order_gradient_holds_out_one_language_and_parts_cost_nothing():
  three = dict(languages=("xb", "xc", "xa"), meta__gradient="first_order")
  assert run_of("meta_adpt", **three).held_out_sequences_per_step == 4
  assert flops.step(run_of("meta_adpt", **three)) == flops.step(
    run_of("meta_adpt", meta__gradient="first_order", train__accumulate=4)
  )


def test_the_releases_step_costs_what_the_papers_does_and_phi_from_held_out_text_a_little_more():
  release = run_of("meta_adpt", meta__variant="release")
  assert flops.step(release) == flops.step(run_of("meta_adpt"))
  assert release.sequences_per_step == 2 * run_of("meta_adpt").sequences_per_step
  plain = flops.step(run_of("adpt"))
  held_out = run_of("adpt", train__phi_split="meta")
  more = flops.step(held_out) - plain  # a gradient by phi: none of theta's weights
  predicted = num_predicted(held_out.mask_rate, 24)
  of_phi = flops.products_with_phi(held_out.model, 24, predicted)
  assert more == 2 * plain // 3 + held_out.held_out_sequences_per_step * of_phi < plain
  assert held_out.held_out_sequences_per_step == 4 and not run_of("adpt").held_out_languages


def traced_count(jaxpr) -> int:
  """FLOPs of the matrix products of a traced program, with every round of a scan."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
      total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    rounds = equation.params["length"] if equation.primitive.name == "scan" else 1
    for value in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(value, "jaxpr", value)
      total += rounds * traced_count(inner) if hasattr(inner, "eqns") else 0
  return total


def traced_step(run):
  """FLOPs of a traced training step, without unused results."""
  slots = run.meta.own_slots
  state = jax.eval_shape(lambda: init_state(run.model, run.optimiser, run.seed, meta_slots=slots))
  held_out = run.meta.batch_size if run.held_out_languages else None
  batch = batch_of(run.batch_size, 24, held_out)
  if slots:
    batch["inner"] = batch["tokens"]
  share = jax.tree.map(lambda x: x[None], batch)
  step = functools.partial(steps.step_of(run), run)
  mapped = jax.vmap(step, axis_name=parallel.AXIS, in_axes=(None, 0, None, None, None), axis_size=1)
  languages = all_held_out(batch)
  if held_out:
    languages = languages[: run.held_out_languages]
  jaxpr = jax.make_jaxpr(mapped)(state, share, 0.1, 0, languages).jaxpr
  return traced_count(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("adpt", {}),
    slow("adpt", dict(train__phi_split="meta")),
    *(slow("meta_adpt", dict(meta__gradient=route)) for route in META_GRADIENTS),
    slow("meta_adpt", dict(meta__variant="release")),
    slow("meta_adpt", dict(meta__languages_per_step=1)),
  ],
)
def test_a_rematerialised_steps_count_is_that_of_its_traced_program(system, fields):
  """Without rematerialisation the traced program repeats passes that the compiler merges."""
  fields = dict(fields, model__num_layers=3)
  run, kept = (run_of(system, model__remat=remat, **fields) for remat in ("layer", "none"))
  traced = traced_step(run)
  assert flops.step(run) == pytest.approx(traced, rel=0.03)
  assert flops.step(kept) != pytest.approx(traced, rel=0.1)
