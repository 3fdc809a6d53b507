"""The tokenizer of a Hugging Face XLM checkpoint: Moses's words, then the BPE of the folder.

The package sacremoses splits text into words. Token ids are those of transformers' XLMTokenizer when
it is given the language, and each token also has the characters that it stands for. Three things
differ. A line break or tab is a space; transformers removes it. Text that spells a special token (or
a placeholder of Moses) stays text. Romanian keeps its diacritics, as in XLM-100. Chinese, Japanese
and Thai are refused, because XLM splits them into words with other tools.

The package `tokenizers` cannot run this BPE: it needs the result of every merge in the vocabulary,
and an XLM vocabulary has only those that are left when all merges are done.
"""

import functools
import itertools
import json
import math
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

from negint.errors import UserError
from negint.pretrained.checkpoint_files import part_of, read_checkpoint_json, require_files
from negint.run.files import damage_reported
from negint.special_tokens import BOS, EOS, MASK, NUM_SPECIALS, PAD, UNK, XLM

WORD_END = "</w>"
MODEL = "xlm"  # the first word of a run's tokenizer.model
SPECIAL_IDS = {"<s>": BOS, "</s>": EOS, "<pad>": PAD, "<unk>": UNK, "<special1>": MASK}
UNSEGMENTED = ("zh", "ja", "th")
LINE_CONTROLS = re.compile("[\t-\r\x1c-\x1f\x85]")
REMEMBERED_WORDS = 1 << 17  # words whose pieces are cached

Spans = list[tuple[int, int]]  # characters [begin, end)


