"""Vectors of texts: the mean of a layer's outputs over the tokens of each text."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from negint.errors import UserError
from negint.inference import rows as row_tools
from negint.method import model, parallel
from negint.options import ModelOptions
from negint.special_tokens import SpecialTokens
from negint.tasks.features import Tokenizer, encode

TEXTS_AT_ONCE = 4096  # texts whose tokens and sums are in memory at the same time


def layer_number(layer: int, num_layers: int) -> int:
  """Returns the number of layers to compute for `layer`, which counts from the end if negative.

  Raises:
    UserError: the model has no such layer.
  """
  number = layer if layer >= 0 else num_layers + 1 + layer
  if not 0 <= number <= num_layers:
    raise UserError(
      f"layer is {layer}; it must be from {-num_layers - 1} to {num_layers}: 0 is the embeddings, "
      f"{num_layers} or -1 the last layer."
    )
  return number


# Any: a tree of arrays.
def embed(
  options: ModelOptions,
  params: Any,
  language: int,
  texts: Sequence[str],
  tokenizer: Tokenizer,
  *,
  num_layers: int,
  longest: int,
  batch_size: int,
) -> np.ndarray:
  """Returns the vectors of texts, float32 [n, D].

  Beside the vectors it needs memory for TEXTS_AT_ONCE texts, however many there are.

  Args:
    options: the encoder's shape.
    params: its weights in the language, on every device.
    language: index of the language.
    texts: the texts.
    tokenizer: of the language.
    num_layers: layers to compute.
    longest: tokens of a row. A longer text is several rows.
    batch_size: rows at most.
  """
  special = tokenizer.special
  room = longest - len(special.begin) - len(special.end)
  compiled = make_sums(options.replace(num_layers=num_layers, remat="none"), special)
  vectors = np.empty((len(texts), options.model_dim), np.float32)
  for first in range(0, len(texts), TEXTS_AT_ONCE):
    encoded = [encode(text, tokenizer) for text in texts[first : first + TEXTS_AT_ONCE]]
    rows, text_of = [], []
    for index, ids in enumerate(encoded):
      for part in row_tools.pieces(ids, room):
        rows.append(row_tools.row_of(part, special))
        text_of.append(index)
    owners = np.array(text_of, np.int64)
    sums = np.zeros((len(encoded), options.model_dim))
    for chosen, batch in row_tools.batched(rows, {}, special, longest, batch_size):
      part_sums = compiled(params, parallel.split(batch), np.int32(language))
      np.add.at(sums, owners[chosen], part_sums[: len(chosen)])
    counts = np.array([len(ids) for ids in encoded])
    vectors[first : first + len(encoded)] = sums / counts[:, None]
  return vectors


@functools.lru_cache(8)
def make_sums(options: ModelOptions, special: SpecialTokens) -> Callable[..., np.ndarray]:
  """Returns the compiled (params, batch, language) -> sums over the texts' tokens, [B, D].

  The separators do not count.
  """

  def sums(params: Any, batch: Any, language: jax.Array) -> jax.Array:
    tokens, lengths = batch["tokens"], batch["lengths"]
    hidden_BxTxD = model.encode(options, params, tokens, language, lengths_B=lengths)
    place = jnp.arange(tokens.shape[1])[None]
    inside_BxT = (place >= len(special.begin)) & (place < lengths[:, None] - len(special.end))
    return jnp.sum(hidden_BxTxD.astype(jnp.float32) * inside_BxT[..., None], axis=1)

  return parallel.pmap_rows(sums)
