"""Gradient conflict (Section 3.3, Figure 3): cosines of the languages' gradients over theta.

theta are the parameters that all languages share, phi those of one language. Each language gives two
gradients by theta, of two disjoint sets of sentences. Sampling noise lowers the cosine of these two
below 1, and the cosine of two languages by the same factors, so the former corrects the latter.
Gradients are those of the training loss before clipping, in float32, without dropout.

A scope is a part of theta:
  all                    everything but `language_embedding`
  without_vocabulary     `all` without `vocabulary`, which languages of different scripts hardly share
  vocabulary             the token embeddings and the softmax bias
  embeddings             of positions, and the LayerNorm after them
  language_embedding     row i has a gradient from language i alone: no two languages share a row, so
                         their cosine here is exactly 0, and neither sum above includes it
  layer<n>/attention     attention of layer n, with its LayerNorm and shared adapter
  layer<n>/ffn           feed-forward part of layer n, with its LayerNorm and shared adapter
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from negint.errors import UserError
from negint.method import losses, masking, memory, parallel
from negint.method.phi import merge_params, select_language
from negint.method.surgery import OWN_ROWS
from negint.options import RunOptions

VOCABULARY = ("token", "transform", "softmax", "softmax_bias")
LANGUAGE_EMBEDDING = "language_embedding"  # the part that no two languages share
DRAWS = 2  # gradients per language
FIRST_MEASURED = 10  # updates; see `is_due`

Params = Any  # a tree of arrays, such as theta or a gradient; JAX has no type for one


def part_of(path: tuple[str, ...]) -> str:
  """Returns the part of theta that a parameter belongs to; each belongs to exactly one."""
  if path[0] in VOCABULARY:
    return "vocabulary"
  if path[0] in OWN_ROWS:
    return LANGUAGE_EMBEDDING
  if path[0].startswith("layers_"):
    return f"layer{int(path[0].removeprefix('layers_')) + 1}/{path[1].split('_')[0]}"
  return "embeddings"


@jax.jit
def products(gradients: list[Params]) -> dict[str, jax.Array]:
  """Returns the inner products of gradients, part by part.

  Args:
    gradients: N trees like theta.

  Returns:
    {part: [N, N]}, summed in float32.
  """
  parts: dict[str, jax.Array] = {}
  for path in traverse_util.flatten_dict(gradients[0]):
    leaves = [functools.reduce(operator.getitem, path, gradient) for gradient in gradients]
    rows = jnp.stack([leaf.reshape(-1).astype(jnp.float32) for leaf in leaves])
    product = jnp.matmul(rows, rows.T, precision="highest")
    part = part_of(path)
    parts[part] = parts[part] + product if part in parts else product
  return parts


def scopes(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns inner products by scope: those of the parts, and of the two sums of shared parts."""
  everything = functools.reduce(
    np.add, [each for part, each in parts.items() if part != LANGUAGE_EMBEDDING]
  )
  return {"all": everything, "without_vocabulary": everything - parts["vocabulary"], **parts}


def cosines(product: np.ndarray, languages: tuple[str, ...]) -> dict[str, float]:
  """Returns the cosines of one scope.

  Args:
    product: [2 L, 2 L], inner products; the two gradients of a language are neighbours.
    languages: L codes, in the order of the gradients.

  Returns:
    {"ar-ar": cosine of the language's two gradients, "ar-en": mean over the four pairs, ...}; NaN
    where a gradient is zero.
  """
  norms = np.sqrt(np.diag(product))
  with np.errstate(invalid="ignore", divide="ignore"):
    table = product / np.outer(norms, norms)
  table = table.reshape(len(languages), DRAWS, len(languages), DRAWS)
  result = {}
  for i, first in enumerate(languages):
    result[f"{first}-{first}"] = float(table[i, 0, i, 1])
    for j in range(i + 1, len(languages)):
      result[f"{first}-{languages[j]}"] = float(table[i, :, j, :].mean())
  return result


def scalars(measured: dict[str, dict[str, float]]) -> dict[str, float]:
  """Returns raw cosines as scalars for a run's log; a cosine with a gradient of zero has no value.

  Corrected cosines are not logged: they are ratios of means over several measurements
  (`negint.method.similarity`), which the report computes.

  Args:
    measured: {scope: {pair: cosine}}.
  """
  return {
    f"gradient_cosine/{scope}/{pair}": value
    for scope, cosine in measured.items()
    for pair, value in cosine.items()
    if math.isfinite(value)
  }


