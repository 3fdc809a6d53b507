"""Pretraining one system: from a config to a workdir with a result, resumable at any moment."""

import contextlib
import dataclasses
import hashlib
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from negint import options
from negint.analysis import gradients
from negint.data import token_cache
from negint.data.coverage import Coverage, coverage
from negint.data.open_corpora import SAMPLE_NOTICE, open_corpora
from negint.data.sampling import (
  BatchSampler,
  Blocks,
  HeldOut,
  cut_blocks,
  language_schedule,
  sampling_probabilities,
)
from negint.data.token_cache import TokenCache
from negint.data.tokenizer import AnyTokenizer
from negint.errors import Interrupted, NonFiniteLoss, UserError
from negint.method import device, flops, loss_scale, memory, optim, parallel, steps
from negint.method.model import count_parameters
from negint.method.state import ScaledState, TrainState, state_of
from negint.options import RunOptions
from negint.perplexity import perplexities
from negint.pretrained import start
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run import auto_remat, runner
from negint.run.checkpoint import Checkpoints
from negint.run.files import whole_file
from negint.run.interrupt import Interruption
from negint.run.progress import progress_bar
from negint.run.records import MetricsWriter, read_metrics
from negint.run.runner import Place, Say
from negint.run.workdir import DataRecord, tie_to_data

Scalars = dict[str, float]


class Inputs(NamedTuple):
  """What a run reads."""

  cache: TokenCache
  sampler: BatchSampler
  similarity_sentences: int  # sequences per gradient where gradient cosines are measured, else 0
  origin: Pretrained | None = None  # the model that it starts from
  coverage: dict[str, Coverage] = {}  # of each language, where the run adds one


def prepare(run: RunOptions, say: Say) -> Inputs:
  """Opens the corpora, made and tokenised on first use; UserError if they do not suffice."""
  if run.model.attention == "cudnn" and not device.has_cudnn_attention(jax.devices()):
    raise UserError(
      f"model.attention is 'cudnn', which needs NVIDIA GPUs of compute capability 8.0 or later (A100, "
      f"RTX 30); here is {jax.devices()[0].device_kind}. Use --config.model.attention=xla in a new run."
    )
  origin = None
  if run.init_from:
    origin = load_pretrained(run.init_from)
    start.check_fits(origin, run.model)
    head = "" if origin.has_head else " It has no head over the vocabulary, which is learnt anew."
    say(f"Starting from {run.init_from} ({described(origin)}), with its shape and tokenizer.{head}")
  ready = origin.tokenizer if origin else tokenizer_of_folder(run)
  cache = token_cache.open_tokens(run.data, run.languages, say, ready)
  if run.data.source == "sample":
    say(
      SAMPLE_NOTICE.format(
        language=run.languages[0], languages="-".join(run.languages), system=run.system
      )
    )
  steps, warmup = run.schedule.steps, run.schedule.warmup_steps
  if steps < warmup:
    say(
      f"train.steps is {steps} and train.warmup_steps {warmup}: the learning rate never reaches its peak. "
      f"For a short run, add --config.train.warmup_steps={steps // 10}."
    )
  covered = coverages(run, cache, say) if run.new_language else {}
  sampler = make_sampler(run, cache)
  return Inputs(cache, sampler, similarity_sentences(run, cache), origin, covered)


def decide(config: ConfigDict, there: dict | None, say: Say) -> ConfigDict:
  """Returns the config with the dtype that suits the devices in the place of `auto`.

  A run that has begun keeps its dtype, also when it resumes on another device.

  Args:
    config: of the command line.
    there: the config on record in the run's folder; None: the run is new.
    say: receives the sentence that says which dtype, and why.
  """
  if config.model.dtype != options.AUTO:
    return config
  if there is None:
    dtype, why = device.fast_dtype(jax.devices())
  else:
    dtype, why = there.get("model", {}).get("dtype", options.AUTO), "the run began with it"
  say(f"model.dtype is auto: {dtype}, because {why}.")
  config = config.copy_and_resolve_references()
  config.model.dtype = dtype
  return config


