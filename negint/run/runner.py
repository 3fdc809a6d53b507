"""The life that all kinds of runs share: check, claim, work, result.

A run has a config and a folder of its own. Started again, it resumes; finished, it prints its result.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from negint import out_of_memory
from negint.method import parallel
from negint.run import workdir as workdirs
from negint.run.files import write_json
from negint.run.interrupt import Interruption

Say = Callable[[str], object]


class Place(NamedTuple):
  """Where and how a run works."""

  workdir: pathlib.Path  # its folder, claimed
  interruption: Interruption  # to ask between steps
  say: Say  # receives sentences for the user


@dataclasses.dataclass(frozen=True)
class Kind:
  """What one kind of run does.

  Attributes:
    from_config: (config, number of devices) -> options. UserError at the first broken rule.
    prepare: (options, say) -> inputs. Opens models and data and refuses what cannot run; writes
      nothing into the run's folder.
    work: (options, inputs, place) -> the contents of result.json. Resumes what the folder holds.
    summary: (result, folder) -> the text that ends the run.
    remedies: (options, say) -> flags that lower the memory, the most helpful first.
    complete: (config, the config that no flag has changed) -> the config with what it takes from the
      model that it starts from; before all others.
    decide: (config, the config on record in the run's folder or None, say) -> the config with a dtype in
      the place of `auto`, the one on record if there is one.
  """

  from_config: Callable[[ConfigDict, int], Any]
  prepare: Callable[[Any, Say], Any]
  work: Callable[[Any, Any, Place], dict]
  summary: Callable[[dict, pathlib.Path], str]
  remedies: Callable[[Any, Say], out_of_memory.Remedies]
  complete: Callable[[ConfigDict, ConfigDict], ConfigDict] = lambda config, default: config
  decide: Callable[[ConfigDict, dict | None, Say], ConfigDict] = lambda config, there, say: config


def smaller_batches(sizes: dict[str, int]) -> out_of_memory.Remedies:
  """Returns flags that halve batches; activations are most of the memory, and each follows its batch.

  Args:
    sizes: field of the config -> sequences or rows of the batch, which all devices share.
  """
  num_devices = parallel.num_devices()
  halves = {field: size // 2 // num_devices * num_devices for field, size in sizes.items()}
  return [
    (f"--config.{field}={half}", half / sizes[field]) for field, half in halves.items() if half
  ]


def run(kind: Kind, config: ConfigDict, workdir: pathlib.Path, say: Say = print) -> dict:
  """Runs or resumes one run to its end and returns its result.

  Of several processes, all run this; the first one writes the files that are not checkpoints.

  Args:
    kind: what the run does.
    config: of configs/, complete.
    workdir: the run's folder, new or of the same config.
    say: receives sentences for the user.

  Raises:
    UserError: what was asked for cannot run.
    Interrupted: SIGTERM, SIGHUP or Ctrl-C; the state is saved.
    NonFiniteLoss: the loss diverged; the last good checkpoint is kept.
  """
  config = kind.decide(config, workdirs.recorded(workdir), say)
  options = kind.from_config(config, parallel.num_devices())
  finished = workdirs.check_workdir(workdir, config)
  parallel.meet()  # before the first process writes into the folder
  if finished:
    say(f"{workdir} holds this run, finished. Its result:")
    say(kind.summary(finished, workdir))
    return finished
  with out_of_memory.reported(lambda: kind.remedies(options, say)):
    inputs = kind.prepare(options, say)
    with workdirs.claimed(workdir, config) as interruption:
      result = kind.work(options, inputs, Place(workdir, interruption, say))
      if parallel.is_first():
        write_json(workdir / "result.json", result)
  say(kind.summary(result, workdir))
  return result
