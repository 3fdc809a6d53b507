"""Which jobs of a study are finished in packs, so that they need not run here."""

import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from launch.study.jobs import Job
from negint import config_file
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
    jobs: of the study, each after what it needs.

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
    if ours in theirs and all(name in finished for name in job.needs):
      finished.add(job.name)
    elif theirs:
      others.append(job.name)
  return Packed(frozenset(finished), tuple(others))


def needed_weights(jobs: Sequence[Job], finished: set[str], here: set[str]) -> set[str]:
  """Returns the finished jobs without weights here that unfinished ones start from.

  Args:
    jobs: of the study, each after what it needs.
    finished: names of those that are done, here or in packs.
    here: names of those that are done here.
  """
  again: set[str] = set()
  for job in reversed(jobs):
    if job.name not in finished or job.name in again:
      again |= {name for name in job.needs if name in finished and name not in here}
  return again


def _comparable(config: dict) -> dict:
  """Returns a config's fields without places; what it starts from has its folder's name only."""
  fields = {k: v for k, v in config_file.flatten(config) if k not in PLACES}
  if "init_from" in fields:
    fields["init_from"] = pathlib.PurePath(fields["init_from"]).name
  return fields
