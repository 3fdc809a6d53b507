"""Parameter sharing (Section 3.3, Figures 4a and 4b): one L0 mask per language over a frozen model.

For each language and seed, hard-concrete gates are trained to keep the language's loss low with few
weights (Eq. 1). Then the masks' log_alpha (the paper's pi) are compared. Masks of one language with
two seeds show how similar two masks can be at most.
"""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from ml_collections import ConfigDict

from negint.analysis import l0
from negint.analysis.training_tokens import open_streams
from negint.data.sampling import cut_blocks
from negint.data.token_cache import TokenCache
from negint.method import loss_scale, losses, masking, memory, optim, parallel, similarity, steps
from negint.method.phi import merge_params, select_language
from negint.options import (
  AdamOptions,
  ModelOptions,
  ScheduleOptions,
  check_at_least,
  check_choice,
  check_divisible,
  check_positive,
  check_share,
)
from negint.out_of_memory import Remedies
from negint.perplexity import perplexities
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run import auto_remat
from negint.run.checkpoint import Checkpoints
from negint.run.interrupt import Interruption
from negint.run.progress import progress_bar
from negint.run.runner import Kind, Place, Say, smaller_batches

EXTREME_GROUPS = 10  # shown at each end, as in Figure 4b
EVAL_BATCH = 64  # sequences
STIFFNESS = 10.0  # nats per token added to lambda per unit of share above the target


@dataclasses.dataclass(frozen=True)
class PruningRun:
  """configs/pruning.py says what each field means."""

  init_from: str
  seed: int
  seeds: int
  granularity: str
  steps: int
  batch_size: int
  learning_rate: float
  penalty: float
  target_kept: float
  penalty_rate: float
  checkpoint_every: int

  @property
  def optimiser(self) -> AdamOptions:
    """Adam for log_alpha."""
    return AdamOptions(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, clip_norm=np.inf)

  @property
  def schedule(self) -> ScheduleOptions:
    """The rate of log_alpha, which falls from `learning_rate` to zero."""
    return ScheduleOptions(self.steps, self.learning_rate, warmup_steps=0, kind="linear")


class MaskState(struct.PyTreeNode):
  """A mask under training."""

  step: jax.Array  # updates done
  key: jax.Array  # PRNG key of the mask's noise
  log_alpha: Any  # of each gate
  slots: Any  # Adam's, of log_alpha
  penalty: jax.Array  # weight of the penalty, lambda in Eq. 1, nats per token


def from_config(config: ConfigDict, num_devices: int) -> PruningRun:
  """Checks the ConfigDict and freezes it; UserError at the first broken rule."""
  fields = config.to_dict()
  del fields["task"]
  run = PruningRun(**fields)
  check_choice("granularity", run.granularity, l0.GRANULARITIES)
  check_at_least("seed", run.seed, 0)
  check_at_least("seeds", run.seeds, 1)
  check_at_least("steps", run.steps, 1)
  check_at_least("checkpoint_every", run.checkpoint_every, 1)
  check_at_least("penalty", run.penalty, 0.0)
  check_at_least("penalty_rate", run.penalty_rate, 0.0)
  check_positive("learning_rate", run.learning_rate)
  check_share("target_kept", run.target_kept, open_end=True)
  check_divisible("batch_size", run.batch_size, num_devices)
  return run


class Inputs(NamedTuple):
  """The frozen model and the text that it learned from."""

  model: Pretrained
  cache: TokenCache


def prepare(run: PruningRun, say: Say) -> Inputs:
  """Opens the model and its text."""
  model = load_pretrained(run.init_from)
  return Inputs(model, open_streams(model, run.init_from, say))


