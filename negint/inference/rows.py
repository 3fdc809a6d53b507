"""Texts as rows of token ids: what they may be, windows of long ones, batches of few shapes."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from negint.data.text import normalise
from negint.errors import UserError
from negint.finetuning.batches import batches
from negint.method import parallel
from negint.special_tokens import SpecialTokens
from negint.tasks.features import Arrays, Tokenizer, token_arrays

BATCH_SIZE = 64  # rows
ROWS_AT_ONCE = 4096  # rows that are arrays at the same time
_STEP = 4  # sizes of batches are the devices times powers of this


def check_texts(texts: Iterable[str]) -> list[str]:
  """Returns the texts as a list.

  Raises:
    UserError: it is one text and no list, or a text is no string or is empty.
  """
  if isinstance(texts, str):
    raise UserError(f"texts is one text, {texts[:60]!r}; give a list of texts: [text].")
  texts = list(texts)  # a generator gives them once
  for index, text in enumerate(texts):
    if not isinstance(text, str):
      raise UserError(f"texts[{index}] is {str(text)[:60]!r}; each text must be a string.")
    if not text.strip():
      raise UserError(f"texts[{index}] is empty; leave it out, or give it a text.")
  return texts


def encode(text: str, tokenizer: Tokenizer) -> list[int]:
  """Returns the token ids of a text as pretraining saw it, without separators; perhaps none."""
  return list(tokenizer.encode(normalise(text)))


def row_of(ids: Sequence[int], special: SpecialTokens) -> list[int]:
  """Returns the row of a text: its token ids between the separators."""
  return [*special.begin, *ids, *special.end]


def pieces(ids: Sequence[int], room: int) -> list[Sequence[int]]:
  """Returns token ids cut into parts of at most `room`, which follow one another."""
  return [ids[first : first + room] for first in range(0, len(ids), room)]


def window(length: int, at: int, room: int) -> int:
  """Returns where the window of `room` tokens begins that has a place nearest to its middle."""
  return min(max(at - room // 2, 0), max(length - room, 0))


def batch_rows(count: int, most: int) -> int:
  """Returns the rows of a batch: few sizes, so that little is compiled, and not many empty rows.

  Args:
    count: rows that there are.
    most: rows of a batch at most; it is rounded up to a multiple of the devices.

  Raises:
    UserError: `most` is below 1.
  """
  if most < 1:
    raise UserError(f"batch_size is {most}; it must be at least 1.")
  devices = parallel.num_devices()
  size = devices
  while size < min(count, most):
    size *= _STEP
  return min(size, -(-most // devices) * devices)


def batched(
  rows: Sequence[Sequence[int]],
  more: Arrays,
  special: SpecialTokens,
  longest: int,
  batch_size: int,
) -> Iterator[tuple[np.ndarray, Arrays]]:
  """Yields (row numbers, batch). A row's width depends on its own length alone.

  Args:
    rows: token ids, each row with its separators.
    more: further arrays, rows first, that a batch has beside `tokens` and `lengths`.
    special: the tokenizer's.
    longest: tokens that a row may have.
    batch_size: rows at most.
  """
  for first in range(0, len(rows), ROWS_AT_ONCE):
    last = first + ROWS_AT_ONCE
    part = rows[first:last]
    arrays = token_arrays(part, longest, special)
    arrays |= {name: values[first:last] for name, values in more.items()}
    size = batch_rows(len(part), batch_size)
    for chosen, batch in batches(arrays, tuple(more), size, np.arange(len(part))):
      yield first + chosen, batch
