"""Batches as a pure function of (seed, step): which language, which blocks, in which order.

A sampler has no state to save, so a resumed run sees the batches that it would have seen.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from negint.errors import UserError

# Each kind of draw has its own random numbers under one seed.
_LANGUAGE, _TRAIN, _HELD_OUT, _HELD_OUT_LANGUAGES = range(4)
_KIND_OF_SPLIT = {"train": _TRAIN, "meta": _HELD_OUT}


def sampling_probabilities(num_sentences: Sequence[int], exponent: float) -> np.ndarray:
  """The probability of each language, proportional to n_i^exponent (Section 3.2).

  Args:
    num_sentences: training sentences n_i of each language.
    exponent: 1 samples in proportion to the sentences, 0 uniformly. The paper writes 1/T.

  Returns:
    float64 [languages], of sum 1.
  """
  weights = np.asarray(num_sentences, np.float64) ** exponent
  return weights / weights.sum()


def endless_rows(
  first: int, count: int, num_rows: int, order_of_epoch: Callable[[int], np.ndarray]
) -> np.ndarray:
  """Rows number first ... first + count - 1 of an endless sequence of shuffled epochs.

  Args:
    first: place in the sequence, from 0.
    count: rows to return; they may reach into several epochs.
    num_rows: rows of one epoch.
    order_of_epoch: epoch number -> permutation of 0 ... num_rows - 1.

  Returns:
    Row numbers, int64 [count].
  """
  epochs, places = np.divmod(np.arange(first, first + count), num_rows)
  rows = np.empty(count, np.int64)
  for epoch in np.unique(epochs):
    here = epochs == epoch
    rows[here] = order_of_epoch(int(epoch))[places[here]]
  return rows


class Blocks:
  """A token stream cut into blocks of T tokens; each epoch takes every block once, in a new order."""

  def __init__(self, stream: np.ndarray, length: int, seed: Sequence[int]):
    """Blocks of `length` tokens; a last block that is not full is left out.

    Args:
      stream: token ids, [tokens].
      length: T, tokens per block.
      seed: numbers that fix the order, together with the epoch.
    """
    count = len(stream) // length
    self._blocks = stream[: count * length].reshape(count, length)

    @functools.lru_cache(maxsize=2)  # a batch can reach from one epoch into the next
    def order_of_epoch(epoch: int) -> np.ndarray:
      return np.random.default_rng([*seed, epoch]).permutation(count)

    self._order_of_epoch = order_of_epoch

  def take(self, first: int, count: int) -> np.ndarray:
    """Blocks number first ... first + count - 1 of the endless sequence, int32 [count, T]."""
    rows = endless_rows(first, count, len(self._blocks), self._order_of_epoch)
    return self._blocks[rows].astype(np.int32)


def cut_blocks(
  split: str, streams: Mapping[str, np.ndarray], length: int, seed: int
) -> list[Blocks]:
  """The blocks of a split, one `Blocks` per language.

  Args:
    split: "train" or "meta".
    streams: language code -> token ids [tokens], in the order of the language indices.
    length: T, tokens per block.
    seed: of the run.

  Raises:
    UserError: a stream has fewer than `length` tokens.
  """
  for language, stream in streams.items():
    if len(stream) < length:
      raise UserError(
        f"the {split} split of '{language}' has {len(stream)} tokens, fewer than one sequence "
        f"of {length}: prepare more text or lower --config.data.sequence_length."
      )
  kind = _KIND_OF_SPLIT[split]
  return [
    Blocks(stream, length, (seed, kind, index)) for index, stream in enumerate(streams.values())
  ]


class LanguageSchedule(NamedTuple):
  """The language of each training step."""

  languages: np.ndarray  # index of each step's language, int [steps]
  earlier: np.ndarray  # steps of the same language before each step, int [steps]


def language_schedule(probabilities: np.ndarray, steps: int, seed: int) -> LanguageSchedule:
  """Draws a language for each step; a longer schedule begins like a shorter one.

  Args:
    probabilities: of each language, [languages].
    steps: training steps.
    seed: of the run.
  """
  draws = np.random.default_rng([seed, _LANGUAGE]).random(steps)
  last = len(probabilities) - 1  # rounding can leave the sum below the largest draw
  languages = np.minimum(np.searchsorted(np.cumsum(probabilities), draws, "right"), last)
  earlier = np.zeros(steps, np.int64)
  for language in range(len(probabilities)):
    steps_of = languages == language
    earlier[steps_of] = np.arange(steps_of.sum())
  return LanguageSchedule(languages, earlier)


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
  """The held-out batches of meta steps."""

  blocks: list[Blocks]  # of each language
  batch_size: int  # B', rows of each language in a batch
  num_languages: int  # m, languages in a batch
  seed: int  # of the draw of languages
  has_own: bool = True  # whether each batch has the step's own language

  def languages(self, step: int, own: int) -> np.ndarray:
    """Indices of the languages at `step`, ascending, int32 [m].

    They are the step's own and m - 1 drawn ones, or without `has_own` m drawn from all.
    """
    every = np.arange(len(self.blocks), dtype=np.int32)
    random = np.random.default_rng([self.seed, _HELD_OUT_LANGUAGES, step])
    if not self.has_own:
      return np.sort(random.choice(every, self.num_languages, replace=False))
    others = np.delete(every, own)
    drawn = random.choice(others, self.num_languages - 1, replace=False)
    return np.sort(np.append(drawn, np.int32(own)))

  def batch(self, step: int, languages: np.ndarray) -> np.ndarray:
    """Tokens of the given languages, int32 [B', m, T]; those of one do not depend on the others."""
    return _stacked([self.blocks[language] for language in languages], step, self.batch_size)


@dataclasses.dataclass(frozen=True, eq=False)
class BatchSampler:
  """The batches of a pretraining run, by step."""

  train: list[Blocks]  # of each language
  batch_size: int  # B, rows of each language in a batch
  schedule: LanguageSchedule | None  # None: a batch has rows of every language
  held_out: HeldOut | None = None  # None: the steps take no held-out batch
  inner: bool = False  # whether a step takes a second training batch of its language

  def language(self, step: int) -> int:
    """Index of the language of the batch at `step`; 0 where a batch has every language."""
    return 0 if self.schedule is None else int(self.schedule.languages[step])

  def sequences_by_language(self, steps: int) -> np.ndarray:
    """Training sequences of each language in the first `steps` batches, int64 [languages]."""
    if self.schedule is None:
      return np.full(len(self.train), steps * self.batch_size)
    batches = np.bincount(self.schedule.languages[:steps], minlength=len(self.train))
    return batches * self.batch_size * (2 if self.inner else 1)

  def held_out_languages(self, step: int) -> np.ndarray | None:
    """Indices of the held-out languages at `step`, ascending, int32 [m]; None without held-out."""
    if self.held_out is None:
      return None
    return self.held_out.languages(step, self.language(step))

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """The rows of the batch at `step`, int32.

    Returns:
      `tokens` [B, T] of one language, or [B, L, T] of every language; `inner` [B, T], the blocks
      after those of `tokens`, where the step takes them; `held_out` [B', m, T] where there are
      held-out blocks, in the order of `held_out_languages`.
    """
    if self.schedule is None:
      return {"tokens": _stacked(self.train, step, self.batch_size)}
    names = ("tokens", "inner") if self.inner else ("tokens",)
    first = int(self.schedule.earlier[step]) * self.batch_size * len(names)
    rows = self.train[self.language(step)].take(first, self.batch_size * len(names))
    batch = dict(zip(names, np.split(rows, len(names)), strict=True))
    if self.held_out is not None:
      languages = self.held_out.languages(step, self.language(step))
      batch["held_out"] = self.held_out.batch(step, languages)
    return batch


def _stacked(blocks: Sequence[Blocks], number: int, size: int) -> np.ndarray:
  """Batch number `number` of each of m languages, int32 [size, m, T]."""
  return np.stack([each.take(number * size, size) for each in blocks], axis=1)
