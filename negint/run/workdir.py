"""A run's folder: made for one configuration, refused to any other, never overwritten."""

import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from negint.config_file import flatten
from negint.errors import Interrupted, UserError
from negint.method import parallel
from negint.run import interrupt
from negint.run.files import damage_reported, read_json, write_json
from negint.run.interrupt import Interruption
from negint.run.lock import exclusive, is_held

# Fields that begin or end every name, so that they are no differences.
_NAMED = {
  "task",
  "system",
  "languages",
  "scale",
  "language",
  "source_language",
  "init_from",
  "seed",
}
DATA = "data.json"
CHOSEN = "chosen.json"
LOCK = ".lock"  # held while a process runs in the folder
_NOT_SEARCHED = {"checkpoints", "tensorboard", "damaged"}  # of a run's folders
_LONGEST_NAME = 200  # characters; file systems take 255


def default_workdir(config: ConfigDict, default: ConfigDict) -> pathlib.Path:
  """Returns runs/<run_name>."""
  return pathlib.Path("runs") / run_name(config, default)


def run_name(config: ConfigDict, default: ConfigDict, runs: str = "runs") -> str:
  """Returns the name of a run's folder, which no run of another config has.

  A pretraining run is called <system>-<languages>-<scale>, with -from-<the run it starts from> if
  there is one. One that adds a language has no scale of its own. A fine-tuning run is called
  <task>-<within or zero_shot>-<language>-<the run it starts from>, an analysis
  <analysis>-<the run it starts from>. <field>=<value> follows for every field that differs from the
  default, and seed<k> ends each name.

  Args:
    config: the run's config.
    default: the config of the same file and argument without any change.
    runs: folder of all runs, in which the run that it starts from has its name.
  """
  if "system" in config:
    parts = [part for part in (config.system, "-".join(config.languages), config.scale) if part]
    if config.init_from:
      parts += ["from", _name_of(config.init_from, runs)]
  else:
    parts = [config.task]
    if "language" in config:
      within = config.language == config.source_language
      parts += ["within" if within else "zero_shot", config.language]
    parts.append(_name_of(config.init_from, runs))
  leaves = [name.rpartition(".")[2] for name, _ in flatten(config.to_dict())]
  differences = []
  for name, (_, value) in sorted(_differences(default.to_dict(), config.to_dict()).items()):
    if name not in _NAMED:
      leaf = name.rpartition(".")[2]
      differences.append(f"{leaf if leaves.count(leaf) == 1 else name}={_as_name(value)}")
  if sum(map(len, [*parts, *differences])) > _LONGEST_NAME:
    differences = [_digest("-".join(differences))]
  return "-".join([*parts, *differences, f"seed{config.seed}"])


def _name_of(init_from: str, runs: str) -> str:
  """The name of a folder; of one that does not lie in `runs`, with a digest of where it lies."""
  path = pathlib.Path(init_from)
  return path.name if path.parent == pathlib.Path(runs) else f"{path.name}-{_digest(init_from)}"


def _as_name(value: Any) -> str:
  """A value as part of a file name; a digest follows where characters had to be replaced."""
  text = "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
  plain = re.sub("[^A-Za-z0-9_.+-]+", "_", text.strip("/"))
  return plain if plain == text and text else f"{plain[-30:]}-{_digest(text)}".strip("-")


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:6]


def run_folders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders at and below `folder` with a config.json or a result.json, sorted."""
  found = []
  for root, folders, files in os.walk(folder):
    folders[:] = set(folders) - _NOT_SEARCHED
    if "result.json" in files or "config.json" in files:
      found.append(pathlib.Path(root))
  return sorted(found, key=lambda path: path.as_posix())


def recorded(workdir: pathlib.Path) -> dict | None:
  """Returns the configuration that the folder's run has, or None if it holds no run."""
  path = workdir / "config.json"
  part_of = f"the run in {workdir}: delete that folder to start anew, or choose another --workdir"
  return read_json(path, part_of) if path.exists() else None


def check_workdir(workdir: pathlib.Path, config: ConfigDict) -> dict | None:
  """Checks that this configuration may use the folder; changes nothing.

  Returns:
    The result of a finished run, or None if there is something to do.

  Raises:
    UserError: the folder belongs to another configuration, or holds no run at all.
  """
  if workdir.exists() and not workdir.is_dir():
    raise UserError(f"--workdir={workdir} is a file; choose an empty or a new folder.")
  theirs, ours = recorded(workdir), _plain(config)
  if theirs is None:
    if workdir.exists() and any(workdir.iterdir()):
      raise UserError(
        f"--workdir={workdir} is not empty and holds no run (it has no config.json); choose an "
        "empty or a new folder."
      )
    return None
  differing = [
    f"{name}: {old!r} there, {new!r} here"
    for name, (old, new) in sorted(_differences(theirs, ours).items())
  ]
  if differing:
    raise UserError(
      f"--workdir={workdir} holds a run of another configuration ({'; '.join(differing)}). Choose "
      "another --workdir, or give the same values to resume that run."
    )
  result = workdir / "result.json"
  part_of = f"the run in {workdir}; delete it and start the same command again, which makes it anew"
  return read_json(result, part_of) if result.exists() else None


