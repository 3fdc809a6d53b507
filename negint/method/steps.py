"""Training and evaluation steps on one device's share of a batch: pure functions, compiled once.

A batch is a dict of rows:
  tokens [B, T], of one language; [B, L, T], of every language, for a surgery step.
  lengths [B] or [B, L], where rows are padded.
  held_out [B', m, T], for a meta step: m languages, in the order of `held_out_languages` [m].
  held_out_lengths [B', m], where held-out rows are padded.
Every training step takes (options, state, batch, language, held_out_languages) and returns
(state, metrics).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from negint.method import losses, masking, meta, optim, parallel, surgery
from negint.method.accumulation import summed
from negint.method.phi import merge_params, put_language, select_language
from negint.method.state import TrainState
from negint.method.tree import Index, Tree
from negint.options import RunOptions

EVAL_MASK_RATE = 0.15  # for every training rate
EVAL_SEED = 0  # of the evaluation masks, the same in every run

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]  # scalars
TrainStep = Callable[..., tuple[TrainState, Metrics]]


def _mask(
  options: RunOptions, key: jax.Array, tokens: jax.Array, lengths: jax.Array | None
) -> masking.MaskedBatch:
  return masking.mask_tokens(
    key,
    tokens,
    parallel.first_row(tokens.shape[0]) + jnp.arange(tokens.shape[0]),
    num_predicted=masking.num_predicted(options.mask_rate, tokens.shape[1]),
    vocab_size=options.model.vocab_size,
    mask_id=options.model.mask_id,
    kept_ids=options.model.kept_ids,
    lengths_B=lengths,
  )


def local_loss(
  options: RunOptions,
  masked: masking.MaskedBatch,
  language: Index,
  dropout_key: jax.Array | None,
) -> meta.TrainLoss:
  """The loss (theta, phi_i, part) -> scalar of one part of this device's share of the batch.

  The sum of the losses of a part is divided by the mean number of predicted tokens per device. The
  parts therefore sum to the loss of the share, and the shares average to the mean loss per
  predicted token of the whole batch, even if they predict unequal numbers of tokens.
  """
  parts = options.accumulate
  count = parallel.mean(jnp.sum(masked.weights))
  masked = jax.tree.map(lambda rows: rows.reshape(parts, -1, *rows.shape[1:]), masked)

  def loss(theta: Tree, phi_i: Tree, part: Index) -> jax.Array:
    key = dropout_key if parts == 1 else _fold(dropout_key, part)
    rows = jax.tree.map(lambda leaf: leaf[part], masked)
    total, _ = losses.mlm_loss(options.model, merge_params(theta, phi_i), rows, language, key)
    return total / count

  return loss


def _whole_batch(options: RunOptions, derivative: Callable[[Index], Tree]) -> Tree:
  """The derivative of the whole batch's loss, from the derivative of one part's loss."""
  return parallel.mean(summed(derivative, options.accumulate))


def _noise(options: RunOptions, state: TrainState) -> tuple[jax.Array, jax.Array | None]:
  """The keys (masks, dropout or None) of this step; dropout differs between devices."""
  mask_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
  if not (options.model.dropout or options.model.attention_dropout):
    return mask_key, None
  return mask_key, parallel.device_key(dropout_key)


def _fold(key: jax.Array | None, data: Index) -> jax.Array | None:
  return None if key is None else jax.random.fold_in(key, data)


def joint_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  language: Index,
  held_out_languages: None = None,
) -> tuple[TrainState, Metrics]:
  """One update of theta and phi_i by the gradient of the training loss: (state, metrics)."""
  del held_out_languages
  mask_key, dropout_key = _noise(options, state)
  masked = _mask(options, mask_key, batch["tokens"], batch.get("lengths"))
  loss = local_loss(options, masked, language, dropout_key)
  phi_i = select_language(state.phi, language)
  gradient = jax.value_and_grad(loss, argnums=(0, 1))
  value, gradients = _whole_batch(options, lambda part: gradient(state.theta, phi_i, part))
  (theta_gradient, phi_gradient), norm = optim.clip(gradients, options.optimiser.clip_norm)
  rate = optim.learning_rate(options.schedule, state.step)
  state = _update_phi(options, state, language, rate, phi_gradient)
  state = _update_theta(options, state, rate, theta_gradient)
  return state, {"loss": value, "learning_rate": rate, "gradient_norm": norm}


def meta_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  language: Index,
  held_out_languages: jax.Array,
) -> tuple[TrainState, Metrics]:
  """One step of Algorithm 1: phi_i by the meta-gradient, then theta at the new phi_i.

  Both phases see the same training batch, masks and dropout noise.

  Args:
    options: of the run.
    state: before the step.
    batch: with `held_out`.
    language: index i of the training batch's language.
    held_out_languages: indices of the languages in `held_out`, int [m]; language i is one of them.

  Returns:
    (state, metrics).
  """
  mask_key, dropout_key = _noise(options, state)
  masked = _mask(options, mask_key, batch["tokens"], batch.get("lengths"))
  train_options = options
  if options.meta.gradient == "finite_difference" and options.model.dtype == "bfloat16":
    # Two gradients in bfloat16 differ by less than their rounding.
    model = options.model.replace(dtype="float32")
    train_options = dataclasses.replace(options, model=model)
  rate = optim.learning_rate(options.schedule, state.step)
  scale = None
  if options.meta.inner_optimiser == "adam":
    scale = optim.adam_scale(options.optimiser, state.theta_slots)
  gradient = meta.meta_gradient(
    options.meta.gradient,
    meta.MetaProblem(
      train_loss=local_loss(train_options, masked, language, dropout_key),
      held_out_loss=_held_out_loss(options, batch, held_out_languages, mask_key, dropout_key),
      language=language,
      num_languages=options.model.num_languages,
      held_out_languages=held_out_languages,
      inner_rate=options.meta.inner_learning_rate or rate,
      scale=scale,
      reduce=parallel.mean,
      parts=options.accumulate,
    ),
    state.theta,
    state.phi,
    radius=options.meta.finite_difference_radius,
  )
  phi_gradient, phi_norm = optim.clip(gradient.total(), options.optimiser.clip_norm)
  state = _update_phi(options, state, language, rate, phi_gradient)

  phi_i = select_language(state.phi, language)
  loss = local_loss(options, masked, language, dropout_key)
  gradient_of = jax.value_and_grad(loss)
  value, theta_gradient = _whole_batch(options, lambda part: gradient_of(state.theta, phi_i, part))
  theta_gradient, norm = optim.clip(theta_gradient, options.optimiser.clip_norm)
  state = _update_theta(options, state, rate, theta_gradient)
  return state, {
    "loss": value,
    "learning_rate": rate,
    "gradient_norm": norm,
    "meta/gradient_norm": phi_norm,
    **gradient.summary(),
  }


def _held_out_loss(
  options: RunOptions,
  batch: Batch,
  held_out_languages: jax.Array,
  mask_key: jax.Array,
  dropout_key: jax.Array | None,
) -> meta.HeldOutLoss:
  """The loss (theta, phi_j, k, part) -> scalar of one part of this device's share, language j.

  k is the place of j in the batch. Masks and dropout depend on j, not on the other held-out
  languages.
  """

  def held_out_loss(theta: Tree, phi_j: Tree, k: Index, part: Index) -> jax.Array:
    j = held_out_languages[k]
    tokens = batch["held_out"][:, k]
    lengths = batch["held_out_lengths"][:, k] if "held_out_lengths" in batch else None
    masked = _mask(options, jax.random.fold_in(mask_key, j), tokens, lengths)
    return local_loss(options, masked, j, _fold(dropout_key, j))(theta, phi_j, part)

  return held_out_loss


def surgery_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  language: Index,
  held_out_languages: None = None,
) -> tuple[TrainState, Metrics]:
  """One update of theta by the combined gradients of all languages: (state, metrics).

  The batch has rows of every language, so `language` is not read.
  """
  del language, held_out_languages
  num_languages = options.model.num_languages
  mask_key, dropout_key = _noise(options, state)

  def gradient_of(j: jax.Array) -> tuple[jax.Array, Tree]:
    lengths = batch["lengths"][:, j] if "lengths" in batch else None
    masked = _mask(options, jax.random.fold_in(mask_key, j), batch["tokens"][:, j], lengths)
    loss = local_loss(options, masked, j, _fold(dropout_key, j))
    gradient = jax.value_and_grad(loss)
    return summed(lambda part: gradient(state.theta, state.phi, part), options.accumulate)

  values_L, gradients = parallel.mean(jax.lax.map(gradient_of, jnp.arange(num_languages)))
  order_key = jax.random.fold_in(mask_key, num_languages)  # the masks fold in 0 ... L - 1
  state, gradient, cosines_LL = _combine(options, state, gradients, order_key)
  gradient, norm = optim.clip(gradient, options.optimiser.clip_norm)
  rate = optim.learning_rate(options.schedule, state.step)
  state = _update_theta(options, state, rate, gradient)
  return state, {
    **{f"loss/{code}": values_L[j] for j, code in enumerate(options.languages)},
    "learning_rate": rate,
    "gradient_norm": norm,
    "surgery/cosine": cosines_LL[jnp.triu_indices(num_languages, 1)].mean(),
  }


def _combine(
  options: RunOptions, state: TrainState, gradients: Tree, key: jax.Array
) -> tuple[TrainState, Tree, jax.Array]:
  """The combined gradient: (state with GradVac's new targets, gradient, cosines before [L, L])."""
  if options.surgery.method == "pcgrad":
    return state, *surgery.pcgrad(gradients, key)
  rate = options.surgery.ema_rate
  gradient, rho_LL, cosines_LL = surgery.gradvac(gradients, state.rho_LL, key, rate)
  return state.replace(rho_LL=rho_LL), gradient, cosines_LL


def _update_phi(
  options: RunOptions, state: TrainState, language: Index, rate: jax.Array, gradient: Tree
) -> TrainState:
  """The state after an update of phi_i; the slices and slots of other languages stay unchanged."""
  if not state.phi:
    return state
  phi_i, slots = optim.update(
    options.optimiser,
    rate,
    select_language(state.phi, language),
    select_language(state.phi_slots, language),
    gradient,
  )
  return state.replace(
    phi=put_language(state.phi, language, phi_i),
    phi_slots=put_language(state.phi_slots, language, slots),
  )


def _update_theta(
  options: RunOptions, state: TrainState, rate: jax.Array, gradient: Tree
) -> TrainState:
  """The state after an update of theta, which ends a step."""
  theta, slots = optim.update(options.optimiser, rate, state.theta, state.theta_slots, gradient)
  return state.replace(step=state.step + 1, theta=theta, theta_slots=slots)


def eval_step(
  options: RunOptions,
  params: tuple[Tree, Tree],
  batch: Batch,
  language: Index,
  unigram_log_V: jax.Array,
) -> Metrics:
  """Sums over the predicted tokens of a batch of `valid`; the row numbers fix the masks.

  Args:
    options: of the run.
    params: (theta, phi).
    batch: `tokens` [B, T], `lengths` [B] (0: a row that only fills the batch) and `rows` [B], the row
      numbers in the split.
    language: index of the batch's language.
    unigram_log_V: log-probabilities of the language's unigram model, [V].

  Returns:
    dict of sums over all devices: `loss` and `unigram_loss` in nats, and `tokens`.
  """
  theta, phi = params
  masked = masking.mask_tokens(
    jax.random.key(EVAL_SEED),
    batch["tokens"],
    batch["rows"],
    num_predicted=masking.num_predicted(EVAL_MASK_RATE, batch["tokens"].shape[1]),
    vocab_size=options.model.vocab_size,
    mask_id=options.model.mask_id,
    kept_ids=options.model.kept_ids,
    corruption=masking.EVAL_CORRUPTION,
    lengths_B=batch["lengths"],
  )
  params = merge_params(theta, select_language(phi, language))
  loss, count = losses.mlm_loss(options.model, params, masked, language)
  unigram_loss = -jnp.sum(unigram_log_V[masked.targets] * masked.weights)
  return parallel.total({"loss": loss, "unigram_loss": unigram_loss, "tokens": count})


def make_train_step(options: RunOptions) -> parallel.MappedStep:
  """The compiled training step of the run's system, on all devices.

  Returns:
    (state, split batch, language index, held-out language indices or None) -> (state, metrics). The
    state's memory is donated.
  """
  return parallel.pmap_step(functools.partial(step_of(options), options), donate_state=True)


def step_of(options: RunOptions) -> TrainStep:
  """The training step of the run's system."""
  if options.surgery.enabled:
    return surgery_step
  return meta_step if options.meta.enabled else joint_step


def make_eval_step(options: RunOptions) -> parallel.MappedStep:
  """The compiled evaluation step, on all devices.

  Returns:
    ((theta, phi), split batch, language index, unigram log-probabilities [V]) -> sums.
  """
  return parallel.pmap_step(functools.partial(eval_step, options), donate_state=False)
