"""A run's folder: made for one configuration, refused to any other, never overwritten."""

import contextlib
import json
import pathlib

from negint.errors import Interrupted, UserError
from negint.finetuning.options import TASKS, setting_of
from negint.run import interrupt
from negint.run.files import read_json, write_json
from negint.run.lock import exclusive


def default_workdir(config) -> pathlib.Path:
  """runs/<system>-<languages>-<scale>-seed<k>; of a task, <task>-<setting>-<language>-<that run>,
  with what differs from the defaults, and its own seed; of an analysis, <analysis>-<that run>."""
  if config.task == "pretrain":
    languages = "-".join(config.languages)
    return pathlib.Path("runs") / f"{config.system}-{languages}-{config.scale}-seed{config.seed}"
  run = pathlib.Path(config.init_from).name
  if config.task not in TASKS:
    return pathlib.Path("runs") / f"{config.task}-{run}-seed{config.seed}"
  names = [config.task, setting_of(config.language, config.source_language), config.language, run]
  names += [config.baseline] if config.baseline != "none" else []
  names += [f"route_{config.route}"] if config.route != "target" else []
  names += ["search"] if config.search != "none" else []
  names += ["frozen"] if config.freeze_phi else []
  return pathlib.Path("runs") / "-".join([*names, f"seed{config.seed}"])


def check_workdir(workdir: pathlib.Path, config) -> dict | None:
  """Whether this configuration may use the folder; changes nothing.

  Returns:
    The result of a finished run, or None if there is something to do.

  Raises:
    UserError: the folder belongs to another configuration, or holds no run at all.
  """
  if workdir.exists() and not workdir.is_dir():
    raise UserError(f"--workdir={workdir} is a file; choose an empty or a new folder.")
  path = workdir / "config.json"
  if not path.exists():
    if workdir.exists() and any(workdir.iterdir()):
      raise UserError(
        f"--workdir={workdir} is not empty and holds no run (it has no config.json); choose an "
        "empty or a new folder."
      )
    return None
  theirs, ours = read_json(path), _plain(config)
  differing = [
    f"{name}: {old!r} there, {new!r} here"
    for name, (old, new) in sorted(_differences(theirs, ours).items())
  ]
  if differing:
    raise UserError(
      f"--workdir={workdir} holds a run of another configuration ({'; '.join(differing)}). Choose "
      "another --workdir, or give the same values to go on with that run."
    )
  result = workdir / "result.json"
  return read_json(result) if result.exists() else None


def claim_workdir(workdir: pathlib.Path, config):
  """Makes the folder this configuration's own: from here on every other is refused."""
  workdir.mkdir(parents=True, exist_ok=True)
  if not (workdir / "config.json").exists():
    write_json(workdir / "config.json", _plain(config))


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, config):
  """The folder in this process's hands: claims and locks it, and gives the Interruption to poll."""
  claim_workdir(workdir, config)
  with (
    exclusive(workdir / ".lock", f"running in {workdir}"),
    interrupt.caught() as interruption,
  ):
    try:
      yield interruption
    except Interrupted as error:
      raise Interrupted(
        f"{error}; the state is saved in {workdir}: start the same command again to go on."
      ) from None


def tie_to_data(workdir: pathlib.Path, key: str):
  """Remembers which data the run reads; UserError if it began with other data."""
  path = workdir / "data.json"
  if not path.exists():
    write_json(path, {"tokens": key})
  elif (there := read_json(path)["tokens"]) != key:
    raise UserError(
      f"--workdir={workdir} began with the token cache {there}, but the corpora now give {key}: they "
      "were prepared anew since. Choose another --workdir, or bring the old corpora back."
    )


def _plain(config) -> dict:
  return json.loads(json.dumps(config.to_dict()))


def _flatten(tree, prefix=""):
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from _flatten(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


def _differences(theirs: dict, ours: dict) -> dict:
  theirs, ours = dict(_flatten(theirs)), dict(_flatten(ours))
  return {
    name: (theirs.get(name), ours.get(name))
    for name in theirs.keys() | ours.keys()
    if theirs.get(name) != ours.get(name) or (name in theirs) != (name in ours)
  }
