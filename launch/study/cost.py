"""How long a job takes on one idle processor core, for estimates of a whole study's time.

The rates were measured on one core of an AMD EPYC (2026-11-26) with the lab's models, as counted
FLOPs per second of processor time. Other machines differ by a factor.
"""

import functools
import json

from ml_collections import ConfigDict

from configs.base import LAB_LANGUAGES
from negint import options
from negint.analysis import gradients
from negint.method import flops
from negint.options import ModelOptions, RunOptions

PRETRAINING_RATE = 75e9  # FLOPs per second
# Higher: without a softmax over the pieces, and most rows of the lab are shorter than is counted.
TUNING_RATE = 100e9
START = 20  # seconds of a pretraining until its first step: imports, data, compilation ...
START_LATER = 8  # ... and of what starts from a finished run
ANALYSES = ("gradient_similarity", "pruning")
# Of real data sets, where the config does not say: rows (train, dev, test), and tokens of a padded row.
ROWS = {
  "ner": ((12_000, 3000, 8000), 60),
  "pos": ((10_000, 1500, 1500), 60),
  "qa": ((8000, 1500, 1500), 128),
  "nli": ((30_000, 2500, 5000), 64),
}


def seconds(config: ConfigDict, pretrained: ConfigDict | None) -> float:
  """Returns the seconds of a job on one core.

  Args:
    config: of the job.
    pretrained: of the pretraining that it starts from; None: it starts from none, or from an
      imported checkpoint, whose size is not known here.
  """
  if config.task == "pretrain":
    return _of_pretraining(config.to_json())
  if pretrained is None:
    return START_LATER
  return START_LATER + _after_pretraining(config, pretrained)


@functools.cache
def _of_pretraining(config: str) -> float:
  return START + pretraining_flops(_run(ConfigDict(json.loads(config)))) / PRETRAINING_RATE


def pretraining_flops(run: RunOptions) -> float:
  """Returns the FLOPs of a pretraining, with its measurements of gradients."""
  measured = run.gradient_similarity
  total = float(run.schedule.steps * flops.step(run))
  if measured.every:
    points = sum(gradients.is_due(s, measured.every) for s in range(run.schedule.steps))
    sequences = points * gradients.DRAWS * len(run.languages) * measured.sentences
    total += sequences * flops.gradient(run)
  return total


def _after_pretraining(config: ConfigDict, pretrained: ConfigDict) -> float:
  rate = PRETRAINING_RATE if config.task in ANALYSES else TUNING_RATE
  return later_flops(config, _run(pretrained)) / rate


def later_flops(config: ConfigDict, run: RunOptions | None) -> float:
  """Returns the FLOPs of what starts from a pretraining; 0 where that is None, not known here.

  Args:
    config: of the analysis or the fine-tuning.
    run: the pretraining.
  """
  if run is None:
    return 0.0
  if config.task == "gradient_similarity":
    points = run.checkpoint_keep if config.checkpoints == "all" else 1
    gradients_each = gradients.DRAWS * len(run.languages) * config.repeats
    return points * gradients_each * config.sentences * flops.gradient(run)
  if config.task == "pruning":
    sequences = config.seeds * len(run.languages) * config.steps * config.batch_size
    return sequences * flops.gradient(run)
  if config.baseline == "majority":
    return 0.0
  return config.seeds * tuning_flops(config, run.model)


def tuning_flops(config: ConfigDict, model: ModelOptions) -> float:
  """Returns the FLOPs of one seed of a fine-tuning: training, dev after each epoch, tests."""
  data, train = config.data, config.train
  if config.language in LAB_LANGUAGES:
    train_rows, dev, test = data.lab_train, data.lab_dev, data.lab_test
    length = data.max_length
  else:
    (train_rows, dev, test), length = ROWS[config.task]
  length = min(length, data.max_length)
  forward = flops.encoder(model, length)
  tests = test * len({config.language, config.source_language})
  trained = (train.epoch_size or train_rows) * train.epochs
  return forward * (3.0 * trained + dev * train.epochs + tests)


def _run(config: ConfigDict) -> RunOptions:
  return options.from_config(config, num_devices=1)
