"""Masks: their number, places and contents, which depend only on the key and the row number."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import random_tokens

from negint.method import masking
from negint.special_tokens import MASK, NUM_SPECIALS, PAD

T, K, V = 24, 8, 200


@functools.partial(jax.jit, static_argnames=("num_predicted", "vocab_size", "corruption"))
def _masked(key, tokens, rows, lengths, **static):
  return masking.mask_tokens(key, tokens, rows, lengths_B=lengths, **static)


def mask(tokens, rows=None, lengths=None, seed=0, corruption=masking.TRAIN_CORRUPTION, predicted=K):
  rows = np.arange(len(tokens)) if rows is None else rows
  return jax.device_get(
    _masked(
      jax.random.key(seed),
      jnp.asarray(tokens),
      jnp.asarray(rows),
      lengths,
      num_predicted=predicted,
      vocab_size=V,
      corruption=corruption,
    )
  )


def shown(batch):
  return np.take_along_axis(batch.tokens, batch.positions, axis=1)


@pytest.fixture(scope="module")
def many():
  tokens = random_tokens(0, 4000, T)
  return tokens, mask(tokens)


def assert_share(hits, share):
  """Asserts that the share of True is within five standard deviations of `share`."""
  assert abs(np.mean(hits) - share) < 5 * np.sqrt(share * (1 - share) / np.size(hits))


def test_shares_of_masked_random_and_kept_tokens(many):
  _, batch = many
  seen = shown(batch)
  assert_share(seen == MASK, 0.8 + 0.1 / V)
  assert_share((seen != MASK) & (seen != batch.targets), 0.1 * (1 - 2 / V))
  assert_share(seen == batch.targets, 0.1 + 0.1 / V)


def test_random_tokens_come_from_the_whole_vocabulary_specials_too(many):
  _, batch = many
  seen = shown(batch)
  random = seen[(seen != MASK) & (seen != batch.targets)]
  assert set(range(V)) - {MASK} == set(random.tolist())
  assert_share(random < NUM_SPECIALS, (NUM_SPECIALS - 1) / V)


def test_every_row_predicts_k_distinct_positions_and_never_the_first(many):
  _, batch = many
  assert batch.positions.shape == (4000, K) and np.all(batch.weights == 1.0)
  assert all(len(set(row)) == K for row in batch.positions.tolist())
  assert batch.positions.min() == 1 and batch.positions.max() == T - 1


def test_every_other_position_is_equally_likely(many):
  _, batch = many
  chosen = np.bincount(batch.positions.ravel(), minlength=T)[1:] / 4000
  share = K / (T - 1)
  assert np.all(np.abs(chosen - share) < 5 * np.sqrt(share * (1 - share) / 4000))


def test_targets_are_the_original_tokens_and_other_places_stay(many):
  tokens, batch = many
  np.testing.assert_array_equal(batch.targets, np.take_along_axis(tokens, batch.positions, axis=1))
  hidden = np.zeros(tokens.shape, bool)
  np.put_along_axis(hidden, batch.positions, True, axis=1)
  np.testing.assert_array_equal(batch.tokens[~hidden], tokens[~hidden])
  assert np.any(batch.tokens[hidden] != tokens[hidden])


def test_evaluation_hides_every_predicted_token():
  batch = mask(random_tokens(0, 64, T), corruption=masking.EVAL_CORRUPTION)
  assert np.all(shown(batch) == MASK)
  assert np.sum(batch.tokens == MASK) == 64 * K


def test_padded_rows_predict_the_same_share_of_their_own_length_and_no_padding():
  lengths = np.arange(T + 1, dtype=np.int32)
  tokens = random_tokens(0, T + 1, T)
  tokens[np.arange(T)[None] >= lengths[:, None]] = PAD
  batch = mask(tokens, lengths=lengths)
  counted = batch.weights > 0
  wanted = np.maximum(np.round(K * lengths / T), 1) * (lengths > 1)
  np.testing.assert_array_equal(counted.sum(1), wanted)
  assert counted.sum(1)[-1] == K
  assert not np.any(batch.targets[counted] == PAD)
  assert not np.any(batch.positions[counted] == 0)
  changed = batch.tokens != tokens
  uncounted = np.ones_like(changed)
  np.put_along_axis(uncounted, batch.positions, ~counted, axis=1)
  assert not np.any(changed & uncounted) and np.any(changed)
  np.testing.assert_array_equal(batch.lengths, lengths)


def test_a_full_row_has_the_mask_that_it_has_without_lengths():
  tokens = random_tokens(0, 8, T)
  full, plain = mask(tokens, lengths=np.full(8, T, np.int32)), mask(tokens)
  np.testing.assert_array_equal(full.tokens, plain.tokens)
  np.testing.assert_array_equal(full.positions, plain.positions)


def test_masks_do_not_depend_on_how_the_batch_is_split():
  tokens = random_tokens(0, 8, T)
  whole = mask(tokens)
  halves = [mask(tokens[i : i + 4], np.arange(i, i + 4)) for i in (0, 4)]
  for name in ("tokens", "positions", "targets", "weights"):
    joined = np.concatenate([getattr(half, name) for half in halves])
    np.testing.assert_array_equal(joined, getattr(whole, name))
  unnumbered = mask(tokens[4:], np.arange(4))
  assert np.any(unnumbered.positions != whole.positions[4:])


def test_masks_follow_the_key_and_the_row():
  tokens = np.tile(random_tokens(0, 1, T), (8, 1))
  first, same, other = mask(tokens), mask(tokens), mask(tokens, seed=1)
  np.testing.assert_array_equal(first.tokens, same.tokens)
  assert np.mean(np.sort(first.positions) == np.sort(other.positions)) < 0.5
  assert len({tuple(sorted(row)) for row in first.positions.tolist()}) == 8


@pytest.mark.parametrize(
  ("rate", "length", "predicted"), [(0.15, 256, 38), (0.15, 64, 10), (0.4, 64, 26), (0.15, 4, 1)]
)
def test_number_of_predicted_positions(rate, length, predicted):
  assert masking.num_predicted(rate, length) == predicted


def test_tokens_to_keep_are_never_hidden_and_other_masks_stay_the_same():
  tokens, kept, mask_id = random_tokens(1, 400, T, vocab_size=30), (15, 20, 29), 9

  def with_kept(*kept):
    return masking.mask_tokens(
      jax.random.key(0),
      jnp.asarray(tokens),
      jnp.arange(400),
      num_predicted=K,
      vocab_size=V,
      mask_id=mask_id,
      kept_ids=kept,
    )

  batch, all_hidden = jax.device_get((with_kept(*kept), with_kept()))
  counts = batch.weights == 1
  assert not np.any(np.isin(batch.targets[counts], kept))
  assert np.isin(all_hidden.targets, kept).mean() > 0.05  # negative control
  assert np.all(counts.sum(1) == np.minimum(K, (~np.isin(tokens[:, 1:], kept)).sum(1)))
  unchanged = np.isin(tokens, kept)
  np.testing.assert_array_equal(batch.tokens[unchanged], tokens[unchanged])
  assert_share(shown(batch)[counts] == mask_id, 0.8 + 0.1 / V)