class XlmTokenizer:
  """Turns text in one language into token ids and back.

  Args:
    ids: piece -> id, the contents of vocab.json.
    ranks: pair of pieces -> its place in merges.txt; the pair with the lowest is merged first.
    lowercase: whether to lower-case text and remove its accents.
    language: code; Moses applies this language's rules for apostrophes, quotes and abbreviations.

  Attributes:
    special: the special tokens, and the form of a row.
  """

  special = XLM

  def __init__(
    self,
    ids: dict[str, int],
    ranks: dict[tuple[str, ...], int],
    lowercase: bool,
    language: str = "en",
  ):
    import sacremoses  # only checkpoints with such a tokenizer need it

    self._ids, self._ranks, self._lowercase = ids, ranks, lowercase
    self._words = sacremoses.MosesTokenizer(lang=language)
    normaliser = sacremoses.MosesPunctNormalizer(lang=language)
    pairs = [*normaliser.REPLACE_UNICODE_PUNCTUATION, *normaliser.substitutions]
    self._substitutions = [(re.compile(pattern), new) for pattern, new in pairs]
    self._bpe = functools.lru_cache(REMEMBERED_WORDS)(self._split)

  @property
  def vocab_size(self) -> int:
    """The largest id plus one."""
    return max(self._ids.values()) + 1

  @property
  def model(self) -> bytes:
    """The contents of a run's tokenizer.model, of which `from_model` makes the tokenizer again."""
    ranks = [[*pair, rank] for pair, rank in self._ranks.items()]
    contents = {MODEL: {"ids": self._ids, "ranks": ranks, "lowercase": self._lowercase}}
    return json.dumps(contents, ensure_ascii=False).encode()

  def for_language(self, language: str) -> "XlmTokenizer":
    """Returns the tokenizer for text in a language.

    Raises:
      UserError: XLM splits the language into words with another tool than Moses.
    """
    if language in UNSEGMENTED:
      raise UserError(
        f"XLM splits text in '{language}' into words with a tool that is not available here (nor for "
        f"{', '.join(code for code in UNSEGMENTED if code != language)}); choose another language."
      )
    return XlmTokenizer(self._ids, self._ranks, self._lowercase, language)

  def encode(self, text: str) -> list[int]:
    """Returns the token ids of a text."""
    return self.encode_with_offsets(text)[0]

  def encode_word(self, word: str) -> list[int]:
    """Returns the token ids of a word inside a sentence."""
    return self.encode(word)

  def encode_many(self, lines: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of each line."""
    return [self.encode(line) for line in lines]

  def encode_with_offsets(self, text: str) -> tuple[list[int], Spans]:
    """Returns token ids and, for each, the characters [begin, end) of `text` that it stands for.

    Spans are in order. Two overlap where Moses swaps or rewrites characters ('",' becomes ',"').
    """
    ids: list[int] = []
    offsets: Spans = []
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
    """Returns the words of token ids, with single spaces between them."""
    return "".join(self.piece(i) for i in ids).replace(WORD_END, " ").strip()

  def piece(self, token: int) -> str:
    """Returns the piece with a token id, "" without one; one that ends a word ends with WORD_END."""
    return self._pieces.get(int(token), "")

  @functools.cached_property
  def _pieces(self) -> dict[int, str]:
    return {token: piece for piece, token in self._ids.items()}

  def _traced_words(self, text: str) -> Iterator[tuple[str, Spans]]:
    """Yields Moses's words, each with the span of `text` of each of its characters."""
    spans = [(i, i + 1) for i in range(len(text))]
    text = LINE_CONTROLS.sub(" ", text)
    for pattern, new in self._substitutions:
      text, spans = substitute(pattern, new, text, spans)
    kept = [i for i, char in enumerate(text) if not unicodedata.category(char).startswith("C")]
    text, spans = "".join(text[i] for i in kept), [spans[i] for i in kept]
    # Now Moses only adds spaces, unless the text contains Moses's own placeholders for dots.
    words = self._words.tokenize(text, return_str=False, escape=False)
    if "".join(words) != "".join(text.split()):
      words = text.split()
    printed = iter([span for char, span in zip(text, spans, strict=True) if not char.isspace()])
    for word in words:
      yield word, list(itertools.islice(printed, len(word)))

  def _split(self, word: str) -> tuple[str, ...]:
    """Returns the pieces of a word: merges in the order of their ranks, until none is left."""
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

  def _rank(self, pair: tuple[str, ...]) -> float:
    return self._ranks.get(pair, math.inf)


def plain(text: str) -> str:
  """Returns the text in lower case without accents, in Unicode's NFD."""
  decomposed = unicodedata.normalize("NFD", text.lower())
  return "".join(char for char in decomposed if unicodedata.category(char) != "Mn").lower()


def substitute(pattern: re.Pattern, new: str, text: str, spans: Spans) -> tuple[str, Spans]:
  """Returns `pattern.sub(new, text)` and the spans of the result's characters.

  Characters at the ends of a match that do not change keep their spans. Characters between them get
  the span of everything that they replace.

  Args:
    pattern: what to replace.
    new: the replacement, a template of `re`.
    text: the text.
    spans: of each character of `text`.
  """
  parts: list[str] = []
  traced: Spans = []
  last = 0
  for match in pattern.finditer(text):
    begin, end = match.span()
    old, now = match[0], match.expand(new)
    front = len(os.path.commonprefix([old, now]))
    back = len(os.path.commonprefix([old[front:][::-1], now[front:][::-1]]))
    # New characters that replace nothing get the span of the whole match.
    behind = spans[begin + front : end - back] or spans[begin:end]
    between = (behind[0][0], behind[-1][1])
    parts += [text[last:begin], now]
    traced += spans[last : begin + front]
    traced += [between] * (len(now) - front - back)
    traced += spans[end - back : end]
    last = end
  return "".join(parts) + text[last:], traced + spans[last:]


def from_model(model: bytes) -> XlmTokenizer | None:
  """Returns the tokenizer whose `model` is given; None if it is that of another kind of tokenizer."""
  if not model.startswith(f'{{"{MODEL}"'.encode()):
    return None
  contents = json.loads(model)[MODEL]
  ranks = {tuple(pair): rank for *pair, rank in contents["ranks"]}
  return XlmTokenizer(contents["ids"], ranks, contents["lowercase"])


def load(folder: str | os.PathLike) -> XlmTokenizer:
  """Returns the tokenizer of a checkpoint's folder.

  It reads vocab.json, merges.txt and, if it is there, tokenizer_config.json.

  Raises:
    UserError: a file is missing or damaged, the special tokens do not have XLM's ids, lower-casing
      contradicts the vocabulary, or sacremoses is not installed.
  """
  folder = pathlib.Path(folder)
  require_files(
    folder,
    ("vocab.json", "merges.txt"),
    "an XLM checkpoint is read with its own tokenizer: put its vocab.json and merges.txt beside its "
    "weights",
  )
  ids, config = read_checkpoint_json(folder / "vocab.json"), {}
  if (folder / "tokenizer_config.json").is_file():
    config = read_checkpoint_json(folder / "tokenizer_config.json")
  lowercase = config.get("do_lowercase_and_remove_accent", True)  # transformers' default
  _check_vocabulary(folder / "vocab.json", ids, lowercase)
  with damage_reported(folder / "merges.txt", part_of(folder)):
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
  ranks = {tuple(line.split()[:2]): rank for rank, line in enumerate(lines)}
  try:
    return XlmTokenizer(ids, ranks, lowercase)
  except ImportError as error:
    raise UserError(
      f"The tokenizer of {folder} needs the package sacremoses, which cannot be imported ({error}): "
      "pip install sacremoses."
    ) from error


def _check_vocabulary(path: pathlib.Path, ids: dict[str, int], lowercase: bool) -> None:
  """Checks that special tokens have XLM's ids and that the casing fits the pieces.

  Raises:
    UserError: they do not.
  """
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
