"""Training and evaluation steps on one device's share of a batch: pure functions, compiled once.

A batch is a dict of rows:
  tokens [B, T], of one language; [B, L, T], of every language, for a surgery step.
  inner [B, T], for the release's meta step: a second training batch of the same language.
  held_out [B', m, T], for a meta step: m languages, in the order of `held_out_languages` [m].
Every training step takes (options, state, batch, rate, language, held_out_languages) and returns
(state, metrics). The learning rate `rate` is an argument, so that the runs of a sweep share one
compiled program: no step may read `options.schedule`.

A step averages over devices, so it runs inside pmap. By hand, for one config and state:
  run = negint.options.from_config(config, num_devices=jax.device_count())
  state = parallel.replicate(state_of(run))
  step = make_train_step(run)  # donates the state
  state, metrics = step(state, parallel.split(batch), np.float32(1e-3), np.int32(i), np.arange(m))
`parallel.pmap_step(functools.partial(meta_gradient, run), donate_state=False)` takes the same
arguments and returns both terms of the meta-gradient.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from negint.method import loss_scale, losses, masking, meta, optim, parallel, surgery
from negint.method.accumulation import summed
from negint.method.phi import merge_params, put_language, select_language
from negint.method.state import TrainState
from negint.method.tree import Index, Tree
from negint.options import HALF_DTYPES, RunOptions

EVAL_MASK_RATE = 0.15  # for every training rate
EVAL_SEED = 0  # of the evaluation masks, the same in every run

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]  # scalars
TrainStep = Callable[..., tuple[TrainState, Metrics]]


class Noise(NamedTuple):
  """The randomness of one batch: which tokens are hidden, and what dropout drops."""

  masks: jax.Array  # key, the same on all devices
  dropout: jax.Array | None  # key, another one on each device; None: no dropout

  def of(self, number: Index) -> "Noise":
    """The noise of another batch, by its number."""
    return Noise(jax.random.fold_in(self.masks, number), _fold(self.dropout, number))


def _noise(options: RunOptions, state: TrainState) -> Noise:
  """The noise of this step's training batch."""
  key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
  mask_key, dropout_key = jax.random.split(key)
  if not (options.model.dropout or options.model.attention_dropout):
    return Noise(mask_key, None)
  return Noise(mask_key, parallel.device_key(dropout_key))


def _fold(key: jax.Array | None, data: Index) -> jax.Array | None:
  return None if key is None else jax.random.fold_in(key, data)


