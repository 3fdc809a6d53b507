"""The plan of a fine-tuning run, from its own model and data."""

import collections
import dataclasses
import functools
import math
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from negint.errors import UserError
from negint.finetuning import data, finetune, trial
from negint.finetuning.batches import batches
from negint.finetuning.data import Inputs, Split
from negint.finetuning.options import FinetuneOptions, Trial
from negint.finetuning.programs import TuneState
from negint.finetuning.trial import Shared
from negint.method import device, flops, memory, parallel
from negint.method.memory import Limit, Need
from negint.method.model import count_parameters
from negint.method.phi import init_theta_and_phi
from negint.options import AUTO, ModelOptions
from negint.out_of_memory import amount
from negint.plan import measure
from negint.plan.plan import Part, Plan, memory_fact, speed_fact
from negint.pretrained.load import Pretrained
from negint.run.interrupt import Interruption
from negint.run.runner import Say
from negint.special_tokens import NUM_SPECIALS

Widths = collections.Counter[int]  # {tokens of a row: batches}


class Batches(NamedTuple):
  """The batches of some rows: how many of each width, and one of each."""

  counts: Widths
  examples: dict[int, Any]  # width -> batch; Any: the task's arrays


def plan(run: FinetuneOptions, folder: pathlib.Path, say: Say) -> Plan:
  """Returns the plan of a run with measured times; arguments as of `pretraining.plan`."""
  inputs = finetune.prepare(run, say)
  title = f"Plan of {run.task.name}, {run.setting}: {inputs.model.system}, {folder}"
  splits = {"train": inputs.train, "dev": inputs.dev}
  tests = {
    code: data.read_split(run, inputs.model, inputs.labels, code, "test")
    for code in run.test_languages
  }
  facts = [
    (
      "parameters",
      f"{count_parameters(inputs.model.theta):,} of theta, "
      f"{count_parameters(inputs.model.phi):,} of phi in all languages",
    ),
    (
      "examples",
      ", ".join(f"{len(s.examples):,} {name}" for name, s in splits.items())
      + "".join(f", {len(s.examples):,} test {code}" for code, s in tests.items()),
    ),
  ]
  if run.baseline == "majority":
    return Plan(title, tuple(facts), (Part("start", 1, measure.since_start()),))
  if data.adapts(inputs.model):
    inputs = data.adapted(inputs, device.fast_dtype(jax.devices())[0])
  shared = trial.make_shared(run, inputs, Interruption())
  limit = memory.limit()
  try:
    (shared, need, more), _, wasted = measure.as_next_time(lambda: chosen(shared, limit))
  except UserError as error:
    return Plan(title, (*facts, ("memory", str(error))))
  advice = ""
  if limit and not limit.holds(need):
    advice = trial.LOWER
  facts.append(memory_fact(need, limit, advice, more))
  if advice:
    return Plan(title, tuple(facts), need=need.total)
  return _timed(shared, tests, wasted, Plan(title, tuple(facts), need=need.total))


def chosen(shared: Shared, limit: Limit | None) -> tuple[Shared, Need, str]:
  """Returns (the run as it will have chosen, an update's memory, a sentence about the choice).

  Raises:
    UserError: no choice fits.
  """
  more = ""
  if shared.inputs.model.model.remat == AUTO:
    choice = trial.remat_of(shared, limit)
    shared, more = trial.with_remat(shared, choice.remat), str(choice)
  largest = max(shared.run.trials, key=lambda each: each.batch_size)
  return shared, trial.step_need(shared, largest, shared.inputs.model.model.remat), more


def _timed(shared: Shared, tests: dict[str, Split], wasted: float, so_far: Plan) -> Plan:
  """Returns the whole plan.

  Args:
    shared: the run.
    tests: the test set of each language.
    wasted: seconds that only this process needed.
    so_far: the plan without times.
  """
  run, arrays = shared.run, shared.inputs.train.arrays
  taken = Updates(shared, run.seed)
  updates, in_updates, compiling = 0, 0.0, 0.0  # their number and their seconds
  seconds_each: dict[tuple[int, int], float] = {}  # of an update, by the rows and their width
  for each in run.trials:
    rows = trial.epoch_rows(len(arrays["lengths"]), each.epoch_size, run.seed, 0)
    found = batches_of(shared, arrays, each.batch_size, rows)
    for width, count in found.counts.items():
      size = each.batch_size, width
      if size not in seconds_each:
        seconds_each[size], late = step_seconds(taken, each, found.examples[width])
        if len(seconds_each) == 1:
          start = late.ready - wasted - late.wasted
        else:
          compiling += late.next_time
      updates += each.epochs * count
      in_updates += each.epochs * count * seconds_each[size]
  tuned = taken.state.tuned
  dev, late_dev = scores_seconds(shared, tuned, shared.inputs.dev)
  test_seconds = [scores_seconds(shared, tuned, split) for split in tests.values()]
  compiling += late_dev + sum(late for _, late in test_seconds)
  whole = trial.at_start(taken.state, trial.on_host(tuned), run.trials[0].epochs)
  stored, checkpoint = measure.checkpoint_of(whole)
  epochs = sum(each.epochs for each in run.trials)
  largest = max(seconds_each, key=math.prod)
  model = shared.inputs.model.model
  work, rate = flops_of(model, *largest), measure.matrix_rate(model.dtype)
  facts = (
    *so_far.facts,
    ("files", f"a checkpoint has {amount(stored)}; the weights of a seed {amount(stored / 4)}"),
    speed_fact(seconds_each[largest], work, rate, model.dtype, parallel.num_devices()),
  )
  parts = (
    Part("start and compilation", 1, start + compiling),
    Part("updates", run.seeds * updates, in_updates / max(updates, 1)),
    Part("epochs' dev scores", run.seeds * epochs, dev),
    Part("checkpoints", run.seeds * epochs, checkpoint),
    Part("tests", run.seeds, sum(seconds for seconds, _ in test_seconds)),
  )
  return dataclasses.replace(so_far, facts=facts, parts=parts)


