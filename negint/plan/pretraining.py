"""The plan of a pretraining run. It needs no corpora: without them the steps see random tokens."""

import pathlib
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from negint import pretrain
from negint.analysis import gradients
from negint.data import token_cache
from negint.data.corpus import corpus_directory
from negint.data.open_corpora import corpora_folder, missing_corpora
from negint.data.token_cache import TokenCache
from negint.errors import UserError
from negint.method import flops, memory, optim, parallel, steps
from negint.method.memory import Limit, Need
from negint.method.model import count_parameters
from negint.method.state import TrainState
from negint.method.tree import Tree
from negint.options import AUTO, RunOptions
from negint.out_of_memory import amount
from negint.perplexity import row_batches
from negint.plan import measure
from negint.plan.plan import Part, Plan, memory_fact, size_of, speed_fact
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run.checkpoint import Checkpoints
from negint.run.records import MetricsWriter
from negint.run.runner import Say
from negint.special_tokens import NUM_SPECIALS

STREAM_TOKENS = 1 << 20  # random ids per language
# Where there is no corpus: tokens of `valid`, by source. negint.prepare keeps at most 5,000 lines.
VALID_TOKENS = {"sample": 2000, "lab": 20_000, "prepared": 150_000}
LOWER_MEASUREMENTS = (
  "Its steps fit. Its measurements of gradients do not: lower their batch, "
  "--config.gradient_similarity.batch_size."
)


class Setting(NamedTuple):
  """A run whose steps can be taken, with its corpora or with random tokens."""

  run: RunOptions  # with a remat of options.REMATS
  cache: TokenCache
  origin: Pretrained | None
  is_real: bool  # whether the tokens are those of the run


class Times(NamedTuple):
  """Seconds of what a run consists of."""

  step: float
  evaluation: float  # of all languages
  gradients: float  # one measurement of the gradient cosines; 0: the run makes none
  checkpoint: float | None  # None: not measured
  start: float  # from the command to the first step, with all compilations


def plan(run: RunOptions, folder: pathlib.Path, say: Say) -> Plan:
  """Returns the plan of a run, or of the rest of it, with measured times.

  Args:
    run: its options.
    folder: of the run; it is read, not written.
    say: receives sentences for the user.
  """
  limit = memory.limit()
  title = f"Plan of {run.system} on {', '.join(run.languages)} ({run.scale}), seed {run.seed}"
  # Before the training step: what is compiled anew lets go of the programs before it.
  evaluation, _, wasted = measure.as_next_time(lambda: memory.evaluation_need(run))
  try:
    (run, need, more), compiling, also_wasted = measure.as_next_time(
      lambda: chosen(run, limit, say)
    )
  except UserError as error:
    return Plan(title, (*counts(run), ("corpora", corpora_fact(run)), ("memory", str(error))))
  wasted += also_wasted
  needs = [need, evaluation]
  if run.gradient_similarity.every:
    measuring, _, also_wasted = measure.as_next_time(lambda: gradients.need_in_training(run))
    # What is compiled anew lets go of the step's program, which is then read once more.
    wasted += also_wasted + (compiling if also_wasted else 0.0)
    needs.append(measuring)
  facts = [*counts(run), ("corpora", corpora_fact(run))]
  largest = max(needs, key=lambda each: each.total)
  advice = ""
  if limit and not limit.holds(largest):
    fits = limit.holds(max(need, evaluation, key=lambda each: each.total))
    advice = LOWER_MEASUREMENTS if fits else memory.advice(run, limit, say)
  facts.append(memory_fact(largest, limit, advice, more))
  if advice:
    return Plan(title, tuple(facts), need=largest.total)
  times, size = timed(settle(run, say), lambda: measure.since_start() - wasted)
  rate = measure.matrix_rate(run.model.dtype)
  speed = speed_fact(times.step, flops.step(run), rate, run.model.dtype, parallel.num_devices())
  facts += [files_fact(run, size, folder), speed]
  return Plan(title, tuple(facts), parts(run, times, steps_done(folder)), largest.total)


