"""The tokenizer.json of a Hugging Face folder, and the special tokens that it does not name by role."""

import os
import pathlib
from typing import Any

from negint.data.fast_tokenizer import FastTokenizer, parse
from negint.errors import UserError
from negint.pretrained.checkpoint_files import part_of, read_checkpoint_json, require_files
from negint.run.files import damage_reported
from negint.special_tokens import SpecialTokens

FILE = "tokenizer.json"
SPELLINGS = {  # of special tokens that tokenizer_config.json does not name
  "pad_token": ("[PAD]", "<pad>"),
  "unk_token": ("[UNK]", "<unk>"),
  "mask_token": ("[MASK]", "<mask>"),
}


def load(folder: str | os.PathLike) -> FastTokenizer:
  """Returns the tokenizer of a checkpoint's folder.

  It reads tokenizer.json and, if it is there, tokenizer_config.json.

  Raises:
    UserError: a file is missing or damaged, or a special token is missing.
  """
  folder = pathlib.Path(folder)
  path = folder / FILE
  require_files(
    folder,
    (FILE,),
    "a checkpoint of this kind is read with its own tokenizer; transformers makes the file: "
    "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)",
  )
  config = {}
  if (folder / "tokenizer_config.json").is_file():
    config = read_checkpoint_json(folder / "tokenizer_config.json")
  with damage_reported(path, part_of(folder)):
    text = path.read_text(encoding="utf-8")
    tokenizer = parse(text)
  return FastTokenizer(text, special_tokens(path, tokenizer, config))


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
