"""What a study takes, by steps that are measured here: the sum by kind of job, and the hours.

Jobs whose steps have one shape are measured once, one shape of each kind of job first. What is left
when the time is up counts with the rates of what was measured of its kind.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ml_collections import ConfigDict

from launch.study import cost
from launch.study.jobs import Job
from launch.study.sharing import shares_of_cores, shares_of_gpus
from negint import options, pretrain
from negint.finetuning import options as finetuning
from negint.method import flops, memory
from negint.method.masking import num_predicted
from negint.method.steps import EVAL_MASK_RATE
from negint.options import AUTO, RunOptions
from negint.out_of_memory import amount
from negint.plan import measure, pretraining, tuning
from negint.run import compiled
from negint.run.progress import duration

BUDGET = 75.0  # seconds of measuring; what has begun is finished
EACH = 1.0  # seconds that a step is timed
WARM = 0.25  # share of a compilation's time that its tracing and reading its program take
IMPORTS = """
import jax, tensorboardX
import negint.main
from negint import pretrain
from negint.finetuning import finetune
jax.devices()
"""


class Measured(NamedTuple):
  """What one shape of step takes."""

  rate: float  # counted FLOPs per second
  compiling: float  # seconds in each job: tracing, and reading the program from the cache
  first: float  # seconds more in the first job, which compiles it
  need: int  # bytes


def plan(
  jobs: Sequence[Job], all_jobs: Sequence[Job], runs: str, *, at_once: int, gpus: int
) -> str:
  """Returns the plan of a study as text. This process takes the place of one job.

  Args:
    jobs: that are left.
    all_jobs: of the study; those that `jobs` start from are among them.
    runs: folder of the runs; programs that it keeps are not compiled again.
    at_once: jobs at the same time.
    gpus: that they share; 0: none.
  """
  take_a_slot(at_once, gpus)
  start = seconds_to_start()
  with kept_programs(pathlib.Path(runs)):
    return _plan(jobs, all_jobs, start, at_once, gpus)


def _plan(
  jobs: Sequence[Job], all_jobs: Sequence[Job], start: float, at_once: int, gpus: int
) -> str:
  runs = {job.name: run_of(job.config) for job in all_jobs if job.config.task == "pretrain"}
  groups: dict[Hashable, list[Job]] = collections.defaultdict(list)
  for job in jobs:
    groups[shape_of(job, runs)].append(job)
  order = in_order(groups)
  found: dict[Hashable, Measured] = {}
  until = time.perf_counter() + BUDGET
  for shape in order:
    if time.perf_counter() > until:
      break
    if (measured := measured_of(groups[shape][0], runs)) is not None:
      found[shape] = measured
  seconds: dict[str, list[float]] = collections.defaultdict(list)
  for shape, those in groups.items():
    taken = found.get(shape) or mean_of(like(shape, groups, found))
    for number, job in enumerate(those):
      seconds[label_of(job)].append(
        start + taken.compiling + (number == 0) * taken.first + work_of(job, runs, taken)
      )
  return text(seconds, len(found), len(groups), at_once, gpus, mean_of(found.values()).need)


def take_a_slot(at_once: int, gpus: int) -> None:
  """Gives this process the cores and the share of a GPU that one job has, before JAX looks."""
  if cores := shares_of_cores(at_once)[0]:
    os.sched_setaffinity(0, cores)
  os.environ.update(shares_of_gpus(at_once, gpus, os.environ)[0])


def seconds_to_start() -> float:
  """Returns the seconds in which a new process imports what a job needs, and finds its device."""
  began = time.perf_counter()
  subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True)
  return time.perf_counter() - began


@contextlib.contextmanager
def kept_programs(runs: pathlib.Path) -> Iterator[None]:
  """Compiles with the cache of the runs, if there is one; else with one that is deleted."""
  with tempfile.TemporaryDirectory(prefix="negint-plan-") as name:
    there = runs / ".jax_cache"
    compiled.keep_in(there if there.is_dir() else pathlib.Path(name))
    yield


def run_of(config: ConfigDict) -> RunOptions:
  """Returns the options of a pretraining, as if it started from random weights."""
  config = pretrain.decide(config, None, lambda line: None)
  run = options.from_config(config, num_devices=1)
  return dataclasses.replace(run, init_from="", new_language="")


def shape_of(job: Job, runs: Mapping[str, RunOptions]) -> Hashable:
  """Returns what jobs have in common whose steps take equally long."""
  config = job.config
  if config.task == "pretrain":
    return config.task, of_steps(runs[job.name])
  run = model_of(job, runs)
  if config.task in cost.ANALYSES or run is None:
    return config.task, run and run.model, job.kind
  tuning_of = config.baseline == "majority", config.train.batch_size, config.data.max_length
  # Neither changes an update, which has one language.
  model = run.model.replace(num_languages=1, language_embedding=False)
  return config.task, model, *tuning_of


def of_steps(run: RunOptions) -> RunOptions:
  """Returns the options without what does not change the arithmetic of a step."""
  empty = dataclasses.replace(
    run.data, source="", dir="", subsample=0, tokenizer_from="", lab=options.LabOptions(0.0, 0, 0)
  )
  return dataclasses.replace(
    run,
    system="",
    scale="",
    seed=0,
    languages=("",) * len(run.languages),
    data=empty,
    schedule=options.ScheduleOptions(1, 1.0, 0, "constant"),
    gradient_similarity=options.GradientSimilarityOptions(0, 0, 0),
    phi_rate=1.0,
    meta=dataclasses.replace(run.meta, inner_learning_rate=0.0),
  )


def model_of(job: Job, runs: Mapping[str, RunOptions]) -> RunOptions | None:
  """Returns the pretraining that a job starts from; None for an imported model."""
  return runs[job.model.name] if job.model else None


def measured_of(job: Job, runs: Mapping[str, RunOptions]) -> Measured | None:
  """Returns what a job's steps take; None where they are not measured."""
  config = job.config
  if config.task == "pretrain":
    return of_pretraining(runs[job.name])
  run = model_of(job, runs)
  if config.task in cost.ANALYSES or run is None or config.baseline == "majority":
    return None
  model = pretraining.chosen(run, memory.limit())[0].model if run.model.remat == AUTO else run.model
  seconds, count, late = tuning.random_update(finetuning.from_config(config, 1), model, EACH)
  rate = count / seconds * cost.TUNING_RATE / cost.PRETRAINING_RATE  # rows are shorter
  return Measured(rate, late.next_time, late.wasted, 0)


