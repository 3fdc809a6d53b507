"""The files of a Hugging Face checkpoint: config.json and the arrays of safetensors files."""

import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from negint.errors import UserError
from negint.run.files import damage_reported, read_json, whole_file

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"  # names the file of each array where there are several
LFS_POINTER = b"version https://git-lfs"  # begins a file that Git LFS has not downloaded
CLASSES = {  # model_type of the classes that files of before 2020 name instead
  "XLMRoberta": "xlm-roberta",
  "XLM": "xlm",
  "Roberta": "roberta",
  "Bert": "bert",
}


def require_files(folder: pathlib.Path, names: Sequence[str], why: str) -> None:
  """Checks that files are there.

  Args:
    folder: where.
    names: of the files.
    why: what needs them and what to do, as the end of a sentence.

  Raises:
    UserError: one is missing.
  """
  for name in names:
    if not (folder / name).is_file():
      raise UserError(f"{folder} has no {name}; {why}.")


def part_of(folder: pathlib.Path) -> str:
  """Returns what a damaged file of a Hugging Face folder belongs to, for `files.read_json`."""
  return f"the Hugging Face checkpoint {folder}; download it again"


def read_checkpoint_json(path: pathlib.Path) -> dict:
  """Returns the JSON object in a file of a Hugging Face folder; UserError if it is damaged."""
  return read_json(path, part_of(path.parent))


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """Returns config.json of a Hugging Face folder, with its model_type.

  Raises:
    UserError: it is missing or damaged, or does not say what it is the config of.
  """
  path = folder / "config.json"
  require_files(folder, (path.name,), "a Hugging Face folder needs config.json")
  config = read_checkpoint_json(path)
  if "model_type" in config:
    return config
  name = (config.get("architectures") or [""])[0]
  for beginning, model_type in CLASSES.items():
    if name.startswith(beginning):
      return {**config, "model_type": model_type}
  if not name and "n_heads" in config:
    return {**config, "model_type": "xlm"}
  raise UserError(
    f"{path} has no model_type, and architectures is {name!r}: add the model_type of this checkpoint, "
    'for example "model_type": "bert", or name another folder.'
  )


def check_fixed(folder: pathlib.Path, config: dict[str, Any], fixed: dict[str, Any]) -> None:
  """Checks fields of config.json that have a single possible value here.

  Args:
    folder: of the checkpoint.
    config: its config.json.
    fixed: field -> the value that it must have if it is there.

  Raises:
    UserError: one has another value.
  """
  for field, wanted in fixed.items():
    if config.get(field) not in (None, wanted):
      raise UserError(
        f"{folder}/config.json: {field} is {config[field]!r}; only {wanted!r} works: name another "
        f"{config['model_type']} checkpoint."
      )


def check_all_named(
  leaves: Collection[tuple[str, ...]], named: Collection[tuple[str, ...]]
) -> None:
  """Checks that a layout has a name for each array, so that none is left out of its file.

  Args:
    leaves: paths of the arrays in theta and phi.
    named: paths that the layout has names for.

  Raises:
    UserError: an array has none.
  """
  if lost := sorted("/".join(path) for path in set(leaves) - set(named)):
    raise UserError(
      f"A Hugging Face folder has no name for {', '.join(lost[:3])}{', ...' * (len(lost) > 3)}: export a "
      "model without these parameters, or give them names in negint/pretrained."
    )


def array_names(folder: pathlib.Path) -> set[str]:
  """Returns the names of the arrays that `read_arrays` reads; nothing is checked."""
  if (folder / WEIGHTS).is_file():
    with safe_open(folder / WEIGHTS, framework="np") as file:
      return set(file.keys())
  return set(read_checkpoint_json(folder / INDEX)["weight_map"])


def read_arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of model.safetensors, or of the files that its index names.

  Raises:
    UserError: a file is missing or damaged, or lacks an array that the index expects in it.
  """
  index = folder / INDEX
  if (folder / WEIGHTS).is_file() or not index.is_file():
    why = f"a Hugging Face folder needs config.json and {WEIGHTS}, or shards with {index.name}"
    if any(folder.glob("pytorch_model*.bin")):
      why += f". Pickled .bin files are not read; transformers converts them: {_conversion(folder)}"
    require_files(folder, (WEIGHTS,), why)
    return read_safetensors(folder / WEIGHTS)
  with damage_reported(index, part_of(folder)):
    shard_of = read_checkpoint_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
      raise ValueError("it has no weight_map")
  shards = sorted(set(shard_of.values()))
  require_files(folder, shards, f"{index.name} names it; download all {len(shards)} shards")
  arrays: dict[str, np.ndarray] = {}
  for shard in shards:
    arrays |= read_safetensors(folder / shard)
  for name, shard in shard_of.items():
    if name not in arrays:
      raise UserError(
        f"{folder / shard} has no {name}, which {index.name} expects in it. It is part of "
        f"{part_of(folder)}."
      )
  return arrays


def _conversion(folder: pathlib.Path) -> str:
  """Returns the command with which transformers turns .bin files into safetensors.

  It names the class that the checkpoint was saved as: another one adds random heads, or leaves heads out.
  """
  names = read_config(folder).get("architectures")
  code = (
    f"import transformers; transformers.{names[0] if names else 'AutoModel'}"
    f".from_pretrained('{folder}').save_pretrained('{folder}')"
  )
  unknown = "" if names else " (AutoModelForMaskedLM if it has a language-model head)"
  return f'python -c "{code}"{unknown}'


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Returns the arrays of a file; UserError if it is damaged."""
  with path.open("rb") as file:
    is_pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
  if is_pointer:
    raise UserError(
      f"{path} is a pointer of Git LFS and not the file itself: get it with git lfs pull."
    )
  try:
    return load_file(path)
  except SafetensorError as error:
    raise UserError(
      f"{path} is damaged ({error}). It is part of {part_of(path.parent)}."
    ) from error


def write_safetensors(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
  """Writes arrays into a file, as transformers and `read_safetensors` read it."""
  with whole_file(path, "wb") as file:
    file.write(save(arrays, metadata={"format": "pt"}))