def tokenizer_of_folder(run: RunOptions) -> AnyTokenizer | None:
  """Returns the tokenizer of the folder that `data.tokenizer_from` names; None if it names none."""
  if not token_cache.needs_ready_tokenizer(run.data):
    return None
  try:
    return load_pretrained(run.data.tokenizer_from).tokenizer
  except UserError as error:
    raise UserError(
      f"data.tokenizer_from is {run.data.tokenizer_from!r}; it must be languages joined by hyphens, "
      f"such as xb-xa, or the folder of a model, as --config.init_from takes one: {error}"
    ) from error


def described(model: Pretrained) -> str:
  """Returns what a pretrained model is, as "adpt on xb, xa; 1,200 steps"."""
  languages = ", ".join(model.languages[:5]) + ", ..." * (len(model.languages) > 5)
  words = f"{model.system} on {languages or 'unnamed languages'}"
  return words if model.steps is None else f"{words}; {model.steps:,} steps"


def coverages(run: RunOptions, cache: TokenCache, say: Say) -> dict[str, Coverage]:
  """Returns how well the tokenizer fits each language, and says it."""
  corpora = open_corpora(run.data, run.languages, say)
  found = {
    corpus.language: coverage(corpus, stream, cache.tokenizer.special)
    for corpus, stream in zip(corpora, cache.streams["valid"], strict=True)
  }
  parts = [
    f"{code}: {each.unknown_pieces:.2%} unknown pieces, {each.pieces_per_word:.2f} pieces per word"
    for code, each in found.items()
  ]
  say(f"The tokenizer of {run.init_from} on each language: {'; '.join(parts)}.")
  return found


def work(run: RunOptions, inputs: Inputs, place: Place) -> dict:
  """Trains from the last checkpoint to the end; returns the contents of result.json."""
  workdir, interruption, say = place
  model = auto_remat.chosen(run.model, place, lambda: memory.remat_of(run, memory.limit(), say))
  run = dataclasses.replace(run, model=model)
  cache, sampler, sentences = inputs.cache, inputs.sampler, inputs.similarity_sentences
  if parallel.is_first():
    tokenizer = cache.tokenizer.model
    tie_to_data(workdir, DataRecord(cache.key, hashlib.sha256(tokenizer).hexdigest()))
    with whole_file(workdir / "tokenizer.model", "wb") as file:
      file.write(tokenizer)
  checkpoints = Checkpoints(workdir, run.checkpoint_keep)
  state = restored_or_first(run, inputs.origin, checkpoints, place)
  writer = MetricsWriter(workdir, int(state.step), quiet=not parallel.is_first(), say=say)
  try:
    evaluator = make_evaluator(run, cache, interruption.poll)
    observers = [
      Observer(
        "perplexity/",
        lambda step: (step > 0 or bool(run.init_from)) and step % run.eval_every == 0,
        lambda state: perplexity_scalars(evaluator(state)),
      ),
      *gradient_observers(run, cache, sentences, interruption.poll),
    ]
    state = train(run, state, sampler, checkpoints, writer, observers, interruption)
    scores = evaluator(state)
    if not writer.has(run.schedule.steps, "perplexity/"):
      writer.write(run.schedule.steps, perplexity_scalars(scores))
  except Interrupted as error:
    step = checkpoints.newest() or 0
    raise Interrupted(f"{error} at step {step} of {run.schedule.steps}") from None
  finally:
    with contextlib.closing(checkpoints):  # even where the metrics cannot be written
      writer.close()
  result = make_result(run, state, inputs, scores) | start_facts(run, inputs)
  if parallel.is_first() and (share := second_order_share(workdir / "metrics.jsonl")) is not None:
    result["second_order_share"] = share
  return result


def restored_or_first(
  run: RunOptions, origin: Pretrained | None, checkpoints: Checkpoints, place: Place
) -> TrainState:
  """Returns the newest state on disk or, where there is none, the one before the first step."""
  first = None
  like = parallel.replicated_shapes(memory.state_shapes(run))
  if parallel.num_processes() > 1:  # one process sends the state to the others, into such arrays
    like = first = parallel.replicate(first_state(run, origin))
  state: TrainState | None = checkpoints.restore(like, place.say)
  if state is None:
    return first or parallel.replicate(first_state(run, origin))
  place.say(f"Resuming at step {int(state.step)} of {run.schedule.steps} in {place.workdir}.")
  return state


def first_state(run: RunOptions, origin: Pretrained | None) -> TrainState:
  """Returns the state before the first step."""
  state = state_of(run)
  if origin is None:
    return state
  theta, phi = start.parameters(origin, run.languages, state.theta, state.phi)
  return state.replace(theta=theta, phi=phi)


