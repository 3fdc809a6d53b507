"""The study as a list of jobs: systems x languages x seeds, then tasks and analyses on each.

A job is one `python -m negint.main` command with a workdir of its own. Jobs come in an order in
which everything stands after what it needs.
"""

import dataclasses

from configs import base
from negint import config_file, options
from negint.data.sources import SAMPLE_LANGUAGES
from negint.errors import UserError
from negint.method import flops
from negint.run.workdir import run_name

PRESETS = ("lab", "paper")
PAPER_LANGUAGES = base.PAPER_LANGUAGES
LAB_SYSTEMS = ("mono", "joint_pair", "ffn", "attn", "adpt", "share_adpt", "meta_adpt")
PAPER_SYSTEMS = ("mono", "joint_pair", "joint_tri", *LAB_SYSTEMS[2:])
TASKS = ("ner", "pos", "qa", "nli")
LAB_TASKS = ("ner", "pos")
# Table 1's and the tables' gaps: which languages have which labelled data.
TASK_LANGUAGES = {
  "ner": ("ar", "fr", "ru", "hi", "sw", "te", "en"),
  "pos": ("ar", "fr", "ru", "hi", "te", "en"),
  "qa": ("ar", "ru", "sw", "te", "en"),
  "nli": ("ar", "fr", "ru", "hi", "sw"),
}
SUBSAMPLED = ("fr", "ru")  # Table 5's fr_l and ru_l ...
SUBSAMPLE = 100_000  # ... sentences
TRILINGUAL = ("hi", "te")  # Table 4
DIAL = (0.0, 0.5, 1.0)  # the lab's similarities
DIAL_SYSTEMS = ("mono", "joint_pair")
# Measured while JointPair trains, from step 10 on (`negint.analysis.gradients.is_due`). The lab's 22
# points cost a third more arithmetic. Checkpoints would show only the end of a long run.
LAB_GRADIENTS = ("--config.gradient_similarity.every=60",)
PAPER_GRADIENTS = ("--config.gradient_similarity.every=1000",)


@dataclasses.dataclass(frozen=True)
class Job:
  """One command of the study."""

  name: str  # of its workdir, unique
  kind: str  # system, task or analysis, for estimates of time
  arguments: tuple[str, ...]  # what follows `python -m negint.main`, without --workdir
  needs: tuple[str, ...] = ()  # names of the jobs that must be finished before


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
  match: str
  xlm: str
  pretrain_flags: tuple[str, ...] = ()
  task_flags: tuple[str, ...] = ()
  analysis_flags: tuple[str, ...] = ()


def make_jobs(study: Study) -> list[Job]:
  """All jobs of a study, each once.

  Raises:
    UserError: a system, language or task that does not exist.
  """
  check(study)
  jobs = lab_jobs(study) if study.preset == "lab" else paper_jobs(study)
  return list({job.name: job for job in jobs}.values())


def check(study: Study) -> None:
  """UserError where the study names what does not exist."""
  legal = {
    "systems": base.SYSTEMS,
    "tasks": TASKS,
    "languages": ("lab",) if study.preset == "lab" else PAPER_LANGUAGES,
  }
  for field, names in legal.items():
    for value in getattr(study, field):
      if value not in names:
        raise UserError(f"--{field} names {value!r}; choose among {', '.join(names)}.")
  if study.seeds < 1:
    raise UserError(f"--seeds is {study.seeds}; it must be at least 1.")
  if study.preset == "paper" and study.scale not in ("sample", "base", "paper"):
    raise UserError(f"--scale is {study.scale!r}; it must be one of sample, base, paper.")
  lacking = [code for code in study.languages if code not in SAMPLE_LANGUAGES]
  if study.scale == "sample" and lacking:
    raise UserError(
      f"--scale=sample has no sentences in {lacking[0]!r}; use --languages="
      f"{','.join(languages_of(study.scale))}, or --scale=base."
    )


def languages_of(scale: str) -> tuple[str, ...]:
  """Returns the paper's target languages that have text at a scale."""
  return tuple(code for code in PAPER_LANGUAGES if scale != "sample" or code in SAMPLE_LANGUAGES)


def lab_jobs(study: Study):
  """The study in miniature: every system at similarity 0.5, two of them along the dial."""
  for seed in range(1, study.seeds + 1):
    for similarity in sorted(DIAL, key=lambda s: s != 0.5):
      for system in study.systems:
        if similarity == 0.5 or system in DIAL_SYSTEMS:
          flags = LAB_GRADIENTS if system == "joint_pair" else ()
          argument = f"lab,similarity={similarity:g}"
          model = pretraining(study, system, argument, seed, flags)
          yield model
          yield from task_jobs(study, model, system, "lab")
          if system == "joint_pair" and similarity == 0.5:
            yield from baseline_jobs(study, model, "lab")
          if system == "joint_pair" and seed == 1:
            yield analysis(study, "gradient_similarity", model)
            yield analysis(study, "pruning", model)


