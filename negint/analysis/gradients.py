"""Gradient conflict (Section 3.3, Figure 3): cosines of the languages' gradients over theta.

Each language gives two gradients, of two disjoint sets of sentences. The cosine of the two is what
sampling noise alone leaves of 1; the cosine of two languages is read beside it, and corrected by
it. Gradients are those of the training loss before clipping, in float32, without dropout.

Scopes: `all` of theta; `without_vocabulary`, all but the token embeddings and the softmax bias,
which languages of different scripts hardly share; `layer<n>/attention` and `layer<n>/ffn` with
their LayerNorms and shared adapters; `vocabulary`; `embeddings` (positions, languages, their norm).
"""

import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from negint.errors import UserError
from negint.method import losses, masking, parallel
from negint.method.phi import merge_params, select_language
from negint.options import RunOptions

VOCABULARY = ("token", "softmax_bias")
DRAWS = 2  # gradients a language


def part_of(path: tuple[str, ...]) -> str:
  """The part of theta that a parameter belongs to; the parts partition theta."""
  if path[0] in VOCABULARY:
    return "vocabulary"
  if path[0].startswith("layers_"):
    return f"layer{int(path[0].removeprefix('layers_')) + 1}/{path[1].split('_')[0]}"
  return "embeddings"


@jax.jit
def products(gradients: list):
  """Inner products of N gradients, trees like theta, by part: {part: [N, N]}, summed in float32."""
  parts = {}
  for path in traverse_util.flatten_dict(gradients[0]):
    leaves = [functools.reduce(operator.getitem, path, gradient) for gradient in gradients]
    rows = jnp.stack([leaf.reshape(-1).astype(jnp.float32) for leaf in leaves])
    product = jnp.matmul(rows, rows.T, precision="highest")
    part = part_of(path)
    parts[part] = parts[part] + product if part in parts else product
  return parts


def scopes(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Products by part to products by scope: the parts, and the two sums over parts."""
  everything = sum(parts.values())
  return {"all": everything, "without_vocabulary": everything - parts["vocabulary"], **parts}


def cosines(product: np.ndarray, languages: tuple[str, ...]) -> dict[str, float]:
  """Cosines of one scope from its inner products.

  Args:
    product: [2 L, 2 L], the draws of a language side by side.

  Returns:
    {"ar-en": mean over the four pairs of draws, "ar-ar": of its two draws, ...}; NaN where a
    gradient is zero.
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


def corrected(cosine: dict[str, float]) -> dict[str, float]:
  """Cosines between languages as they would be without sampling noise.

  cos(x, e) / sqrt(cos(x, x') cos(e, e')): noise shrinks the numerator by the same factors that
  keep the denominator from 1. NaN where a language's own two gradients do not agree in sign.
  """
  result = {}
  for pair, value in cosine.items():
    first, second = pair.split("-")
    if first != second:
      own = cosine[f"{first}-{first}"], cosine[f"{second}-{second}"]
      result[pair] = value / (own[0] * own[1]) ** 0.5 if min(own) > 0 else float("nan")
  return result


def scalars(measured: dict[str, dict[str, float]]) -> dict[str, float]:
  """Cosines {scope: {pair: value}} as scalars of a run's log; undefined ones are left out."""
  result = {}
  for scope, cosine in measured.items():
    for name, values in (("cosine", cosine), ("cosine_corrected", corrected(cosine))):
      for pair, value in values.items():
        if math.isfinite(value):
          result[f"gradient_{name}/{scope}/{pair}"] = value
  return result


def disjoint_rows(stream, length: int, count: int, generator) -> list[np.ndarray]:
  """Two disjoint random sets of `count` sequences of a token stream, each [count, T] int32."""
  blocks = stream[: len(stream) // length * length].reshape(-1, length)
  order = generator.permutation(len(blocks))[: DRAWS * count]
  return [blocks[np.sort(part)].astype(np.int32) for part in np.split(order, DRAWS)]


def available_sentences(streams, length: int, wanted: int, batch_size: int) -> int:
  """Sequences a gradient: what was asked for, or what two disjoint sets of the smallest corpus have.

  Raises:
    UserError: that is less than one batch.
  """
  most = min(len(stream) // length for stream in streams) // DRAWS
  count = min(wanted, most) // batch_size * batch_size
  if not count:
    raise UserError(
      f"a gradient needs at least one batch of {batch_size} sequences, but the smallest corpus has "
      f"{DRAWS} x {most} and {wanted} were asked for; lower the batch size, or raise the sentences."
    )
  return count


def make_gradient_step(run: RunOptions):
  """(((theta, phi), total), split batch, language, key, weight) -> total + weight * gradient.

  The gradient is that of the batch's mean loss by theta, in float32. The batch has `tokens` [B, T]
  and `rows` [B], the rows' numbers, on which the masks depend.
  """
  model = run.model.replace(dtype="float32", dropout=0.0, attention_dropout=0.0)

  def step(state, batch, language, key, weight):
    (theta, phi), sum_so_far = state
    masked = masking.mask_tokens(
      key,
      batch["tokens"],
      batch["rows"],
      num_predicted=masking.num_predicted(run.mask_rate, batch["tokens"].shape[1]),
      vocab_size=model.vocab_size,
    )

    def loss(theta):
      params = merge_params(theta, select_language(phi, language))
      total, count = losses.mlm_loss(model, params, masked, language)
      return total / count

    gradient = parallel.mean(jax.grad(loss)(theta))
    return jax.tree.map(lambda total, g: total + weight * g, sum_so_far, gradient)

  return parallel.pmap_step(step, donate_state=False)


def mean_gradient(gradient_step, params, rows, language: int, key, batch_size: int, poll):
  """Gradient of the mean loss over `rows` [n, T], accumulated over batches."""
  total = parallel.replicate(jax.tree.map(np.zeros_like, params[0]))
  weight = np.float32(batch_size / len(rows))
  for first in range(0, len(rows), batch_size):
    poll()
    numbers = np.arange(first, first + batch_size, dtype=np.int32)
    batch = parallel.split({"tokens": rows[first : first + batch_size], "rows": numbers})
    total = gradient_step((params, total), batch, np.int32(language), key, weight)
  # Two chains of steps under way at once could wait for each other's devices for ever.
  return jax.block_until_ready(total)


def make_measure(run: RunOptions, streams, sentences: int, batch_size: int, poll: Callable):
  """A function ((theta, phi), draw) -> {scope: {pair: cosine}}.

  Args:
    streams: a training token stream of each language, [tokens].
    sentences: sequences a gradient, a multiple of batch_size (`available_sentences`).
    poll: called between batches; may raise to stop.
  The draw, a tuple of ints, decides sentences and masks.
  """
  gradient_step = make_gradient_step(run)

  def measure(params, draw: tuple[int, ...]) -> dict[str, dict[str, float]]:
    key = functools.reduce(jax.random.fold_in, draw, jax.random.key(run.seed))
    gradients = []
    for language, stream in enumerate(streams):
      generator = np.random.default_rng([run.seed, *draw, language])
      parts = disjoint_rows(stream, run.data.sequence_length, sentences, generator)
      for number, rows in enumerate(parts):
        own_key = jax.random.fold_in(key, language * DRAWS + number)
        gradients.append(
          mean_gradient(gradient_step, params, rows, language, own_key, batch_size, poll)
        )
    parts = jax.device_get(products(gradients))
    return {scope: cosines(each, run.languages) for scope, each in scopes(parts).items()}

  return measure
