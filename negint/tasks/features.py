"""What the features of all tasks share: texts to token ids, rows to arrays.

The tokenizer's special tokens give rows their form. Our own runs have XLM's: `</s> sentence </s>`, and
`</s> first </s> second </s>` for pairs. BERT's is `[CLS] first [SEP] second [SEP]`, with token types.
Positions run on. The tokenizer gets each text in the form that pretraining saw
(`negint.data.text`): plain spaces, NFC, no control characters. The examples keep the text as given,
and offsets are those in the text as given.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from negint.data.text import normalise, normalise_with_offsets
from negint.errors import UserError
from negint.special_tokens import SpecialTokens

Arrays = dict[str, np.ndarray]


class Tokenizer(Protocol):
  """What features need of a tokenizer."""

  @property
  def special(self) -> SpecialTokens:
    """The special tokens, and the form of a row."""

  def encode(self, text: str) -> list[int]:
    """Returns the token ids of a text."""

  def encode_word(self, word: str) -> list[int]:
    """Returns the token ids of a word inside a sentence."""

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Returns the token ids and the (begin, end) of each token in characters of the text."""


def capacity(max_length: int, needed: int) -> int:
  """Returns how many tokens a row has left beside those it needs.

  Args:
    max_length: tokens of a row.
    needed: separators, and the tokens kept of a question.

  Raises:
    UserError: none is left.
  """
  if max_length <= needed:
    raise UserError(
      f"data.max_length is {max_length} and leaves no room; it must be above {needed}, which are "
      "the separators (and the tokens kept of a question)."
    )
  return max_length - needed


def encode(
  text: str,
  tokenizer: Tokenizer,
  cache: dict[str, list[int]] | None = None,
  *,
  word: bool = False,
) -> list[int]:
  """Returns the token ids of a text as pretraining saw it, or [UNK] where there are none.

  Args:
    text: any text.
    tokenizer: the tokenizer.
    cache: texts that were encoded before; a new one is added. The ids in it must not be changed.
    word: the text is a word inside a sentence.
  """
  if cache is None:
    ids = (tokenizer.encode_word if word else tokenizer.encode)(normalise(text))
    return list(ids) or [tokenizer.special.unk]
  if text not in cache:
    cache[text] = encode(text, tokenizer, word=word)
  return cache[text]


def encode_with_offsets(text: str, tokenizer: Tokenizer) -> tuple[list[int], list[tuple[int, int]]]:
  """Returns the token ids of a text as pretraining saw it, and their places in the text as given.

  Each place is the (begin, end) of a token in characters of `text`.
  """
  normal = normalise_with_offsets(text)
  ids, spans = tokenizer.encode_with_offsets(normal.text)
  return ids, [normal.origin(begin, end) for begin, end in spans]


def padded(rows: Sequence[Sequence[int]], length: int, fill: int) -> np.ndarray:
  """Returns the rows as an array [N, length] int32, filled up at their ends."""
  array = np.full((len(rows), length), fill, np.int32)
  for index, row in enumerate(rows):
    array[index, : len(row)] = row
  return array


def token_arrays(
  rows: Sequence[Sequence[int]],
  max_length: int,
  special: SpecialTokens,
  seconds: Sequence[int] | None = None,
) -> Arrays:
  """Returns `tokens` [N, T] int32, padded, and `lengths` [N] int32.

  Args:
    rows: token ids.
    max_length: T.
    special: the tokenizer's.
    seconds: where the second text of each row begins; None: the rows have one text. A tokenizer that
      tells the texts of a pair apart also gets `types` [N, T] int32.
  """
  lengths = np.array([len(row) for row in rows], np.int32)
  arrays = {"tokens": padded(rows, max_length, special.pad), "lengths": lengths}
  if special.second_type and seconds is not None:
    place = np.arange(max_length)[None]
    second = (place >= np.array(seconds)[:, None]) & (place < lengths[:, None])
    arrays["types"] = np.where(second, special.second_type, 0).astype(np.int32)
  return arrays