def chosen(run: RunOptions, limit: Limit | None, say: Say = print) -> tuple[RunOptions, Need, str]:
  """Returns (the options as the run will have chosen, a step's memory, a sentence about the choice).

  Raises:
    UserError: no choice fits.
  """
  if run.model.remat != AUTO:
    return run, memory.step_need(run), ""
  choice = memory.remat_of(run, limit, say)
  run = memory.with_remat(run, choice.remat)
  need = choice.needs.get(choice.remat) or memory.step_need(run)
  return run, need, str(choice)


def counts(run: RunOptions) -> list[tuple[str, str]]:
  """Returns the lines about parameters, tokens and arithmetic."""
  shapes = memory.state_shapes(run)
  of_phi = count_parameters(shapes.phi) // len(run.languages)
  length, steps_ = run.data.sequence_length, run.schedule.steps
  tokens = run.sequences_per_step * length
  held_out = run.held_out_sequences_per_step * length
  also = f", and {steps_ * held_out:.3g} held-out ones" if held_out else ""
  return [
    ("parameters", f"theta {count_parameters(shapes.theta):,}, phi {of_phi:,} for each language"),
    ("tokens", f"{tokens:,} per step, {steps_ * tokens:.3g} in {steps_:,} steps{also}"),
    ("arithmetic", f"{flops.step(run):.3g} FLOPs per step, {steps_ * flops.step(run):.3g} in all"),
  ]


def corpora_fact(run: RunOptions) -> str:
  """Returns what there is of the run's text."""
  folder = corpora_folder(run.data)
  missing = missing_corpora(run.data, run.languages)
  there = [code for code in run.languages if code not in missing]
  sizes = [f"{code} {amount(size_of([corpus_directory(folder, code)]))}" for code in there]
  if missing:
    makes = "negint.prepare makes them" if run.data.source == "prepared" else "the run makes them"
    sizes.append(f"{', '.join(missing)} not there yet ({makes}; that time is not counted)")
  return f"{'; '.join(sizes)}; in {folder}"


