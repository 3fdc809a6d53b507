"""Which positions a masked language model predicts, and what it sees there.

The randomness of a row depends only on the key and on the row's number in the global batch. The masks
are therefore the same for every number of devices.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from negint.special_tokens import MASK

TRAIN_CORRUPTION = (0.8, 0.1)  # shares shown as [MASK] and as a random token; the rest stays
EVAL_CORRUPTION = (1.0, 0.0)  # XLM's evaluator hides every predicted token


class MaskedBatch(NamedTuple):
  """Rows of tokens with hidden positions."""

  tokens: jax.Array  # ids as the encoder sees them, int [B, T]
  positions: jax.Array  # predicted positions, int [B, K]
  targets: jax.Array  # original ids at the predicted positions, int [B, K]
  weights: jax.Array  # 1.0 where a position counts, else 0.0, [B, K]
  lengths: jax.Array | None = None  # tokens of each row without padding, int [B]; None: no padding


def num_predicted(mask_rate: float, sequence_length: int) -> int:
  """The number K of predicted positions of a full row."""
  return round(mask_rate * sequence_length)


def mask_tokens(
  key: jax.Array,
  tokens_BxT: jax.Array,
  rows_B: jax.Array,
  *,
  num_predicted: int,
  vocab_size: int,
  mask_id: int = MASK,
  kept_ids: tuple[int, ...] = (),
  corruption: tuple[float, float] = TRAIN_CORRUPTION,
  lengths_B: jax.Array | None = None,
) -> MaskedBatch:
  """Hides up to K positions of each row: never position 0 (as XLM does), and no token of `kept_ids`.

  Args:
    key: of all masks of the batch.
    tokens_BxT: token ids [B, T].
    rows_B: each row's number in the global batch (training) or split (evaluation), int [B].
    num_predicted: K. A padded row predicts the share K / T of its own length, at least one
      position where it has one; its other places among the K have weight 0.
    vocab_size: V; random tokens are drawn from all V.
    mask_id: of [MASK].
    kept_ids: tokens that are not hidden; XLM also hides special tokens.
    corruption: shares of predicted tokens shown as [MASK] and as a random token.
    lengths_B: tokens of each row that are not padding, int [B]; None where no row is padded.
  """
  length = tokens_BxT.shape[1]
  share_masked, share_random = corruption

  def mask_row(
    row: jax.Array, tokens_T: jax.Array, valid_length: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    keys = jax.random.split(jax.random.fold_in(key, row), 3)
    place = jnp.arange(length)
    scores_T = jax.random.uniform(keys[0], (length,))
    hideable_T = (place > 0) & (place < valid_length)
    if kept_ids:
      hideable_T &= ~jnp.isin(tokens_T, jnp.array(kept_ids))
    scores_T = jnp.where(hideable_T, scores_T, -1.0)
    best_K, positions_K = jax.lax.top_k(scores_T, num_predicted)
    wanted = jnp.round(num_predicted * valid_length / length).astype(jnp.int32)
    weights_K = (best_K >= 0) & (jnp.arange(num_predicted) < jnp.maximum(wanted, 1))
    targets_K = tokens_T[positions_K]
    random_K = jax.random.randint(keys[1], (num_predicted,), 0, vocab_size, tokens_T.dtype)
    draw_K = jax.random.uniform(keys[2], (num_predicted,))
    shown_K = jnp.where(draw_K < share_masked + share_random, random_K, targets_K)
    shown_K = jnp.where(draw_K < share_masked, jnp.asarray(mask_id, tokens_T.dtype), shown_K)
    shown_K = jnp.where(weights_K, shown_K, targets_K)
    return tokens_T.at[positions_K].set(shown_K), positions_K, targets_K, weights_K

  valid = jnp.full_like(rows_B, length) if lengths_B is None else lengths_B
  tokens, positions, targets, weights = jax.vmap(mask_row)(rows_B, tokens_BxT, valid)
  return MaskedBatch(tokens, positions, targets, weights.astype(jnp.float32), lengths_B)
