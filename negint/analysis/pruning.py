"""Parameter sharing (Section 3.3, Figures 4a and 4b): an L0 mask a language over a frozen model.

For every language, and every seed, hard-concrete gates are trained to keep the language's loss low
with few weights (Eq. 1). The masks' log_alpha (the paper's pi) are then compared: two languages
beside one language with two seeds, the ceiling that the method itself reaches.
"""

import dataclasses
import itertools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from negint import perplexity
from negint.analysis import l0
from negint.analysis.training_tokens import open_streams
from negint.data.sampling import cut_blocks
from negint.method import losses, masking, optim, parallel, steps
from negint.method.phi import merge_params, select_language
from negint.options import (
  AdamOptions,
  check_at_least,
  check_choice,
  check_divisible,
  check_positive,
  check_share,
)
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run.checkpoint import Checkpoints
from negint.run.files import write_json
from negint.run.progress import progress_bar
from negint.run.workdir import check_workdir, claimed

EXTREME_GROUPS = 10  # shown at each end, as in Figure 4b
EVAL_BATCH = 64  # sequences
STIFFNESS = (
  10.0  # nats a token by which lambda exceeds its integral for each unit of share too much
)


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
    return AdamOptions(b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0, clip_norm=np.inf)


@struct.dataclass
class MaskState:
  """A mask under training: updates done, PRNG key, gates' log_alpha, its Adam slots, and the weight
  of the penalty, lambda in Eq. 1."""

  step: jax.Array
  key: jax.Array
  log_alpha: Any
  slots: Any
  penalty: jax.Array


def from_config(config, num_devices: int) -> PruningRun:
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


def prune(config, workdir: pathlib.Path, say=print) -> dict:
  """Runs or resumes the analysis to its end and returns its result.

  Raises:
    UserError: what was asked for cannot run.
    Interrupted: SIGTERM or Ctrl-C; the state is saved.
  """
  run = from_config(config, parallel.num_devices())
  finished = check_workdir(workdir, config)
  if finished:
    say(f"{workdir} holds this run, finished. Its result:")
    say(summary(finished, workdir))
    return finished
  model = load_pretrained(run.init_from)
  cache = open_streams(model, run.init_from, say)
  with claimed(workdir, config) as interruption:
    pruner = Pruner(run, model, cache, interruption)
    masks = {
      (language, seed): pruner.mask(
        language, seed, workdir / "masks" / f"{language}-seed{seed}", say
      )
      for seed in range(run.seed, run.seed + run.seeds)
      for language in model.languages
    }
    log_alpha = {name: mask.log_alpha for name, mask in masks.items()}
    result = {
      "task": "pruning",
      "init_from": run.init_from,
      "pretraining": model.identity(),
      "granularity": run.granularity,
      "steps": run.steps,
      "unpruned_perplexity": pruner.perplexity(None),
      "masks": [pruner.describe(*name, mask) for name, mask in masks.items()],
      "similarity": similarities(log_alpha),
      "extreme": extremes(log_alpha, model.languages, run.seed),
    }
  write_json(workdir / "result.json", result)
  say(summary(result, workdir))
  return result


