"""Writes a trained model as folders that transformers loads: one, or one per language."""

import pathlib
from collections.abc import Iterator, Sequence

from negint.errors import UserError
from negint.export import card, encoder, tokenizer_files
from negint.export.encoder import Encoder
from negint.method.phi import select_language
from negint.pretrained import xlm_weights
from negint.pretrained.load import Pretrained
from negint.run.files import whole_folder, write_json, write_text


def check_new(out: pathlib.Path) -> None:
  """Raises UserError if a folder is not new or empty."""
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    what = "is not empty" if out.is_dir() else "is a file"
    raise UserError(f"--out={out} {what}; name a new folder for the exported model.")


def write_pretrained(
  model: Pretrained, out: pathlib.Path, language: str = ""
) -> list[pathlib.Path]:
  """Writes a pretrained model and returns its folders.

  A folder of its own for each language holds a model whose attention or feed-forward layers belong to a
  language. In other models all languages share the encoder.

  Args:
    model: what to write.
    out: a new or empty folder; it is there whole or not at all.
    language: the only one to write; "" for all.

  Raises:
    UserError: the folder is not new, the language is unknown, or transformers cannot hold the model.
  """
  check_new(out)
  with whole_folder(out) as unfinished:
    folders = []
    for name, languages, found in _encoders(model, language):
      _write(unfinished / name, model, found, languages)
      folders.append(out / name)
  return folders


def _encoders(model: Pretrained, language: str) -> Iterator[tuple[str, Sequence[str], Encoder]]:
  """Yields (name of the folder inside the exported one, its languages, its encoder)."""
  options, theta, phi = model.model, model.theta, model.phi
  own = set(options.specific) - {"adapter"}  # modules that a plain encoder has once
  if not language and (not own or len(model.languages) == 1):
    yield "", model.languages, encoder.of_all_languages(options, theta, phi)
    return
  for code in [language] if language else model.languages:
    index = model.language_index(code)
    phi_i = select_language(phi, index)
    found = encoder.of_one_language(options, theta, phi_i, index)
    yield "" if language else code, (code,), found


def _write(
  folder: pathlib.Path, model: Pretrained, found: Encoder, languages: Sequence[str]
) -> None:
  """Writes one folder."""
  options = found.options
  xlm_weights.write_hugging_face(folder, options, found.theta, found.phi, languages)
  for name, contents in tokenizer_files.files(model.tokenizer, options.max_length).items():
    write_json(folder / name, contents)
  shape = model.model
  filled_up = (options.num_heads, options.head_dim, options.ffn_dim) != (
    shape.num_heads,
    shape.head_dim,
    shape.ffn_dim,
  )
  write_text(
    folder / "README.md",
    card.pretrained(model, languages, adapters=bool(found.phi), filled_up=filled_up),
  )
