"""The weights of a fine-tuned model, one file per seed: seed<k>/weights.safetensors."""

import pathlib
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file, save

from negint.errors import UserError
from negint.run.files import checksum, whole_file

NAME = "weights.safetensors"
GROUPS = ("theta", "phi", "head")
Tuned = dict[
  str, Any
]  # {"theta", "phi": the source language's slice, {} if frozen; "head"}; Any: trees


def write(folder: pathlib.Path, tuned: Tuned) -> str:
  """Writes the weights into a seed's folder and returns the file's checksum.

  Args:
    folder: seed<k>.
    tuned: trees of arrays, as `TrialState.best` has them.
  """
  arrays = {
    "/".join(path): np.ascontiguousarray(leaf)
    for path, leaf in traverse_util.flatten_dict(tuned).items()
  }
  with whole_file(folder / NAME, "wb") as file:
    file.write(save(arrays))
  return checksum(folder / NAME)


def read(folder: pathlib.Path, digest: str | None) -> Tuned:
  """Returns the weights in a seed's folder.

  Args:
    folder: seed<k>.
    digest: the checksum that `write` returned; None where the run has recorded none.

  Raises:
    UserError: the file is missing or damaged.
  """
  path = folder / NAME
  again = (
    f"To make it anew, delete {folder / 'seed.json'} and {folder.parent / 'result.json'}, and start "
    "the run's command again."
  )
  if digest is None or not path.is_file():
    raise UserError(f"{path}, the weights of the fine-tuned model, is missing. {again}")
  if checksum(path) != digest:
    raise UserError(
      f"{path}, the weights of the fine-tuned model, is damaged (it has other contents than were "
      f"written). {again}"
    )
  arrays = {tuple(name.split("/")): values for name, values in load_file(path).items()}
  tree = traverse_util.unflatten_dict(arrays)
  return {group: tree.get(group, {}) for group in GROUPS}
