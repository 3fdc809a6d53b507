"""The options of a fine-tuning run as frozen dataclasses, checked like those of `options.py`."""

import dataclasses

from ml_collections import ConfigDict

from negint.errors import UserError
from negint.options import (
  AdamOptions,
  check_adam,
  check_at_least,
  check_choice,
  check_divisible,
  check_positive,
)
from negint.tasks.loading import SourceOptions
from negint.tasks.table import TASKS
from negint.tasks.task import Limits, Task

ROUTES = ("target", "source", "mean")
BASELINES = ("none", "scratch", "majority")
SEARCHES = ("none", "paper")


@dataclasses.dataclass(frozen=True)
class Trial:
  """One setting of the grid of Appendix A. Rates are peaks of a linear decay to zero."""

  batch_size: int  # rows, on all devices together
  learning_rate: float  # of theta and phi
  head_learning_rate: float  # of the head
  epochs: int  # number of epochs; the best on dev is kept
  epoch_size: int  # training rows per epoch; 0: all of them


@dataclasses.dataclass(frozen=True)
class FinetuneOptions:
  """Everything a fine-tuning run reads but the pretrained model."""

  task: Task  # what is learned
  source: SourceOptions  # where its data come from
  limits: Limits  # how long its texts may be
  language: str  # target: the language that is tested
  source_language: str  # language of training and dev data
  init_from: str  # folder of the pretrained model
  route: str  # whose phi a zero-shot test uses, one of ROUTES
  freeze_phi: bool  # phi stays as pretrained
  baseline: str  # one of BASELINES
  seed: int  # the first seed
  seeds: int  # number of seeds
  trials: tuple[Trial, ...]  # of each seed; the best on dev is tested
  optimiser: AdamOptions  # Adam
  checkpoint_every: int  # updates between checkpoints inside an epoch
  eval_batch_size: int  # rows of a batch at dev and test time

  @property
  def setting(self) -> str:
    """`within` or `zero_shot`."""
    return setting_of(self.language, self.source_language)

  @property
  def test_languages(self) -> tuple[str, ...]:
    """The target first; a zero-shot run also tests the source language, and reports it apart."""
    return tuple(dict.fromkeys((self.language, self.source_language)))

  def selects_by(self, language: str) -> bool:
    """Whether the dev set of a language selects the weights."""
    return language == self.source_language


def setting_of(language: str, source_language: str) -> str:
  """Returns `within` (trained and tested in one language) or `zero_shot`."""
  return "within" if language == source_language else "zero_shot"


def from_config(config: ConfigDict, num_devices: int) -> FinetuneOptions:
  """Returns the options of a task's config.

  Args:
    config: of configs/tasks.py.
    num_devices: devices that share a batch.

  Raises:
    UserError: at the first broken rule.
  """
  check_choice("task", config.task, tuple(TASKS))
  check_choice("route", config.route, ROUTES)
  check_choice("baseline", config.baseline, BASELINES)
  check_choice("search", config.search, SEARCHES)
  check_at_least("seeds", config.seeds, 1)
  check_at_least("seed", config.seed, 0)
  train, data = config.train.to_dict(), config.data.to_dict()
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
  group = "grid" if config.search == "paper" else "train"
  for trial in trials:
    check_divisible(f"{group}.batch_size", trial.batch_size, num_devices)
    check_positive(f"{group}.learning_rate", trial.learning_rate)
    check_positive(f"{group}.head_learning_rate", trial.head_learning_rate)
  check_at_least("train.epochs", epochs, 1)
  check_at_least("train.epoch_size", epoch_size, 0)
  check_at_least("checkpoint.every", config.checkpoint.every, 1)
  limits = Limits(**{field.name: data.pop(field.name) for field in dataclasses.fields(Limits)})
  numbers = {name: value for name, value in data.items() if name.startswith("lab_")}
  for name, value in {**dataclasses.asdict(limits), **numbers}.items():
    check_at_least(f"data.{name}", value, 1)
  check_divisible("eval.batch_size", config.eval.batch_size, num_devices)
  if not config.init_from:
    raise UserError(
      "--config.init_from is empty; give the folder of a finished pretraining run or of a Hugging Face "
      "checkpoint, for example "
      "--config.init_from=runs/joint_pair-ar-en-sample-seed1."
    )
  optimiser = AdamOptions(**train)
  check_adam(optimiser)
  return FinetuneOptions(
    task=TASKS[config.task],
    source=SourceOptions(**data),
    limits=limits,
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