def start_facts(run: RunOptions, inputs: Inputs) -> dict:
  """Returns what result.json says of the model that the run started from; {} for random weights."""
  if inputs.origin is None:
    return {}
  facts: dict = {"init_from": inputs.origin.identity(), "freeze_theta": run.freeze_theta}
  if run.new_language:
    facts["new_language"] = run.new_language
    for name in Coverage._fields:
      facts[name] = {code: getattr(each, name) for code, each in inputs.coverage.items()}
  return facts


def make_evaluator(
  run: RunOptions, cache: TokenCache, poll: Callable[[], None]
) -> Callable[[TrainState], dict[str, Scalars]]:
  """Returns a function from a state to the perplexities of the whole valid split.

  Where the split `meta` trains phi, the function also gives `meta_perplexity`: the perplexities of as
  much of `meta`, at the beginning. If they fall faster than those of valid, phi learns meta by heart.
  """
  eval_step = steps.make_eval_step(run)
  valid = cache.streams["valid"]
  unigram_log = cache.unigram_log_probabilities()

  def measure(state: TrainState, streams: Iterable[np.ndarray]) -> dict[str, Scalars]:
    return perplexities(
      eval_step,
      (state.theta, state.phi),
      dict(zip(run.languages, streams, strict=True)),
      unigram_log,
      sequence_length=run.data.sequence_length,
      batch_size=run.eval_batch_size,
      poll=poll,
    )

  def evaluator(state: TrainState) -> dict[str, Scalars]:
    scores = measure(state, valid)
    if run.held_out_languages:
      pairs = zip(cache.streams["meta"], valid, strict=True)
      same_size = [meta[: len(other)] for meta, other in pairs]
      scores["meta_perplexity"] = measure(state, same_size)["perplexity"]
    return scores

  return evaluator


class Observer(NamedTuple):
  """What is measured while training."""

  prefix: str  # with which the names of its scalars begin
  is_due: Callable[[int], bool]  # whether to measure after so many updates
  measure: Callable[[TrainState], Scalars]


def perplexity_scalars(scores: dict[str, Scalars]) -> Scalars:
  """Returns the perplexities under the names that a run logs."""
  return {
    f"{name}/{code}": value
    for name in ("perplexity", "meta_perplexity")
    for code, value in scores.get(name, {}).items()
  }


def similarity_sentences(run: RunOptions, cache: TokenCache) -> int:
  """Returns the sequences per gradient where gradient cosines are measured, else 0."""
  similarity = run.gradient_similarity
  if not similarity.every:
    return 0
  return gradients.available_sentences(
    cache.streams["train"],
    run.data.sequence_length,
    similarity.sentences,
    similarity.batch_size,
  )


def gradient_observers(
  run: RunOptions, cache: TokenCache, sentences: int, poll: Callable[[], None]
) -> list[Observer]:
  """Returns the observer of gradient cosines (Figure 3), if the run asks for it."""
  if not sentences:
    return []
  size = run.gradient_similarity.batch_size
  measure = gradients.make_measure(run, cache.streams["train"], sentences, size, poll)

  def scalars(state: TrainState) -> Scalars:
    return gradients.scalars(measure((state.theta, state.phi), (int(state.step),)))

  every = run.gradient_similarity.every
  return [Observer("gradient_cosine/", lambda step: gradients.is_due(step, every), scalars)]


def make_sampler(run: RunOptions, cache: TokenCache) -> BatchSampler:
  """Returns the run's batches: of one language per step, or of every language for surgery."""

  def blocks(split: str) -> list[Blocks]:
    streams = dict(zip(run.languages, cache.streams[split], strict=True))
    return cut_blocks(split, streams, run.data.sequence_length, run.seed)

  schedule = held_out = None
  if not run.surgery.enabled:
    schedule = language_schedule(
      language_probabilities(run, cache.num_sentences), run.schedule.steps, run.seed
    )
  if run.held_out_languages:
    held_out = HeldOut(
      blocks("meta"),
      run.meta.batch_size,
      run.held_out_languages,
      run.seed,
      run.own_language_held_out,
    )
  return BatchSampler(blocks("train"), run.batch_size, schedule, held_out, run.meta.own_slots)