def work(run: PruningRun, inputs: Inputs, place: Place) -> dict:
  """Trains every mask from its last checkpoint on; returns the contents of result.json."""
  model, cache = inputs
  pruner = Pruner(run, model, cache, place.interruption)
  pruner.settle(auto_remat.chosen(model.model, place, lambda: pruner.remat_of(memory.limit())))
  masks = {
    (language, seed): pruner.mask(
      language, seed, place.workdir / "masks" / f"{language}-seed{seed}", place.say
    )
    for seed in range(run.seed, run.seed + run.seeds)
    for language in model.languages
  }
  log_alpha = {name: mask.log_alpha for name, mask in masks.items()}
  return {
    "task": "pruning",
    "init_from": run.init_from,
    "pretraining": model.identity(),
    "granularity": run.granularity,
    "steps": run.steps,
    "unpruned_perplexity": pruner.perplexity(None),
    "masks": [pruner.describe(*name, mask) for name, mask in masks.items()],
    "similarity": similarities(log_alpha),
    "extreme": extremes(log_alpha),
  }


def whole_batch(num_devices: int) -> int:
  """Returns the sequences of an evaluation batch: EVAL_BATCH, or a little more, divisible by devices."""
  return -(-EVAL_BATCH // num_devices) * num_devices


def shape_of(model: ModelOptions) -> ModelOptions:
  """Returns the encoder that masks are trained on: without dropout, and in float32 if in float16.

  The gradients of log_alpha would need a loss scale in float16, and a mask is soon trained.
  """
  if loss_scale.needed(model.dtype):
    model = model.replace(dtype="float32", attention="xla")  # cuDNN has no float32
  return model.replace(dropout=0.0, attention_dropout=0.0)


@functools.lru_cache(maxsize=1)  # the step whose memory was looked at is the one that trains
def make_mask_step(model: ModelOptions, run: PruningRun, mask_rate: float) -> parallel.MappedStep:
  """Returns the update of a mask.

  It maps (state, split batch, frozen parameters, language, learning rate) to (state, metrics). The
  loss is Eq. 1 with one gate sample per batch; its L0 term is the expected kept share of the
  weights. With `target_kept`, lambda is the sum over past steps of the share above the target, plus
  STIFFNESS times the share above it now. The second part keeps lambda from overshooting.
  """

  def step(state, batch, frozen, language, rate):
    mask_key, gate_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    tokens = batch["tokens"]
    batch = masking.mask_tokens(
      mask_key,
      tokens,
      parallel.first_row(tokens.shape[0]) + jnp.arange(tokens.shape[0]),
      num_predicted=masking.num_predicted(mask_rate, tokens.shape[1]),
      vocab_size=model.vocab_size,
      mask_id=model.mask_id,
      kept_ids=model.kept_ids,
    )

    def objective(log_alpha):
      gates = l0.sample_gates(gate_key, log_alpha)
      params = l0.masked(frozen, l0.multipliers(model, gates))
      total, count = losses.mlm_loss(model, params, batch, language)
      kept = l0.share(model, run.granularity, l0.open_probability(log_alpha))
      weight = state.penalty
      if run.target_kept:
        weight += STIFFNESS * (jax.lax.stop_gradient(kept) - run.target_kept)
      return total / count + weight * kept, (total / count, kept)

    gradient, (loss, kept) = parallel.mean(jax.grad(objective, has_aux=True)(state.log_alpha))
    log_alpha, slots = optim.update(run.optimiser, rate, state.log_alpha, state.slots, gradient)
    penalty = state.penalty
    if run.target_kept:
      penalty += run.penalty_rate * (kept - run.target_kept)
    state = state.replace(
      step=state.step + 1,
      log_alpha=jax.tree.map(
        lambda leaf: jnp.clip(leaf, -l0.LOG_ALPHA_LIMIT, l0.LOG_ALPHA_LIMIT), log_alpha
      ),
      slots=slots,
      penalty=penalty,
    )
    return state, {"loss": loss, "kept": kept}

  return parallel.pmap_step(step, donate_state=False)


class Pruner:
  """What the masks of a run share: the frozen model, its data and its compiled functions."""

  def __init__(
    self, run: PruningRun, model: Pretrained, cache: TokenCache, interruption: Interruption
  ):
    self.run, self.model, self.cache, self.interruption = run, model, cache, interruption
    self.settle(model.model)
    self.languages = model.languages
    self.params = parallel.replicate((model.theta, model.phi))
    self.eval_step = steps.make_eval_step(model.run)
    self.unigram = cache.unigram_log_probabilities()

  def settle(self, model: ModelOptions) -> None:
    """Takes the shape of the frozen model, with a remat of options.REMATS before anything trains."""
    self.shape = shape_of(model)

  @property
  def mask_step(self) -> parallel.MappedStep:
    """One update of a mask."""
    return make_mask_step(self.shape, self.run, self.model.run.mask_rate)

  def remat_of(self, available: memory.Limit | None) -> memory.Choice:
    """Returns what the updates do about their memory; UserError where they do not fit."""
    state, frozen = self.first_state(0, self.run.seed), self.frozen(0)
    tokens = np.zeros((self.run.batch_size, self.model.run.data.sequence_length), np.int32)
    batch = parallel.split({"tokens": tokens})

    def need(remat: str) -> memory.Need:
      shape = self.shape.replace(remat=remat)
      step = make_mask_step(shape, self.run, self.model.run.mask_rate)
      rate = optim.learning_rate(self.run.schedule, 0)
      return memory.need_of(step.lower(state, batch, frozen, np.int32(0), rate).compile())

    return memory.choose(need, available, lambda: memory.LOWER_BATCH)

  def frozen(self, index: int) -> Any:  # Any: a tree of arrays
    """Returns the parameters of one language, by its index."""
    return merge_params(self.params[0], select_language(self.params[1], index))

  def first_state(self, index: int, seed: int) -> MaskState:
    """Returns a mask before its first update, on all devices."""
    key = jax.random.fold_in(jax.random.key(seed), index)  # no noise shared between languages
    start_key, key = jax.random.split(key)
    log_alpha = l0.init_log_alpha(self.shape, self.run.granularity, start_key)
    slots = optim.adam(self.run.optimiser).init(log_alpha)
    state = MaskState(
      jnp.zeros((), jnp.int32), key, log_alpha, slots, jnp.float32(self.run.penalty)
    )
    return parallel.replicate(state)

  def mask(self, language: str, seed: int, folder: pathlib.Path, say: Say) -> MaskState:
    """Returns one trained mask; it is trained from its last checkpoint on."""
    folder.mkdir(parents=True, exist_ok=True)
    index = self.languages.index(language)
    state = self.first_state(index, seed)
    with contextlib.closing(Checkpoints(folder, keep=1)) as checkpoints:
      restored = checkpoints.restore(state, say)
      return self.train(index, seed, state if restored is None else restored, checkpoints)

  def train(self, index: int, seed: int, state: MaskState, checkpoints: Checkpoints) -> MaskState:
    """Returns the mask after its last update."""
    run, language = self.run, self.languages[index]
    stream = {language: self.cache.streams["train"][index]}
    [blocks] = cut_blocks("train", stream, self.model.run.data.sequence_length, seed)
    frozen = self.frozen(index)
    with progress_bar(
      total=run.steps, initial=int(state.step), desc=f"mask of {language}, seed {seed}", leave=False
    ) as bar:
      for step in range(int(state.step), run.steps):
        tokens = blocks.take(step * run.batch_size, run.batch_size)
        batch = parallel.split({"tokens": tokens})
        rate = optim.learning_rate(run.schedule, step)
        state, metrics = self.mask_step(state, batch, frozen, np.int32(index), rate)
        bar.update()
        done, stop = step + 1, self.interruption.asked()
        if done % run.checkpoint_every == 0 or done == run.steps or stop:
          checkpoints.save(state)
        if stop:
          checkpoints.wait()
          raise stop
        if done % 50 == 0:
          bar.set_postfix_str(
            f"loss {float(metrics['loss']):.3f}, kept {float(metrics['kept']):.2f}", refresh=False
          )
    checkpoints.wait()
    return state

  def perplexity(self, gates: dict | None) -> dict[str, float]:
    """Returns the perplexity of each language on `valid` with the gates (None: unpruned)."""
    theta, phi = self.params
    if gates is not None:
      factors = l0.multipliers(self.shape, gates)
      theta, phi = l0.masked(theta, factors), l0.masked(phi, factors)
    return perplexities(
      self.eval_step,
      (theta, phi),
      dict(zip(self.languages, self.cache.streams["valid"], strict=True)),
      self.unigram,
      sequence_length=self.model.run.data.sequence_length,
      batch_size=whole_batch(parallel.num_devices()),
      poll=self.interruption.poll,
    )["perplexity"]

  def describe(self, language: str, seed: int, mask: MaskState) -> dict:
    """Returns a mask's entry in result.json: what it keeps, and each language's perplexity with it.

    `kept` is the share of the weights behind gates above zero, `expected_kept` the share that the
    penalty counts, `saturated` the share of gates at a limit. `shuffled_perplexity` is that of the
    same gates in a random order within each projection: a mask that knows something about the weights
    does better.
    """
    gates = l0.deterministic_gates(mask.log_alpha)
    generator = np.random.default_rng([seed, self.languages.index(language)])
    shuffled = jax.tree.map(
      lambda leaf: jnp.asarray(
        generator.permutation(np.ravel(leaf)).reshape(leaf.shape), jnp.float32
      ),
      jax.device_get(gates),
    )

    def share(values: dict) -> float:
      return float(l0.share(self.shape, self.run.granularity, values))

    return {
      "language": language,
      "seed": seed,
      "kept": share(jax.tree.map(lambda gate: gate > 0, gates)),
      "expected_kept": share(l0.open_probability(mask.log_alpha)),
      "saturated": sum(at_limits(l0.by_scope(jax.device_get(mask.log_alpha))["all"])),
      "penalty": float(mask.penalty),
      "perplexity": self.perplexity(gates),
      "shuffled_perplexity": self.perplexity(shuffled),
    }


def cosine(a: np.ndarray, b: np.ndarray) -> float | None:
  """Returns the cosine of two vectors, or None if one is zero."""
  norms = float(np.linalg.norm(a) * np.linalg.norm(b))
  return float(a @ b) / norms if norms else None


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
  """Returns Spearman's correlation of two vectors, or None if one is constant."""
  a, b = ranks(a), ranks(b)
  return cosine(a - a.mean(), b - b.mean())


def ranks(values: np.ndarray) -> np.ndarray:
  """Returns the rank of each value from 0; equal values share the mean of their ranks, float64."""
  _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
  last = np.cumsum(counts) - 1
  return np.asarray((last - (counts - 1) / 2)[places.ravel()], np.float64)


def at_limits(log_alpha: np.ndarray) -> tuple[float, float]:
  """Returns the shares of gates at the lower and at the upper limit of log_alpha."""
  limit = np.float32(l0.LOG_ALPHA_LIMIT)
  return float(np.mean(log_alpha <= -limit)), float(np.mean(log_alpha >= limit))


def similarities(log_alpha: dict) -> list[dict]:
  """Returns how alike the masks {(language, seed): log_alpha} are, by scope.

  Two languages are compared at equal seeds, one language at two seeds. In both cases the masks have
  nothing in common but the frozen weights. Where all gates drift together, the plain cosine is too
  high; the centred cosine and the rank correlation do not see the drift. Both are None where a mask is
  constant. Where nearly all gates of a mask stand at one limit, `saturation` is near 1: the mask is
  nearly constant, and its plain cosine with any other mask says nothing about the languages.
  """
  vectors = {name: l0.by_scope(jax.device_get(mask)) for name, mask in log_alpha.items()}
  result = []
  for (first, seed), (second, other_seed) in itertools.combinations(vectors, 2):
    if (first == second) == (seed == other_seed):
      continue
    for scope, a in vectors[first, seed].items():
      b = vectors[second, other_seed][scope]
      share = max(*at_limits(a), *at_limits(b))
      a, b = (np.asarray(v, np.float64) for v in (a, b))
      result.append(
        {
          "languages": [first, second],
          "seeds": [seed, other_seed],
          "scope": scope,
          "cosine": cosine(a, b),
          "centred": cosine(a - a.mean(), b - b.mean()),
          "rank_correlation": rank_correlation(a, b),
          "saturation": share,
        }
      )
  return result


def extremes(log_alpha: dict) -> list[dict]:
  """Returns each language's gates with the lowest and the highest log_alpha (Figure 4b).

  The order is that of the mean over the seeds. The other languages' means stand beside it, and
  `in_seeds` says in how many seeds the gate is among the EXTREME_GROUPS at its end. Gates with equal
  means come in a random order.

  Args:
    log_alpha: {(language, seed): mask}, with the same seeds for each language.
  """
  masks = {name: l0.by_scope(jax.device_get(mask))["all"] for name, mask in log_alpha.items()}
  names = l0.group_names(next(iter(log_alpha.values())))
  codes, seeds = (list(dict.fromkeys(each)) for each in zip(*masks, strict=True))
  means = {code: np.mean([masks[code, seed] for seed in seeds], axis=0) for code in codes}
  result = []
  for language, other in itertools.permutations(codes, 2):
    found = ends(means[language])
    of_seeds = [ends(masks[language, seed]) for seed in seeds]
    groups = [
      {
        "group": names[gate],
        "pi": float(means[language][gate]),
        "other_pi": float(means[other][gate]),
        "in_seeds": sum(gate in of_seed[end] for of_seed in of_seeds),
      }
      for end in (0, 1)
      for gate in found[end]
    ]
    result.append({"language": language, "other": other, "seeds": len(seeds), "groups": groups})
  return result


def ends(values: np.ndarray) -> np.ndarray:
  """Returns the places of the EXTREME_GROUPS lowest values and of the highest ones, [2, groups]."""
  drawn = np.random.default_rng(0).permutation(len(values))
  order = drawn[np.argsort(values[drawn], kind="stable")]
  return np.stack([order[:EXTREME_GROUPS], order[-EXTREME_GROUPS:]])


def summary(result: dict, workdir: pathlib.Path) -> str:
  """Returns the tables that end a run."""
  languages = result["pretraining"]["languages"]
  lines = [
    "",
    f"L0 masks of {result['pretraining']['system']} on {', '.join(languages)}, one gate per "
    f"{result['granularity']}, {result['steps']:,} updates",
    f"{'mask':<16}{'kept':>7}" + "".join(f"{'perplexity ' + code:>16}" for code in languages),
    f"{'none':<16}{1:>7.2f}"
    + "".join(f"{result['unpruned_perplexity'][code]:>16.2f}" for code in languages),
  ]
  for mask in result["masks"]:
    lines.append(
      f"{mask['language'] + ' seed ' + str(mask['seed']):<16}{mask['kept']:>7.2f}"
      + "".join(f"{mask['perplexity'][code]:>16.2f}" for code in languages)
    )
  lines += ["", f"{'scope':<20}{'masks':<16}{'cosine':>9}{'centred':>9}{'rank':>9}"]
  for row in result["similarity"]:
    seeds = "" if len(set(row["languages"])) > 1 else " (two seeds)"
    measures = (row[name] for name in ("cosine", "centred", "rank_correlation"))
    shown = ["-" if value is None else f"{value:.3f}" for value in measures]
    if similarity.is_saturated(row):
      shown[0] = "saturated"
    name = "-".join(row["languages"]) + seeds
    lines.append(f"{row['scope']:<20}{name:<16}" + "".join(f"{value:>9}" for value in shown))
  if any(map(similarity.is_saturated, result["similarity"])):
    lines.append(
      f"saturated: more than {similarity.SATURATED:.0%} of the gates of a mask stand at one limit, "
      "so its plain cosine is high for any two languages"
    )
  lines.append(f"in {workdir}: result.json, masks/")
  return "\n".join(lines)


def remedies(run: PruningRun, say: Say) -> Remedies:
  """Returns flags that lower the memory."""
  del say  # nothing is compiled
  return smaller_batches({"batch_size": run.batch_size})


KIND = Kind(from_config, prepare, work, summary, remedies)
