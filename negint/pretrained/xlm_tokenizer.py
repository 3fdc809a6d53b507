"""The tokenizer of a Hugging Face XLM checkpoint: Moses words, then the folder's own BPE.

Words come from sacremoses; steps and ids are those of transformers' XLMTokenizer told the language,
and every token knows its characters. Three things differ: a line break or tab is a space instead of
nothing, text that spells a special token (or a placeholder of Moses) stays text, and Romanian keeps
its diacritics, as in XLM-100. Chinese, Japanese and Thai, which XLM segments otherwise, are refused.

The BPE is written out here because the package `tokenizers` wants the product of every merge in the
vocabulary, while an XLM vocabulary holds only the pieces that its corpus ended in.
"""

import functools
import itertools
import math
import os
import pathlib
import re
import unicodedata
from collections.abc import Sequence

from negint.errors import UserError
from negint.pretrained.xlm_weights import read_object
from negint.special_tokens import BOS, EOS, MASK, NUM_SPECIALS, PAD, UNK

WORD_END = "</w>"
SPECIAL_IDS = {"<s>": BOS, "</s>": EOS, "<pad>": PAD, "<unk>": UNK, "<special1>": MASK}
UNSEGMENTED = ("zh", "ja", "th")
LINE_CONTROLS = re.compile("[\t-\r\x1c-\x1f\x85]")
REMEMBERED_WORDS = 1 << 17


class XlmTokenizer:
  """Text in one language to token ids.

  Args:
    ids: piece -> id, the contents of vocab.json.
    ranks: (left, right) -> place among the merges, the first to be done.
    lowercase: lower-case the text and drop its accents.
    language: code whose rules for apostrophes, quotes and abbreviations Moses applies.
  """

  def __init__(self, ids: dict[str, int], ranks: dict, lowercase: bool, language: str = "en"):
    import sacremoses  # only for checkpoints that bring such a tokenizer

    self._ids, self._ranks, self._lowercase = ids, ranks, lowercase
    self._words = sacremoses.MosesTokenizer(lang=language)
    normaliser = sacremoses.MosesPunctNormalizer(lang=language)
    pairs = [*normaliser.REPLACE_UNICODE_PUNCTUATION, *normaliser.substitutions]
    self._substitutions = [(re.compile(pattern), new) for pattern, new in pairs]
    self._bpe = functools.lru_cache(REMEMBERED_WORDS)(self._split)

  @property
  def vocab_size(self) -> int:
    """One more than the largest id."""
    return max(self._ids.values()) + 1

  def for_language(self, language: str) -> "XlmTokenizer":
    if language in UNSEGMENTED:
      raise UserError(
        f"XLM segments '{language}' into words with a tool of its own, which is not here (nor for "
        f"{', '.join(code for code in UNSEGMENTED if code != language)}); choose another language."
      )
    return XlmTokenizer(self._ids, self._ranks, self._lowercase, language)

  def encode(self, text: str) -> list[int]:
    return self.encode_with_offsets(text)[0]

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and the span of characters [begin, end) of `text` behind each.

    Spans are in order; two overlap where Moses swaps or rewrites characters ('",' becomes ',"').
    """
    ids, offsets = [], []
    for word, spans in self._traced_words(text):
      if self._lowercase:
        spans = [span for char, span in zip(word, spans, strict=True) for _ in plain(char)]
        word = plain(word)
      begin = 0
      for piece in self._bpe(word) if word else ():
        end = begin + len(piece.removesuffix(WORD_END))
        token = self._ids.get(piece, UNK)
        ids.append(token if token >= NUM_SPECIALS else UNK)
        offsets.append((spans[begin][0], spans[end - 1][1]))
        begin = end
    return ids, offsets

  def decode(self, ids: Sequence[int]) -> str:
    return "".join(self.piece(i) for i in ids).replace(WORD_END, " ").strip()

  def piece(self, token: int) -> str:
    return self._pieces[int(token)]

  @functools.cached_property
  def _pieces(self) -> dict[int, str]:
    return {token: piece for piece, token in self._ids.items()}

  def _traced_words(self, text: str):
    """Yields Moses's words, each with the span of `text` behind each of its characters."""
    spans = [(i, i + 1) for i in range(len(text))]
    text = LINE_CONTROLS.sub(" ", text)
    for pattern, new in self._substitutions:
      text, spans = substitute(pattern, new, text, spans)
    kept = [i for i, char in enumerate(text) if not unicodedata.category(char).startswith("C")]
    text, spans = "".join(text[i] for i in kept), [spans[i] for i in kept]
    # From here on Moses adds spaces, unless the text has its own placeholders for dots in it.
    words = self._words.tokenize(text, return_str=False, escape=False)
    if "".join(words) != "".join(text.split()):
      words = text.split()
    printed = iter([span for char, span in zip(text, spans, strict=True) if not char.isspace()])
    for word in words:
      yield word, list(itertools.islice(printed, len(word)))

  def _split(self, word: str) -> tuple[str, ...]:
    """Pieces of a word: the earliest merge first, wherever it occurs, until there is none."""
    pieces = [*word[:-1], word[-1] + WORD_END]
    while len(pieces) > 1:
      pair = min(zip(pieces, pieces[1:], strict=False), key=self._rank)
      if pair not in self._ranks:
        break
      merged, i = [], 0
      while i < len(pieces):
        width = 2 if tuple(pieces[i : i + 2]) == pair else 1
        merged.append("".join(pieces[i : i + width]))
        i += width
      pieces = merged
    return tuple(pieces)

  def _rank(self, pair):
    return self._ranks.get(pair, math.inf)