def of_pretraining(run: RunOptions) -> Measured:
  """Returns what a pretraining's steps take, on random tokens."""
  with measure.cache_misses() as misses:
    began = time.perf_counter()
    run, need, _ = pretraining.chosen(run, memory.limit())
    took = time.perf_counter() - began
  compiling = WARM * took if misses else took
  setting = pretraining.Setting(run, pretraining.random_cache(run), None, is_real=False)
  steps = pretraining.Steps(setting)
  each = measure.seconds_of(steps.take, EACH)
  return Measured(flops.step(run) / each, compiling, took - compiling, need.total)


def in_order(groups: Mapping[Hashable, Sequence[Job]]) -> list[Hashable]:
  """Returns the shapes in the order of measuring: one of each kind of job, then the others.

  Those whose jobs are estimated to take longest come first.
  """
  longest = sorted(groups, key=lambda shape: -sum(job.seconds for job in groups[shape]))
  seen: collections.Counter[str] = collections.Counter()
  rank = {}
  for shape in longest:
    rank[shape] = seen[label := label_of(groups[shape][0])]
    seen[label] += 1
  return sorted(longest, key=lambda shape: rank[shape])


def like(
  shape: Hashable, groups: Mapping[Hashable, Sequence[Job]], found: Mapping[Hashable, Measured]
) -> list[Measured]:
  """Returns what was measured of the same kind of job; without any, of the same part of a study."""
  label = label_of(groups[shape][0])
  for is_like in (lambda other: other == label, lambda other: other.split()[0] == label.split()[0]):
    if those := [each for key, each in found.items() if is_like(label_of(groups[key][0]))]:
      return those
  return list(found.values())


def mean_of(found: Collection[Measured]) -> Measured:
  """Returns the means over what was measured, and the largest memory; the rates of `cost` for none."""
  if not found:
    return Measured(cost.PRETRAINING_RATE, 0.0, 0.0, 0)
  columns = zip(*found, strict=True)
  *means, needs = ([float(value) for value in column] for column in columns)
  return Measured(*map(statistics.fmean, means), int(max(needs)))


def work_of(job: Job, runs: Mapping[str, RunOptions], taken: Measured) -> float:
  """Returns the seconds of a job after its start.

  Args:
    job: of the study.
    runs: the options of the pretrainings, by name.
    taken: of its steps.
  """
  if job.config.task == "pretrain":
    run = runs[job.name]
    count = cost.pretraining_flops(run) + evaluation_flops(run)
    return count / taken.rate
  return cost.later_flops(job.config, model_of(job, runs)) / taken.rate


def evaluation_flops(run: RunOptions) -> float:
  """Returns about the FLOPs of a run's evaluations."""
  count = 1 + (run.schedule.steps - 1) // run.eval_every
  length = run.data.sequence_length
  sequences = len(run.languages) * pretraining.VALID_TOKENS[run.data.source] / length
  splits = 2 if run.held_out_languages else 1
  predicted = num_predicted(EVAL_MASK_RATE, length)
  return count * splits * sequences * flops.forward(run.model, length, predicted)


def label_of(job: Job) -> str:
  """Returns the kind of a job in the table."""
  if job.config.task == "pretrain":
    return f"pretraining {job.kind}"
  return f"analysis {job.kind}" if job.config.task in cost.ANALYSES else f"fine-tuning {job.kind}"


def text(
  seconds: Mapping[str, Sequence[float]],
  measured: int,
  shapes: int,
  at_once: int,
  gpus: int,
  need: int,
) -> str:
  """Returns the table of a plan.

  Args:
    seconds: of each job, by kind.
    measured: shapes of steps that were measured.
    shapes: of steps that there are.
    at_once: jobs at the same time.
    gpus: that they share; 0: none.
    need: bytes of the largest step.
  """
  total = sum(map(sum, seconds.values()))
  count = sum(map(len, seconds.values()))
  width = max(map(len, seconds), default=0)
  lines = [
    f"{kind:<{width}}  {len(each):>4} jobs  {duration(sum(each)):>13}  "
    f"({duration(statistics.fmean(each))} each)"
    for kind, each in seconds.items()
  ]
  spread = f" and --gpus={gpus}" if gpus else ""
  largest = f" The largest step that was measured needs {amount(need)}." if need else ""
  return "\n".join(
    [
      *lines,
      f"{count} jobs take {duration(total)} one after another, {duration(total / at_once)} with "
      f"--jobs={at_once}{spread}, at the speed of one job on its share of this machine.{largest}",
      f"{measured} of {shapes} shapes of steps were measured; the others count with their mean rates.",
    ]
  )