def language_probabilities(run: RunOptions, num_sentences: Sequence[int]) -> np.ndarray:
  """Returns the chance of each language to give a batch, [languages]."""
  if run.new_language:
    return np.array([float(code == run.new_language) for code in run.languages])
  return sampling_probabilities(num_sentences, run.data.sampling_exponent)


def train(
  run: RunOptions,
  state: TrainState,
  sampler: BatchSampler,
  checkpoints: Checkpoints,
  writer: MetricsWriter,
  observers: list[Observer],
  interruption: Interruption,
) -> TrainState:
  """Trains from the state's step to the last one; returns the final state, which is saved."""
  train_step = steps.make_train_step(run)
  last = run.schedule.steps
  first = int(state.step)
  window = Window(run, first)

  def log(step: int) -> None:
    # Fetching waits for the device, so it happens at this cadence and not at every step.
    if window.pending:
      scalars = window.fetch()
      writer.write(step, scalars)
      bar.set_postfix_str(describe(scalars), refresh=False)

  def save(step: int, state: TrainState) -> None:
    log(step)  # a state is saved after the losses that led to it were seen to be finite
    checkpoints.save(state)

  quiet = not parallel.is_first()
  with progress_bar(total=last, initial=first, desc=run.system, disable=quiet) as bar:
    for step in range(first, last):
      for observer in observers:
        if observer.is_due(step) and not writer.has(step, observer.prefix):
          try:
            with window.paused(state):
              writer.write(step, observer.measure(state))
          except Interrupted:
            save(step, state)
            checkpoints.wait()
            raise
      language = sampler.language(step)
      batch = parallel.split(sampler.batch(step))
      held_out = sampler.held_out_languages(step)
      rate = optim.learning_rate(run.schedule, step)
      state, metrics = train_step(state, batch, rate, np.int32(language), held_out)
      window.add(step + 1, language, metrics)
      bar.update()
      done = step + 1
      if done % run.log_every == 0:
        log(done)
      stop = interruption.asked()
      if done % run.checkpoint_every == 0 or done == last or stop:
        save(done, state)
      if stop:
        checkpoints.wait()
        raise stop
  checkpoints.wait()
  return state


class Window:
  """Metrics of the steps since the last line of the log, still on the device."""

  def __init__(self, run: RunOptions, step: int):
    self._run = run
    self.pending: list[tuple[int, str, dict]] = []
    self._start = time.perf_counter(), step

  def add(self, step: int, language: int, metrics: dict) -> None:
    """Notes the metrics of the step that made it `step` updates."""
    codes = self._run.languages
    of = ", ".join(codes) if self._run.surgery.enabled else codes[language]
    self.pending.append((step, of, metrics))

  @contextlib.contextmanager
  def paused(self, state: TrainState) -> Iterator[None]:
    """Keeps the time inside the block out of `tokens_per_second`.

    The steps under way on the device are waited for first: their time does count.
    """
    jax.block_until_ready(state)
    start = time.perf_counter()
    try:
      yield
    finally:
      since, step = self._start
      self._start = since + time.perf_counter() - start, step

  def fetch(self) -> Scalars:
    """Returns means over the window; `loss/<language>` over the steps of that language.

    Raises:
      NonFiniteLoss: a loss or gradient norm of the window is not finite.
    """
    values: dict[str, list[float]] = {}
    # All at once: if each step's were copied by itself, the device would wait in between.
    copies = jax.device_get([metrics for _, _, metrics in self.pending])
    pending = [(s, of, copy) for (s, of, _), copy in zip(self.pending, copies, strict=True)]
    self.pending = []
    for step, language, metrics in pending:
      if metrics.get("loss_scale", loss_scale.FLOOR) < loss_scale.FLOOR:
        raise NonFiniteLoss(
          f"a loss or gradient is not finite at step {step} on '{language}' (learning rate "
          f"{float(metrics['learning_rate']):.3g}), although the loss scale of float16 fell to its "
          f"floor of {loss_scale.FLOOR:g}; the last good checkpoint is kept. Lower "
          "--config.train.learning_rate, or use --config.model.dtype=bfloat16 or float32, in a new "
          "--workdir."
        )
      if metrics.get("skipped_share"):
        metrics = {name: metrics[name] for name in loss_scale.LOGGED}
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
    per_step = self._run.sequences_per_step or self._run.held_out_sequences_per_step
    sequences = (done - self._start[1]) * per_step
    tokens = sequences * self._run.data.sequence_length
    scalars["tokens_per_second"] = tokens / (now - self._start[0])
    self._start = now, done
    return scalars