def files_fact(run: RunOptions, checkpoint: int, folder: pathlib.Path) -> tuple[str, str]:
  """Returns the line about the run's folder."""
  kept = min(run.checkpoint_keep, -(-run.schedule.steps // run.checkpoint_every))
  return "files", (
    f"a checkpoint has {amount(checkpoint)}; {folder} has about {amount(kept * checkpoint)} at its end "
    f"({kept} checkpoints are kept)"
  )


def settle(run: RunOptions, say: Say) -> Setting:
  """Returns what the steps are timed with."""
  origin = load_pretrained(run.init_from) if run.init_from else None
  ready = origin.tokenizer if origin else pretrain.tokenizer_of_folder(run)
  if token_cache.existing_cache(run.data, run.languages, ready) is None:
    return Setting(run, random_cache(run), origin, is_real=False)
  inputs = pretrain.prepare(run, say)
  return Setting(run, inputs.cache, inputs.origin, is_real=True)


def random_cache(run: RunOptions) -> TokenCache:
  """Returns a cache of random ids, from which batches of the run's shape can be sampled."""
  rng = np.random.default_rng(0)
  dtype = np.uint16 if run.model.vocab_size <= 1 << 16 else np.uint32

  def streams(tokens: int) -> list[np.ndarray]:
    ids = rng.integers(NUM_SPECIALS, run.model.vocab_size, (len(run.languages), tokens))
    return list(ids.astype(dtype))

  valid = VALID_TOKENS[run.data.source]
  return TokenCache(
    key="",
    tokenizer=None,  # type: ignore[arg-type]  # sampling needs no tokenizer
    streams={
      "train": streams(STREAM_TOKENS),
      "meta": streams(STREAM_TOKENS),
      "valid": streams(valid),
    },
    num_sentences=[STREAM_TOKENS // 32] * len(run.languages),
    counts=np.ones((len(run.languages), run.model.vocab_size), np.int64),
    valid_characters=[valid] * len(run.languages),
  )


class Steps:
  """The steps of a run, taken one after another as the run takes them."""

  def __init__(self, setting: Setting, writer: MetricsWriter | None = None):
    """Puts a first state on the device.

    Args:
      setting: of the run.
      writer: of the log; None: without one.
    """
    self._run, self._writer = setting.run, writer
    self._sampler = pretrain.make_sampler(setting.run, setting.cache)
    self._train_step = steps.make_train_step(setting.run)
    self._window = pretrain.Window(setting.run, 0)
    self._done = 0
    self.state = parallel.replicate(pretrain.first_state(setting.run, setting.origin))

  def take(self) -> TrainState:
    """Takes a step and returns the state after it."""
    step, sampler = self._done % self._run.schedule.steps, self._sampler
    batch, language = parallel.split(sampler.batch(step)), sampler.language(step)
    held_out = sampler.held_out_languages(step)
    rate = optim.learning_rate(self._run.schedule, step)
    self.state, metrics = self._train_step(self.state, batch, rate, np.int32(language), held_out)
    self._done += 1
    self._window.add(self._done, language, metrics)
    if self._done % self._run.log_every == 0:
      scalars = self._window.fetch()
      if self._writer:
        self._writer.write(self._done, scalars)
    return self.state


def timed(setting: Setting, clock: Callable[[], float]) -> tuple[Times, int]:
  """Returns the seconds of a run's parts, and the bytes of a checkpoint.

  Args:
    setting: of the run.
    clock: returns the seconds since the run would have started.
  """
  run = setting.run
  with tempfile.TemporaryDirectory(prefix="negint-plan-") as name:
    # A run's start imports orbax and tensorboardX, and each line of its log is written.
    Checkpoints(pathlib.Path(name), keep=1).close()
    writer = MetricsWriter(pathlib.Path(name), 0)
    taken = Steps(setting, writer)
    jax.block_until_ready(taken.take())
    start = clock()
    per_step = measure.seconds_of(taken.take)
    writer.close()
  state = taken.state
  size, checkpoint = measure.checkpoint_of(state)
  params = state.theta, state.phi
  measurement = similarity_seconds(setting, params) if run.gradient_similarity.every else 0.0
  evaluation = evaluation_seconds(setting, params)
  return Times(per_step, evaluation, measurement, checkpoint, start), size


def evaluation_seconds(setting: Setting, params: tuple[Tree, Tree]) -> float:
  """Returns the seconds of one evaluation of a run."""
  run, cache, _, _ = setting
  eval_step = steps.make_eval_step(run)
  length, size = run.data.sequence_length, run.eval_batch_size
  valid = cache.streams["valid"]
  unigram = parallel.replicate(cache.unigram_log_probabilities()[0])
  batch = next(iter(row_batches(valid[0], length, size)))

  def take() -> list[float]:
    found = eval_step(params, parallel.split(batch), np.int32(0), unigram)
    return [float(value) for value in found.values()]

  batches = sum(-(-len(stream) // (length * size)) for stream in valid)
  each = measure.seconds_of(take, measure.BUDGET / 4)
  return batches * each * (2 if run.held_out_languages else 1)  # `meta` is measured, too


def similarity_seconds(setting: Setting, params: tuple[Tree, Tree]) -> float:
  """Returns the seconds of one measurement of gradient cosines."""
  run, cache = setting.run, setting.cache
  sentences = pretrain.similarity_sentences(run, cache)
  size = run.gradient_similarity.batch_size
  once = gradients.make_measure(run, cache.streams["train"], size, size, lambda: None)
  once(params, (0,))
  each = measure.seconds_of(lambda: once(params, (1,)) and params, budget=1.0)
  return each * sentences / size


def steps_done(folder: pathlib.Path) -> int:
  """Returns the updates that a run's folder keeps; 0 where there is none."""
  found = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
  return max(found, default=0)


def parts(run: RunOptions, times: Times, done: int = 0) -> tuple[Part, ...]:
  """Returns the parts of a run's time.

  Args:
    run: its options.
    times: of its parts.
    done: updates of an interrupted run.
  """
  left = range(done, run.schedule.steps)
  evaluations = 1 + sum(s % run.eval_every == 0 and (s > 0 or bool(run.init_from)) for s in left)
  every = run.gradient_similarity.every
  measured = sum(gradients.is_due(s, every) for s in left) if every else 0
  saved = {s for s in range(done + 1, run.schedule.steps + 1) if s % run.checkpoint_every == 0}
  return (
    Part("start", 1, times.start),
    Part("steps", len(left), times.step),
    Part("evaluations", evaluations, times.evaluation),
    Part("measurements of gradients", measured, times.gradients),
    Part("checkpoints", len(saved | {run.schedule.steps}), times.checkpoint),
  )
