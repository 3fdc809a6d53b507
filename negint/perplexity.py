"""Perplexity per predicted token of the whole `valid` split, with masks fixed by row number."""

import math
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np

from negint.method import parallel
from negint.method.tree import Tree
from negint.special_tokens import PAD


def row_batches(
  stream: np.ndarray, length: int, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields a token stream as batches of rows.

  The last row is padded, and rows of length 0 fill the last batch.

  Args:
    stream: token ids, [tokens].
    length: T, tokens per row.
    batch_size: B, rows per batch.

  Yields:
    `tokens` [B, T], `lengths` [B] and `rows` [B], the row numbers; int32.
  """
  num_rows = -(-len(stream) // length)
  for first in range(0, num_rows, batch_size):
    rows = np.arange(first, first + batch_size, dtype=np.int32)
    tokens = np.full((batch_size, length), PAD, np.int32)
    part = stream[first * length : (first + batch_size) * length]
    tokens.reshape(-1)[: len(part)] = part
    lengths = np.clip(len(stream) - rows.astype(np.int64) * length, 0, length).astype(np.int32)
    yield {"tokens": tokens, "lengths": lengths, "rows": rows}


def perplexities(
  eval_step: Callable[..., Mapping[str, jax.Array]],
  params: tuple[Tree, Tree],
  streams: dict[str, np.ndarray],
  unigram_log: np.ndarray,
  *,
  sequence_length: int,
  batch_size: int,
  poll: Callable[[], object] = lambda: None,
) -> dict[str, dict[str, float]]:
  """Perplexities of the model and of the unigram model for each language.

  Args:
    eval_step: function of `steps.make_eval_step`.
    params: (theta, phi).
    streams: language -> token stream of its valid split, in the order of the language indices.
    unigram_log: log-probabilities of each language's unigram model, [languages, V].
    sequence_length: T, tokens per row.
    batch_size: rows per batch, of all devices.
    poll: called between batches; may raise to stop.

  Returns:
    {"perplexity": {language: value}, "unigram_perplexity": {language: value}}; NaN for a language
    without predicted tokens, infinity where the mean loss exceeds 700 nats.
  """
  result: dict[str, dict[str, float]] = {"perplexity": {}, "unigram_perplexity": {}}
  for index, (language, stream) in enumerate(streams.items()):
    sums = {"loss": 0.0, "unigram_loss": 0.0, "tokens": 0.0}
    unigram = parallel.replicate(unigram_log[index])
    for batch in row_batches(stream, sequence_length, batch_size):
      poll()
      part = eval_step(params, parallel.split(batch), np.int32(index), unigram)
      sums = {name: sums[name] + float(part[name]) for name in sums}
    for name, total in (("perplexity", "loss"), ("unigram_perplexity", "unigram_loss")):
      mean = sums[total] / sums["tokens"] if sums["tokens"] else math.nan
      result[name][language] = math.inf if mean > 700 else math.exp(mean)
  return result
