"""Batches of rows of similar length."""

from collections.abc import Iterator, Sequence

import numpy as np

from negint.special_tokens import PAD
from negint.tasks.features import Arrays

SHORTEST_ROW = 32  # widths of batches are this, doubled until max_length


def batches(
  arrays: Arrays,
  names: Sequence[str],
  batch_size: int,
  rows: np.ndarray,
  order: np.random.Generator | None = None,
) -> Iterator[tuple[np.ndarray, Arrays]]:
  """Yields (row numbers, batch), with the arrays cut to the width that the batch needs.

  Args:
    arrays: a task's features, rows first.
    names: the arrays that a batch has beside `tokens`, `lengths` and, where there are, `types`.
    batch_size: rows; the last batch of a width is filled up with rows of length 0.
    rows: numbers of the rows to visit.
    order: shuffles the batches; None leaves them ordered by width.
  """
  lengths, longest = arrays["lengths"], arrays["tokens"].shape[1]
  widths = np.full(len(lengths), SHORTEST_ROW)
  while np.any(short := (widths < lengths)):
    widths[short] *= 2
  widths = np.minimum(widths, longest)
  chunks = []
  for width in np.unique(widths[rows]):
    of_width = rows[widths[rows] == width]
    chunks += [(width, of_width[i : i + batch_size]) for i in range(0, len(of_width), batch_size)]
  if order is not None:
    chunks = [chunks[i] for i in order.permutation(len(chunks))]
  for width, chosen in chunks:
    # Pairs of texts may have token types.
    wanted = ("tokens", "lengths", *names, *({"types"} & arrays.keys()))
    values = {name: arrays[name] for name in wanted}
    yield chosen, _fill(values, chosen, int(width), batch_size)


def _fill(arrays: Arrays, chosen: np.ndarray, width: int, batch_size: int) -> Arrays:
  """Returns the chosen rows as a batch."""
  batch = {}
  for name, values in arrays.items():
    part = values[chosen, :width] if values.ndim == 2 else values[chosen]
    full = np.full((batch_size, *part.shape[1:]), PAD if name == "tokens" else 0, np.int32)
    full[: len(chosen)] = part
    batch[name] = full
  return batch
