"""What a study is made of, and how each of its jobs is written down.

A job is one `python -m negint.main` command with a workdir of its own.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

from ml_collections import ConfigDict

from configs.base import PAPER_LANGUAGES
from launch.study import cost, matching
from negint import config_file, options
from negint.pretrained import start
from negint.run.workdir import run_name
from negint.tasks import loading, table
from negint.tasks.examples import SPLITS

TASKS = ("ner", "pos", "qa", "nli")
# Which of the paper's languages have which labelled data: Table 1, and the gaps of the paper's tables.
TASK_LANGUAGES = {
  "ner": ("ar", "fr", "ru", "hi", "sw", "te", "en"),
  "pos": ("ar", "fr", "ru", "hi", "te", "en"),
  "qa": ("ar", "ru", "sw", "te", "en"),
  "nli": ("ar", "fr", "ru", "hi", "sw"),
}
# Fine-tuning of small models on real data: as in the lab they learn at larger rates, and in fewer passes,
# so that a task takes minutes.
SMALL_ON_REAL_DATA = ("sample", "small")  # scales
SMALL_RATES = ("--config.train.learning_rate=5e-4", "--config.train.batch_size=32")
SMALL_TASKS = {
  "ner": (*SMALL_RATES, "--config.train.epochs=2"),
  "pos": (*SMALL_RATES, "--config.train.epochs=2"),
  "qa": (*SMALL_RATES, "--config.train.epochs=4"),
  "nli": (
    *SMALL_RATES,
    "--config.train.head_learning_rate=5e-4",
    "--config.train.epochs=2",
    "--config.train.epoch_size=0",
  ),
}

SIDE_TASKS = ("ner", "pos")  # of what is no row of the main tables
FEW = 3  # seeds of analyses, and of what is no row of the main tables
SHORTER = (1 / 4, 1 / 2)  # Mono's shorter runs, as shares of the steps
NEAR = 0.15  # share by which they must differ from the run with the pair's text of the target
MEASUREMENTS = 20  # of gradient cosines while JointPair trains, after the early ones


@dataclasses.dataclass(frozen=True)
class Job:
  """One command of the study."""

  name: str  # of its workdir, unique
  kind: str  # system, task or analysis
  arguments: tuple[str, ...]  # what follows `python -m negint.main`, without --workdir
  model: "Job | None" = None  # the pretraining that it starts from, which must be finished before
  seconds: float = 1.0  # estimate, on one processor core

  @property
  def spec(self) -> str:
    """The config and its argument, such as "configs/mono.py:ar"."""
    return self.arguments[0].removeprefix("--config=")

  @property
  def config(self) -> ConfigDict:
    """The config that the run records: a pretraining's has what it takes from its model."""
    config = configured(self.spec, self.arguments[1:])
    if config.task != "pretrain" or not (config.init_from or config.new_language):
      return config
    default = config_file.defaults(self.spec)
    if self.model is None:
      return start.complete(config, default, _shape_of)
    return start.complete_with(config, default, self.model.config)


# It reads the weights, and many jobs start from one model.
_shape_of = functools.cache(start.shape_of)


def configured(spec: str, flags: Sequence[str]) -> ConfigDict:
  """Returns the config that a command makes, quickly where commands differ in `init_from` alone.

  Args:
    spec: config and argument.
    flags: of the command.
  """
  start = "--config.init_from="
  config = config_file.load(spec, [flag for flag in flags if not flag.startswith(start)])
  for flag in flags:
    if flag.startswith(start):
      config.init_from = flag.removeprefix(start)
  return config


@dataclasses.dataclass(frozen=True)
class Study:
  """What a study is made of; launch.study's flags say what each field means."""

  preset: str
  runs: str
  languages: tuple[str, ...]
  systems: tuple[str, ...]
  tasks: tuple[str, ...]
  scale: str
  seeds: int
  tasks_dir: str
  match: tuple[str, ...]
  xlm: str
  parts: tuple[str, ...] = ()
  pretrain_flags: tuple[str, ...] = ()
  task_flags: tuple[str, ...] = ()
  analysis_flags: tuple[str, ...] = ()