@contextlib.contextmanager
def claimed(workdir: pathlib.Path, config: ConfigDict) -> Iterator[Interruption]:
  """Makes the folder this configuration's own, locks it, and gives the Interruption to ask.

  Of several processes the first one owns the folder, and all are stopped at the same step.
  """
  with contextlib.ExitStack() as stack:
    if parallel.is_first():
      claim_workdir(workdir, config)
      stack.enter_context(exclusive(workdir / LOCK, f"running in {workdir}"))
    interruption = stack.enter_context(interrupt.caught())
    interruption.agree = parallel.Agreement()
    try:
      yield interruption
    except Interrupted as error:
      raise Interrupted(
        f"{error}; the state is saved in {workdir}: start the same command again to resume."
      ) from None


def is_running(workdir: pathlib.Path) -> bool:
  """Returns whether a process runs in the folder."""
  return is_held(workdir / LOCK)


def claim_workdir(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Records the configuration, after which every other one is refused."""
  if not (workdir / "config.json").exists():
    write_json(workdir / "config.json", _plain(config))


class DataRecord(NamedTuple):
  """What data.json says of the data that a run reads."""

  tokens: str  # key of the token cache
  tokenizer: str  # checksum of tokenizer.model


def tie_to_data(workdir: pathlib.Path, here: DataRecord) -> None:
  """Remembers which data the run reads; UserError if it began with other data."""
  if not (workdir / DATA).exists():
    write_json(workdir / DATA, here._asdict())
    return
  there = read_data_record(workdir)
  if there.tokens != here.tokens:
    raise UserError(
      f"--workdir={workdir} began with the token cache {there.tokens}, but the corpora now give "
      f"{here.tokens}: they were prepared anew since. Choose another --workdir, or bring the old "
      "corpora back."
    )
  if there.tokenizer != here.tokenizer:
    raise UserError(
      f"--workdir={workdir} began with another tokenizer than the token cache {here.tokens} has now: "
      "the cache was made anew with another version of SentencePiece. Install the old version and "
      "delete the cache, or choose another --workdir."
    )


def read_data_record(workdir: pathlib.Path) -> DataRecord:
  """Returns what data.json says; UserError if it is damaged or missing."""
  path, part_of = workdir / DATA, f"the run in {workdir}; start that run anew in another folder"
  if not path.is_file():
    raise UserError(f"{path} is missing. It is part of {part_of}.")
  with damage_reported(path, part_of):
    record = read_json(path, part_of)
    if record.keys() != set(DataRecord._fields):
      raise ValueError(f"its entries must be {' and '.join(DataRecord._fields)}")
    return DataRecord(**record)


def chosen(
  workdir: pathlib.Path, field: str, legal: Collection[str], choose: Callable[[], str]
) -> str:
  """Returns what a run chose for a field whose value is `auto`; the same whenever it resumes.

  Args:
    workdir: the run's folder.
    field: such as "model.remat".
    legal: values that can have been chosen.
    choose: returns the choice where the run begins; all processes call it and agree.

  Raises:
    UserError: the record is damaged.
  """
  path, part_of = workdir / CHOSEN, f"the run in {workdir}; start that run anew in another folder"
  record = read_json(path, part_of) if path.is_file() else {}
  if field in record:
    with damage_reported(path, part_of):
      if record[field] not in legal:
        raise ValueError(f"{field} is {record[field]!r}")
    return str(record[field])
  value = choose()
  choose_anew(workdir, field, value)
  return value


def choose_anew(workdir: pathlib.Path, field: str, value: str) -> None:
  """Records a choice in the place of the one that the run began with, if there is one."""
  path = workdir / CHOSEN
  if parallel.is_first():
    record = read_json(path, f"the run in {workdir}") if path.is_file() else {}
    write_json(path, {**record, field: value})


def _plain(config: ConfigDict) -> dict:
  return json.loads(json.dumps(config.to_dict()))


def _differences(theirs: dict, ours: dict) -> dict[str, tuple[Any, Any]]:
  """Returns {"train.steps": (theirs, ours)} of the fields that differ; None where one has none."""
  theirs, ours = dict(flatten(theirs)), dict(flatten(ours))
  return {
    name: (theirs.get(name), ours.get(name))
    for name in theirs.keys() | ours.keys()
    if theirs.get(name) != ours.get(name) or (name in theirs) != (name in ours)
  }