def _mask(options: RunOptions, key: jax.Array, tokens: jax.Array) -> masking.MaskedBatch:
  return masking.mask_tokens(
    key,
    tokens,
    parallel.first_row(tokens.shape[0]) + jnp.arange(tokens.shape[0]),
    num_predicted=masking.num_predicted(options.mask_rate, tokens.shape[1]),
    vocab_size=options.model.vocab_size,
    mask_id=options.model.mask_id,
    kept_ids=options.model.kept_ids,
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


def _batch_loss(
  options: RunOptions, tokens: jax.Array, language: Index, noise: Noise
) -> meta.TrainLoss:
  """The loss (theta, phi_i, part) -> scalar of tokens [B, T] of language i."""
  masked = _mask(options, noise.masks, tokens)
  return local_loss(options, masked, language, noise.dropout)


def _held_out_loss(
  options: RunOptions, batch: Batch, held_out_languages: jax.Array, noise: Noise
) -> meta.HeldOutLoss:
  """The loss (theta, phi_j, k, part) -> scalar of a batch's `held_out`, language j at place k.

  Masks and dropout depend on j, not on the other held-out languages.
  """

  def held_out_loss(theta: Tree, phi_j: Tree, k: Index, part: Index) -> jax.Array:
    j = held_out_languages[k]
    loss = _batch_loss(options, batch["held_out"][:, k], j, noise.of(j))
    return loss(theta, phi_j, part)

  return held_out_loss


def _own_held_out_loss(
  options: RunOptions, batch: Batch, held_out_languages: jax.Array, noise: Noise
) -> meta.TrainLoss:
  """The loss (theta, phi_i, part) -> scalar of a batch's `held_out` that has language i alone."""
  i = held_out_languages[0]
  return _batch_loss(options, batch["held_out"][:, 0], i, noise.of(i))


def _value_and_grad(
  options: RunOptions,
  state: TrainState,
  loss: meta.TrainLoss,
  language: Index,
  argnums: int | tuple[int, ...],
) -> tuple[jax.Array, Tree]:
  """The loss of the whole batch and its gradients, by theta (argument 0) and by phi_i (1)."""
  phi_i = select_language(state.phi, language)
  derivative = loss_scale.value_and_grad(loss, argnums, loss_scale.scale_of(state))
  found: tuple[jax.Array, Tree] = _whole_batch(
    options, lambda part: derivative(state.theta, phi_i, part)
  )
  return found


def joint_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  rate: jax.Array,
  language: Index,
  held_out_languages: jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
  """One update of theta and phi_i by the gradient of the training loss: (state, metrics).

  With `held_out_languages` (i alone), phi_i takes the gradient of the held-out loss instead.
  """
  state, metrics = _joint_phase(options, state, batch, rate, language, held_out_languages)
  return _ended(state, rate, metrics)


def meta_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  rate: jax.Array,
  language: Index,
  held_out_languages: jax.Array,
) -> tuple[TrainState, Metrics]:
  """One step of Algorithm 1: phi_i by the meta-gradient, then theta at the new phi_i.

  Both phases see the same training batch, masks and dropout noise.

  Args:
    options: of the run.
    state: before the step.
    batch: with `held_out`.
    rate: learning rate of theta, and of the inner step unless that has one of its own.
    language: index i of the training batch's language.
    held_out_languages: indices of the languages in `held_out`, int [m].

  Returns:
    (state, metrics).
  """
  gradient = meta_gradient(options, state, batch, rate, language, held_out_languages)
  of_phi, phi_norm = optim.clip(gradient.total(), options.optimiser.clip_norm)
  state = _update_phi(options, state, rate, language, of_phi)

  loss = _batch_loss(options, batch["tokens"], language, _noise(options, state))
  value, of_theta = _value_and_grad(options, state, loss, language, argnums=0)
  of_theta, norm = optim.clip(of_theta, options.optimiser.clip_norm)
  state = _update_theta(options, state, rate, of_theta)
  metrics = {"loss": value, "gradient_norm": norm, "meta/gradient_norm": phi_norm}
  return _ended(state, rate, {**metrics, **gradient.summary()})


def release_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  rate: jax.Array,
  language: Index,
  held_out_languages: jax.Array,
) -> tuple[TrainState, Metrics]:
  """One meta step of the authors' release: theta and phi_i together, then phi_i once more.

  First all parameters take an ordinary update. Then phi_i moves by the meta-gradient at the new
  parameters, whose inner step has a training batch of its own. The two updates of phi_i keep
  separate Adam slots.

  Args:
    options: of the run.
    state: before the step, a ReleaseState.
    batch: with `inner` and `held_out`.
    rate: as of `meta_step`.
    language: index i of both training batches' language.
    held_out_languages: indices of the languages in `held_out`, int [m].

  Returns:
    (state, metrics).
  """
  state, metrics = _joint_phase(options, state, batch, rate, language)
  gradient = meta_gradient(options, state, batch, rate, language, held_out_languages, inner="inner")
  of_phi, phi_norm = optim.clip(gradient.total(), options.optimiser.clip_norm)
  state = _update_phi(options, state, rate, language, of_phi, slots="meta_slots")
  metrics = {**metrics, "meta/gradient_norm": phi_norm, **gradient.summary()}
  return _ended(state, rate, metrics)