def pretraining(
  study: Study, system: str, argument: str, seed: int, flags: Sequence[str] = (), steps: int = 0
) -> Job:
  """Returns the pretraining of one system.

  All runs of a comparison have the pieces of its pair, so that their perplexities compare.

  Args:
    study: the study.
    system: of configs/.
    argument: of the config, without the seed.
    seed: of the run.
    flags: further flags of the command.
    steps: updates; 0: the config's.
  """
  spec = f"configs/{system}.py:{argument},seed={seed}"
  flags = [*shared_tokenizer(spec), *flags, *study.pretrain_flags]
  if steps and steps != config_file.load(spec, flags).train.steps:
    flags.append(f"--config.train.steps={steps}")
  return make_job(study, system, spec, flags)


def shared_tokenizer(spec: str) -> list[str]:
  """Returns the flag that gives a run the tokenizer of its pair's whole text, if it needs one."""
  config = config_file.load(spec)
  pair = matching.pair_of(config.system, spec)
  if config.languages == config_file.load(pair).languages and not config.data.subsample:
    return []
  return [f"--config.data.tokenizer_from={'-'.join(config_file.load(pair).languages)}"]


def matched(
  study: Study, system: str, argument: str, seed: int, flags: Sequence[str] = ()
) -> Iterator[Job]:
  """Yields the pretraining of a system under each way of matching, each run once."""
  first = pretraining(study, system, argument, seed, flags)
  for steps in matching.budgets(study.match, first.spec, first.arguments[1:]):
    yield pretraining(study, system, argument, seed, flags, steps)


def curve_jobs(
  study: Study,
  argument: str,
  seed: int,
  shares: Sequence[float],
  *,
  equal_tasks: Sequence[str],
  tasks: Sequence[str],
) -> Iterator[Job]:
  """Yields Mono with fewer updates, one of them with the pair's text of the target.

  They are the curve from which a model's worth in tokens of its target is read.

  Args:
    study: the study.
    argument: of the config, which begins with the target language.
    seed: of the runs.
    shares: of the steps. One that lies near the pair's text is left out.
    equal_tasks: of the run with the pair's text.
    tasks: of the others.
  """
  whole = pretraining(study, "mono", argument, seed)
  counts = {max(round(share * whole.config.train.steps), 1) for share in shares}
  equal = 0
  if "target_tokens" in study.match:
    equal = matching.equal_target(whole.spec, whole.arguments[1:])
    counts = {count for count in counts if abs(count / equal - 1) > NEAR} | {equal}
  for count in sorted(counts, reverse=True):
    model = pretraining(study, "mono", argument, seed, steps=count)
    yield model
    own_tasks = equal_tasks if count == equal else tasks
    yield from task_jobs(study, model, "mono", argument.partition(",")[0], own_tasks)


def side_tasks(study: Study) -> list[str]:
  """Returns the tasks of what is no row of the main tables."""
  return [task for task in study.tasks if task in SIDE_TASKS]


def make_job(
  study: Study, kind: str, spec: str, flags: Sequence[str], model: Job | None = None
) -> Job:
  """Returns the job of one config, under the name that its folder has by default.

  Args:
    study: the study.
    kind: of the job.
    spec: config and argument.
    flags: of the command.
    model: the pretraining that it starts from, if it does.
  """
  name = run_name(configured(spec, flags), config_file.defaults(spec), study.runs)
  job = Job(name, kind, (f"--config={spec}", *flags), model)
  seconds = cost.seconds(job.config, None if model is None else model.config)
  return dataclasses.replace(job, seconds=seconds)


def task_jobs(
  study: Study, model: Job | None, system: str, language: str, tasks: Sequence[str] | None = None
) -> Iterator[Job]:
  """Yields fine-tuning within the language and, of a model that knows English, zero-shot.

  Args:
    study: the study.
    model: the pretraining; None is the imported checkpoint of --xlm.
    system: of the model.
    language: the target; "lab" is the lab's.
    tasks: names; None: those of the study.
  """
  for task in study.tasks if tasks is None else tasks:
    for zero_shot in settings(study, task, language):
      if not (zero_shot and system == "mono"):
        yield tuning(study, task, model, language, zero_shot=zero_shot)


