"""Which jobs of a study are finished, in the folder of its runs and in packs.

A job is finished where a run has a result and the job's config, and so has every run that it started
from. The folders of the data may differ.
"""

import collections
import json
import pathlib
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from launch.study.jobs import Job
from negint import config_file
from negint.options import AUTO
from negint.run.pack import packed_configs
from negint.run.workdir import recorded

# Fields that say where something lies, which differs from machine to machine.
PLACES = ("data.dir", "data.tasks_dir", "data.tfds_dir")


class Packed(NamedTuple):
  """What packs hold of a study."""

  finished: frozenset[str]  # names of jobs
  others: tuple[str, ...]  # names of jobs that the packs have with another config


def in_folder(runs: pathlib.Path, jobs: Sequence[Job]) -> set[str]:
  """Returns the names of the jobs that are finished in a folder of runs.

  Where a folder has a run of another config, the job's command says so.

  Args:
    runs: the folder.
    jobs: of the study, each after its model.
  """
  finished: set[str] = set()
  others: set[str] = set()
  for job in jobs:
    if not (runs / job.name / "result.json").exists():
      continue
    there = recorded(runs / job.name)
    is_same = there is not None and _agree(_fields(job), _comparable(there))
    if is_same and not (job.model and job.model.name in others):
      finished.add(job.name)
    else:
      others.add(job.name)
  return finished


def in_packs(packs: Sequence[pathlib.Path], jobs: Sequence[Job]) -> Packed:
  """Returns what packs hold of a study, under any name.

  Args:
    packs: files.
    jobs: of the study, each after its model.

  Raises:
    UserError: a file is no pack.
  """
  finished: set[str] = set()
  others: list[str] = []
  named: set[str] = set()
  alike: dict[Hashable, list[dict]] = collections.defaultdict(list)
  for file in packs:
    for place, config in packed_configs(file).items():
      named.add(place)
      fields = _comparable(config)
      alike[_kind(fields)].append(fields)
  for job in jobs if named else ():
    ours = _fields(job)
    is_ready = job.model is None or job.model.name in finished
    if is_ready and any(_agree(ours, theirs) for theirs in alike[_kind(ours)]):
      finished.add(job.name)
    elif job.name in named:
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


def _fields(job: Job) -> dict:
  return _comparable(json.loads(json.dumps(job.config.to_dict())))


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


def _kind(fields: dict) -> Hashable:
  """Returns fields that all jobs have, so that a job is compared with few runs."""
  return tuple(str(fields.get(name)) for name in ("task", "system", "init_from", "seed"))
