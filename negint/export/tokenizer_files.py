"""A tokenizer as tokenizer.json, which the library `tokenizers` reads, and tokenizer_config.json.

The ids are those of our tokenizer after `negint.data.text.normalise`, on every text that does not spell
a special token.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from negint.data.fast_tokenizer import FastTokenizer
from negint.data.text import normalise
from negint.data.tokenizer import Tokenizer
from negint.errors import UserError
from negint.pretrained.xlm_tokenizer import XlmTokenizer
from negint.special_tokens import EOS, MASK, PAD, UNK

SPACE = "▁"  # stands for a space in SentencePiece's pieces
NAMES = {EOS: "</s>", PAD: "<pad>", UNK: "<unk>", MASK: "[MASK]"}  # as users write them in a text
_CHANGED_BELOW = 0xFFFF  # `normalise` replaces or removes no character above, but for NFC


def files(
  tokenizer: Tokenizer | FastTokenizer | XlmTokenizer, max_length: int
) -> dict[str, dict[str, Any]]:
  """Returns the contents of each file of a tokenizer, by its name.

  Args:
    tokenizer: the tokenizer.
    max_length: positions of the model.

  Raises:
    UserError: the library `tokenizers` cannot compute its ids.
  """
  if isinstance(tokenizer, XlmTokenizer):
    raise UserError(
      "The model has the tokenizer of an XLM checkpoint, which the library tokenizers cannot run, so "
      "there is no tokenizer.json of it; export a model with a tokenizer of its own, or one that was "
      "started from BERT or XLM-R."
    )
  if isinstance(tokenizer, Tokenizer):
    contents = from_sentencepiece(tokenizer)
  else:
    contents = json.loads(tokenizer.text)
  return {
    "tokenizer.json": contents,
    "tokenizer_config.json": config(tokenizer, max_length),
  }


def spelling(tokenizer: Tokenizer | FastTokenizer | XlmTokenizer, token: int) -> str:
  """Returns how tokenizer.json spells a special token."""
  return NAMES[token] if isinstance(tokenizer, Tokenizer) else tokenizer.piece(token)


def from_sentencepiece(tokenizer: Tokenizer) -> dict[str, Any]:
  """Returns the contents of tokenizer.json.

  SentencePiece joins the two neighbours whose union has the best score. `tokenizers` wants the pairs by
  name, best first: for each piece, every way to cut it in two pieces.
  """
  pieces = tokenizer.scores()
  merges = [
    [piece[:cut], piece[cut:]]
    for piece in sorted(pieces, key=lambda piece: -pieces[piece])
    for cut in range(1, len(piece))
    if piece[:cut] in pieces and piece[cut:] in pieces
  ]
  ids = {tokenizer.piece(token): token for token in range(tokenizer.vocab_size)}
  ids = {piece: token for piece, token in ids.items() if token not in NAMES}
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      {
        "id": token,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
      }
      for token, name in NAMES.items()
    ],
    "normalizer": {"type": "Sequence", "normalizers": list(_normalizers())},
    # It splits words apart: only the first character of a piece can be a space. Text that follows a
    # special token without a space continues its word.
    "pre_tokenizer": {
      "type": "Metaspace",
      "replacement": SPACE,
      "prepend_scheme": "first",
      "split": True,
    },
    "post_processor": _rows(),
    "decoder": {
      "type": "Sequence",
      "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
      ],
    },
    "model": {
      "type": "BPE",
      "dropout": None,
      "unk_token": NAMES[UNK],
      "continuing_subword_prefix": None,
      "end_of_word_suffix": None,
      "fuse_unk": True,
      "byte_fallback": False,
      "ignore_merges": False,
      "vocab": {**ids, **{name: token for token, name in NAMES.items()}},
      "merges": merges,
    },
  }


def config(tokenizer: Tokenizer | FastTokenizer, max_length: int) -> dict[str, Any]:
  """Returns the contents of tokenizer_config.json.

  Args:
    tokenizer: the tokenizer.
    max_length: positions of the model.
  """
  special = tokenizer.special
  roles = dict(cls=special.begin[0], sep=special.end[-1], pad=special.pad)
  roles |= dict(unk=special.unk, mask=special.mask)
  return {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": max_length,
    "model_input_names": ["input_ids", "attention_mask"]
    + ["token_type_ids"] * (special.second_type > 0),
    "clean_up_tokenization_spaces": False,
    **{f"{role}_token": spelling(tokenizer, token) for role, token in roles.items()},
  }


def _normalizers() -> Iterator[dict[str, Any]]:
  """Yields what `normalise` and then SentencePiece do to a text."""
  yield _replaced(_class_of(" "), " ")
  yield _replaced(_class_of(""), "")
  yield {"type": "NFC"}
  yield _replaced(f"[ {SPACE}]+$", "")
  yield _replaced(f"^{SPACE}", 2 * SPACE)  # SentencePiece puts one before every text
  yield _replaced(" +", SPACE)


def _replaced(pattern: str, content: str) -> dict[str, Any]:
  return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _class_of(normal: str) -> str:
  """Returns a character class, as `tokenizers` writes it, of what `normalise` makes `normal`."""
  found = [code for code in range(_CHANGED_BELOW) if normalise(chr(code), nfc=False) == normal]
  ranges = []
  for _, group in itertools.groupby(enumerate(found), lambda pair: pair[1] - pair[0]):
    codes = [code for _, code in group]
    ranges.append(f"\\x{{{codes[0]:x}}}-\\x{{{codes[-1]:x}}}")
  return f"[{''.join(ranges)}]"


def _rows() -> dict[str, Any]:
  """Returns the form of a row: `</s> text </s>`, or `</s> first </s> second </s>`."""
  end = {"SpecialToken": {"id": NAMES[EOS], "type_id": 0}}
  first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
  return {
    "type": "TemplateProcessing",
    "single": [end, first, end],
    "pair": [end, first, end, second, end],
    "special_tokens": {NAMES[EOS]: {"id": NAMES[EOS], "ids": [EOS], "tokens": [NAMES[EOS]]}},
  }