def make_mask_step(model, run: PruningRun, mask_rate: float):
  """(state, split batch, frozen parameters, language) -> (state, metrics): one update of a mask.

  The loss is Eq. 1 with one gate sample a batch and the expected kept share of the weights as its
  L0 term. Under `target_kept` lambda follows the share: it integrates what is above the target, and
  what is above it now adds to it, which damps the approach.
  """

  def step(state: MaskState, batch, frozen, language):
    mask_key, gate_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    tokens = batch["tokens"]
    batch = masking.mask_tokens(
      mask_key,
      tokens,
      parallel.first_row(tokens.shape[0]) + jnp.arange(tokens.shape[0]),
      num_predicted=masking.num_predicted(mask_rate, tokens.shape[1]),
      vocab_size=model.vocab_size,
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
    log_alpha, slots = optim.update(
      run.optimiser, run.learning_rate, state.log_alpha, state.slots, gradient
    )
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

  def __init__(self, run: PruningRun, model: Pretrained, cache, interruption):
    self.run, self.model, self.cache, self.interruption = run, model, cache, interruption
    self.shape = model.model.replace(dropout=0.0, attention_dropout=0.0)
    self.languages = model.languages
    self.params = parallel.replicate((model.theta, model.phi))
    self.mask_step = make_mask_step(self.shape, run, model.run.mask_rate)
    self.eval_step = steps.make_eval_step(model.run)
    self.unigram = cache.unigram_log_probabilities()

  def mask(self, language: str, seed: int, folder: pathlib.Path, say) -> MaskState:
    """One trained mask, from its last checkpoint on."""
    folder.mkdir(parents=True, exist_ok=True)
    index = self.languages.index(language)
    key = jax.random.fold_in(jax.random.key(seed), index)  # no noise shared between languages
    start_key, key = jax.random.split(key)
    log_alpha = l0.init_log_alpha(self.shape, self.run.granularity, start_key)
    slots = optim.adam(self.run.optimiser).init(log_alpha)
    state = MaskState(
      jnp.zeros((), jnp.int32), key, log_alpha, slots, jnp.float32(self.run.penalty)
    )
    state = parallel.replicate(state)
    checkpoints = Checkpoints(folder, keep=1)
    try:
      restored = checkpoints.restore(state, say)
      return self.train(index, seed, state if restored is None else restored, checkpoints)
    finally:
      checkpoints.close()

  def train(self, index: int, seed: int, state: MaskState, checkpoints) -> MaskState:
    run, language = self.run, self.languages[index]
    stream = {language: self.cache.streams["train"][index]}
    [blocks] = cut_blocks("train", stream, self.model.run.data.sequence_length, seed)
    frozen = merge_params(self.params[0], select_language(self.params[1], index))
    with progress_bar(
      total=run.steps, initial=int(state.step), desc=f"mask of {language}, seed {seed}", leave=False
    ) as bar:
      for step in range(int(state.step), run.steps):
        tokens = blocks.take(step * run.batch_size, run.batch_size)
        batch = parallel.split({"tokens": tokens})
        state, metrics = self.mask_step(state, batch, frozen, np.int32(index))
        bar.update()
        done, stop = step + 1, self.interruption.signal_name
        if done % run.checkpoint_every == 0 or done == run.steps or stop:
          checkpoints.save(state)
        if stop:
          checkpoints.wait()
          self.interruption.poll()
        if done % 50 == 0:
          bar.set_postfix_str(
            f"loss {float(metrics['loss']):.3f}, kept {float(metrics['kept']):.2f}", refresh=False
          )
    checkpoints.wait()
    return state

  def perplexity(self, gates) -> dict[str, float]:
    """Perplexity on `valid` of every language under the gates (None: of the unpruned model)."""
    theta, phi = self.params
    if gates is not None:
      factors = l0.multipliers(self.shape, gates)
      theta, phi = l0.masked(theta, factors), l0.masked(phi, factors)
    return perplexity.perplexities(
      self.eval_step,
      (theta, phi),
      dict(zip(self.languages, self.cache.streams["valid"], strict=True)),
      self.unigram,
      sequence_length=self.model.run.data.sequence_length,
      batch_size=EVAL_BATCH,
      poll=self.interruption.poll,
    )["perplexity"]

  def describe(self, language: str, seed: int, mask: MaskState) -> dict:
    """A mask's entry in result.json: what it keeps and what it does to every language.

    `kept` is the share of the weights behind test gates above zero, `expected_kept` what the
    penalty counts. `shuffled_perplexity` is that of gates in another order within each projection: a mask that
    knows something about the weights does better.
    """
    gates = l0.test_gates(mask.log_alpha)
    generator = np.random.default_rng([seed, self.languages.index(language)])
    shuffled = jax.tree.map(
      lambda leaf: jnp.asarray(
        generator.permutation(np.ravel(leaf)).reshape(leaf.shape), jnp.float32
      ),
      jax.device_get(gates),
    )

    def share(values):
      return float(l0.share(self.shape, self.run.granularity, values))

    return {
      "language": language,
      "seed": seed,
      "kept": share(jax.tree.map(lambda gate: gate > 0, gates)),
      "expected_kept": share(l0.open_probability(mask.log_alpha)),
      "penalty": float(mask.penalty),
      "perplexity": self.perplexity(gates),
      "shuffled_perplexity": self.perplexity(shuffled),
    }


def cosine(a: np.ndarray, b: np.ndarray) -> float | None:
  """Cosine of two vectors; None of a zero one."""
  norms = float(np.linalg.norm(a) * np.linalg.norm(b))
  return float(a @ b) / norms if norms else None


def similarities(log_alpha: dict) -> list[dict]:
  """Cosines of the masks {(language, seed): log_alpha}, plain and centred, by scope.

  Two languages are compared at equal seeds, one language at two: in both cases nothing but the
  frozen weights is common. A drift of all gates together inflates the plain cosine.
  """
  vectors = {name: l0.by_scope(jax.device_get(mask)) for name, mask in log_alpha.items()}
  result = []
  for (first, seed), (second, other_seed) in itertools.combinations(vectors, 2):
    if (first == second) == (seed == other_seed):
      continue
    for scope, a in vectors[first, seed].items():
      a, b = np.float64(a), np.float64(vectors[second, other_seed][scope])
      result.append(
        {
          "languages": [first, second],
          "seeds": [seed, other_seed],
          "scope": scope,
          "cosine": cosine(a, b),
          "centred": cosine(a - a.mean(), b - b.mean()),
        }
      )
  return result


def extremes(log_alpha: dict, languages, seed: int) -> list[dict]:
  """The gates with the most negative and most positive log_alpha of each language, beside the
  others' values, at one seed (Figure 4b). Gates that training drove to the same limit are drawn."""
  vectors = {code: l0.by_scope(jax.device_get(log_alpha[code, seed]))["all"] for code in languages}
  names = l0.group_names(log_alpha[languages[0], seed])
  result = []
  for language, other in itertools.permutations(languages, 2):
    drawn = np.random.default_rng(seed).permutation(len(names))
    order = drawn[np.argsort(vectors[language][drawn], kind="stable")]
    chosen = [*order[:EXTREME_GROUPS], *order[-EXTREME_GROUPS:]]
    groups = [
      {
        "group": names[i],
        "pi": float(vectors[language][i]),
        "other_pi": float(vectors[other][i]),
      }
      for i in chosen
    ]
    result.append({"language": language, "other": other, "groups": groups})
  return result


def summary(result: dict, workdir: pathlib.Path) -> str:
  """The tables at the end of a run."""
  languages = result["pretraining"]["languages"]
  lines = [
    "",
    f"L0 masks of {result['pretraining']['system']} on {', '.join(languages)}, a gate a "
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
  lines += ["", f"{'scope':<20}{'masks':<16}{'cosine':>9}{'centred':>9}"]
  for row in result["similarity"]:
    seeds = "" if len(set(row["languages"])) > 1 else " (two seeds)"
    shown = ["-" if row[name] is None else f"{row[name]:.3f}" for name in ("cosine", "centred")]
    name = "-".join(row["languages"]) + seeds
    lines.append(f"{row['scope']:<20}{name:<16}{shown[0]:>9}{shown[1]:>9}")
  lines.append(f"in {workdir}: result.json, masks/")
  return "\n".join(lines)
