"""XLM's special token ids (Lample & Conneau, 2019), and the special tokens of any tokenizer."""

import dataclasses

BOS, EOS, PAD, UNK = 0, 1, 2, 3
SPECIALS = tuple(f"<special{i}>" for i in range(10))
FIRST_SPECIAL = 4
MASK = FIRST_SPECIAL + 1  # XLM masks with its second special
NUM_SPECIALS = FIRST_SPECIAL + len(SPECIALS)


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
  """The ids that a tokenizer gives no text, and the form of a row of one or two texts."""

  begin: tuple[int, ...]  # before the first text
  between: tuple[int, ...]  # between the two texts of a pair
  end: tuple[int, ...]  # after the last text
  pad: int
  unk: int
  mask: int
  second_type: int = 0  # token type of a pair's second text and its end; the rest has 0

  @property
  def ids(self) -> tuple[int, ...]:
    """All of them, in order."""
    return tuple(sorted({*self.begin, *self.between, *self.end, self.pad, self.unk, self.mask}))


XLM = SpecialTokens(begin=(EOS,), between=(EOS,), end=(EOS,), pad=PAD, unk=UNK, mask=MASK)
