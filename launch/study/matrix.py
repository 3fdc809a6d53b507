"""The study as a list of jobs: systems x languages x seeds, then tasks and analyses on each.

Jobs come in an order in which each stands after its model.
"""

from collections.abc import Iterator, Sequence

from configs import base
from launch.study import lab
from launch.study.jobs import (
  FEW,
  SHORTER,
  TASKS,
  Job,
  Study,
  analysis_jobs,
  baseline_jobs,
  curve_jobs,
  english_jobs,
  matched,
  measured,
  pretraining,
  settings,
  side_tasks,
  task_jobs,
)
from launch.study.matching import MATCHES
from negint import options
from negint.data.open_corpora import open_corpora
from negint.data.sources import SAMPLE_LANGUAGES
from negint.errors import UserError
from negint.language_codes import canonical
from negint.tasks import loading, table

PRESETS = ("lab", "paper")
SCALES = ("sample", "small", "base", "paper")  # of the paper preset
SCALE = "base"  # where none is asked for
PAPER_LANGUAGES = base.PAPER_LANGUAGES
PAPER_SYSTEMS = ("mono", "joint_pair", "joint_tri", *lab.SYSTEMS[2:])
# Table 5's fr_l and ru_l, and how many sentences they have at each scale.
SUBSAMPLED = ("fr", "ru")
SUBSAMPLE = {"small": 10_000, "base": 100_000, "paper": 100_000}
COMPARED = ("mono", "joint_pair")  # systems of Table 5
TRILINGUAL = ("hi", "te")  # Table 4
ENGLISH = "en"


def make_jobs(study: Study) -> list[Job]:
  """All jobs of a study, each once.

  Raises:
    UserError: a system, language or task that does not exist.
  """
  check(study)
  jobs = lab.jobs(study) if study.preset == "lab" else paper_jobs(study)
  return list({job.name: job for job in jobs}.values())


def check(study: Study) -> None:
  """UserError where the study names what does not exist."""
  is_lab = study.preset == "lab"
  legal = {
    "systems": base.SYSTEMS,
    "tasks": TASKS,
    "match": MATCHES,
    "parts": lab.PARTS if is_lab else (),
  }
  for field, names in legal.items():
    for value in getattr(study, field):
      if value not in names:
        choice = f"choose among {', '.join(names)}" if names else "only the lab's preset has parts"
        raise UserError(f"--{field} names {value!r}; {choice}.")
    if names and field != "tasks" and not getattr(study, field):
      raise UserError(f"--{field} names nothing; choose among {', '.join(names)}.")
  check_languages(study)
  if study.seeds < 1:
    raise UserError(f"--seeds is {study.seeds}; it must be at least 1.")
  if is_lab:
    return
  if study.scale not in SCALES:
    raise UserError(f"--scale is {study.scale!r}; it must be one of {', '.join(SCALES)}.")
  lacking = [code for code in study.languages if code not in SAMPLE_LANGUAGES]
  if study.scale == "sample" and lacking:
    raise UserError(
      f"--scale=sample has no sentences in {lacking[0]!r}; use --languages="
      f"{','.join(languages_of(study.scale))}, or --scale=base."
    )


def check_languages(study: Study) -> None:
  """UserError where a code is no target, or has no labelled data for any of the tasks."""
  if not study.languages:
    raise UserError(f"--languages names nothing; name targets, such as {PAPER_LANGUAGES[0]}.")
  if study.preset == "lab" and set(study.languages) != {"lab"}:
    raise UserError("--languages is for --preset=paper; the lab has its own.")
  for code in study.languages if study.preset != "lab" else ():
    if canonical(code) != code or code in (ENGLISH, *base.LAB_LANGUAGES):
      raise UserError(
        f"--languages names {code!r}; name the codes of the targets alone, such as ar,pt_br. Each is "
        f"paired with {ENGLISH}."
      )
    known = code in PAPER_LANGUAGES or any(settings(study, task, code) for task in study.tasks)
    if study.tasks and not known:
      where = (
        f"--tasks_dir={study.tasks_dir} has" if study.tasks_dir else "Without --tasks_dir there are"
      )
      raise UserError(
        f"--languages names {code!r}. {where} no labelled data in it for {', '.join(study.tasks)}. Name "
        f"a folder that has <task>/{code}/{{train,dev,test}}.<ending>, or write --tasks= for no task."
      )