def flops_of(model: ModelOptions, rows: int, width: int) -> int:
  """Returns the FLOPs of an update on rows of a width."""
  passes = 4 if model.remat == "layer" else 3
  return passes * rows * flops.encoder(model, width)


def batches_of(shared: Shared, arrays: dict, batch_size: int, rows: np.ndarray) -> Batches:
  """Returns the batches of rows, as the training or a test takes them."""
  names = shared.run.task.targets if arrays is shared.inputs.train.arrays else ()
  counts, examples = Widths(), dict[int, Any]()
  for _, batch in batches(arrays, names, batch_size, rows):
    width = batch["tokens"].shape[1]
    counts[width] += 1
    examples.setdefault(width, batch)
  return Batches(counts, examples)


class Late(NamedTuple):
  """Seconds of a compilation."""

  next_time: float  # in the next process
  wasted: float  # in this process alone
  ready: float  # from the start of this process until its program has run once


class Updates:
  """The updates of a trial, taken one after another as the run takes them."""

  def __init__(self, shared: Shared, seed: int):
    """Puts a first state on the device."""
    self._shared = shared
    self.state = trial.init_state(shared, seed)

  def take(self, each: Trial, batch: Any) -> TuneState:  # Any: the task's arrays
    """Takes an update with a batch at a trial's first rates, and returns the state after it."""
    shared = self._shared
    source, share, rates = np.int32(shared.source), parallel.split(batch), trial.rates_of(each, 0.0)
    self.state, _ = shared.step(self.state, share, source, shared.phi_i, rates)
    return self.state


def step_seconds(
  taken: Updates, each: Trial, batch: Any, budget: float = measure.BUDGET / 2
) -> tuple[float, Late]:
  """Returns the seconds of an update with one batch, and those of its compilation."""
  take = functools.partial(taken.take, each, batch)
  _, seconds, wasted = measure.as_next_time(lambda: jax.block_until_ready(take()))
  late = Late(seconds, wasted, measure.since_start())
  return measure.seconds_of(take, budget), late


def scores_seconds(shared: Shared, tuned: Any, split: Split) -> tuple[float, float]:
  """Returns the seconds of scoring a split, and those of what is compiled for it.

  Of each width one batch is scored; all of the split is decoded.
  """
  run, task = shared.run, shared.run.task
  params = tuned["theta"], tuned["phi"] or shared.phi_i, tuned["head"]
  lengths = split.arrays["lengths"]
  found = batches_of(shared, split.arrays, run.eval_batch_size, np.arange(len(lengths)))
  seconds, compiling = 0.0, 0.0

  def predict(width: int) -> np.ndarray:
    batch = found.examples[width]
    rows = {name: values[batch["lengths"] > 0] for name, values in batch.items()}
    return shared.predict(params, rows, shared.source, lambda: None)

  for width, count in found.counts.items():
    _, late, _ = measure.as_next_time(functools.partial(predict, width))
    each = measure.seconds_of(functools.partial(predict, width), budget=1.0)
    compiling += late
    seconds += count * each
  shape = predict(max(found.counts)).shape[1:]
  length = split.arrays["tokens"].shape[1]
  whole = (len(lengths), *shape) if task.first_position else (len(lengths), length, *shape[1:])
  scores = np.random.default_rng(0).normal(size=whole).astype(np.float32)

  def decode() -> None:
    predicted = task.decode(scores, split.arrays, split.examples, shared.inputs.labels, run.limits)
    task.scores(task.per_example(split.examples, predicted))

  return seconds + measure.seconds_of(decode, budget=0.1), compiling


def random_shared(run: FinetuneOptions, model: ModelOptions) -> Shared:
  """Returns a run on a model of random weights and without data, whose updates can be timed."""
  theta, phi = jax.jit(init_theta_and_phi, static_argnums=0)(model, jax.random.key(0))
  pretrained = Pretrained(
    workdir="",
    model=model,
    languages=(),
    theta=jax.device_get(theta),
    phi=jax.device_get(phi),
    tokenizer=None,  # type: ignore[arg-type]  # updates need no tokenizer
  )
  nothing = Split([], {}, {})
  inputs = Inputs(pretrained, run.task.labels, nothing, nothing)
  return trial.make_shared(run, inputs, Interruption())


def random_update(
  run: FinetuneOptions, model: ModelOptions, budget: float
) -> tuple[float, float, Late]:
  """Returns (seconds, FLOPs, seconds of compilation) of an update on rows of the greatest length."""
  shared, each = random_shared(run, model), run.trials[0]
  rows, width = each.batch_size, run.limits.max_length
  rng = np.random.default_rng(0)
  batch = {
    "tokens": rng.integers(NUM_SPECIALS, model.vocab_size, (rows, width)).astype(np.int32),
    "lengths": np.full(rows, width, np.int32),
  }
  for name in run.task.targets:
    batch[name] = np.zeros((rows, width) if run.task.tags_words else rows, np.int32)
  seconds, late = step_seconds(Updates(shared, run.seed), each, batch, budget)
  return seconds, flops_of(model, rows, width), late
