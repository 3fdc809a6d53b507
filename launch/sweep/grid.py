"""The settings of a sweep, and the job of each."""

import dataclasses
import itertools
from collections.abc import Sequence

from launch.study import cost
from launch.study.jobs import Job
from negint import config_file, options
from negint.errors import UserError
from negint.finetuning import options as finetuning
from negint.run.workdir import run_name

Setting = tuple[tuple[str, str], ...]  # (field, value as written) of each swept field


def parse(grids: Sequence[str]) -> dict[str, list[str]]:
  """Returns {field: its values} of texts such as "train.learning_rate=1e-3,2e-3".

  Raises:
    UserError: a text is not of this form, or names a field or a value twice.
  """
  found: dict[str, list[str]] = {}
  for text in grids:
    field, equals, values = text.partition("=")
    field = field.removeprefix("config.")
    listed = [value.strip() for value in values.split(",")]
    if not equals or not field or not all(listed):
      raise UserError(
        f"--grid={text} is not <field>=<value>,<value>; write --grid=train.learning_rate=1e-3,2e-3."
      )
    if field in found or len(set(listed)) < len(listed):
      raise UserError(f"--grid={text} names a field or a value twice; name each once.")
    found[field] = listed
  return found


def settings(grid: dict[str, list[str]]) -> list[Setting]:
  """Returns every combination of the values; the last field changes fastest."""
  pairs = [[(field, value) for value in values] for field, values in grid.items()]
  return list(itertools.product(*pairs))


def make_jobs(
  spec: str, overrides: Sequence[str], grid: dict[str, list[str]], runs: str
) -> dict[Setting, Job]:
  """Returns the job of each setting.

  Args:
    spec: config and argument.
    overrides: flags of all jobs, such as "--config.train.steps=100".
    grid: {field: its values}.
    runs: folder of the runs.

  Raises:
    UserError: a field does not exist, a value does not fit it, or two settings are the same run.
  """
  jobs: dict[Setting, Job] = {}
  names: dict[str, Setting] = {}
  for setting in settings(grid):
    flags = [*overrides, *(f"--config.{field}={value}" for field, value in setting)]
    config = config_file.load(spec, flags)
    name = run_name(config, config_file.defaults(spec), runs)
    if name in names:
      raise UserError(
        f"--grid: {described(setting)} and {described(names[name])} are the same run; name each "
        "value once."
      )
    names[name] = setting
    kind = config.get("system", config.task)
    job = Job(name, kind, (f"--config={spec}", *flags))
    # A wrong value is found before anything runs.
    if config.task == "pretrain":
      options.from_config(job.config, num_devices=1)
    else:
      finetuning.from_config(job.config, num_devices=1)
    jobs[setting] = dataclasses.replace(job, seconds=cost.seconds(job.config, None))
  return jobs


def described(setting: Setting) -> str:
  """Returns "train.learning_rate=1e-3, seed=1"."""
  return ", ".join(f"{field}={value}" for field, value in setting)
