"""Batches depend on (seed, step): each block once per epoch, languages in their shares."""

import dataclasses
import functools

import numpy as np
import pytest

from negint.data.sampling import (
  BatchSampler,
  Blocks,
  HeldOut,
  cut_blocks,
  endless_rows,
  language_schedule,
  sampling_probabilities,
)
from negint.errors import UserError

T, B = 4, 3
HELD_OUT = 100_000  # held-out tokens begin here
LANGUAGE = 10_000  # a language's tokens begin at its index times this


def streams(blocks, start=0):
  """One stream per language, of tokens that all differ; its last block is not full."""
  return [
    (start + number * LANGUAGE + np.arange(count * T + 2)).astype(np.uint32)
    for number, count in enumerate(blocks)
  ]


def sampler(
  seed=0,
  steps=60,
  blocks=(10, 7),
  held_out=(4, 5),
  exponent=1.0,
  sentences=(3, 2),
  held_out_languages=0,
):
  codes = ("ar", "en", "fr", "ru")
  cut = functools.partial(cut_blocks, length=T, seed=seed)
  return BatchSampler(
    cut("train", dict(zip(codes, streams(blocks), strict=False))),
    B,
    language_schedule(sampling_probabilities(sentences, exponent), steps, seed),
    HeldOut(
      cut("meta", dict(zip(codes, streams(held_out, HELD_OUT), strict=False))),
      2,
      held_out_languages or len(blocks),
      seed,
    )
    if held_out
    else None,
  )


def sampler_of_four(**fields):
  four = dict(blocks=(10, 7, 8, 9), held_out=(4, 5, 6, 7), sentences=(1, 1, 1, 1))
  return sampler(**{**four, **fields})


def sampler_of_all(seed=0, blocks=(10, 7)):
  train = cut_blocks("train", dict(zip(("ar", "en"), streams(blocks), strict=True)), T, seed)
  return BatchSampler(train, B, schedule=None)


def assert_equal(batch, other):
  assert batch.keys() == other.keys()
  for name, value in batch.items():
    np.testing.assert_array_equal(value, other[name])


def test_a_batch_depends_on_seed_and_step_alone():
  in_order, backwards, longer = sampler(), sampler(), sampler(steps=500)
  expected = [in_order.batch(step) for step in range(60)]
  for step in reversed(range(60)):
    assert in_order.language(step) == backwards.language(step) == longer.language(step)
    assert_equal(backwards.batch(step), expected[step])
    assert_equal(longer.batch(step), expected[step])
  other = sampler(seed=1)
  assert (
    np.mean([np.array_equal(other.batch(s)["tokens"], expected[s]["tokens"]) for s in range(60)])
    < 0.1
  )


