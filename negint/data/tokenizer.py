"""The SentencePiece BPE that the languages of a run share, with XLM's special ids."""

import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import sentencepiece

from negint.data.fast_tokenizer import FastTokenizer, from_model
from negint.errors import UserError
from negint.run.files import whole_file
from negint.special_tokens import BOS, EOS, PAD, SPECIALS, UNK, XLM, SpecialTokens


class AnyTokenizer(Protocol):
  """What the token cache needs of a tokenizer, trained here or imported."""

  @property
  def model(self) -> bytes:
    """The contents of tokenizer.model."""

  @property
  def special(self) -> SpecialTokens:
    """The special tokens."""

  @property
  def vocab_size(self) -> int:
    """The number of pieces."""

  def for_language(self, language: str) -> "AnyTokenizer":
    """Returns the tokenizer for text in a language."""

  def encode_many(self, lines: Sequence[str]) -> list[list[int]]:
    """Returns the token ids of each line."""


class Tokenizer:
  """Turns text into token ids and back. It does not normalise; the corpus already has NFC text.

  Attributes:
    model: SentencePiece's serialised model, the contents of tokenizer.model.
    special: the special tokens, and the form of a row.
  """

  special = XLM

  def __init__(self, model: bytes):
    self.model = model
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

  @property
  def vocab_size(self) -> int:
    """The number of pieces."""
    return self._processor.get_piece_size()

  def for_language(self, language: str) -> "Tokenizer":
    """Returns the tokenizer for text in a language: itself; an `XlmTokenizer` has rules per language."""
    del language
    return self

  def encode(self, text: str) -> list[int]:
    """Returns the token ids of a text."""
    return self._processor.encode(text)

  def encode_word(self, word: str) -> list[int]:
    """Returns the token ids of a word inside a sentence."""
    return self.encode(word)

  def encode_many(self, lines: Sequence[str], num_threads: int = -1) -> list[list[int]]:
    """Returns the token ids of each line, computed on `num_threads` threads (-1: one per core)."""
    return self._processor.encode(list(lines), num_threads=num_threads)

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Returns token ids and, for each, the characters [begin, end) of `text` that it stands for."""
    result = self._processor.encode(text, return_type="offset_mapping")
    return list(result["ids"]), [tuple(span) for span in result["offsets"]]

  def decode(self, ids: Sequence[int]) -> str:
    """Returns the text of token ids."""
    return self._processor.decode([int(i) for i in ids])

  def piece(self, token: int) -> str:
    """Returns the piece with a token id; a piece that begins a word starts with '▁'."""
    return self._processor.id_to_piece(int(token))

  def scores(self) -> dict[str, float]:
    """Returns the score of each piece but the special ones; pieces with higher scores form first."""
    p = self._processor
    return {
      p.id_to_piece(i): p.get_score(i)
      for i in range(self.vocab_size)
      if not (p.is_control(i) or p.is_unknown(i))
    }

  def save(self, path: pathlib.Path) -> None:
    """Writes the model to a file, which `load_tokenizer` reads."""
    with whole_file(path, "wb") as file:
      file.write(self.model)


def load_tokenizer(path: pathlib.Path) -> Tokenizer | FastTokenizer:
  """Returns the tokenizer that the `save` of a tokenizer wrote into a file."""
  model = path.read_bytes()
  return from_model(model) if model.startswith(b"{") else Tokenizer(model)


def train_tokenizer(lines: Iterator[str], vocab_size: int) -> Tokenizer:
  """Returns a BPE trained on lines of text.

  Args:
    lines: the text.
    vocab_size: the number of pieces, with XLM's 14 special tokens.

  Raises:
    UserError: the text is too small for that many pieces, or has more characters than pieces.
  """
  model = io.BytesIO()
  failures: list[BaseException] = []

  def watched() -> Iterator[str]:
    try:
      yield from lines
    except BaseException as error:  # SentencePiece turns even Ctrl-C into a RuntimeError
      failures.append(error)
      raise

  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=watched(),
      model_writer=model,
      model_type="bpe",
      vocab_size=vocab_size,
      bos_id=BOS,
      eos_id=EOS,
      pad_id=PAD,
      unk_id=UNK,
      bos_piece="<s>",
      eos_piece="</s>",
      pad_piece="<pad>",
      unk_piece="<unk>",
      control_symbols=list(SPECIALS),
      character_coverage=0.9995,
      normalization_rule_name="identity",
      max_sentence_length=1 << 16,
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    if failures:
      raise failures[0] from None
    raise UserError(
      f"data.vocab_size is {vocab_size}, more pieces than this text has or fewer than its characters "
      f"need (SentencePiece: {str(error).splitlines()[-1].strip()}); choose another "
      "--config.data.vocab_size or prepare more text."
    ) from error
  return Tokenizer(model.getvalue())
