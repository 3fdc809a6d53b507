"""The tokenizer of a tokenizer.json, as BERT, XLM-R and most checkpoints of today have it.

The library `tokenizers` runs it. Token ids are those of transformers. One thing differs: text that
spells a special token stays text.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from negint.errors import UserError
from negint.run.files import whole_file
from negint.special_tokens import SpecialTokens


class FastTokenizer:
  """Turns text into token ids and back.

  Attributes:
    text: the contents of the tokenizer.json.
    special: the special tokens, and the form of a row.
  """

  def __init__(self, text: str, special: SpecialTokens):
    self.text, self.special = text, special
    self._tokenizer = parse(text)
    self._tokenizer.encode_special_tokens = True  # text that spells one stays text
    self._never = set(special.ids)  # but some vocabularies have them as pieces, too
    pre_tokenizer = json.loads(text).get("pre_tokenizer")
    self._word_start = " " if _spaces_belong_to_words(pre_tokenizer) else ""

  @property
  def model(self) -> bytes:
    """The contents of a run's tokenizer.model, of which `from_model` makes the tokenizer again."""
    contents = {"special": dataclasses.asdict(self.special), "tokenizer": self.text}
    return json.dumps(contents, ensure_ascii=False).encode()

  @functools.cached_property
  def vocab_size(self) -> int:
    """The largest id plus one."""
    return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

  def for_language(self, language: str) -> "FastTokenizer":
    """Returns the tokenizer for text in a language: itself."""
    del language
    return self

  def encode(self, text: str) -> list[int]:
    """Returns the token ids of a text, without special tokens around it."""
    return self.encode_with_offsets(text)[0]

  def encode_word(self, word: str) -> list[int]:
    """Returns the token ids of a word inside a sentence."""
    return self.encode(self._word_start + word)

  def encode_many(self, lines: Sequence[str], num_threads: int = -1) -> list[list[int]]:
    """Returns the token ids of each line; the library chooses the number of threads."""
    del num_threads
    found = self._tokenizer.encode_batch(lines, add_special_tokens=False)
    return [self._of_text(each.ids) for each in found]

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Returns token ids and, for each, the characters [begin, end) of `text` that it stands for."""
    found = self._tokenizer.encode(text, add_special_tokens=False)
    return self._of_text(found.ids), found.offsets

  def _of_text(self, ids: list[int]) -> list[int]:
    return [self.special.unk if token in self._never else token for token in ids]

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of token ids; special tokens are spelled."""
    return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False)

  def piece(self, token: int) -> str:
    """Returns the piece with a token id, in the spelling of its tokenizer.json."""
    return self._tokenizer.id_to_token(int(token))

  def save(self, path: pathlib.Path) -> None:
    """Writes the model to a file, which `load_tokenizer` reads."""
    with whole_file(path, "wb") as file:
      file.write(self.model)


def parse(text: str) -> Any:  # tokenizers.Tokenizer, whose package is imported when it is needed
  """Returns the library's tokenizer; it neither cuts nor pads, even if the file asks for that.

  Args:
    text: the contents of a tokenizer.json.

  Raises:
    UserError: the library is not installed.
    ValueError: it cannot read the text.
  """
  try:
    import tokenizers
  except ImportError as error:
    raise UserError(
      f"This tokenizer needs the package tokenizers, which cannot be imported ({error}): pip install "
      "tokenizers."
    ) from error
  try:
    tokenizer = tokenizers.Tokenizer.from_str(text)
  except Exception as error:  # the library raises bare Exceptions
    raise ValueError(f"tokenizers {tokenizers.__version__} says: {error}") from error
  tokenizer.no_truncation()
  tokenizer.no_padding()
  return tokenizer


def from_model(model: bytes) -> FastTokenizer:
  """Returns the tokenizer whose `model` is given."""
  contents = json.loads(model)
  special: dict[str, Any] = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in contents["special"].items()
  }
  return FastTokenizer(contents["tokenizer"], SpecialTokens(**special))


def _spaces_belong_to_words(pre_tokenizer: dict[str, Any] | None) -> bool:
  """Returns whether a word without the space before it has other tokens than inside a sentence."""
  if not pre_tokenizer:
    return False
  if pre_tokenizer["type"] == "Sequence":
    return any(map(_spaces_belong_to_words, pre_tokenizer["pretokenizers"]))
  return pre_tokenizer["type"] == "ByteLevel" and not pre_tokenizer.get("add_prefix_space", True)