def is_due(step: int, every: int) -> bool:
  """Returns whether a run measures its gradient cosines after `step` updates.

  It does at each multiple of `every` and, before the first, at 10, 20, 40, 80, and so on: the
  paper sees conflict at the beginning of training.

  Args:
    step: updates done.
    every: `gradient_similarity.every`, at least 1.
  """
  doublings, rest = divmod(step, FIRST_MEASURED)
  is_early = step < every and not rest and doublings.bit_count() == 1
  return step > 0 and (is_early or step % every == 0)


def disjoint_rows(
  stream: np.ndarray, length: int, count: int, generator: np.random.Generator
) -> list[np.ndarray]:
  """Returns two disjoint random sets of sequences.

  Args:
    stream: token ids, [tokens].
    length: T, tokens per sequence.
    count: sequences per set.
    generator: of the draw.

  Returns:
    Two arrays [count, T], int32.
  """
  blocks = stream[: len(stream) // length * length].reshape(-1, length)
  order = generator.permutation(len(blocks))[: DRAWS * count]
  return [blocks[np.sort(part)].astype(np.int32) for part in np.split(order, DRAWS)]


def available_sentences(
  streams: Sequence[np.ndarray], length: int, wanted: int, batch_size: int
) -> int:
  """Returns how many sequences each gradient can have: `wanted`, or fewer in a small corpus.

  Args:
    streams: token ids of each language, [tokens].
    length: tokens per sequence.
    wanted: sequences that were asked for.
    batch_size: the result is a multiple of it.

  Raises:
    UserError: two disjoint sets of the smallest corpus have less than one batch each.
  """
  most = min(len(stream) // length for stream in streams) // DRAWS
  count = min(wanted, most) // batch_size * batch_size
  if not count:
    raise UserError(
      f"A gradient needs at least one batch of {batch_size} sequences; the smallest corpus has "
      f"{most} for each of its {DRAWS} gradients, and {wanted} were asked for. Lower the batch size, or "
      "raise the number of sentences."
    )
  return count


@functools.lru_cache(maxsize=1)  # the step whose memory was looked at is the one that measures
def make_gradient_step(run: RunOptions) -> parallel.MappedStep:
  """Returns a function that adds a batch's gradient to a sum, on all devices.

  The function takes (((theta, phi), total), batch, language, key, weight) and returns total +
  weight * gradient, where the gradient is that of the batch's mean loss by theta, in float32. The
  batch is split over the devices (`parallel.split`). It holds `tokens` [B, T] and `rows` [B], the
  number of each row, on which its masks depend.
  """
  exact = dict(dtype="float32", attention="xla")  # cuDNN has no float32
  model = run.model.replace(**exact, dropout=0.0, attention_dropout=0.0)

  def step(
    state: tuple[tuple[Params, Params], Params],
    batch: dict[str, jax.Array],
    language: jax.Array,
    key: jax.Array,
    weight: jax.Array,
  ) -> Params:
    (theta, phi), sum_so_far = state
    masked = masking.mask_tokens(
      key,
      batch["tokens"],
      batch["rows"],
      num_predicted=masking.num_predicted(run.mask_rate, batch["tokens"].shape[1]),
      vocab_size=model.vocab_size,
      mask_id=model.mask_id,
      kept_ids=model.kept_ids,
    )

    @jax.default_matmul_precision("highest")  # the TensorFloat-32 of GPUs would blur the angles
    def loss(theta: Params) -> jax.Array:
      params = merge_params(theta, select_language(phi, language))
      total, count = losses.mlm_loss(model, params, masked, language)
      return total / count

    gradient = parallel.mean(jax.grad(loss)(theta))
    return jax.tree.map(lambda total, g: total + weight * g, sum_so_far, gradient)

  return parallel.pmap_step(step, donate_state=False)


def remat_of(
  run: RunOptions, params: tuple[Params, Params], batch_size: int, available: memory.Limit | None
) -> memory.Choice:
  """Returns what the measurements of a model do about their memory.

  Args:
    run: the pretraining run of the model.
    params: (theta, phi).
    batch_size: sequences per step.
    available: memory of the device.

  Raises:
    UserError: a step does not fit.
  """

  def need(remat: str) -> memory.Need:
    return step_need(memory.with_remat(run, remat), params, batch_size)

  return memory.choose(need, available, lambda: memory.LOWER_BATCH)


def step_need(run: RunOptions, params: tuple[Params, Params], batch_size: int) -> memory.Need:
  """Returns the memory of a gradient step, which is compiled and kept.

  Args:
    run: the pretraining run of the model.
    params: (theta, phi).
    batch_size: sequences.
  """
  rows = np.zeros(batch_size, np.int32)
  tokens = np.zeros((batch_size, run.data.sequence_length), np.int32)
  batch = parallel.split({"tokens": tokens, "rows": rows})
  theta, phi = parallel.replicated_shapes(params)
  arguments = ((theta, phi), theta), batch, np.int32(0), jax.random.key(0), np.float32(1.0)
  return memory.need_of(make_gradient_step(run).lower(*arguments).compile())


def need_in_training(run: RunOptions) -> memory.Need:
  """Returns the memory of a run's own measurements, beside the state of its training.

  All gradients but the one that is summed up lie beside it, too.
  """
  state = memory.state_shapes(run)
  need = step_need(run, (state.theta, state.phi), run.gradient_similarity.batch_size)
  others = (DRAWS * len(run.languages) - 1) * memory.size_of(state.theta)
  return need._replace(arguments=need.arguments + memory.beside_weights(run) + others)


def mean_gradient(
  gradient_step: Callable[..., Params],
  params: tuple[Params, Params],
  rows: np.ndarray,
  language: int,
  key: jax.Array,
  batch_size: int,
  poll: Callable[[], object],
) -> Params:
  """Returns the gradient of the mean loss over several batches.

  Args:
    gradient_step: as `make_gradient_step` returns it.
    params: (theta, phi), replicated over the devices.
    rows: [n, T], token ids; n is a multiple of batch_size.
    language: the index of their language.
    key: of the masks.
    batch_size: sequences per step.
    poll: is called between batches; may raise to stop.
  """
  total = parallel.replicate(jax.tree.map(np.zeros_like, params[0]))
  weight = np.float32(batch_size / len(rows))
  for first in range(0, len(rows), batch_size):
    poll()
    numbers = np.arange(first, first + batch_size, dtype=np.int32)
    batch = parallel.split({"tokens": rows[first : first + batch_size], "rows": numbers})
    total = gradient_step((params, total), batch, np.int32(language), key, weight)
  # With two chains of steps in flight, each could wait for a device that the other one holds.
  return jax.block_until_ready(total)


def make_measure(
  run: RunOptions,
  streams: Sequence[np.ndarray],
  sentences: int,
  batch_size: int,
  poll: Callable[[], object],
) -> Callable[[tuple[Params, Params], tuple[int, ...]], dict[str, dict[str, float]]]:
  """Returns a function that measures the cosines of a model.

  The function takes ((theta, phi), draw) and returns {scope: {pair: cosine}}. The draw, a tuple of
  ints, decides sentences and masks.

  Args:
    run: the pretraining run of the model.
    streams: training token ids of each language, [tokens].
    sentences: sequences per gradient, a multiple of batch_size (`available_sentences`).
    batch_size: sequences per step.
    poll: is called between batches; may raise to stop.
  """
  gradient_step = make_gradient_step(run)

  def measure(params: tuple[Params, Params], draw: tuple[int, ...]) -> dict[str, dict[str, float]]:
    key = functools.reduce(jax.random.fold_in, draw, jax.random.key(run.seed))
    gradients = []
    for language, stream in enumerate(streams):
      generator = np.random.default_rng([run.seed, *draw, language])
      sets = disjoint_rows(stream, run.data.sequence_length, sentences, generator)
      for number, rows in enumerate(sets):
        own_key = jax.random.fold_in(key, language * DRAWS + number)
        gradients.append(
          mean_gradient(gradient_step, params, rows, language, own_key, batch_size, poll)
        )
    parts = jax.device_get(products(gradients))
    return {scope: cosines(each, run.languages) for scope, each in scopes(parts).items()}

  return measure
