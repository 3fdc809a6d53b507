"""Reads the runs of a study: every folder with a config.json and a result.json.

A run that cannot be read becomes a `Problem`; the others are read all the same.
"""

import functools
import hashlib
import json
import math
import pathlib
from dataclasses import dataclass, field

import numpy as np

from negint.config_file import flatten
from negint.errors import UserError
from negint.report.checks import ANALYSES, check_result, need
from negint.report.layout import TASK_NAMES
from negint.report.problems import Damaged, Problem
from negint.run.records import read_metrics
from negint.run.workdir import run_folders

_START = "make a first run with `python -m negint.main --config=configs/joint_pair.py:lab`"
# Fields of a configuration that name a run or say where things lie, not what is computed.
_NAMES = {"task", "system", "languages", "language", "source_language", "scale", "seed", "seeds"}
_NAMES |= {"init_from", "baseline", "data.subsample", "data.lab.similarity"}
_PLACES = ("data.dir", "data.tasks_dir", "data.tfds_dir", "checkpoint.", "log.", "eval.") + (
  "gradient_similarity.",  # measures and changes nothing
)
_FIXED_NUMBER = ("mono", "joint_tri")  # systems that say how many languages a run has


@dataclass(frozen=True)
class Origin:
  """What a pretraining run was: the run itself, or the one that another run started from."""

  workdir: str  # as the run that started from it names it
  system: str  # such as "joint_pair"; of an imported checkpoint its family, such as "xlm"
  languages: tuple[str, ...]  # target first, English last
  scale: str  # sample | base | paper | lab | imported
  seed: int | None  # None: an imported checkpoint
  steps: int | None  # None: an imported checkpoint
  subsample: int  # training sentences of the target; 0: all
  similarity: float | None  # of the lab's target to xa
  # Tokens that the model saw, by language; empty: unknown.
  tokens: dict[str, int] = field(default_factory=dict, compare=False)
  flops: float | None = None  # of the whole pretraining; None: unknown

  @property
  def imported(self) -> bool:
    """Whether it is a checkpoint that no run of this project made."""
    return self.scale == "imported"


@dataclass(frozen=True, eq=False)
class Run:
  """One finished run."""

  workdir: str  # relative to the folder of all runs
  path: pathlib.Path  # of the workdir
  digest: str  # of config.json, 8 hex digits
  task: str  # "pretrain", one of checks.ANALYSES, else the task of a fine-tuning
  result: dict  # result.json, checked
  settings: dict  # config.json, flat: {"train.steps": 1200, ...}
  origin: Origin  # the pretraining run

  @property
  def computed(self) -> dict:
    """The settings that decide what is computed; runs that differ only in their seed share them.

    A pretraining names the languages of its tokenizer. One that started from a model has that model's
    system and languages under "init_from". Systems of two or more languages name these, too, because
    one row may be of a pair and another of ten languages.
    """
    found = {
      name: value
      for name, value in self.settings.items()
      if name not in _NAMES and not name.startswith(_PLACES)
    }
    start = self.settings.get("init_from")
    languages = "-".join(self.origin.languages)
    if self.task == "pretrain" and not (self.adds_language or self.origin.system in _FIXED_NUMBER):
      found["languages"] = languages
    if self.task == "pretrain" and not found.get("data.tokenizer_from"):
      found["data.tokenizer_from"] = languages
    if self.task == "pretrain" and start:
      old = self.result.get("init_from", {})
      found["init_from"] = f"{old.get('system')} on {'-'.join(old.get('languages', []))}"
      if (
        found.get("data.tokenizer_from") == start
      ):  # named by its folder, which has a seed in its name
        del found["data.tokenizer_from"]
    return found

  @property
  def pretraining_settings(self) -> dict:
    """Those of a pretraining, under names that set them apart from those of a fine-tuning."""
    return {f"pretraining {name}": value for name, value in self.computed.items()}

  @property
  def adds_language(self) -> bool:
    """Whether it is a pretraining that added a language to another run's model."""
    return "new_language" in self.result

  @functools.cached_property
  def metrics(self) -> list[dict]:
    """The records of metrics.jsonl; empty if there is no such file."""
    path = self.path / "metrics.jsonl"
    return read_metrics(path) if path.exists() else []

  def series(self, name: str) -> list[tuple[int, float]]:
    """Returns the (step, value) pairs of one scalar of metrics.jsonl, sorted by step."""
    points = {record["step"]: record[name] for record in self.metrics if name in record}
    return sorted((step, value) for step, value in points.items() if math.isfinite(value))


@dataclass
class Study:
  """All runs of a folder."""

  runs: list[Run] = field(default_factory=list)  # finished ones, sorted by workdir
  repeats: set[str] = field(default_factory=set)  # workdirs of pretrainings that were made twice
  problems: list[Problem] = field(default_factory=list)  # runs, or parts, that cannot be used

  def of(self, *tasks: str) -> list[Run]:
    """Returns the runs of these tasks."""
    return [run for run in self.runs if run.task in tasks]

  def add_problem(self, workdir: str, reason: str) -> None:
    """Notes, once, that a run or a part of it cannot be used."""
    problem = Problem(workdir, reason)
    if problem not in self.problems:
      self.problems.append(problem)

  @property
  def pretraining(self) -> list[Run]:
    """The pretraining runs, each once."""
    return [run for run in self.of("pretrain") if run.workdir not in self.repeats]

  @property
  def tuning(self) -> list[Run]:
    """The fine-tuning runs on the paper's tasks, which have tables."""
    return self.of(*TASK_NAMES)

  def source_of(self, origin: Origin) -> Run | None:
    """Returns the pretraining run that an origin names; None if it is not in the study."""
    there = "/" + origin.workdir.strip("/")
    found = [run for run in self.of("pretrain") if there.endswith("/" + run.workdir)]
    return max(found, key=lambda run: len(run.workdir), default=None)


