"""The memory of one pretraining step on this device, printed as JSON; `sharing.probe` starts it.

Its standard input has the run's config.
"""

import json
import sys

from ml_collections import ConfigDict

from launch.study.planned import run_of
from launch.study.sharing import ASSUMED
from negint import out_of_memory
from negint.method import memory
from negint.method.memory import Limit
from negint.options import AUTO, RunOptions


def measure(run: RunOptions) -> dict[str, int | None]:
  """Returns the bytes of a training step, and those of the GPU; None where there is no GPU."""
  device = out_of_memory.device_memory()
  if run.model.remat != AUTO:
    need = memory.step_need(run)
  else:
    limit = Limit(ASSUMED, "assumed") if device is None else Limit(device.limit, device.kind)
    choice = memory.remat_of(run, limit)
    need = choice.needs[choice.remat]
  return {"need": need.total, "limit": None if device is None else device.limit}


if __name__ == "__main__":
  print(json.dumps(measure(run_of(ConfigDict(json.load(sys.stdin))))))
