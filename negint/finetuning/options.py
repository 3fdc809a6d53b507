"""A fine-tuning run's options as frozen dataclasses, checked like those of `options.py`."""

import dataclasses

from negint.errors import UserError
from negint.options import (
  AdamOptions,
  check_adam,
  check_at_least,
  check_choice,
  check_divisible,
  check_positive,
)

TASKS = ("ner", "pos", "qa", "nli")
ROUTES = ("target", "source", "mean")
BASELINES = ("none", "scratch", "majority")
SEARCHES = ("none", "paper")


@dataclasses.dataclass(frozen=True)
class TaskOptions:
  name: str
  tasks_dir: str
  tfds: str
  tfds_train: str
  tfds_dir: str
  lab_train: int
  lab_dev: int
  lab_test: int
  max_length: int
  stride: int
  max_question: int
  max_answer: int


@dataclasses.dataclass(frozen=True)
class Trial:
  """One setting of the grid of Appendix A. Rates are peaks of a linear decay to zero."""

  batch_size: int
  learning_rate: float
  head_learning_rate: float
  epochs: int
  epoch_size: int


@dataclasses.dataclass(frozen=True)
class FinetuneOptions:
  """Everything a fine-tuning run reads but the pretrained model."""

  task: TaskOptions
  language: str
  source_language: str
  init_from: str
  route: str
  freeze_phi: bool
  baseline: str
  seed: int
  seeds: int
  trials: tuple[Trial, ...]
  optimiser: AdamOptions
  checkpoint_every: int
  eval_batch_size: int

  @property
  def setting(self) -> str:
    return setting_of(self.language, self.source_language)

  @property
  def test_languages(self) -> tuple[str, ...]:
    """The target first; in the zero-shot setting also the source, reported apart."""
    return tuple(dict.fromkeys((self.language, self.source_language)))


def setting_of(language: str, source_language: str) -> str:
  return "within" if language == source_language else "zero_shot"


def from_config(config, num_devices: int) -> FinetuneOptions:
  """Checks a task's ConfigDict and freezes it; UserError at the first broken rule."""
  check_choice("task", config.task, TASKS)
  check_choice("route", config.route, ROUTES)
  check_choice("baseline", config.baseline, BASELINES)
  check_choice("search", config.search, SEARCHES)
  check_at_least("seeds", config.seeds, 1)
  check_at_least("seed", config.seed, 0)
  train = config.train.to_dict()
  single = {
    name: (train.pop(name),) for name in ("batch_size", "learning_rate", "head_learning_rate")
  }
  epochs, epoch_size = train.pop("epochs"), train.pop("epoch_size")
  grid = config.grid.to_dict() if config.search == "paper" else single
  trials = tuple(
    Trial(batch_size, rate, head_rate or rate, epochs, epoch_size)
    for batch_size in grid["batch_size"]
    for rate in grid["learning_rate"]
    for head_rate in grid["head_learning_rate"]
  )
  for trial in trials:
    check_divisible("train.batch_size", trial.batch_size, num_devices)
    check_positive("train.learning_rate", trial.learning_rate)
    check_positive("train.head_learning_rate", trial.head_learning_rate)
  check_at_least("train.epochs", epochs, 1)
  check_at_least("train.epoch_size", epoch_size, 0)
  check_at_least("checkpoint.every", config.checkpoint.every, 1)
  for name in (
    "max_length",
    "stride",
    "max_question",
    "max_answer",
    "lab_train",
    "lab_dev",
    "lab_test",
  ):
    check_at_least(f"data.{name}", config.data[name], 1)
  check_divisible("eval.batch_size", config.eval.batch_size, num_devices)
  if not config.init_from:
    raise UserError(
      "--config.init_from is empty; give the workdir of a finished pretraining run, for example "
      "--config.init_from=runs/joint_pair-ar-en-sample-seed1."
    )
  optimiser = AdamOptions(**train)
  check_adam(optimiser)
  return FinetuneOptions(
    task=TaskOptions(name=config.task, **config.data.to_dict()),
    language=config.language,
    source_language=config.source_language,
    init_from=config.init_from,
    route=config.route,
    freeze_phi=config.freeze_phi,
    baseline=config.baseline,
    seed=config.seed,
    seeds=config.seeds,
    trials=trials,
    optimiser=optimiser,
    checkpoint_every=config.checkpoint.every,
    eval_batch_size=config.eval.batch_size,
  )
