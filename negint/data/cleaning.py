"""Turns raw text into clean lines, and counts the lines that each filter drops.

The filters run in this order: whitespace and NFC, length, exact duplicates, language. A line is a
duplicate only of a line that was *kept*, so an interrupted preparation can resume from the lines
that it kept. Wikitext is the subject of `wikipedia`.
"""

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from negint.data.text import normalise
from negint.errors import UserError

if TYPE_CHECKING:
  import eld

DROP_REASONS = ("empty", "too_short", "too_long", "duplicate", "other_language")
UNREADABLE = "unreadable_documents"  # name of a count: articles whose markup the parser cannot read
_KEPT_BY = {  # the flag of `negint.prepare` that keeps lines; empty lines are never kept
  "too_short": "--min_characters=0",
  "too_long": "--max_characters=0",
  "duplicate": "--nodeduplicate",
  "other_language": "--nolanguage_filter",
}


@dataclasses.dataclass(frozen=True)
class Filters:
  """The switches of the cleaning. Whitespace is always stripped and collapsed.

  Raises:
    UserError: the length limits contradict each other.
  """

  normalise: bool = True  # bring each line to Unicode NFC
  deduplicate: bool = True  # drop a line whose text was already kept, anywhere in the source
  min_characters: int = 5  # drop shorter lines; 0 keeps all
  max_characters: int = 20_000  # drop longer lines; 0 keeps all
  language_filter: bool = True  # drop a line that the detector reliably gives another language

  def __post_init__(self) -> None:
    if self.min_characters < 0 or self.max_characters < 0:
      raise UserError(
        f"min_characters={self.min_characters}, max_characters={self.max_characters}: "
        "a limit must be 0 (off) or a positive number of characters."
      )
    if self.max_characters and self.min_characters > self.max_characters:
      raise UserError(
        f"min_characters={self.min_characters} exceeds max_characters={self.max_characters}: "
        "no line could pass. Lower the one or raise the other (0 turns a limit off)."
      )


class SeenLines:
  """A set of lines, stored as 64-bit digests: about 8 bytes per line.

  Recent digests wait in a Python set. Whenever there are `recent_limit` of them, they are merged
  into a sorted array.
  """

  def __init__(self, recent_limit: int = 1_000_000):
    self._recent: set[int] = set()
    self._sorted = np.empty(0, np.uint64)
    self._recent_limit = recent_limit

  def add(self, line: str) -> None:
    """Adds a line."""
    self._recent.add(_digest(line))
    if len(self._recent) >= self._recent_limit:
      recent = np.fromiter(self._recent, np.uint64, len(self._recent))
      self._sorted = np.concatenate([self._sorted, np.sort(recent)])
      self._sorted.sort(kind="stable")  # merges the two sorted runs
      self._recent.clear()

  def __contains__(self, line: str) -> bool:
    digest = _digest(line)
    if digest in self._recent:
      return True
    position = np.searchsorted(self._sorted, np.uint64(digest))
    return bool(position < len(self._sorted) and int(self._sorted[position]) == digest)


class Cleaner:
  """Applies filters to the documents of one source, in order.

  Attributes:
    counts: `lines_read`, the number of lines dropped for each of DROP_REASONS, and
      `unreadable_documents`.
    found: how many lines were dropped for each other language that the detector found.
    notes: sentences for the user about filters that cannot work for this language.
  """

  def __init__(self, filters: Filters, language: str):
    self.counts = Counter({"lines_read": 0, **dict.fromkeys(DROP_REASONS, 0)})
    self.counts[UNREADABLE] = 0
    self.found: Counter[str] = Counter()
    self.notes: list[str] = []
    self._filters = filters
    self._language = language
    self._seen = SeenLines()
    self._detector = None
    if filters.language_filter:
      self._detector = _make_detector(language)
      if self._detector is None:
        self.notes.append(
          f"The language filter is off: its detector does not know '{language}', so lines in other "
          "languages are kept."
        )

  def clean(self, lines: Iterable[str] | None) -> list[str]:
    """Returns the lines of one document that are kept, in their final form.

    Args:
      lines: None for a document whose markup cannot be read; it is counted.
    """
    kept: list[str] = []
    if lines is None:
      self.counts[UNREADABLE] += 1
      return kept
    for line in lines:
      self.counts["lines_read"] += 1
      line = normalise_line(line, nfc=self._filters.normalise)
      reason = self._drop_reason(line)
      if reason:
        self.counts[reason] += 1
      else:
        kept.append(line)
        self.remember(line)
    return kept

  def remember(self, line: str) -> None:
    """Records a line that was kept before this preparation resumed."""
    if self._filters.deduplicate:
      self._seen.add(line)

  def _drop_reason(self, line: str) -> str | None:
    if not line:
      return "empty"
    if len(line) < self._filters.min_characters:
      return "too_short"
    if self._filters.max_characters and len(line) > self._filters.max_characters:
      return "too_long"
    if self._filters.deduplicate and line in self._seen:
      return "duplicate"
    if self._detector:
      found = self._detector.detect(line)
      if found.language != self._language and found.is_reliable():
        self.found[found.language] += 1
        return "other_language"
    return None


def dropped_lines(counts: dict[str, int], found: dict[str, int]) -> list[str]:
  """Returns one sentence part per reason for which lines were dropped, the commonest first.

  Args:
    counts: of a `Cleaner`.
    found: languages of the lines that were dropped as another language.
  """
  total = counts["lines_read"]
  parts = []
  for reason in sorted(DROP_REASONS, key=lambda name: -counts[name]):
    if counts[reason]:
      part = f"{counts[reason]:,} of {total:,} lines dropped as {reason.replace('_', ' ')}"
      if reason == "other_language" and found:
        part += f" (found: {', '.join(sorted(found, key=lambda code: -found[code])[:3])})"
      parts.append(part + (f"; {_KEPT_BY[reason]} keeps them" if reason in _KEPT_BY else ""))
  if counts[UNREADABLE]:
    parts.append(f"{counts[UNREADABLE]:,} articles have markup that cannot be read")
  return parts


def normalise_line(line: str, *, nfc: bool) -> str:
  """Returns a line in the form that models see, with single spaces and none at its ends."""
  return " ".join(normalise(line, nfc=nfc).split())


def unmark_wiki40b(text: str) -> str:
  """Returns a text without wiki40b's markers and without the titles and headings after them."""
  text = re.sub(r"_START_(ARTICLE|SECTION)_\n[^\n]*", "", text)
  return text.replace("_START_PARAGRAPH_", "").replace("_NEWLINE_", "\n")


def _make_detector(language: str) -> "eld.LanguageDetector | None":
  """Returns the detector of the package eld, or None if it does not know the language."""
  from eld import LanguageDetector  # loads 2.5 MB of n-grams, so only when the filter is on
  from eld.languageData import languageData

  detector = LanguageDetector()
  return detector if language in languageData.lang_codes.values() else None


def _digest(line: str) -> int:
  return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")