def plain(text: str) -> str:
  """The text in lower case without its accents, decomposed."""
  decomposed = unicodedata.normalize("NFD", text.lower())
  return "".join(char for char in decomposed if unicodedata.category(char) != "Mn").lower()


def substitute(pattern: re.Pattern, new: str, text: str, spans: list):
  """`pattern.sub(new, text)` and the spans behind the result's characters.

  Characters that a match begins or ends with before and after keep theirs; those between get the
  span of all that they replace.
  """
  parts, traced, last = [], [], 0
  for match in pattern.finditer(text):
    begin, end = match.span()
    old, now = match[0], match.expand(new)
    front = len(os.path.commonprefix([old, now]))
    back = len(os.path.commonprefix([old[front:][::-1], now[front:][::-1]]))
    # Where nothing is replaced, what is new stands for its neighbour.
    behind = spans[begin + front : end - back] or spans[begin:end]
    between = (behind[0][0], behind[-1][1])
    parts += [text[last:begin], now]
    traced += spans[last : begin + front]
    traced += [between] * (len(now) - front - back)
    traced += spans[end - back : end]
    last = end
  return "".join(parts) + text[last:], traced + spans[last:]


def load(folder: str | os.PathLike) -> XlmTokenizer:
  """The tokenizer of a checkpoint's folder: vocab.json, merges.txt, tokenizer_config.json if there.

  Raises:
    UserError: a file is missing or damaged, special tokens have other ids than XLM's, the casing is
      contradictory, or sacremoses is not installed.
  """
  folder = pathlib.Path(folder)
  for name in ("vocab.json", "merges.txt"):
    if not (folder / name).is_file():
      raise UserError(
        f"{folder} has no {name}; an XLM checkpoint is read with its own tokenizer: put its "
        "vocab.json and merges.txt beside its weights."
      )
  ids, config = read_object(folder / "vocab.json"), {}
  if (folder / "tokenizer_config.json").is_file():
    config = read_object(folder / "tokenizer_config.json")
  lowercase = config.get("do_lowercase_and_remove_accent", True)  # transformers' default
  _check_vocabulary(folder / "vocab.json", ids, lowercase)
  lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
  ranks = {tuple(line.split()[:2]): rank for rank, line in enumerate(lines)}
  try:
    return XlmTokenizer(ids, ranks, lowercase)
  except ImportError as error:
    raise UserError(
      f"the tokenizer of {folder} needs the package sacremoses, which cannot be imported ({error}): "
      "pip install sacremoses."
    ) from error


def _check_vocabulary(path: pathlib.Path, ids: dict, lowercase: bool):
  for piece, wanted in SPECIAL_IDS.items():
    if ids.get(piece) != wanted:
      raise UserError(
        f"{path}: {piece!r} has the id {ids.get(piece)}; it must have XLM's, {wanted}: name a "
        "checkpoint with XLM's special tokens."
      )
  if lowercase and (cased := next((p for p in ids if re.search("[A-Z]", p)), None)):
    raise UserError(
      f"{path} has pieces with capital letters ({cased!r}), which lower-cased text never has; set "
      f'"do_lowercase_and_remove_accent": false in {path.with_name("tokenizer_config.json")}.'
    )
