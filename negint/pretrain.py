"""Pretraining one system: from a config to a workdir with a result, resumable at any moment."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from negint import options, perplexity
from negint.analysis import gradients
from negint.data import token_cache
from negint.data.open_corpora import SAMPLE_NOTICE, open_corpora
from negint.data.sampling import (
  BatchSampler,
  Blocks,
  HeldOut,
  cut_blocks,
  language_schedule,
  sampling_probabilities,
)
from negint.errors import Interrupted, NonFiniteLoss
from negint.method import flops, parallel, steps
from negint.method.model import count_parameters
from negint.method.state import TrainState, init_state
from negint.options import RunOptions
from negint.run import interrupt
from negint.run.checkpoint import Checkpoints
from negint.run.files import write_json
from negint.run.progress import progress_bar
from negint.run.records import MetricsWriter
from negint.run.workdir import check_workdir, claimed, tie_to_data


def pretrain(config, workdir: pathlib.Path, say=print) -> dict:
  """Runs or resumes a pretraining run to its end and returns its result.

  Args:
    config: ConfigDict of configs/.
    workdir: the run's folder.
    say: receives sentences for the user.

  Raises:
    UserError: what was asked for cannot run; the workdir is as it was.
    Interrupted: SIGTERM or Ctrl-C; the state is saved.
    NonFiniteLoss: the loss diverged; the last good checkpoint is kept.
  """
  run = options.from_config(config, parallel.num_devices())
  finished = check_workdir(workdir, config)
  parallel.meet()  # before the first process writes into it
  if finished:
    say(f"{workdir} holds this run, finished. Its result:")
    say(summary(finished, workdir))
    return finished
  corpora = open_corpora(run.data, run.languages, say)
  if run.data.source == "sample":
    say(SAMPLE_NOTICE.format(language=run.languages[0], system=run.system))
  cache = token_cache.open_cache(corpora, run.data)
  sampler = make_sampler(run, cache)
  sentences = similarity_sentences(run, cache)
  with claimed_by_first(workdir, config, cache) as interruption:
    checkpoints = Checkpoints(workdir, run.checkpoint_keep)
    state = parallel.replicate(init_state(run.model, run.optimiser, run.seed))
    restored = checkpoints.restore(state, say)
    if restored is not None:
      state = restored
      say(f"Going on from step {int(state.step)} of {run.schedule.steps} in {workdir}.")
    writer = MetricsWriter(workdir, int(state.step), quiet=not parallel.is_first())
    try:
      evaluator = make_evaluator(run, cache, interruption.poll)
      observers = [
        Observer("perplexity/", run.eval_every, lambda state: perplexity_scalars(evaluator(state))),
        *gradient_observers(run, cache, sentences, interruption.poll),
      ]
      state = train(run, state, sampler, checkpoints, writer, observers, interruption)
      scores = evaluator(state)
      if not writer.has(run.schedule.steps, "perplexity/"):
        writer.write(run.schedule.steps, perplexity_scalars(scores))
      result = make_result(run, state, cache, scores)
    except Interrupted as error:
      step = checkpoints.newest() or 0
      raise Interrupted(f"{error} at step {step} of {run.schedule.steps}") from None
    finally:
      writer.close()
      checkpoints.close()
  if parallel.is_first():
    write_json(workdir / "result.json", result)
  say(summary(result, workdir))
  return result


@contextlib.contextmanager
def claimed_by_first(workdir: pathlib.Path, config, cache: token_cache.TokenCache):
  """The folder in the hands of the run, whose first process owns its files; gives the Interruption
  to poll, which stops all processes at the same step."""
  with claimed(workdir, config) if parallel.is_first() else interrupt.caught() as interruption:
    interruption.agree = parallel.Agreement()
    if parallel.is_first():
      tie_to_data(workdir, cache.key)
      cache.tokenizer.save(workdir / "tokenizer.model")
    yield interruption


def make_evaluator(run: RunOptions, cache: token_cache.TokenCache, poll):
  """state -> perplexities of the whole valid split."""
  eval_step = steps.make_eval_step(run)
  streams = dict(zip(run.languages, cache.streams["valid"], strict=True))
  unigram_log = cache.unigram_log_probabilities()

  def evaluator(state: TrainState):
    return perplexity.perplexities(
      eval_step,
      (state.theta, state.phi),
      streams,
      unigram_log,
      sequence_length=run.data.sequence_length,
      batch_size=run.eval_batch_size,
      poll=poll,
    )

  return evaluator


class Observer(NamedTuple):
  """What is measured every so many updates: state -> {name: value}, names beginning with prefix."""

  prefix: str
  every: int
  measure: Callable[[TrainState], dict[str, float]]


def perplexity_scalars(scores) -> dict[str, float]:
  return {f"perplexity/{code}": value for code, value in scores["perplexity"].items()}


def similarity_sentences(run: RunOptions, cache: token_cache.TokenCache) -> int:
  """Sequences a gradient where gradient cosines are measured, else 0."""
  similarity = run.gradient_similarity
  if not similarity.every:
    return 0
  return gradients.available_sentences(
    cache.streams["train"],
    run.data.sequence_length,
    similarity.sentences,
    similarity.batch_size,
  )


def gradient_observers(run: RunOptions, cache, sentences: int, poll) -> list[Observer]:
  """The observer of gradient cosines (Figure 3), where the run asks for it."""
  if not sentences:
    return []
  size = run.gradient_similarity.batch_size
  measure = gradients.make_measure(run, cache.streams["train"], sentences, size, poll)

  def scalars(state: TrainState) -> dict[str, float]:
    return gradients.scalars(measure((state.theta, state.phi), (int(state.step),)))

  return [Observer("gradient_cosine/", run.gradient_similarity.every, scalars)]


def make_sampler(run: RunOptions, cache: token_cache.TokenCache) -> BatchSampler:
  """The batches of the run: of one language per step, or of every language for gradient surgery."""

  def blocks(split: str) -> list[Blocks]:
    streams = dict(zip(run.languages, cache.streams[split], strict=True))
    return cut_blocks(split, streams, run.data.sequence_length, run.seed)

  schedule = held_out = None
  if not run.surgery.enabled:
    probabilities = sampling_probabilities(cache.num_sentences, run.data.sampling_exponent)
    schedule = language_schedule(probabilities, run.schedule.steps, run.seed)
  if run.meta.enabled:
    held_out = HeldOut(blocks("meta"), run.meta.batch_size, run.held_out_languages, run.seed)
  return BatchSampler(blocks("train"), run.batch_size, schedule, held_out)


def train(run: RunOptions, state, sampler, checkpoints, writer, observers, interruption):
  """The loop, from the state's step to the last: returns the final state, which is saved."""
  train_step = steps.make_train_step(run)
  last = run.schedule.steps
  first = int(state.step)
  window = Window(run, first)

  def log(step):
    # Fetching waits for the device, so it happens at this cadence and not at every step.
    if window.pending:
      scalars = window.fetch()
      writer.write(step, scalars)
      bar.set_postfix_str(describe(scalars), refresh=False)

  def save(step, state):
    log(step)  # a state is saved after the losses that led to it were seen to be finite
    checkpoints.save(state)

  quiet = not parallel.is_first()
  with progress_bar(total=last, initial=first, desc=run.system, disable=quiet) as bar:
    for step in range(first, last):
      for observer in observers:
        if step and step % observer.every == 0 and not writer.has(step, observer.prefix):
          try:
            writer.write(step, observer.measure(state))
          except Interrupted:
            save(step, state)
            checkpoints.wait()
            raise
      language = sampler.language(step)
      batch = parallel.split(sampler.batch(step))
      held_out = sampler.held_out_languages(step)
      state, metrics = train_step(state, batch, np.int32(language), held_out)
      window.add(step + 1, language, metrics)
      bar.update()
      done = step + 1
      if done % run.log_every == 0:
        log(done)
      stopped = interruption.asked()
      if done % run.checkpoint_every == 0 or done == last or stopped:
        save(done, state)
      if stopped:
        checkpoints.wait()
        raise Interrupted(f"stopped by {stopped}")
  checkpoints.wait()
  return state


