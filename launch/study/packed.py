"""Which jobs of a study are finished in packs, so that they need not run here."""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from launch.study.jobs import Job
from negint import config_file
from negint.options import AUTO
from negint.run.pack import packed_configs

# Fields that say where something lies, which differs from machine to machine.
PLACES = ("data.dir", "data.tasks_dir", "data.tfds_dir")


class Packed(NamedTuple):
  """What packs hold of a study."""

  finished: frozenset[str]  # names of jobs
  others: tuple[str, ...]  # names of jobs that the packs have with another config


def find(packs: Sequence[pathlib.Path], jobs: Sequence[Job]) -> Packed:
  """Returns what packs hold of a study.

  A job is finished there if its config is that of the job, and so is that of every run that it
  started from.

  Args:
    packs: files.
    jobs: of the study, each after its model.

  Raises:
    UserError: a file is no pack.
  """
  finished: set[str] = set()
  others: list[str] = []
  configs: dict[str, list[dict]] = {}
  for file in packs:
    for name, config in packed_configs(file).items():
      configs.setdefault(name, []).append(_comparable(config))
  for job in jobs if configs else ():
    theirs = configs.get(job.name, [])
    ours = _comparable(json.loads(json.dumps(job.config.to_dict())))
    is_ready = job.model is None or job.model.name in finished
    if is_ready and any(_agree(ours, each) for each in theirs):
      finished.add(job.name)
    elif theirs:
      others.append(job.name)
  return Packed(frozenset(finished), tuple(others))


def needed_weights(jobs: Sequence[Job], finished: set[str], here: set[str]) -> set[str]:
  """Returns the finished jobs without weights here that unfinished ones start from.

  Args:
    jobs: of the study, each after its model.
    finished: names of those that are done, here or in packs.
    here: names of those that are done here.
  """
  again: set[str] = set()
  for job in reversed(jobs):
    if job.model and (job.name not in finished or job.name in again):
      again |= {job.model.name} & (finished - here)
  return again


def _agree(ours: dict, theirs: dict) -> bool:
  """Whether a run's fields are those of a job; the run has decided what the job leaves to it."""
  decided = {name: theirs.get(name) for name, value in ours.items() if value == AUTO}
  return ours | decided == theirs


def _comparable(config: dict) -> dict:
  """Returns a config's fields without places; of folders that it reads it has the names only."""
  fields = {k: v for k, v in config_file.flatten(config) if k not in PLACES}
  for name in {"init_from", "data.tokenizer_from"} & fields.keys():
    fields[name] = pathlib.PurePath(fields[name]).name
  return fields