def _joint_phase(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  rate: jax.Array,
  language: Index,
  held_out_languages: jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
  """The update of `joint_step`, without the end of the step."""
  noise = _noise(options, state)
  loss = _batch_loss(options, batch["tokens"], language, noise)
  if held_out_languages is None:
    value, gradients = _value_and_grad(options, state, loss, language, argnums=(0, 1))
  else:
    own_loss = _own_held_out_loss(options, batch, held_out_languages, noise)
    value, of_theta = _value_and_grad(options, state, loss, language, argnums=0)
    _, of_phi = _value_and_grad(options, state, own_loss, language, argnums=1)
    gradients = of_theta, of_phi
  (of_theta, of_phi), norm = optim.clip(gradients, options.optimiser.clip_norm)
  state = _update_phi(options, state, rate, language, of_phi)
  state = _update_theta(options, state, rate, of_theta)
  return state, {"loss": value, "gradient_norm": norm}


def meta_gradient(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  rate: jax.Array,
  language: Index,
  held_out_languages: jax.Array,
  *,
  inner: str = "tokens",
) -> meta.MetaGradient:
  """The meta-gradient of phi_i at the state's parameters, as two terms; no step is taken.

  Args:
    options: of the run.
    state: gives the parameters, and theta's slots for an inner step by Adam.
    batch: with `held_out`.
    rate: of the inner step, unless `meta.inner_learning_rate` is that.
    language: index i of the training batch's language.
    held_out_languages: indices of the languages in `held_out`, int [m].
    inner: the rows of the inner step, `tokens` or `inner`.
  """
  noise = _noise(options, state)
  if inner == "inner":
    noise = noise.of(options.model.num_languages)  # held-out batches have the noise of 0 ... L - 1
  train_options = options
  if options.meta.gradient == "finite_difference" and options.model.dtype in HALF_DTYPES:
    # Two gradients in half precision differ by less than their rounding.
    model = options.model.replace(dtype="float32")
    train_options = dataclasses.replace(options, model=model)
  train_loss = _batch_loss(train_options, batch[inner], language, noise)
  if options.meta.gradient == "finite_difference":
    # So do two in the TensorFloat-32 of GPUs. Derivatives have the precision of their loss.
    train_loss = jax.default_matmul_precision("highest")(train_loss)
  scale = None
  if options.meta.inner_optimiser == "adam":
    scale = optim.adam_scale(options.optimiser, state.theta_slots)
  problem = meta.MetaProblem(
    train_loss=train_loss,
    held_out_loss=_held_out_loss(options, batch, held_out_languages, noise),
    language=language,
    num_languages=options.model.num_languages,
    held_out_languages=held_out_languages,
    inner_rate=options.meta.inner_learning_rate or rate,
    scale=scale,
    reduce=parallel.mean,
    parts=options.accumulate,
    loss_scale=loss_scale.scale_of(state),
  )
  radius = options.meta.finite_difference_radius
  return meta.meta_gradient(options.meta.gradient, problem, state.theta, state.phi, radius=radius)


def surgery_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  rate: jax.Array,
  language: Index,
  held_out_languages: None = None,
) -> tuple[TrainState, Metrics]:
  """One update of theta by the combined gradients of all languages: (state, metrics).

  The batch has rows of every language, so `language` is not read.
  """
  del language, held_out_languages
  num_languages = options.model.num_languages
  noise = _noise(options, state)

  def gradient_of(j: jax.Array) -> tuple[jax.Array, Tree]:
    loss = _batch_loss(options, batch["tokens"][:, j], j, noise.of(j))
    gradient = loss_scale.value_and_grad(loss, 0, loss_scale.scale_of(state))
    return summed(lambda part: gradient(state.theta, state.phi, part), options.accumulate)

  values_L, gradients = parallel.mean(jax.lax.map(gradient_of, jnp.arange(num_languages)))
  order_key = noise.of(num_languages).masks  # the batches have the noise of 0 ... L - 1
  state, gradient, cosines_LL = _combine(options, state, gradients, order_key)
  gradient, norm = optim.clip(gradient, options.optimiser.clip_norm)
  state = _update_theta(options, state, rate, gradient)
  metrics = {
    **{f"loss/{code}": values_L[j] for j, code in enumerate(options.languages)},
    "gradient_norm": norm,
    "surgery/cosine": cosines_LL[jnp.triu_indices(num_languages, 1)].mean(),
  }
  return _ended(state, rate, metrics)