def test_a_batch_has_one_language_and_a_held_out_batch_has_all():
  batches = sampler()
  for step in range(60):
    batch = batches.batch(step)
    assert batch["tokens"].shape == (B, T) and batch["tokens"].dtype == np.int32
    assert set(batch["tokens"].ravel() // LANGUAGE) == {batches.language(step)}
    assert batch["held_out"].shape == (2, 2, T) and batch["held_out"].dtype == np.int32
    for language in (0, 1):
      assert set((batch["held_out"][:, language] - HELD_OUT).ravel() // LANGUAGE) == {language}
    np.testing.assert_array_equal(batches.held_out_languages(step), [0, 1])
  without = sampler(held_out=None)
  assert without.batch(0).keys() == {"tokens"} and without.held_out_languages(0) is None


@pytest.mark.parametrize("count", [2, 3])
def test_held_out_languages_are_the_steps_own_and_others_drawn_evenly(count):
  steps = 3000
  batches = sampler_of_four(steps=steps, held_out_languages=count)
  drawn = [batches.held_out_languages(step) for step in range(steps)]
  counts = np.zeros((4, 4))
  for step, languages in enumerate(drawn):
    assert len(set(languages)) == count and list(languages) == sorted(languages)
    counts[batches.language(step), languages] += 1
  np.testing.assert_array_equal(np.diagonal(counts), np.bincount(batches.schedule.languages))
  shares = counts / np.diagonal(counts)[:, None]
  others = shares[~np.eye(4, dtype=bool)]
  np.testing.assert_allclose(others, (count - 1) / 3, atol=5 * np.sqrt(0.25 / (steps / 4)))


def test_drawn_languages_depend_on_seed_and_step_alone_and_bring_their_own_batches():
  """The held-out batch of a language does not depend on the other languages drawn."""
  in_order, backwards, full = (
    sampler_of_four(held_out_languages=3),
    sampler_of_four(held_out_languages=3, steps=500),
    sampler_of_four(),
  )
  expected = [in_order.batch(step) for step in range(60)]
  for step in reversed(range(60)):
    batch = backwards.batch(step)
    assert_equal(batch, expected[step])
    languages = backwards.held_out_languages(step)
    np.testing.assert_array_equal(languages, in_order.held_out_languages(step))
    assert batch["held_out"].shape == (2, 3, T)
    assert languages.shape == (3,) and languages.dtype == np.int32
    np.testing.assert_array_equal(batch["held_out"], full.batch(step)["held_out"][:, languages])
  other = sampler_of_four(held_out_languages=3, seed=1)
  assert any(
    not np.array_equal(other.held_out_languages(s), in_order.held_out_languages(s))
    for s in range(60)
    if other.language(s) == in_order.language(s)
  )


def test_one_held_out_language_is_drawn_evenly_from_all():
  """The draw does not depend on the step's own language."""
  steps = 4000
  batches = sampler_of_four(steps=steps, held_out_languages=1)
  drawn_from_all = dataclasses.replace(batches.held_out, has_own=False)
  batches = dataclasses.replace(batches, held_out=drawn_from_all)
  counts = np.zeros((4, 4))
  for step in range(steps):
    [language] = batches.held_out_languages(step)
    counts[batches.language(step), language] += 1
    if step < 40:
      held_out = batches.batch(step)["held_out"] - HELD_OUT
      assert held_out.shape == (2, 1, T) and set(held_out.ravel() // LANGUAGE) == {language}
  np.testing.assert_allclose(counts / steps, 1 / 16, atol=5 * np.sqrt(1 / 16 / steps))


def test_a_second_training_batch_continues_the_first():
  """The two batches of the k-th step of a language are its batches 2k and 2k + 1 in a plain run."""
  plain, double = sampler(steps=200), dataclasses.replace(sampler(steps=60), inner=True)
  for language in (0, 1):
    batches = [double.batch(s) for s in range(60) if double.language(s) == language]
    rows = [batch[name] for batch in batches for name in ("tokens", "inner")]
    expected = rows_of(plain, language, 200)[: B * len(rows)]
    np.testing.assert_array_equal(np.concatenate(rows), expected)
  assert_equal(double.batch(7), double.batch(7))
  assert double.batch(7)["held_out"].tolist() == plain.batch(7)["held_out"].tolist()


@pytest.mark.parametrize("make", [sampler, sampler_of_four, sampler_of_all])
@pytest.mark.parametrize("steps", [0, 1, 40])
def test_sequences_are_counted_by_their_language(make, steps):
  counted = make()
  expected = [0] * len(counted.train)
  for step in range(steps):
    for token in counted.batch(step)["tokens"][..., 0].ravel():
      expected[token // LANGUAGE] += 1
  assert counted.sequences_by_language(steps).tolist() == expected


def test_batches_of_every_language_depend_on_seed_and_step_alone():
  in_order, backwards = sampler_of_all(), sampler_of_all()
  expected = [in_order.batch(step) for step in range(60)]
  for step in reversed(range(60)):
    assert expected[step].keys() == {"tokens"} and in_order.language(step) == 0
    assert_equal(backwards.batch(step), expected[step])
  assert any(
    not np.array_equal(sampler_of_all(seed=1).batch(s)["tokens"], expected[s]["tokens"])
    for s in range(5)
  )


@pytest.mark.parametrize(("language", "count"), [(0, 10), (1, 7)])
def test_batches_of_every_language_continue_in_each_language(language, count):
  """A batch has B rows of each language, and each block comes once per epoch."""
  batches = [sampler_of_all().batch(step)["tokens"] for step in range(60)]
  for tokens in batches:
    assert tokens.shape == (B, 2, T) and tokens.dtype == np.int32
    assert set(tokens[:, language].ravel() // LANGUAGE) == {language}
  found = epochs(np.concatenate(batches)[:, language], count)
  assert len(found) == 60 * B // count
  for epoch in found:
    assert sorted(epoch) == [language * LANGUAGE + T * block for block in range(count)]
  assert len({tuple(epoch) for epoch in found}) == len(found)


def test_held_out_and_training_blocks_are_never_mixed():
  batches = sampler()
  seen = [batches.batch(step) for step in range(60)]
  assert max(batch["tokens"].max() for batch in seen) < HELD_OUT
  assert min(batch["held_out"].min() for batch in seen) >= HELD_OUT


def epochs(rows, count):
  """First tokens of rows [n, T], [epochs, count] for whole epochs of `count` blocks."""
  first = np.asarray(rows)[:, 0]
  return first[: len(first) // count * count].reshape(-1, count)


def rows_of(batches, language, steps=60):
  return np.concatenate(
    [batches.batch(step)["tokens"] for step in range(steps) if batches.language(step) == language]
  )


@pytest.mark.parametrize(("language", "count"), [(0, 10), (1, 7)])
def test_every_block_comes_once_an_epoch_and_in_another_order_in_the_next(language, count):
  rows = rows_of(sampler(), language)
  np.testing.assert_array_equal(rows, rows[:, :1] + np.arange(T))
  found = epochs(rows, count)
  assert len(found) > 3
  for epoch in found:
    assert sorted(epoch) == [language * LANGUAGE + T * block for block in range(count)]
  assert len({tuple(epoch) for epoch in found}) == len(found)


def test_held_out_blocks_come_once_an_epoch_too():
  batches = sampler()
  rows = np.concatenate([batches.batch(step)["held_out"][:, 1] for step in range(60)])
  found = epochs(rows, 5)
  assert all(len(set(epoch)) == 5 for epoch in found)
  assert len({tuple(epoch) for epoch in found}) > 10


def test_a_batch_may_be_larger_than_an_epoch():
  rows = rows_of(sampler(blocks=(2, 1)), 0)
  assert all(len(set(epoch)) == 2 for epoch in epochs(rows, 2))


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0])
def test_languages_come_in_the_shares_of_the_exponent(exponent):
  sentences, steps = (1000, 20_000), 20_000
  languages = sampler(exponent=exponent, sentences=sentences, steps=steps).schedule.languages
  share = 1000**exponent / (1000**exponent + 20_000**exponent)
  assert abs(np.mean(languages == 0) - share) < 5 * np.sqrt(share * (1 - share) / steps)
  np.testing.assert_allclose(sampling_probabilities(sentences, exponent), [share, 1 - share])


def test_memory_mapped_streams_of_uint16_are_read(tmp_path):
  path = tmp_path / "stream"
  np.arange(40, dtype=np.uint16).tofile(path)
  tokens = Blocks(np.memmap(path, np.uint16, "r"), T, (0,)).take(0, 10)
  assert tokens.dtype == np.int32
  np.testing.assert_array_equal(np.sort(tokens.ravel()), np.arange(40))


@pytest.mark.parametrize("split", ["train", "meta"])
def test_a_stream_shorter_than_a_sequence_is_refused(split):
  def cut(*lengths):
    streams = {code: np.zeros(n, np.uint16) for code, n in zip(("ar", "en"), lengths, strict=True)}
    return cut_blocks(split, streams, T, 0)

  with pytest.raises(UserError, match=rf"{split} split of 'en' has 3 tokens.* {T}:"):
    cut(9, 3)
  assert len(cut(9, T)) == 2


def test_endless_rows_are_whole_epochs_in_their_orders():
  orders = [np.array([2, 0, 1]), np.array([1, 2, 0]), np.array([0, 2, 1])]
  rows = endless_rows(0, 9, 3, orders.__getitem__)
  np.testing.assert_array_equal(rows, np.concatenate(orders))
  for first, count in [(0, 1), (2, 5), (4, 4), (8, 1)]:
    np.testing.assert_array_equal(
      endless_rows(first, count, 3, orders.__getitem__), rows[first : first + count]
    )


def test_the_batches_of_a_seed_stay_the_same():
  """Golden values: resumed runs and published numbers depend on them."""
  batches = sampler_of_four(held_out_languages=2)
  assert [batches.language(step) for step in range(8)] == [2, 1, 0, 0, 3, 3, 2, 2]
  assert [list(batches.held_out_languages(step)) for step in range(3)] == [[1, 2], [1, 3], [0, 2]]
  np.testing.assert_array_equal(batches.batch(5)["tokens"][:, 0], [30024, 30032, 30020])
  np.testing.assert_array_equal(
    batches.batch(5)["held_out"][:, :, 0], [[100000, 130008], [100008, 130004]]
  )
