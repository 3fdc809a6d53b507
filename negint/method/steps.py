"""Training and evaluation steps on one device's share of a batch: pure, compiled by the caller.

Batches are dicts: `tokens` [B, T] of one language; for a meta step also `held_out` [B', m, T], a
held-out batch of each of m languages, and `held_out_languages` [B', m], the same in every row;
`lengths` [B] and `held_out_lengths` [B', m] where rows are padded. For a surgery step `tokens` is
[B, L, T], a batch of every language, and `lengths` [B, L].
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from negint.method import losses, masking, meta, optim, parallel, surgery
from negint.method.accumulation import summed
from negint.method.phi import merge_params, put_language, select_language
from negint.method.state import TrainState
from negint.options import RunOptions

EVAL_MASK_RATE = 0.15  # whatever the training rate
EVAL_SEED = 0  # of the evaluation masks, the same in every run


def _mask(options: RunOptions, key, tokens, lengths):
  return masking.mask_tokens(
    key,
    tokens,
    parallel.first_row(tokens.shape[0]) + jnp.arange(tokens.shape[0]),
    num_predicted=masking.num_predicted(options.mask_rate, tokens.shape[1]),
    vocab_size=options.model.vocab_size,
    lengths_B=lengths,
  )


def local_loss(options: RunOptions, masked, language, dropout_key):
  """(theta, phi_i, part) -> one part of this device's share of the mean loss of predicted tokens.

  The parts sum to the share and the shares average to the loss of the whole batch, also where they
  predict unequal numbers of tokens: every sum is divided by the mean count of a share.
  """
  parts = options.accumulate
  count = parallel.mean(jnp.sum(masked.weights))
  masked = jax.tree.map(lambda rows: rows.reshape(parts, -1, *rows.shape[1:]), masked)

  def loss(theta, phi_i, part):
    key = dropout_key if parts == 1 else _fold(dropout_key, part)
    rows = jax.tree.map(lambda leaf: leaf[part], masked)
    total, _ = losses.mlm_loss(options.model, merge_params(theta, phi_i), rows, language, key)
    return total / count

  return loss


def _whole_batch(options: RunOptions, derivative):
  """The derivative of the whole batch's loss, from that of a part's: part -> tree."""
  return parallel.mean(summed(derivative, options.accumulate))


def _noise(options: RunOptions, state: TrainState):
  """(mask key, dropout key or None) of this step; dropout differs between devices."""
  mask_key, dropout_key = jax.random.split(jax.random.fold_in(state.key, state.step))
  if not (options.model.dropout or options.model.attention_dropout):
    return mask_key, None
  return mask_key, parallel.device_key(dropout_key)


def _fold(key, data):
  return None if key is None else jax.random.fold_in(key, data)


def joint_step(options: RunOptions, state: TrainState, batch, language):
  """One update of theta and phi_i by the gradient of the training loss: (state, metrics)."""
  mask_key, dropout_key = _noise(options, state)
  masked = _mask(options, mask_key, batch["tokens"], batch.get("lengths"))
  loss = local_loss(options, masked, language, dropout_key)
  phi_i = select_language(state.phi, language)
  gradient = jax.value_and_grad(loss, argnums=(0, 1))
  value, gradients = _whole_batch(options, lambda part: gradient(state.theta, phi_i, part))
  (theta_gradient, phi_gradient), norm = optim.clip(gradients, options.optimiser.clip_norm)
  rate = optim.learning_rate(options.optimiser, state.step)
  state = _update_phi(options, state, language, rate, phi_gradient)
  state = _update_theta(options, state, rate, theta_gradient)
  return state, {"loss": value, "learning_rate": rate, "gradient_norm": norm}


def meta_step(options: RunOptions, state: TrainState, batch, language):
  """One step of Algorithm 1: phi_i by the meta-gradient, then theta at the new phi_i.

  Both phases see the same training batch, masks and dropout noise. Returns (state, metrics).
  """
  mask_key, dropout_key = _noise(options, state)
  masked = _mask(options, mask_key, batch["tokens"], batch.get("lengths"))
  train_options = options
  if options.meta.gradient == "finite_difference" and options.model.dtype == "bfloat16":
    # bfloat16 rounds the difference away.
    model = options.model.replace(dtype="float32")
    train_options = dataclasses.replace(options, model=model)
  rate = optim.learning_rate(options.optimiser, state.step)
  scale = None
  if options.meta.inner_optimiser == "adam":
    scale = optim.adam_scale(options.optimiser, state.theta_slots)
  gradient = meta.meta_gradient(
    options.meta.gradient,
    meta.MetaProblem(
      train_loss=local_loss(train_options, masked, language, dropout_key),
      held_out_loss=_held_out_loss(options, batch, mask_key, dropout_key),
      language=language,
      num_languages=options.model.num_languages,
      held_out_languages=batch["held_out_languages"][0],
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


def _held_out_loss(options: RunOptions, batch, mask_key, dropout_key):
  """(theta, phi_j, j, part) -> one part of this device's share of language j's held-out loss.

  Masks and dropout depend on the language, not on which others the batch holds.
  """

  def held_out_loss(theta, phi_j, j, part):
    place = jnp.argmax(batch["held_out_languages"][0] == j)
    tokens = batch["held_out"][:, place]
    lengths = batch["held_out_lengths"][:, place] if "held_out_lengths" in batch else None
    masked = _mask(options, jax.random.fold_in(mask_key, j), tokens, lengths)
    return local_loss(options, masked, j, _fold(dropout_key, j))(theta, phi_j, part)

  return held_out_loss


def surgery_step(options: RunOptions, state: TrainState, batch, language):
  """One update of theta by the gradients of all languages, combined: (state, metrics).

  Every language has a part in every step, so `language` is not read.
  """
  num_languages = options.model.num_languages
  mask_key, dropout_key = _noise(options, state)

  def gradient_of(j):
    lengths = batch["lengths"][:, j] if "lengths" in batch else None
    masked = _mask(options, jax.random.fold_in(mask_key, j), batch["tokens"][:, j], lengths)
    loss = local_loss(options, masked, j, _fold(dropout_key, j))
    gradient = jax.value_and_grad(loss)
    return summed(lambda part: gradient(state.theta, state.phi, part), options.accumulate)

  values_L, gradients = parallel.mean(jax.lax.map(gradient_of, jnp.arange(num_languages)))
  order_key = jax.random.fold_in(mask_key, num_languages)  # the masks fold the numbers below
  state, gradient, cosines_LL = _combine(options, state, gradients, order_key)
  gradient, norm = optim.clip(gradient, options.optimiser.clip_norm)
  rate = optim.learning_rate(options.optimiser, state.step)
  state = _update_theta(options, state, rate, gradient)
  return state, {
    **{f"loss/{code}": values_L[j] for j, code in enumerate(options.languages)},
    "learning_rate": rate,
    "gradient_norm": norm,
    "surgery/cosine": cosines_LL[jnp.triu_indices(num_languages, 1)].mean(),
  }


def _combine(options, state, gradients, key):
  """(state with GradVac's new targets, combined gradient, cosines before [L, L])."""
  if options.optimiser.surgery.method == "pcgrad":
    return state, *surgery.pcgrad(gradients, key)
  rate = options.optimiser.surgery.ema_rate
  gradient, rho_LL, cosines_LL = surgery.gradvac(gradients, state.rho_LL, key, rate)
  return state.replace(rho_LL=rho_LL), gradient, cosines_LL


def _update_phi(options, state, language, rate, gradient):
  """Moves language i's slice and its Adam slots; all other slices keep their bits."""
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


def _update_theta(options, state, rate, gradient):
  theta, slots = optim.update(options.optimiser, rate, state.theta, state.theta_slots, gradient)
  return state.replace(step=state.step + 1, theta=theta, theta_slots=slots)


def eval_step(options: RunOptions, params, batch, language, unigram_log_V):
  """Sums in nats over the predicted tokens of a batch of `valid`, masks fixed by row number.

  Args:
    params: (theta, phi).
    batch: `tokens` [B, T], `lengths` [B] (0: a row that fills up the batch), `rows` [B], the row
      numbers in the split.
    unigram_log_V: log-probabilities of the language's unigram model, [V].

  Returns:
    dict of three sums over all devices: `loss`, `unigram_loss`, `tokens`.
  """
  theta, phi = params
  masked = masking.mask_tokens(
    jax.random.key(EVAL_SEED),
    batch["tokens"],
    batch["rows"],
    num_predicted=masking.num_predicted(EVAL_MASK_RATE, batch["tokens"].shape[1]),
    vocab_size=options.model.vocab_size,
    corruption=masking.EVAL_CORRUPTION,
    lengths_B=batch["lengths"],
  )
  params = merge_params(theta, select_language(phi, language))
  loss, count = losses.mlm_loss(options.model, params, masked, language)
  unigram_loss = -jnp.sum(unigram_log_V[masked.targets] * masked.weights)
  return parallel.total({"loss": loss, "unigram_loss": unigram_loss, "tokens": count})


def make_train_step(options: RunOptions):
  """(state, split batch, language index) -> (state, metrics) on all local devices."""
  return parallel.pmap_step(functools.partial(step_of(options), options), donate_state=True)


def step_of(options: RunOptions):
  """The training step of the run's system."""
  if options.optimiser.surgery.enabled:
    return surgery_step
  return meta_step if options.meta.enabled else joint_step


def make_eval_step(options: RunOptions):
  """((theta, phi), split batch, language index, unigram) -> sums, on all local devices."""
  return parallel.pmap_step(functools.partial(eval_step, options), donate_state=False)
