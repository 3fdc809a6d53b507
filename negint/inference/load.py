"""Reads a model from the folder of a run or of a Hugging Face checkpoint."""

import os
import pathlib
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from negint.errors import UserError
from negint.finetuning import options, weights
from negint.inference.messages import without_flag
from negint.inference.model import Finetuned, Model
from negint.method import device
from negint.options import AUTO, DTYPES, check_choice
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run.files import read_json
from negint.tasks.table import TASKS

_FLAG = "--config.init_from"


def load(path: str | os.PathLike[str], *, seed: int | None = None, dtype: str = AUTO) -> Model:
  """Returns the model in a folder, see `negint.load`."""
  check_choice("dtype", dtype, (AUTO, *DTYPES))
  folder = pathlib.Path(path).expanduser()
  config: dict[str, Any] = {}  # Any: of JSON
  if (folder / "config.json").is_file():
    config = read_json(folder / "config.json", f"{folder}; copy that folder again, or name another")
  if config.get("task") in TASKS:
    return _load_finetuned(folder, config, seed, dtype)
  if seed is not None:
    raise UserError(f"seed is {seed}, but {folder} is not a fine-tuning run; leave seed out.")
  with without_flag(_FLAG):
    pretrained = load_pretrained(str(folder))
  trained = pretrained.model.dtype if pretrained.origin else None
  return Model(str(folder), config, pretrained, dtype=_dtype(dtype, trained))


def _load_finetuned(
  folder: pathlib.Path, config: dict[str, Any], seed: int | None, dtype: str
) -> Model:
  """Returns the model of a finished fine-tuning run."""
  if not (folder / "result.json").is_file():
    raise UserError(
      f"{folder} is a fine-tuning run that is not finished: it has no result.json. Start its command "
      "again to finish it, or name another folder."
    )
  # The batch sizes of that run need not divide by the number of devices here, but by 1 they do.
  run = options.from_config(ConfigDict(config), num_devices=1)
  if run.baseline == "majority":
    raise UserError(
      f"{folder} is a run of --config.baseline=majority, which has no model; name another run."
    )
  part_of = f"the run in {folder}; delete it and start the run's command again, which makes it anew"
  result = read_json(folder / "result.json", part_of)
  seeds = range(run.seed, run.seed + run.seeds)
  if seed is None:
    seed = run.seed
  if seed not in seeds:
    raise UserError(f"seed is {seed}, but {folder} has {', '.join(map(str, seeds))}.")
  entry = read_json(folder / f"seed{seed}" / "seed.json", part_of)
  tuned = weights.read(folder / f"seed{seed}", entry.get("weights"))
  start = _start_of(folder, run.init_from)
  with without_flag(_FLAG):
    pretrained = load_pretrained(str(start), scratch=run.baseline == "scratch")
  _check_same(folder, pretrained, result["pretraining"], tuned["theta"])
  finetuned = Finetuned(run, tuple(result["labels"]), seed, tuned)
  chosen = _dtype(dtype, result["dtype"])
  return Model(str(folder), config, pretrained, finetuned, dtype=chosen)


def _dtype(asked: str, trained: str | None) -> str:
  """Returns the dtype to compute in.

  Args:
    asked: one of DTYPES; AUTO: the fastest of the devices, but never less exact than `trained`.
    trained: the one that the model was trained in; None if it is not known.
  """
  if asked != AUTO:
    return asked
  fast, _ = device.fast_dtype(jax.devices())
  return fast if trained is None else min(trained, fast, key=device.ASCENDING.index)


def _start_of(folder: pathlib.Path, init_from: str) -> pathlib.Path:
  """Returns the folder of the model that a fine-tuning started from: as it names it, or beside it."""
  named = pathlib.Path(init_from).expanduser()
  for place in (named, folder.absolute().parent / named.name):
    if place.is_dir():
      return place
  raise UserError(
    f"{folder} was fine-tuned from {init_from}, whose tokenizer and languages it needs, and which is "
    f"neither there (looked from {pathlib.Path.cwd()}) nor beside it: put that folder beside it."
  )


# Any: of JSON; a tree of arrays.
def _check_same(
  folder: pathlib.Path, pretrained: Pretrained, then: dict[str, Any], theta: Any
) -> None:
  """Raises UserError if the pretrained model is another one than the fine-tuning started from.

  Args:
    folder: of the fine-tuning run.
    pretrained: the model that is there now.
    then: its identity when the fine-tuning started. Earlier versions recorded fewer fields.
    theta: as fine-tuned, with the shapes that the model had.
  """
  now = pretrained.identity()
  changed = [
    f"{name} {then[name]} then, {now[name]} now"
    for name in now
    if name != "workdir" and name in then and then[name] != now[name]
  ]
  there, here = _shapes(theta), _shapes(pretrained.theta)
  changed += [
    f"theta/{name} of shape {there.get(name)} then, {here.get(name)} now"
    for name in sorted(there.keys() | here.keys())
    if there.get(name) != here.get(name)
  ][:1]
  if changed:
    raise UserError(
      f"{folder} was fine-tuned from another model than {pretrained.workdir} has now "
      f"({'; '.join(changed)}): bring the old one back, or fine-tune anew in another folder."
    )


# Any: a tree of arrays.
def _shapes(theta: Any) -> dict[str, tuple[int, ...]]:
  """Returns {name of a parameter: its shape}."""
  leaves = traverse_util.flatten_dict(theta, sep="/")
  return {name: np.shape(leaf) for name, leaf in leaves.items()}
