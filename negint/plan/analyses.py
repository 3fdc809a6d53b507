"""The plans of the analyses, from the finished run that they start from."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from negint.analysis import gradient_similarity, gradients, pruning
from negint.analysis.gradient_similarity import SimilarityRun
from negint.analysis.pruning import Pruner, PruningRun
from negint.errors import UserError
from negint.method import flops, memory, optim, parallel
from negint.method.memory import Limit, Need
from negint.options import AUTO, RunOptions
from negint.plan import measure
from negint.plan.plan import Part, Plan, memory_fact, speed_fact
from negint.run.interrupt import Interruption
from negint.run.runner import Say


def similarity(run: SimilarityRun, folder: pathlib.Path, say: Say) -> Plan:
  """Returns the plan of gradient cosines; arguments as of `pretraining.plan`."""
  model, cache, sentences = gradient_similarity.prepare(run, say)
  params, size = parallel.replicate((model.theta, model.phi)), run.batch_size
  checkpoints = len(gradient_similarity.steps_to_measure(run, model))
  measurements = checkpoints * run.repeats
  title = f"Plan of gradient cosines: {model.system}, {folder}"
  facts = [
    (
      "gradients",
      f"{checkpoints} checkpoints x {run.repeats} repeats x {len(model.languages)} languages x "
      f"{gradients.DRAWS}, each of {sentences:,} sequences",
    )
  ]

  def choice(limit: Limit | None) -> memory.Choice:
    return gradients.remat_of(model.run, params, size, limit)

  try:
    (own, need, more), _, wasted = measure.as_next_time(
      lambda: _chosen(model.run, choice, lambda own: gradients.step_need(own, params, size))
    )
  except UserError as error:
    return Plan(title, (*facts, ("memory", str(error))))
  if not _fits(need, more, facts):
    return Plan(title, tuple(facts), need=need.total)
  once = gradients.make_measure(own, cache.streams["train"], size, size, lambda: None)
  once(params, (0,))
  start = measure.since_start() - wasted
  each = measure.seconds_of(lambda: once(params, (1,)) and params, budget=measure.BUDGET / 2)
  each *= sentences / size
  steps = measurements * len(model.languages) * gradients.DRAWS * sentences // size
  per_step = each * measurements / max(steps, 1)
  work = size * flops.gradient(own)
  rate = measure.matrix_rate("float32")
  facts.append(speed_fact(per_step, work, rate, "float32", parallel.num_devices()))
  parts = (Part("start", 1, start), Part("measurements", measurements, each))
  return Plan(title, tuple(facts), parts, need.total)


def masks(run: PruningRun, folder: pathlib.Path, say: Say) -> Plan:
  """Returns the plan of L0 masks; arguments as of `pretraining.plan`."""
  model, cache = pruning.prepare(run, say)
  pruner = Pruner(run, model, cache, Interruption())
  count = run.seeds * len(model.languages)
  title = f"Plan of L0 masks: {model.system}, {folder}"
  facts = [("masks", f"{count} masks x {run.steps:,} updates")]
  state, frozen = pruner.first_state(0, run.seed), pruner.frozen(0)
  length = model.run.data.sequence_length
  tokens = np.resize(cache.streams["train"][0], (run.batch_size, length)).astype(np.int32)
  batch = parallel.split({"tokens": tokens})
  inputs = batch, frozen, np.int32(0), optim.learning_rate(run.schedule, 0)

  def need_of(own: RunOptions) -> Need:
    pruner.settle(own.model)
    step = pruner.mask_step.lower(state, *inputs)
    return memory.need_of(step.compile())

  try:
    (own, need, more), _, wasted = measure.as_next_time(
      lambda: _chosen(model.run, pruner.remat_of, need_of)
    )
  except UserError as error:
    return Plan(title, (*facts, ("memory", str(error))))
  if not _fits(need, more, facts):
    return Plan(title, tuple(facts), need=need.total)

  def take() -> jax.Array:
    nonlocal state
    state, _ = pruner.mask_step(state, *inputs)
    return state.step

  jax.block_until_ready(take())
  start = measure.since_start() - wasted
  each = measure.seconds_of(take)
  _, compiling, _ = measure.as_next_time(lambda: pruner.perplexity(None))
  evaluation = measure.seconds_of(lambda: list(pruner.perplexity(None).values()), budget=0.1)
  _, checkpoint = measure.checkpoint_of(state)
  work = run.batch_size * flops.gradient(own)
  rate = measure.matrix_rate(own.model.dtype)
  facts.append(speed_fact(each, work, rate, own.model.dtype, parallel.num_devices()))
  parts = (
    Part("start and compilation", 1, start + compiling),
    Part("updates", count * run.steps, each),
    Part("evaluations", 1 + 2 * count, evaluation),
    Part("checkpoints", count * -(-run.steps // run.checkpoint_every), checkpoint),
  )
  return Plan(title, tuple(facts), parts, need.total)


def _chosen(
  run: RunOptions,
  choice: Callable[[Limit | None], memory.Choice],
  need: Callable[[RunOptions], Need],
) -> tuple[RunOptions, Need, str]:
  """Returns (the model's run with a remat, a step's memory, a sentence about the choice)."""
  more = ""
  if run.model.remat == AUTO:
    found = choice(memory.limit())
    run, more = memory.with_remat(run, found.remat), str(found)
  return run, need(run), more


def _fits(need: Need, more: str, facts: list[tuple[str, str]]) -> bool:
  """Returns whether a step fits, and adds the line about memory."""
  limit = memory.limit()
  fits = limit is None or limit.holds(need)
  facts.append(memory_fact(need, limit, "" if fits else memory.LOWER_BATCH, more))
  return fits
