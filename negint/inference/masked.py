"""The masked language model on texts: candidates for masks, and pseudo-perplexity."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from negint.data.text import normalise
from negint.errors import UserError
from negint.inference import rows as row_tools
from negint.method import model, parallel
from negint.options import ModelOptions
from negint.tasks.features import Arrays, Tokenizer

MASK = "[MASK]"  # in a text: a hidden token
_BEFORE = "\ufffc"  # stands before a text that continues a word, which no text of a corpus has

# Any: trees of arrays.
Scores = dict[str, np.ndarray]
# (params, split batch, language index) -> arrays with the rows of the batch
Compiled = Callable[[Any, Any, Any], Any]


class Candidate(NamedTuple):
  """A token that may stand at a mask."""

  token: str  # as the tokenizer writes it; in our runs '▁' begins a word
  probability: float  # among all tokens of the vocabulary


class Perplexities(NamedTuple):
  """Pseudo-perplexities: exp of the mean surprise of the tokens, each hidden alone."""

  texts: np.ndarray  # of each text, float64 [n]
  overall: float  # of all tokens of all texts
  tokens: np.ndarray  # of each text, the number of its tokens, int64 [n]


def mask_ids(text: str, tokenizer: Tokenizer) -> list[int]:
  """Returns the token ids of a text in which each MASK is one hidden token.

  A text that follows a mask without a space continues its word. Spaces before a mask are left out:
  the hidden token may have one.
  """
  first, *rest = normalise(text).split(MASK)
  ids = row_tools.encode(first.rstrip(" "), tokenizer)
  for part in rest:
    ids.append(tokenizer.special.mask)
    ids += _continued(part.rstrip(" "), tokenizer)
  return ids


def fill(
  options: ModelOptions,
  params: Any,
  language: int,
  texts: Sequence[Sequence[int]],
  tokenizer: Tokenizer,
  *,
  top: int,
  known: int,
  longest: int,
  batch_size: int,
) -> list[list[list[tuple[int, float]]]]:
  """Returns for each text, for each of its masks, the `top` (token id, probability).

  Args:
    options: the encoder's shape.
    params: its weights in the language, on every device.
    language: index of the language.
    texts: token ids of each text, as `mask_ids` returns them.
    tokenizer: the tokenizer.
    top: candidates per mask.
    known: tokens of the tokenizer. A checkpoint may have more rows than tokens.
    longest: tokens of a row. A longer text is cut to the window around each mask.
    batch_size: rows at most.
  """
  places = [np.flatnonzero(np.array(ids) == tokenizer.special.mask).tolist() for ids in texts]
  run = _Hidden(options, params, language, tokenizer, longest, batch_size)
  found = run(make_candidates(options, top, known), list(zip(texts, places, strict=True)))
  pairs = [
    list(zip(map(int, ids), map(math.exp, logs), strict=True))
    for ids, logs in zip(found["ids"], found["logs"], strict=True)
  ]
  masks = iter(pairs)
  return [[next(masks) for _ in each] for each in places]


def perplexities(
  options: ModelOptions,
  params: Any,
  language: int,
  texts: Sequence[Sequence[int]],
  tokenizer: Tokenizer,
  *,
  longest: int,
  batch_size: int,
) -> Perplexities:
  """Returns the pseudo-perplexities of texts, see `Model.perplexity`.

  Args:
    options: as in `fill`, and so the others.
    params: as in `fill`.
    language: as in `fill`.
    texts: token ids of each text, at least one.
    tokenizer: as in `fill`.
    longest: tokens of a row. Of a longer text a token sees the window around it.
    batch_size: rows at most.
  """
  run = _Hidden(options, params, language, tokenizer, longest, batch_size)
  counts = np.array([len(ids) for ids in texts], np.int64)
  surprise = np.zeros(len(texts))
  for first, last in _groups(counts, row_tools.ROWS_AT_ONCE):
    every = [(ids, list(range(len(ids)))) for ids in texts[first:last]]
    logs = run(make_surprise(options), every)["log"].astype(np.float64)
    np.add.at(surprise, np.repeat(np.arange(first, last), counts[first:last]), -logs)
  overall = math.exp(surprise.sum() / counts.sum()) if len(texts) else math.nan
  return Perplexities(np.exp(surprise / counts), overall, counts)


def _groups(counts: np.ndarray, most: int) -> list[tuple[int, int]]:
  """Returns (first, last) ranges of texts with about `most` tokens, or one text that has more."""
  groups, first, total = [], 0, 0
  for index, count in enumerate(counts):
    if total and total + count > most:
      groups.append((first, index))
      first, total = index, 0
    total += count
  return [*groups, (first, len(counts))] if len(counts) else []


class _Hidden(NamedTuple):
  """A model with what hides single tokens of texts."""

  options: ModelOptions
  params: Any
  language: int
  tokenizer: Tokenizer
  longest: int
  batch_size: int

  def __call__(self, compiled: Compiled, texts: list[tuple[Sequence[int], list[int]]]) -> Scores:
    """Returns the outputs of a compiled function at each place of each text, in their order.

    The token at the place is hidden alone, in the window of the text that has it nearest its middle.

    Args:
      compiled: of this module.
      texts: (token ids, places to hide) of each text.
    """
    special = self.tokenizer.special
    room = self.longest - len(special.begin) - len(special.end)
    rows, positions, targets = [], [], []
    for ids, places in texts:
      for at in places:
        first = row_tools.window(len(ids), at, room)
        row = row_tools.row_of(ids[first : first + room], special)
        positions.append(len(special.begin) + at - first)
        targets.append(ids[at])
        row[positions[-1]] = special.mask
        rows.append(row)
    more: Arrays = {
      "position": np.array(positions, np.int32),
      "target": np.array(targets, np.int32),
    }
    outputs: Scores = {}
    language = np.int32(self.language)
    for chosen, batch in row_tools.batched(rows, more, special, self.longest, self.batch_size):
      part = compiled(self.params, parallel.split(batch), language)
      for name, values in part.items():
        whole = outputs.setdefault(name, np.zeros((len(rows), *values.shape[1:]), values.dtype))
        whole[chosen] = values[: len(chosen)]
    return outputs


@functools.lru_cache(8)
def make_candidates(options: ModelOptions, top: int, known: int) -> Compiled:
  """Returns the compiled (params, batch, language) -> {"ids", "logs"}, each [B, top], best first.

  Candidates are the first `known` tokens.
  """

  def candidates(params: Any, batch: Any, language: jax.Array) -> dict[str, jax.Array]:
    log_BxV = _log_probabilities(options, params, batch, language)
    logs, ids = jax.lax.top_k(log_BxV[:, :known], top)
    return {"ids": ids, "logs": logs}

  return parallel.pmap_rows(candidates)


@functools.lru_cache(8)
def make_surprise(options: ModelOptions) -> Compiled:
  """Returns the compiled (params, batch, language) -> {"log": of the target's probability, [B]}."""

  def surprise(params: Any, batch: Any, language: jax.Array) -> dict[str, jax.Array]:
    log_BxV = _log_probabilities(options, params, batch, language)
    return {"log": jnp.take_along_axis(log_BxV, batch["target"][:, None], axis=1)[:, 0]}

  return parallel.pmap_rows(surprise)


def _log_probabilities(
  options: ModelOptions, params: Any, batch: Any, language: jax.Array
) -> jax.Array:
  """Returns the log-probabilities of the vocabulary at one position per row, [B, V]."""
  hidden_Bx1xD = model.encode(
    options,
    params,
    batch["tokens"],
    language,
    lengths_B=batch["lengths"],
    positions_BxK=batch["position"][:, None],
  )
  return jax.nn.log_softmax(model.vocabulary_logits(options, params, hidden_Bx1xD)[:, 0])


def _continued(text: str, tokenizer: Tokenizer) -> list[int]:
  """Returns the token ids of a text behind a mask."""
  if not text or text[0] == " ":
    return row_tools.encode(text, tokenizer)
  # Alone, the text would begin a word. Behind another character it does not.
  ids, spans = tokenizer.encode_with_offsets(_BEFORE + text)
  kept = [(token, begin) for token, (begin, end) in zip(ids, spans, strict=True) if end > 1]
  if kept and kept[0][1] >= 1:
    return [token for token, _ in kept]
  return row_tools.encode(text, tokenizer)


def check_masks(texts: Sequence[str]) -> None:
  """Raises UserError if a text has no MASK."""
  for index, text in enumerate(texts):
    if MASK not in text:
      raise UserError(
        f"texts[{index}] has no {MASK}, which stands for a hidden token: {text[:60]!r}. Write one, "
        f"such as 'She was born in {MASK}.'"
      )