def describe(scalars: Scalars) -> str:
  """Returns what the progress bar shows beside step and time left."""
  parts = [
    f"{n.removeprefix('loss/')} {v:.3f}" for n, v in scalars.items() if n.startswith("loss/")
  ]
  return f"loss {', '.join(parts) or 'not finite'}; {scalars['tokens_per_second']:,.0f} tokens/s"


def make_result(
  run: RunOptions, state: TrainState, inputs: Inputs, scores: dict[str, Scalars]
) -> dict:
  """Returns the contents of result.json; perplexities are per predicted token, with fixed masks."""
  cache, done = inputs.cache, int(state.step)
  scaling = state.loss_scale if isinstance(state, ScaledState) else None
  training_steps = done if run.sequences_per_step else 0  # others read held-out text alone
  sequences = inputs.sampler.sequences_by_language(training_steps).tolist()
  return {
    "task": "pretrain",
    "system": run.system,
    "languages": list(run.languages),
    "scale": run.scale,
    "seed": run.seed,
    **scores,
    "bits_per_character": bits_per_character(cache, scores["perplexity"]),
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
    "tokens_seen_by_language": {
      code: count * run.data.sequence_length
      for code, count in zip(run.languages, sequences, strict=True)
    },
    "held_out_tokens_seen": done * run.held_out_sequences_per_step * run.data.sequence_length,
    "flops": done * flops.step(run),
    "dtype": run.model.dtype,
    **({"skipped_steps": int(scaling.skipped)} if scaling else {}),
    "remat": run.model.remat,
    "device": f"{parallel.num_devices()} x {jax.local_devices()[0].device_kind}",
    "jax": jax.__version__,
  }


def bits_per_character(cache: TokenCache, perplexity: Scalars) -> Scalars:
  """Returns each language's bits per character of `valid`, which tokenizers do not change.

  It is log2(perplexity) times the tokens per character. The end of a line counts as a character,
  because it has a token.

  Args:
    cache: the tokens of `valid` and the number of its characters.
    perplexity: per predicted token, by language, in the order of the cache.
  """
  streams = zip(perplexity.items(), cache.streams["valid"], cache.valid_characters, strict=True)
  return {
    code: math.log2(value) * len(stream) / characters
    for (code, value), stream, characters in streams
  }


def second_order_share(path: pathlib.Path) -> float | None:
  """Returns the mean over a run's steps of the second-order term's share in the meta-gradient.

  Args:
    path: the run's metrics.jsonl, each line of which holds a mean over the steps since the last.

  Returns:
    A share in 0..1, or None where no step computed a meta-gradient.
  """
  total, last = 0.0, 0
  for record in read_metrics(path):
    if (share := record.get("meta/second_order_share")) is not None:
      total += share * (record["step"] - last)
      last = record["step"]
  return total / last if last else None


def summary(result: dict, workdir: pathlib.Path) -> str:
  """Returns the table that ends a run."""
  covered = "new_language" in result
  more = f"{'unknown':>10}{'pieces/word':>13}" if covered else ""
  lines = [
    "",
    f"{result['system']} on {', '.join(result['languages'])} ({result['scale']}), seed "
    f"{result['seed']}, {result['steps']:,} steps",
    f"{'language':<10}{'perplexity':>12}{'unigram':>10}{'ratio':>8}{more}",
  ]
  for language, value in result["perplexity"].items():
    unigram = result["unigram_perplexity"][language]
    line = f"{language:<10}{value:>12.2f}{unigram:>10.2f}{value / unigram:>8.2f}"
    if covered:
      unknown, pieces = (result[name][language] for name in Coverage._fields)
      line += f"{unknown:>10.2%}{pieces:>13.2f}"
    lines.append(line)
  if "init_from" in result:
    frozen = "phi alone was trained" if result["freeze_theta"] else "theta was trained, too"
    new = f", {result['new_language']} is new" if covered else ""
    lines.append(f"started from {result['init_from']['workdir']}: {frozen}{new}")
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


KIND = runner.Kind(
  options.from_config, prepare, work, summary, memory.remedies, start.complete, decide
)