class Window:
  """Metrics of the steps since the last line of the log, still on the device."""

  def __init__(self, run: RunOptions, step: int):
    self._run = run
    self.pending = []
    self._start = time.perf_counter(), step

  def add(self, step: int, language: int, metrics: dict):
    codes = self._run.languages
    of = ", ".join(codes) if self._run.surgery.enabled else codes[language]
    self.pending.append((step, of, metrics))

  def fetch(self) -> dict[str, float]:
    """Means over the window; `loss/<language>` over the steps of that language.

    Raises:
      NonFiniteLoss: a loss or gradient norm of the window is not finite.
    """
    values = {}
    pending = [(s, c, jax.device_get(metrics)) for s, c, metrics in self.pending]
    self.pending = []
    for step, language, metrics in pending:
      for name, value in metrics.items():
        if not math.isfinite(value):
          raise NonFiniteLoss(
            f"{name} is {float(value)} at step {step} on '{language}' (learning rate "
            f"{float(metrics['learning_rate']):.3g}); the last good checkpoint is kept. Lower "
            "--config.train.learning_rate or raise --config.train.warmup_steps, in a new --workdir."
          )
        name = f"loss/{language}" if name == "loss" else name
        values.setdefault(name, []).append(float(value))
    scalars = {name: sum(each) / len(each) for name, each in values.items()}
    now, done = time.perf_counter(), pending[-1][0]
    sequences = (done - self._start[1]) * self._run.sequences_per_step
    tokens = sequences * self._run.data.sequence_length
    scalars["tokens_per_second"] = tokens / (now - self._start[0])
    self._start = now, done
    return scalars


