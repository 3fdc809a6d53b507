"""Batches as a pure function of (seed, step): which language, which blocks, in which order.

There is no iterator state to save, so a resumed run sees the batches it would have seen.
"""

import functools

import numpy as np

from negint.data.token_cache import sampling_probabilities
from negint.errors import UserError

# Streams of random numbers that share a seed.
_LANGUAGE, _TRAIN, _HELD_OUT, _HELD_OUT_LANGUAGES = range(4)


class BatchSampler:
  """Training batches of one language each, or of every language; held-out batches of several.

  A language's stream is cut into blocks of T tokens; each epoch visits them in a new order.
  """

  def __init__(
    self,
    train: list[np.ndarray],
    held_out: list[np.ndarray] | None,
    *,
    languages: tuple[str, ...],
    num_sentences: list[int],
    exponent: float,
    seed: int,
    steps: int,
    sequence_length: int,
    batch_size: int,
    held_out_batch_size: int = 0,
    held_out_languages: int = 0,
    every_language: bool = False,
  ):
    """A sampler that starts at its first batch.

    Args:
      train, held_out: one token stream a language, [tokens]; held_out is None without a meta step.
      steps: training steps; the batches before do not depend on it.
      held_out_languages: in a held-out batch: the step's own and others, drawn uniformly; 0: all.
      every_language: a training batch has `batch_size` rows of each language instead of one's;
        num_sentences and exponent play no part.
    """
    self._seed = seed
    self._length = sequence_length
    self._batch_size = batch_size
    self._held_out_batch_size = held_out_batch_size
    self._held_out_languages = held_out_languages or len(train)
    self._every_language = every_language
    self._train, self._held_out = train, held_out
    for split, streams in (("train", train), ("meta", held_out or [])):
      for language, stream in zip(languages, streams, strict=False):
        if len(stream) < sequence_length:
          raise UserError(
            f"the {split} split of '{language}' has {len(stream)} tokens, fewer than one sequence "
            f"of {sequence_length}: prepare more text or lower --config.data.sequence_length."
          )
    ends = np.cumsum(sampling_probabilities(num_sentences, exponent))
    draws = np.random.default_rng([seed, _LANGUAGE]).random(steps)
    self.languages = np.minimum(np.searchsorted(ends, draws, "right"), len(train) - 1)
    self._earlier = np.zeros(steps, np.int64)  # batches of the step's language before it
    for language in range(len(train)):
      steps_of = self.languages == language
      self._earlier[steps_of] = np.arange(steps_of.sum())
    # Two epochs of each stream can meet in one batch.
    self._order = functools.lru_cache(maxsize=4 * len(train))(self._draw_order)

  def language(self, step: int) -> int:
    """Index of the language of the batch at `step`."""
    return int(self.languages[step])

  def batch(self, step: int) -> dict[str, np.ndarray]:
    """`tokens` [B, T], or [B, L, T] of every language; where there is a held-out split `held_out`
    [B', m, T] and `held_out_languages` [B', m], the same in every row; int32."""
    if self._every_language:
      everyone = range(len(self._train))
      return {"tokens": self._of_each(everyone, self._train, _TRAIN, step, self._batch_size)}
    language = self.language(step)
    first = int(self._earlier[step]) * self._batch_size
    batch = {
      "tokens": self._blocks(self._train[language], _TRAIN, language, first, self._batch_size)
    }
    if self._held_out is not None:
      size, languages = self._held_out_batch_size, self.held_out_languages(step)
      batch["held_out"] = self._of_each(languages, self._held_out, _HELD_OUT, step, size)
      batch["held_out_languages"] = np.tile(languages, (size, 1))
    return batch

  def held_out_languages(self, step: int) -> np.ndarray:
    """Indices of the languages in the held-out batch at `step`, ascending: int32 [m]."""
    own = self.language(step)
    others = np.delete(np.arange(len(self._train), dtype=np.int32), own)
    random = np.random.default_rng([self._seed, _HELD_OUT_LANGUAGES, step])
    drawn = random.choice(others, self._held_out_languages - 1, replace=False)
    return np.sort(np.append(drawn, np.int32(own)))

  def _of_each(self, languages, streams, kind, step, size):
    """The batch number `step` of each of m languages, drawn or not before: [size, m, T]."""
    batches = [self._blocks(streams[n], kind, int(n), step * size, size) for n in languages]
    return np.stack(batches, axis=1)

  def _blocks(self, stream, kind, language, first, count):
    """Blocks number first ... first + count - 1 of the endless sequence of epochs."""
    num_blocks = len(stream) // self._length
    epoch, place = np.divmod(np.arange(first, first + count), num_blocks)
    chosen = np.empty(count, np.int64)
    for e in np.unique(epoch):
      here = epoch == e
      chosen[here] = self._order(kind, language, int(e), num_blocks)[place[here]]
    blocks = stream[: num_blocks * self._length].reshape(num_blocks, self._length)
    return blocks[chosen].astype(np.int32)

  def _draw_order(self, kind, language, epoch, num_blocks):
    return np.random.default_rng([self._seed, kind, language, epoch]).permutation(num_blocks)