def check_data(jobs: Sequence[Job]) -> None:
  """UserError where a job would find no text or no labelled data, before hours of pretraining."""
  configs = [job.config for job in jobs]
  pretrained = [config for config in configs if config.task == "pretrain"]
  runs = [options.from_config(config, num_devices=1) for config in pretrained]
  for data, languages in dict.fromkeys((run.data, run.languages) for run in runs):
    if data.source == "prepared":  # a run makes the other sources' text
      open_corpora(data, languages, lambda line: None)
  for config in configs:
    if config.task in TASKS and config.data.tasks_dir:
      for language, split in (
        (config.source_language, "train"),
        (config.source_language, "dev"),
        (config.language, "test"),
      ):
        loading.find_files(table.TASKS[config.task], config.data.tasks_dir, language, split)


def languages_of(scale: str) -> tuple[str, ...]:
  """Returns the paper's target languages that have text at a scale."""
  return tuple(code for code in PAPER_LANGUAGES if scale != "sample" or code in SAMPLE_LANGUAGES)


def paper_jobs(study: Study) -> Iterator[Job]:
  """Yields the paper's tables for the languages asked for, each paired with English."""
  for seed in range(1, study.seeds + 1):
    for language in study.languages:
      for system in study.systems:
        if system != "joint_tri" or language in TRILINGUAL:
          yield from system_jobs(study, system, language, seed)
      if study.xlm and seed == 1:
        yield from task_jobs(study, None, "xlm", language)
    for language in study.languages:
      if language in SUBSAMPLED:
        yield from size_jobs(study, language, seed)


def system_jobs(study: Study, system: str, language: str, seed: int) -> Iterator[Job]:
  """Yields everything about one system, language and seed, but for Table 5."""
  argument = f"{language},{study.scale}"
  for model in models(study, system, argument, seed):
    yield model
    yield from task_jobs(study, model, system, language)
    if system == "joint_pair":
      yield from baseline_jobs(study, model, language, "scratch")
      if seed == 1:  # it depends on the data alone
        yield from baseline_jobs(study, model, language, "majority")
      if seed <= FEW:
        yield from analysis_jobs(study, model)
  if system == "mono" and has_curve(study, seed):
    yield from curve_jobs(
      study, argument, seed, SHORTER, equal_tasks=study.tasks, tasks=study.tasks
    )


def has_curve(study: Study, seed: int) -> bool:
  """Returns whether Mono has shorter runs, one of them with the pair's text of the target."""
  return "target_tokens" in study.match and seed <= FEW


def models(study: Study, system: str, argument: str, seed: int) -> Iterator[Job]:
  """Yields the pretraining of a system under each way of matching."""
  is_measured = system == "joint_pair" and seed <= FEW
  return matched(study, system, argument, seed, measured(study, argument) if is_measured else ())


def size_jobs(study: Study, language: str, seed: int) -> Iterator[Job]:
  """Yields Table 5: JointPair's tests in English, and Mono and JointPair with less text.

  After equally many updates Mono has read its little text more often. Its shorter run has read as much
  of it as JointPair.
  """
  argument = f"{language},{study.scale}"
  for system in (system for system in COMPARED if system in study.systems):
    found = [] if system == "mono" else list(models(study, system, argument, seed))
    if study.scale in SUBSAMPLE:
      little = f"{argument},subsample={SUBSAMPLE[study.scale]}"
      small = pretraining(study, system, little, seed)
      yield small
      yield from task_jobs(study, small, system, language)
      if system == "mono" and has_curve(study, seed):
        yield from curve_jobs(study, little, seed, (), equal_tasks=side_tasks(study), tasks=())
      found += [] if system == "mono" else [small]
    for pair in found:
      yield pair
      yield from english_jobs(study, pair, ENGLISH, study.tasks)
