"""The words of a text that nobody has split into words yet."""

import re
import unicodedata

Span = tuple[int, int]  # characters [begin, end)

_CHUNK = re.compile(r"\S+")
_JOINERS = frozenset("'\u2019\u02bc-\u2010\u2011\u200c\u200d\u00b7_")  # between two letters
_NUMBER_SIGNS = frozenset(".,:/\u066b\u066c")  # between two digits


def split_words(text: str) -> list[Span]:
  """Returns the place of each word of a text, in characters.

  A word is a run of letters, marks and digits; apostrophes, hyphens and U+200C may stand inside it,
  and signs such as the comma between two digits. Each other visible character is a word of
  its own. Text in scripts without spaces (Chinese, Japanese, Thai) gives very long words.
  """
  spans: list[Span] = []
  for chunk in _CHUNK.finditer(text):
    if chunk.group().isalnum():
      spans.append(chunk.span())
    else:
      spans += _split_chunk(text, *chunk.span())
  return spans


def _split_chunk(text: str, first: int, last: int) -> list[Span]:
  """Returns the places of the words in characters [first, last), among which is no white space."""
  spans: list[Span] = []
  begin = first
  while begin < last:
    end = begin + 1
    if _is_letter(text[begin]):
      while end < last and (_is_letter(text[end]) or _joins(text, end, last)):
        end += 1
    if unicodedata.category(text[begin]) not in ("Cc", "Cf"):  # nobody sees these
      spans.append((begin, end))
    begin = end
  return spans


def _is_letter(character: str) -> bool:
  return unicodedata.category(character)[0] in "LMN"


def _joins(text: str, at: int, last: int) -> bool:
  """Returns whether the character at a place stands inside a word; a letter is before it."""
  if at + 1 >= last:
    return False
  before, character, after = tuple(text[at - 1 : at + 2])
  if character in _NUMBER_SIGNS:
    return before.isdecimal() and after.isdecimal()
  return character in _JOINERS and _is_letter(before) and _is_letter(after)
