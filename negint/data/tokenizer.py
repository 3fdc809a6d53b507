"""One SentencePiece BPE shared by a run's languages, with XLM's special ids."""

import io
import pathlib
from collections.abc import Iterator, Sequence

import sentencepiece

from negint.errors import UserError
from negint.special_tokens import BOS, EOS, MASK, PAD, SPECIALS, UNK

__all__ = ["BOS", "EOS", "MASK", "PAD", "UNK", "Tokenizer", "load", "train"]


class Tokenizer:
  """Text to token ids. Text is taken as it is (NFC is the corpus's business)."""

  def __init__(self, model: bytes):
    self.model = model
    self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)

  @property
  def vocab_size(self) -> int:
    return self._processor.get_piece_size()

  def for_language(self, language: str) -> "Tokenizer":
    """The tokenizer for text in a language: here the same for all (`xlm_tokenizer` has rules)."""
    del language
    return self

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def encode_many(self, lines: Sequence[str], num_threads: int = -1) -> list[list[int]]:
    """All lines at once, on `num_threads` threads (-1: one a core)."""
    return self._processor.encode(list(lines), num_threads=num_threads)

  def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and the span of characters [begin, end) of `text` behind each."""
    result = self._processor.encode(text, return_type="offset_mapping")
    return list(result["ids"]), [tuple(span) for span in result["offsets"]]

  def decode(self, ids: Sequence[int]) -> str:
    return self._processor.decode([int(i) for i in ids])

  def piece(self, token: int) -> str:
    return self._processor.id_to_piece(int(token))

  def save(self, path: pathlib.Path):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(self.model)
    temporary.rename(path)


def load(path: pathlib.Path) -> Tokenizer:
  return Tokenizer(path.read_bytes())


def train(lines: Iterator[str], vocab_size: int) -> Tokenizer:
  """BPE of `vocab_size` pieces, the 14 special tokens of XLM included.

  Raises:
    UserError: the text is too small for so many pieces, or has more characters than pieces.
  """
  model, failures = io.BytesIO(), []

  def watched():
    try:
      yield from lines
    except BaseException as error:  # SentencePiece would turn even Ctrl-C into a RuntimeError
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
      f"data.vocab_size is {vocab_size}, which this text cannot fill or which cannot hold its "
      f"characters (SentencePiece: {str(error).splitlines()[-1].strip()}); choose another "
      "--config.data.vocab_size or prepare more text."
    ) from error
  return Tokenizer(model.getvalue())