def phi_step(
  options: RunOptions,
  state: TrainState,
  batch: Batch,
  rate: jax.Array,
  language: Index,
  held_out_languages: jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
  """One update of phi_i at a frozen theta: (state, metrics).

  phi_i takes the gradient of the training loss, or with `held_out_languages` (i alone) that of the
  held-out loss. A meta step at a frozen theta is the second: theta stays, so nothing looks ahead.
  """
  noise = _noise(options, state)
  if held_out_languages is None:
    loss = _batch_loss(options, batch["tokens"], language, noise)
  else:
    loss = _own_held_out_loss(options, batch, held_out_languages, noise)
  value, of_phi = _value_and_grad(options, state, loss, language, argnums=1)
  of_phi, norm = optim.clip(of_phi, options.optimiser.clip_norm)
  state = _update_phi(options, state, rate, language, of_phi)
  return _ended(state, rate, {"loss": value, "gradient_norm": norm})


def _combine(
  options: RunOptions, state: TrainState, gradients: Tree, key: jax.Array
) -> tuple[TrainState, Tree, jax.Array]:
  """The combined gradient: (state with GradVac's new targets, gradient, cosines before [L, L])."""
  method = options.surgery.method
  if method == "pcgrad":
    return state, *surgery.pcgrad(gradients, key)
  if method == "gradvac":
    rate = options.surgery.ema_rate
    gradient, rho_LL, cosines_LL = surgery.gradvac(gradients, state.rho_LL, key, rate)
    return state.replace(rho_LL=rho_LL), gradient, cosines_LL
  raise ValueError(f"no function combines gradients by {method!r}")


def _update_phi(
  options: RunOptions,
  state: TrainState,
  rate: jax.Array,
  language: Index,
  gradient: Tree,
  slots: str = "phi_slots",
) -> TrainState:
  """The state after an update of phi_i; the slices and slots of other languages stay unchanged.

  Args:
    options: of the run.
    state: before the update.
    rate: learning rate of theta, of which phi takes `phi_rate`.
    language: its index i.
    gradient: like phi_i.
    slots: the field of the state that holds Adam's moments, phi_slots or meta_slots.
  """
  if not state.phi:
    return state
  all_slots = getattr(state, slots)
  phi_i, slots_i = optim.update(
    options.optimiser,
    options.phi_rate * rate,
    select_language(state.phi, language),
    select_language(all_slots, language),
    gradient,
  )
  changed = {slots: put_language(all_slots, language, slots_i)}
  return state.replace(phi=put_language(state.phi, language, phi_i), **changed)


def _update_theta(
  options: RunOptions, state: TrainState, rate: jax.Array, gradient: Tree
) -> TrainState:
  """The state after an update of theta."""
  theta, slots = optim.update(options.optimiser, rate, state.theta, state.theta_slots, gradient)
  return state.replace(theta=theta, theta_slots=slots)


def _ended(state: TrainState, rate: jax.Array, metrics: Metrics) -> tuple[TrainState, Metrics]:
  """The state at the next step, and the metrics with this step's learning rate."""
  return state.replace(step=state.step + 1), {**metrics, "learning_rate": rate}


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


@functools.lru_cache(maxsize=1)  # the step whose memory was looked at is the one that trains
def make_train_step(options: RunOptions) -> parallel.MappedStep:
  """The compiled training step of the run's system, on all devices.

  Returns:
    (state, split batch, learning rate, language index, held-out language indices or None) -> (state,
    metrics). The state's memory is donated.
  """
  return parallel.pmap_step(functools.partial(step_of(options), options), donate_state=True)


def step_of(options: RunOptions) -> TrainStep:
  """The training step of the run's system; with scaled losses, one that can skip its update."""
  step = _step_of(options)
  if not loss_scale.needed(options.model.dtype):
    return step

  def scaled_step(
    options: RunOptions, state: TrainState, *others: Any
  ) -> tuple[TrainState, Metrics]:
    return loss_scale.settled(state, *step(options, state, *others))

  return scaled_step


def _step_of(options: RunOptions) -> TrainStep:
  if options.freeze_theta:
    return phi_step
  if options.surgery.enabled:
    return surgery_step
  if not options.meta.enabled:
    return joint_step
  return {"paper": meta_step, "release": release_step}[options.meta.variant]


def make_eval_step(options: RunOptions) -> parallel.MappedStep:
  """The compiled evaluation step, on all devices.

  Returns:
    ((theta, phi), split batch, language index, unigram log-probabilities [V]) -> sums.
  """
  return parallel.pmap_step(functools.partial(eval_step, options), donate_state=False)
