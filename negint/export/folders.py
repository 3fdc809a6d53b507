"""Writes a trained model as folders that transformers loads: one, or one per language."""

import pathlib
from collections.abc import Iterator, Sequence

import jax

from negint.errors import UserError
from negint.export import card, encoder, heads, tokenizer_files
from negint.export.encoder import Encoder
from negint.finetuning import testing
from negint.inference.model import Model
from negint.method.phi import select_language
from negint.pretrained import bert_weights, xlm_weights
from negint.run.files import whole_folder, write_json, write_text


def check_new(out: pathlib.Path) -> None:
  """Raises UserError if a folder is neither new nor empty."""
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    what = "is not empty" if out.is_dir() else "is a file"
    raise UserError(f"--out={out} {what}; name a new folder for the exported model.")


def write(model: Model, out: pathlib.Path, language: str = "") -> list[pathlib.Path]:
  """Writes a model and returns its folders.

  Where all languages share the encoder, one folder holds all of them. Where attention or feed-forward
  layers belong to a language, each language has a folder inside `out`. A fine-tuned model is written for
  one language.

  Args:
    model: what to write.
    out: a new or empty folder; everything is in it or nothing.
    language: the only one to write. "" are all, or the language of the fine-tuning's test.

  Raises:
    UserError: the folder is not new, the language is unknown, or transformers cannot hold the model.
  """
  check_new(out)
  with whole_folder(out) as unfinished:
    names = [
      _write(unfinished, name, model, found, languages)
      for name, languages, found in _encoders(model, language)
    ]
  return [out / name for name in names]


def _encoders(model: Model, language: str) -> Iterator[tuple[str, Sequence[str], Encoder]]:
  """Yields (name of the folder inside the exported one, its languages, its encoder)."""
  pretrained, tuned = model.pretrained, model.finetuned
  options = pretrained.model
  if language:
    model.check_language(language)
  if tuned:
    code = language or tuned.run.language
    (theta, phi_i, _), index = testing.routed_parameters(tuned.run, pretrained, tuned.weights, code)
    theta, phi_i = jax.device_get((theta, phi_i))
    yield "", (code,), encoder.of_one_language(options, theta, phi_i, index)
    return
  if not pretrained.has_head:
    raise UserError(
      f"{model.path} has no language-model head; export a model that fills masks, or a fine-tuned one."
    )
  codes = (language,) if language else pretrained.languages
  if len(codes) > 1 and encoder.is_shared(options):
    yield "", codes, encoder.of_all_languages(options, model.theta, model.phi)
    return
  for code in codes or ("",):  # an imported model may not know its languages
    index = pretrained.language_index(code)
    phi_i = select_language(model.phi, index)
    found = encoder.of_one_language(options, model.theta, phi_i, index)
    yield code if len(codes) > 1 else "", (code,) if code else (), found


def _write(
  out: pathlib.Path, name: str, model: Model, found: Encoder, languages: Sequence[str]
) -> str:
  """Writes one folder and returns its name inside `out`."""
  folder, tuned, head = out / name, model.finetuned, None
  if tuned:
    head = heads.of_task(tuned.run.task, tuned.labels, tuned.weights["head"], found.family)
  write_weights = (xlm_weights if found.family == "xlm" else bert_weights).write_hugging_face
  write_weights(
    folder,
    found.options,
    found.theta,
    found.phi,
    languages,
    head=head.weights if head else None,
    more=head.config if head else None,
  )
  for file, contents in tokenizer_files.files(model.tokenizer, found.options.max_length).items():
    write_json(folder / file, contents)
  write_text(folder / "README.md", card.text(model, found, languages, head))
  return name