def baseline_jobs(study: Study, model: Job, language: str, baseline: str) -> Iterator[Job]:
  """Yields the tasks without pretraining ("scratch") or without a model ("majority")."""
  for task in study.tasks:
    for zero_shot in settings(study, task, language):
      yield tuning(study, task, model, language, zero_shot=zero_shot, baseline=baseline)


def settings(study: Study, task: str, language: str) -> list[bool]:
  """Returns the settings in which a task has data in a language: True is zero-shot, False within it.

  The paper's languages have those of its tables. Any other has what lies in --tasks_dir.
  """
  if language == "lab":
    there = SPLITS
  elif language in PAPER_LANGUAGES:
    there = SPLITS if language in TASK_LANGUAGES[task] else ()
  else:
    there = loading.available(study.tasks_dir, table.TASKS[task]).get(language, ())
  tested = "test" in there or "dev" in there
  within = tested and "train" in there and task != "nli"
  return [True] * tested + [False] * within


def english_jobs(study: Study, model: Job, english: str, tasks: Sequence[str]) -> Iterator[Job]:
  """Yields the tasks within English, or within the lab's counterpart of it (Table 5)."""
  for task in tasks:
    if task != "nli":
      yield tuning(study, task, model, english)


def tuning(
  study: Study,
  task: str,
  model: Job | None,
  language: str,
  *,
  zero_shot: bool = False,
  baseline: str = "none",
) -> Job:
  """Returns the fine-tuning on one task; model None is the imported checkpoint of --xlm."""
  workdir = study.xlm if model is None else f"{study.runs}/{model.name}"
  argument = language + (",zero_shot" if zero_shot and task != "nli" else "")
  flags = [f"--config.init_from={workdir}"]
  if baseline != "none":
    flags.append(f"--config.baseline={baseline}")
  if study.tasks_dir:
    flags.append(f"--config.data.tasks_dir={study.tasks_dir}")
  spec = f"configs/{task}.py:{argument}"
  if model is not None:
    flags += fitting_lengths(spec, model)
    flags += SMALL_TASKS[task] if study.scale in SMALL_ON_REAL_DATA else ()
  return make_job(study, task, spec, [*flags, *study.task_flags], model)


def fitting_lengths(spec: str, model: Job) -> list[str]:
  """Returns flags that keep a task's rows within the positions that the pretraining saw.

  Args:
    spec: of the task's config.
    model: the pretraining.
  """
  length = model.config.data.sequence_length
  data = config_file.load(spec).data
  if data.max_length <= length:
    return []
  flags = [f"--config.data.max_length={length}"]
  if spec.startswith("configs/qa.py"):  # windows that overlap by half, and room for the context
    flags.append(f"--config.data.stride={min(data.stride, length // 2)}")
    flags.append(f"--config.data.max_question={min(data.max_question, length // 2)}")
  return flags


def measured(study: Study, argument: str) -> list[str]:
  """Returns the flag with which JointPair measures gradient cosines while it trains.

  Checkpoints would show only the end of a long run.
  """
  steps = config_file.load(f"configs/joint_pair.py:{argument}", study.pretrain_flags).train.steps
  return [f"--config.gradient_similarity.every={max(steps // MEASUREMENTS, 20)}"]


def analysis_jobs(study: Study, model: Job) -> Iterator[Job]:
  """Yields the analyses of a JointPair model and, if need be, the model."""
  yield model
  yield analysis(study, "gradient_similarity", model, ["--config.checkpoints=last"])
  yield analysis(study, "pruning", model)


def analysis(study: Study, name: str, model: Job, flags: Sequence[str] = ()) -> Job:
  """Returns an analysis of a pretraining run."""
  spec = f"configs/{name}.py" + (":lab" if study.scale in options.SMALL_SCALES else "")
  flags = [f"--config.init_from={study.runs}/{model.name}", *flags, *study.analysis_flags]
  return make_job(study, name, spec, flags, model)
