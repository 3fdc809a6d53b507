"""Which positions a masked language model predicts, and what it sees there: pure in a key.

Each row's randomness depends on the key and the row's number in the global batch alone, so the
masks are the same however the batch is split over devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from negint.special_tokens import MASK

TRAIN_CORRUPTION = (0.8, 0.1)  # shares shown as [MASK] and as a random token; the rest stays
EVAL_CORRUPTION = (1.0, 0.0)  # XLM's evaluator hides every predicted token


class MaskedBatch(NamedTuple):
  """tokens [B, T] as the encoder sees them; positions, targets, weights [B, K]; lengths [B] or
  None where no row is padded."""

  tokens: jax.Array
  positions: jax.Array
  targets: jax.Array
  weights: jax.Array
  lengths: jax.Array | None = None


def num_predicted(mask_rate: float, sequence_length: int) -> int:
  """K, the predicted positions of a row."""
  return round(mask_rate * sequence_length)


def mask_tokens(
  key,
  tokens_BxT,
  rows_B,
  *,
  num_predicted: int,
  vocab_size: int,
  corruption=TRAIN_CORRUPTION,
  lengths_B=None,
) -> MaskedBatch:
  """Hides K positions of every row, specials included, position 0 never (as XLM does).

  Args:
    tokens_BxT: token ids [B, T].
    rows_B: each row's number in the global batch (training) or split (evaluation), int [B].
    num_predicted: K. A row with fewer than K positions to predict has weight 0 at the rest, and
      the same share K / T of its own length is predicted.
    corruption: shares of predicted tokens shown as [MASK] and as a random token.
    lengths_B: tokens of each row that are not padding, int [B]; None where no row is padded.
  """
  length = tokens_BxT.shape[1]
  share_masked, share_random = corruption

  def mask_row(row, tokens_T, valid_length):
    keys = jax.random.split(jax.random.fold_in(key, row), 3)
    place = jnp.arange(length)
    scores_T = jax.random.uniform(keys[0], (length,))
    scores_T = jnp.where((place > 0) & (place < valid_length), scores_T, -1.0)
    best_K, positions_K = jax.lax.top_k(scores_T, num_predicted)
    wanted = jnp.round(num_predicted * valid_length / length)
    weights_K = (best_K >= 0) & (jnp.arange(num_predicted) < jnp.maximum(wanted, 1))
    targets_K = tokens_T[positions_K]
    random_K = jax.random.randint(keys[1], (num_predicted,), 0, vocab_size, tokens_T.dtype)
    draw_K = jax.random.uniform(keys[2], (num_predicted,))
    shown_K = jnp.where(draw_K < share_masked + share_random, random_K, targets_K)
    shown_K = jnp.where(draw_K < share_masked, jnp.asarray(MASK, tokens_T.dtype), shown_K)
    shown_K = jnp.where(weights_K, shown_K, targets_K)
    return tokens_T.at[positions_K].set(shown_K), positions_K, targets_K, weights_K

  valid = jnp.full_like(rows_B, length) if lengths_B is None else lengths_B
  tokens, positions, targets, weights = jax.vmap(mask_row)(rows_B, tokens_BxT, valid)
  return MaskedBatch(tokens, positions, targets, weights.astype(jnp.float32), lengths_B)