def describe(scalars: dict[str, float]) -> str:
  """What the progress bar shows beside step and time left."""
  parts = [
    f"{n.removeprefix('loss/')} {v:.3f}" for n, v in scalars.items() if n.startswith("loss/")
  ]
  return f"loss {', '.join(parts)}; {scalars['tokens_per_second']:,.0f} tokens/s"


def make_result(run: RunOptions, state: TrainState, cache, scores) -> dict:
  """The contents of result.json; perplexities per predicted token, masks fixed at 15 %."""
  done = int(state.step)
  return {
    "task": "pretrain",
    "system": run.system,
    "languages": list(run.languages),
    "scale": run.scale,
    "seed": run.seed,
    **scores,
    "steps": done,
    "parameters": {
      "theta": count_parameters(state.theta),
      "phi_of_each_language": count_parameters(state.phi) // len(run.languages),
    },
    "training_sentences": dict(zip(run.languages, cache.num_sentences, strict=True)),
    "training_tokens": {
      code: len(stream) for code, stream in zip(run.languages, cache.streams["train"], strict=True)
    },
    "tokens_seen": done * run.sequences_per_step * run.data.sequence_length,
    "held_out_tokens_seen": done * run.held_out_sequences_per_step * run.data.sequence_length,
    "flops": done * flops.step(run),
    "device": f"{parallel.num_devices()} x {jax.local_devices()[0].device_kind}",
    "jax": jax.__version__,
  }


def summary(result: dict, workdir: pathlib.Path) -> str:
  """The table at the end of a run."""
  lines = [
    "",
    f"{result['system']} on {', '.join(result['languages'])} ({result['scale']}), seed "
    f"{result['seed']}, {result['steps']:,} steps",
    f"{'language':<10}{'perplexity':>12}{'unigram':>10}{'ratio':>8}",
  ]
  for language, value in result["perplexity"].items():
    unigram = result["unigram_perplexity"][language]
    lines.append(f"{language:<10}{value:>12.2f}{unigram:>10.2f}{value / unigram:>8.2f}")
  parameters = result["parameters"]
  held_out = result["held_out_tokens_seen"]
  also = f" and {held_out:,} held out for the meta-gradient" if held_out else ""
  lines += [
    f"parameters: theta {parameters['theta']:,}, phi {parameters['phi_of_each_language']:,} for "
    "each language",
    f"tokens seen: {result['tokens_seen']:,}{also}; arithmetic: {result['flops']:.3g} FLOPs on "
    f"{result['device']}",
    f"in {workdir}: result.json, metrics.jsonl, tokenizer.model, checkpoints/, tensorboard/",
  ]
  return "\n".join(lines)
