"""The memory of one pretraining step on this device, printed as JSON; `sharing.probe` starts it."""

import json
import sys

from launch.study.sharing import ASSUMED
from negint import config_file, options, out_of_memory, pretrain
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
  spec, *flags = sys.argv[1:]
  config = config_file.load(spec.removeprefix("--config="), flags)
  config.init_from = ""  # the model need not be there yet
  config = pretrain.decide(config, None, lambda line: None)
  print(json.dumps(measure(options.from_config(config, num_devices=1))))
