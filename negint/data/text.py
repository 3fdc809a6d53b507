"""The one form of text that models see, in pretraining, in tasks and in prediction.

Pretraining sees text in NFC whose only white space is the plain space, without control characters.
`negint.data.cleaning` cuts it into lines and makes one space of several. A tokenizer knows nothing
else: a no-break space would become [UNK], and the word after it would lose its beginning.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

REPLACEMENT = "\ufffd"  # stands for a character that is not one

_SPACE = re.compile(r"\s")  # also no-break spaces, tabs, line ends, U+2028 and U+3000
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_REMOVED = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")  # controls; byte order mark


class Normalised(NamedTuple):
  """A text in the form that models see, and where its characters come from."""

  text: str  # the text
  begins: Sequence[int]  # per character of `text`, where its origin begins in the text as given
  ends: Sequence[int]  # per character of `text`, where its origin ends

  def origin(self, begin: int, end: int) -> tuple[int, int]:
    """Returns the [begin, end) in the text as given of characters [begin, end) of `text`."""
    if begin >= end:
      at = self.begins[begin] if begin < len(self.begins) else (self.ends[-1] if self.ends else 0)
      return at, at
    return self.begins[begin], self.ends[end - 1]


def normalise(text: str, *, nfc: bool = True) -> str:
  """Returns a text in the form that models see.

  Each white-space character becomes a space, and each surrogate without its other half U+FFFD.
  Control characters and U+FEFF are removed. The rest is brought to NFC.

  Args:
    text: any text.
    nfc: False leaves out the last step.
  """
  text = _REMOVED.sub("", _same_length(text))
  return unicodedata.normalize("NFC", text) if nfc else text


def normalise_with_offsets(text: str) -> Normalised:
  """Returns the result of `normalise` and the origin of each of its characters.

  Where NFC changes a character and its combining marks, all that it makes of them comes from all
  of them.
  """
  plain = _same_length(text)
  kept = [i for i, character in enumerate(plain) if not _REMOVED.match(character)]
  if len(kept) < len(plain):
    plain = "".join(plain[i] for i in kept)
  if unicodedata.is_normalized("NFC", plain):
    return Normalised(plain, kept, [i + 1 for i in kept])
  parts: list[str] = []
  begins: list[int] = []
  ends: list[int] = []
  starts = [i for i, character in enumerate(plain) if i == 0 or not _joins(character)]
  for first, last in zip(starts, [*starts[1:], len(plain)], strict=True):
    part = plain[first:last]
    normal = unicodedata.normalize("NFC", part)
    parts.append(normal)
    if normal == part:
      begins += kept[first:last]
      ends += [i + 1 for i in kept[first:last]]
    else:
      begins += [kept[first]] * len(normal)
      ends += [kept[last - 1] + 1] * len(normal)
  return Normalised("".join(parts), begins, ends)


def replace_surrogates(text: str) -> tuple[str, int]:
  """Returns a text with U+FFFD for each surrogate, and their number; the length stays.

  JSON can hold one half of a surrogate pair, which neither a UTF-8 file nor a tokenizer takes.
  """
  return _SURROGATE.subn(REPLACEMENT, text)


def _same_length(text: str) -> str:
  return replace_surrogates(_SPACE.sub(" ", text))[0]


def _joins(character: str) -> bool:
  """Returns whether NFC may join a character to the one before it: marks, and parts of Hangul."""
  return unicodedata.category(character)[0] == "M" or "\u1160" <= character <= "\u11ff"