def read_study(*folders: pathlib.Path) -> Study:
  """Reads every run below folders; one that several of them have is that of the first.

  Raises:
    UserError: there is no such folder, or no run in any of them that can be read.
  """
  study = Study()
  places: set[str] = set()
  for folder in folders:
    if not folder.is_dir():
      raise UserError(
        f"--runs={folder} is not a folder; name the folder of your runs, or {_START}."
      )
    found = {path.relative_to(folder).as_posix(): path for path in run_folders(folder)}
    for workdir in found.keys() - places:
      try:
        run = _read_run(found[workdir], workdir)
        study.runs += [run] if run else []
      except Damaged as error:
        study.problems.append(Problem(workdir, str(error)))
    places |= found.keys()
  study.runs.sort(key=lambda run: run.workdir)
  _note_repeats(study)
  for run in study.runs:
    if run.task not in ("pretrain", *TASK_NAMES, *ANALYSES):
      reason = f"the tables have the paper's tasks only, not {run.task!r}; see negint.runs"
      study.add_problem(run.workdir, reason)
  study.problems.sort()
  if not study.runs:
    reasons = "; ".join(f"{problem.workdir}: {problem.reason}" for problem in study.problems[:3])
    reasons += f"; and {len(study.problems) - 3} more" if len(study.problems) > 3 else ""
    what = f"no run that can be read ({reasons})" if reasons else "no run (no result.json)"
    raise UserError(f"--runs={','.join(map(str, folders))} holds {what}; {_START}.")
  return study


def _note_repeats(study: Study) -> None:
  """Notes the pretraining runs that differ from an earlier one in nothing but their folder."""
  first: dict[str, str] = {}
  for run in study.of("pretrain"):
    origin = run.origin
    same = origin.system, origin.languages, origin.scale, origin.seed, origin.steps
    what = json.dumps([*same, origin.subsample, origin.similarity, run.computed, run.adds_language])
    workdir = first.setdefault(what, run.workdir)
    if workdir != run.workdir:
      study.repeats.add(run.workdir)
      study.add_problem(run.workdir, f"repeats the pretraining of {workdir}; left out")


def _read_run(path: pathlib.Path, workdir: str) -> Run | None:
  """Returns a run; None where config.json is not that of a run (it has no task)."""
  if not (path / "config.json").exists():
    raise Damaged("it has a result.json but no config.json")
  config, text = _read_json(path / "config.json")
  if not (path / "result.json").exists():
    if "task" not in config:
      return None
    raise Damaged("unfinished: no result.json yet; start the same command again to resume")
  result, _ = _read_json(path / "result.json")
  task = result.get("task", "pretrain")
  check_result(task, result)
  settings = dict(flatten(config))
  digest = hashlib.sha256(text.encode()).hexdigest()[:8]
  origin = _read_origin(task, workdir, result, settings)
  return Run(workdir, path, digest, task, result, settings, origin)


def _read_origin(task: str, workdir: str, result: dict, settings: dict) -> Origin:
  if task == "pretrain":
    is_lab = settings.get("data.source") == "lab"
    similarity = settings.get("data.lab.similarity") if is_lab else None
    subsample = settings.get("data.subsample", 0)
    tree = {**result, "workdir": workdir, "subsample": subsample, "similarity": similarity}
  else:
    tree = need(result, "pretraining", dict)
  values = {name: need(tree, name, str) for name in ("workdir", "system", "scale")}
  values["subsample"] = need(tree, "subsample", int)
  for name in ("seed", "steps"):
    unknown = values["scale"] == "imported" and tree.get(name) is None
    values[name] = None if unknown else need(tree, name, int)
  if tree.get("similarity") is not None:
    need(tree, "similarity", float)
  languages = tuple(map(str, need(tree, "languages", list)))
  tokens = tree.get("tokens_seen_by_language") or {}
  if not tokens and len(languages) == 1 and tree.get("tokens_seen"):
    tokens = {languages[0]: need(tree, "tokens_seen", int)}
  return Origin(
    languages=languages,
    similarity=tree.get("similarity"),
    tokens=tokens,
    flops=tree.get("flops"),
    **values,
  )


def _read_json(path: pathlib.Path) -> tuple[dict, str]:
  try:
    text = path.read_text(encoding="utf-8")
    value = json.loads(text)
  except (OSError, ValueError) as error:
    raise Damaged(f"{path.name} is not JSON ({error})") from error
  if not isinstance(value, dict):
    raise Damaged(f"{path.name} is not a JSON object")
  return value, text


def read_examples(path: pathlib.Path, score: str) -> np.ndarray:
  """Returns the statistics of the test examples from a `per_example/<language>.json`.

  Args:
    path: of the file.
    score: "f1", "exact_match" or "accuracy".

  Returns:
    [examples, 2], a numerator and a denominator per example (`negint.report.statistics`).

  Raises:
    Damaged: the file cannot be read or has no such score.
  """
  tree, _ = _read_json(path)
  try:
    columns, rows = tree["columns"], np.asarray(tree["rows"], np.float64)
    if score == "f1" and "gold" in columns:
      correct, predicted, gold = (
        rows[:, columns.index(c)] for c in ("correct", "predicted", "gold")
      )
      return np.stack([2 * correct, predicted + gold], axis=1)
    values = rows[:, columns.index({"accuracy": "correct"}.get(score, score))]
  except (KeyError, ValueError, IndexError, TypeError) as error:
    raise Damaged(f"{path.name} has no statistics of {score} ({error})") from error
  return np.stack([values, np.ones_like(values)], axis=1)
