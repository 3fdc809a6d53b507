"""The tokenizer.json of a Hugging Face folder, and the special tokens that it does not name by role."""

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from negint.data.fast_tokenizer import FastTokenizer, parse
from negint.errors import UserError
from negint.pretrained.checkpoint_files import (
  part_of,
  read_checkpoint_json,
  read_config,
  require_files,
)
from negint.run.files import damage_reported
from negint.special_tokens import SpecialTokens

FILE = "tokenizer.json"
VOCABULARY = "vocab.txt"  # of older BERTs
WORDPIECE = ("BertTokenizer", "BertTokenizerFast")  # tokenizer_class of such a vocabulary
WORDPIECE_FIELDS = {  # fields of tokenizer_config.json that must have these values if they are there
  "do_basic_tokenize": True,
  "word_tokenizer_type": "basic",
  "subword_tokenizer_type": "wordpiece",
}
SPELLINGS = {  # of special tokens that tokenizer_config.json does not name
  "pad_token": ("[PAD]", "<pad>"),
  "unk_token": ("[UNK]", "<unk>"),
  "mask_token": ("[MASK]", "<mask>"),
}


def load(folder: str | os.PathLike) -> FastTokenizer:
  """Returns the tokenizer of a checkpoint's folder.

  It reads tokenizer.json, or BERT's vocab.txt where that is missing, and tokenizer_config.json if it is
  there.

  Raises:
    UserError: a file is missing or damaged, a special token is missing, vocab.txt belongs to another
      tokenizer than BERT's, or lower-casing contradicts the vocabulary.
  """
  folder = pathlib.Path(folder)
  config = {}
  if (folder / "tokenizer_config.json").is_file():
    config = read_checkpoint_json(folder / "tokenizer_config.json")
  path = folder / FILE
  if not path.is_file() and (folder / VOCABULARY).is_file() and _is_wordpiece(folder, config):
    path = folder / VOCABULARY
  require_files(
    folder,
    (path.name,),
    "a checkpoint of this kind is read with its own tokenizer; transformers makes the file: "
    "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
  )
  with damage_reported(path, part_of(folder)):
    text = path.read_text(encoding="utf-8")
    if path.name == VOCABULARY:
      text = _of_vocabulary(path, text.rstrip("\n").split("\n"), config)
    tokenizer = parse(text)
  return FastTokenizer(text, special_tokens(path, tokenizer, config))


def _is_wordpiece(folder: pathlib.Path, config: dict[str, Any]) -> bool:
  """Returns whether the vocab.txt of a folder is of BERT's WordPiece; False if nothing names its class.

  Args:
    folder: the checkpoint's.
    config: the contents of tokenizer_config.json.

  Raises:
    UserError: it belongs to another tokenizer, such as that of the Japanese BERTs.
  """
  model = read_config(folder)
  owner = config.get("tokenizer_class") or model.get("tokenizer_class")
  if owner is None and model["model_type"] != "bert":
    return False
  if owner in (None, *WORDPIECE):
    others = [
      f"{name}={config[name]!r}"
      for name in WORDPIECE_FIELDS
      if config.get(name, WORDPIECE_FIELDS[name]) != WORDPIECE_FIELDS[name]
    ]
    if not others:
      return True
    owner = f"a tokenizer with {others[0]}"
  raise UserError(
    f"{folder / VOCABULARY} belongs to {owner}, which is not read; a {FILE} is needed, which "
    "transformers makes for most tokenizers: AutoTokenizer.from_pretrained(folder)"
    ".save_pretrained(folder)."
  )


def _of_vocabulary(path: pathlib.Path, pieces: Sequence[str], config: dict[str, Any]) -> str:
  """Returns the tokenizer.json of BERT's WordPiece.

  Args:
    path: of vocab.txt.
    pieces: its lines.
    config: the contents of tokenizer_config.json; its defaults are those of transformers.

  Raises:
    UserError: lower-casing contradicts the vocabulary.
    ValueError: [CLS] or [SEP] is missing.
  """
  lowercase = config.get("do_lower_case", True)
  cased = [piece for piece in pieces if re.match(r"[^\[]*[A-Z]", piece)]
  if lowercase and cased:
    raise UserError(
      f"{path} has pieces with capital letters ({cased[0]!r}), which lower-cased text never has; set "
      f'"do_lower_case": false in {path.with_name("tokenizer_config.json")}.'
    )
  ids = {piece: token for token, piece in enumerate(pieces)}
  if not {"[CLS]", "[SEP]"} <= ids.keys():
    raise ValueError("it has no [CLS] or no [SEP]")
  around = [
    {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}},
    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
  ]
  second = [
    {"Sequence": {"id": "B", "type_id": 1}},
    {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
  ]
  contents: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": {
      "type": "BertNormalizer",
      "clean_text": True,
      "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
      "strip_accents": config.get("strip_accents"),
      "lowercase": lowercase,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "post_processor": {
      "type": "TemplateProcessing",
      "single": around,
      "pair": around + second,
      "special_tokens": {
        name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
      },
    },
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
      "type": "WordPiece",
      "unk_token": "[UNK]",
      "continuing_subword_prefix": "##",
      "max_input_chars_per_word": 100,
      "vocab": ids,
    },
  }
  return json.dumps(contents, ensure_ascii=False)


# Any: tokenizers.Tokenizer.
def special_tokens(path: pathlib.Path, tokenizer: Any, config: dict[str, Any]) -> SpecialTokens:
  """Returns the special tokens; the form of a row is what the tokenizer makes of a pair of texts.

  Args:
    path: of tokenizer.json.
    tokenizer: the library's.
    config: the contents of tokenizer_config.json.

  Raises:
    UserError: it puts no special tokens around texts, or the token of a role is missing.
  """
  pair = tokenizer.encode("a", "a")
  places = [[i for i, text in enumerate(pair.sequence_ids) if text == n] for n in (0, 1)]
  if all(places):
    first, second = places
    begin, end = pair.ids[: first[0]], pair.ids[second[-1] + 1 :]
    between = pair.ids[first[-1] + 1 : second[0]]
  if not (all(places) and begin and between and end):
    raise UserError(
      f"{path} makes {' '.join(pair.tokens)} of two texts 'a'; special tokens must stand before, between "
      "and after them: give it the post_processor of its checkpoint."
    )
  pad, unk, mask = (_id_of(path, tokenizer, config, role) for role in SPELLINGS)
  return SpecialTokens(
    tuple(begin), tuple(between), tuple(end), pad, unk, mask, pair.type_ids[second[0]]
  )


def _id_of(path: pathlib.Path, tokenizer: Any, config: dict[str, Any], role: str) -> int:
  """Returns the id of the special token with a role such as "mask_token"; UserError without one."""
  named = config.get(role)
  if isinstance(named, dict):  # an AddedToken of transformers
    named = named.get("content")
  spellings = [spelling for spelling in (named, *SPELLINGS[role]) if spelling]
  for spelling in spellings:
    token: int | None = tokenizer.token_to_id(spelling)
    if token is not None:
      return token
  raise UserError(
    f"{path} has no {' or '.join(spellings)}; name its own token in "
    f"{path.with_name('tokenizer_config.json')} as {role!r}."
  )
