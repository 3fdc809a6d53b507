"""Reads a model from the folder of a run or of a Hugging Face checkpoint."""

import os
import pathlib
from typing import Any

from ml_collections import ConfigDict

from negint.errors import UserError
from negint.finetuning import options, weights
from negint.inference.messages import without_flag
from negint.inference.model import Finetuned, Model
from negint.pretrained.load import Pretrained, load_pretrained
from negint.run.files import read_json
from negint.tasks.table import TASKS

_FLAG = "--config.init_from"


def load(path: str | os.PathLike[str], *, seed: int | None = None) -> Model:
  """Returns the model in a folder, see `negint.load`."""
  folder = pathlib.Path(path).expanduser()
  config: dict[str, Any] = {}  # Any: of JSON
  if (folder / "config.json").is_file():
    config = read_json(folder / "config.json", f"{folder}; copy that folder again, or name another")
  if config.get("task") in TASKS:
    return _load_finetuned(folder, config, seed)
  if seed is not None:
    raise UserError(f"seed is {seed}, but {folder} is not a fine-tuning run; leave seed out.")
  with without_flag(_FLAG):
    pretrained = load_pretrained(str(folder))
  return Model(str(folder), config, pretrained)


def _load_finetuned(folder: pathlib.Path, config: dict[str, Any], seed: int | None) -> Model:
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
  _check_same(folder, pretrained, result["pretraining"])
  return Model(
    str(folder), config, pretrained, Finetuned(run, tuple(result["labels"]), seed, tuned)
  )


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


def _check_same(folder: pathlib.Path, pretrained: Pretrained, then: dict[str, Any]) -> None:
  """Raises UserError if the pretrained model is another one than the fine-tuning started from."""
  now = pretrained.identity()
  changed = [
    f"{name} {then[name]} then, {now[name]} now"
    for name in now
    if name != "workdir" and name in then and then[name] != now[name]
  ]
  if changed:
    raise UserError(
      f"{folder} was fine-tuned from another model than {pretrained.workdir} has now "
      f"({'; '.join(changed)}): bring the old one back, or fine-tune anew in another folder."
    )
