"""Adapters beside an exported encoder: adapters.safetensors, under the names of the paper's authors.

A name is `adapter1.<language>.<layer>.lin1.weight`: adapter1 stands after the attention, adapter2 after
the feed-forward layer, lin1 is W1 and lin2 W2 of Eqs. 6 and 7.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from negint.errors import UserError
from negint.options import ModelOptions
from negint.pretrained.checkpoint_files import part_of, read_safetensors, write_safetensors

FILE = "adapters.safetensors"
# Our fields of config.json.
DIM, ACTIVATION, LANGUAGES = "adapter_dim", "adapter_activation", "adapter_languages"


def names(num_layers: int) -> dict[tuple[str, ...], tuple[str, bool]]:
  """Returns path of a parameter -> (its name with {} for the language, whether that is its transpose)."""
  found: dict[tuple[str, ...], tuple[str, bool]] = {}
  for n in range(num_layers):
    for module, adapter in (("attention_adapter", "adapter1"), ("ffn_adapter", "adapter2")):
      for layer, linear in (("inner", "lin1"), ("outer", "lin2")):
        path, name = (f"layers_{n}", module, layer), f"{adapter}.{{}}.{n}.{linear}"
        found[*path, "kernel"] = f"{name}.weight", True
        found[*path, "bias"] = f"{name}.bias", False
  return found


def write(
  folder: pathlib.Path, options: ModelOptions, phi: dict, languages: Sequence[str]
) -> dict[str, Any]:
  """Writes the adapters of languages and returns the fields of config.json that `read` needs.

  Args:
    folder: where.
    options: the encoder's shape.
    phi: nested dict of arrays [languages, ...], nothing but adapters; {} writes nothing.
    languages: codes in the order of phi.
  """
  if not phi:
    return {}
  leaves = traverse_util.flatten_dict(phi)
  arrays = {
    name.format(code): np.ascontiguousarray(leaf.T if transpose else leaf)
    for path, (name, transpose) in names(options.num_layers).items()
    for code, leaf in zip(languages, leaves[path], strict=True)
  }
  write_safetensors(folder / FILE, arrays)
  return {
    DIM: options.adapter_dim,
    ACTIVATION: options.adapter_activation,
    LANGUAGES: list(languages),
  }


def read(
  folder: pathlib.Path, config: dict[str, Any], options: ModelOptions
) -> tuple[ModelOptions, dict, tuple[str, ...]]:
  """Returns (options, phi, languages) of an encoder with its adapters.

  Args:
    folder: with adapters.safetensors.
    config: the contents of config.json.
    options: shape of the encoder without them.

  Raises:
    UserError: the file is damaged, or config.json does not tell of it.
  """
  if missing := [field for field in (DIM, ACTIVATION, LANGUAGES) if field not in config]:
    raise UserError(
      f"{folder} has {FILE}, but its config.json has no {', '.join(missing)}; export the model again "
      "with negint.export, or take the adapters away."
    )
  arrays, languages = read_safetensors(folder / FILE), tuple(config[LANGUAGES])
  phi = {}
  for path, (name, transpose) in names(options.num_layers).items():
    theirs = [name.format(code) for code in languages]
    if lost := [each for each in theirs if each not in arrays]:
      raise UserError(f"{folder / FILE} has no {lost[0]}. It is part of {part_of(folder)}.")
    phi[path] = np.stack([arrays[each].T if transpose else arrays[each] for each in theirs])
  options = options.replace(
    num_languages=len(languages),
    specific=("adapter",),
    adapter_dim=config[DIM],
    adapter_activation=config[ACTIVATION],
  )
  return options, traverse_util.unflatten_dict(phi), languages