def paper_jobs(study: Study):
  """The paper's tables for the languages asked for."""
  for seed in range(1, study.seeds + 1):
    for language in study.languages:
      for system in study.systems:
        if system == "joint_tri" and language not in TRILINGUAL:
          continue
        is_joint = system == "joint_pair"
        flags = PAPER_GRADIENTS if is_joint and seed == 1 else ()
        model = pretraining(study, system, f"{language},{study.scale}", seed, flags)
        yield model
        yield from task_jobs(study, model, system, language)
        if is_joint:
          yield from baseline_jobs(study, model, language)
          yield from english_jobs(study, model, language)
        if is_joint and seed == 1:
          yield analysis(study, "gradient_similarity", model)
          yield analysis(study, "pruning", model)
        if language in SUBSAMPLED and system in DIAL_SYSTEMS and study.scale != "sample":
          argument = f"{language},{study.scale},subsample={SUBSAMPLE}"
          model = pretraining(study, system, argument, seed)
          yield model
          yield from task_jobs(study, model, system, language)
          yield from english_jobs(study, model, language) if is_joint else ()
      if study.xlm and seed == 1:
        yield from task_jobs(study, None, "xlm", language)


def pretraining(study: Study, system: str, argument: str, seed: int, flags=()) -> Job:
  """The pretraining of one system; under --match=flops with as many steps as JointPair's FLOPs buy."""
  spec = f"configs/{system}.py:{argument},seed={seed}"
  flags = [*flags, *study.pretrain_flags]
  if study.match == "flops":
    flags.append(f"--config.train.steps={matched_steps(spec, flags)}")
  return make_job(study, system, spec, flags)


def make_job(study: Study, kind: str, spec: str, flags, needs=()) -> Job:
  """The job of one config, under the name that its folder has by default."""
  config = config_file.load(spec, flags)
  name = run_name(config, config_file.defaults(spec), study.runs)
  return Job(name, kind, (f"--config={spec}", *flags), tuple(needs))


def matched_steps(spec: str, flags) -> int:
  """Steps at which a system has spent JointPair's FLOPs on the same languages and flags."""
  own = options.from_config(config_file.load(spec, flags), num_devices=1)
  budget = own
  if own.system not in ("mono", "joint_tri"):  # a step of these costs what a step of JointPair does
    joint_pair = spec.replace(f"configs/{own.system}.py", "configs/joint_pair.py")
    budget = options.from_config(config_file.load(joint_pair, flags), num_devices=1)
  return max(round(budget.schedule.steps * flops.step(budget) / flops.step(own)), 1)


def task_jobs(study: Study, model: Job | None, system: str, language: str):
  """Fine-tuning within the language and, of a model that knows English, zero-shot."""
  for task in study.tasks:
    if language != "lab" and language not in TASK_LANGUAGES[task]:
      continue
    if system != "mono":
      yield tuning(study, task, model, language, zero_shot=True)
    if task != "nli":
      yield tuning(study, task, model, language)


def baseline_jobs(study: Study, model: Job, language: str):
  """The rows that a score means nothing without."""
  for baseline in ("scratch", "majority"):
    for task in study.tasks:
      if language != "lab" and language not in TASK_LANGUAGES[task]:
        continue
      yield tuning(study, task, model, language, zero_shot=True, baseline=baseline)
      if task != "nli":
        yield tuning(study, task, model, language, baseline=baseline)


def english_jobs(study: Study, model: Job, language: str):
  """JointPair within English beside each of fr, ru and their small versions (Table 5)."""
  if language in SUBSAMPLED:
    for task in study.tasks:
      if task != "nli":
        yield tuning(study, task, model, "en")


def tuning(study, task, model: Job | None, language, *, zero_shot=False, baseline="none") -> Job:
  """Fine-tuning on one task; model None is the imported checkpoint of --xlm."""
  workdir = study.xlm if model is None else f"{study.runs}/{model.name}"
  argument = language + (",zero_shot" if zero_shot and task != "nli" else "")
  flags = [f"--config.init_from={workdir}"]
  if baseline != "none":
    flags.append(f"--config.baseline={baseline}")
  if study.tasks_dir:
    flags.append(f"--config.data.tasks_dir={study.tasks_dir}")
  spec = f"configs/{task}.py:{argument}"
  needs: tuple[str, ...] = ()
  if model is not None:
    needs = (model.name,)
    flags += fitting_lengths(spec, model)
  return make_job(study, task, spec, [*flags, *study.task_flags], needs)


def fitting_lengths(spec: str, model: Job) -> list[str]:
  """Returns flags that keep a task's rows within the positions that the pretraining saw.

  Args:
    spec: of the task's config.
    model: the pretraining.
  """
  pretraining = model.arguments[0].removeprefix("--config=")
  length = config_file.load(pretraining, model.arguments[1:]).data.sequence_length
  data = config_file.load(spec).data
  if data.max_length <= length:
    return []
  flags = [f"--config.data.max_length={length}"]
  if spec.startswith("configs/qa.py"):  # windows that overlap by half, and room for the context
    flags.append(f"--config.data.stride={min(data.stride, length // 2)}")
    flags.append(f"--config.data.max_question={min(data.max_question, length // 2)}")
  return flags


def analysis(study: Study, name: str, model: Job) -> Job:
  """An analysis of a pretraining run."""
  spec = f"configs/{name}.py" + (":lab" if study.preset == "lab" else "")
  flags = [f"--config.init_from={study.runs}/{model.name}", *study.analysis_flags]
  return make_job(study, name, spec, flags, (model.name,))
