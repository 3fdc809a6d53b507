"""The study as a list of jobs: systems x languages x seeds, then tasks and analyses on each.

Jobs come in an order in which each stands after its model.
"""

from collections.abc import Iterator

from configs import base
from launch.study import lab
from launch.study.jobs import (
  TASKS,
  Job,
  Study,
  analysis,
  baseline_jobs,
  english_jobs,
  matched,
  pretraining,
  task_jobs,
)
from launch.study.matching import MATCHES
from negint.data.sources import SAMPLE_LANGUAGES
from negint.errors import UserError

PRESETS = ("lab", "paper")
SCALES = ("sample", "small", "base", "paper")  # of the paper preset
PAPER_LANGUAGES = base.PAPER_LANGUAGES
PAPER_SYSTEMS = ("mono", "joint_pair", "joint_tri", *lab.SYSTEMS[2:])
SUBSAMPLED = ("fr", "ru")  # Table 5's fr_l and ru_l ...
SUBSAMPLE = 100_000  # ... sentences
COMPARED = ("mono", "joint_pair")  # systems of Table 5
TRILINGUAL = ("hi", "te")  # Table 4
# Measured while JointPair trains, from step 10 on (`negint.analysis.gradients.is_due`). Checkpoints
# would show only the end of a long run.
PAPER_GRADIENTS = ("--config.gradient_similarity.every=1000",)


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
    "languages": ("lab",) if is_lab else PAPER_LANGUAGES,
    "match": MATCHES,
    "parts": lab.PARTS if is_lab else (),
  }
  for field, names in legal.items():
    for value in getattr(study, field):
      if value not in names:
        choice = f"choose among {', '.join(names)}" if names else "only the lab's preset has parts"
        raise UserError(f"--{field} names {value!r}; {choice}.")
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


def languages_of(scale: str) -> tuple[str, ...]:
  """Returns the paper's target languages that have text at a scale."""
  return tuple(code for code in PAPER_LANGUAGES if scale != "sample" or code in SAMPLE_LANGUAGES)


def paper_jobs(study: Study) -> Iterator[Job]:
  """Yields the paper's tables for the languages asked for."""
  for seed in range(1, study.seeds + 1):
    for language in study.languages:
      for system in study.systems:
        if system == "joint_tri" and language not in TRILINGUAL:
          continue
        yield from system_jobs(study, system, language, seed)
      if study.xlm and seed == 1:
        yield from task_jobs(study, None, "xlm", language)


def system_jobs(study: Study, system: str, language: str, seed: int) -> Iterator[Job]:
  """Yields everything about one system, language and seed."""
  is_joint = system == "joint_pair"
  flags = PAPER_GRADIENTS if is_joint and seed == 1 else ()
  argument = f"{language},{study.scale}"
  for model in matched(study, system, argument, seed, flags):
    yield model
    yield from task_jobs(study, model, system, language)
    if is_joint:
      yield from baseline_jobs(study, model, language, "scratch")
      if seed == 1:  # it depends on the data alone
        yield from baseline_jobs(study, model, language, "majority")
      if has_small_version(study, language):
        yield from english_jobs(study, model, "en", study.tasks)
    if is_joint and seed == 1:
      yield analysis(study, "gradient_similarity", model)
      yield analysis(study, "pruning", model)
  if has_small_version(study, language) and system in COMPARED:
    model = pretraining(study, system, f"{argument},subsample={SUBSAMPLE}", seed)
    yield model
    yield from task_jobs(study, model, system, language)
    yield from english_jobs(study, model, "en", study.tasks) if is_joint else ()


def has_small_version(study: Study, language: str) -> bool:
  """Whether the study has a subsampled corpus of the language, for Table 5."""
  return language in SUBSAMPLED and study.scale in ("base", "paper")
