"""Scores of fine-tuning runs, sorted into the cells of the paper's tables.

Runs that differ only in their seeds share a cell. Runs of one system that differ in another setting
(`route`, `meta.gradient`, ...) get one row each. The row names the settings whose value is not that
of the main rows.
"""

import collections
import dataclasses
import json
import pathlib
import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from negint.report.problems import Problem
from negint.report.records import Run, Study
from negint.report.statistics import Pooled, pool

LABELS = {
  "mono": "Mono",
  "joint_pair": "JointPair",
  "joint_tri": "JointTri",
  "ffn": "+ ffn",
  "attn": "+ attn",
  "adpt": "+ adpt",
  "share_adpt": "+ share adpt",
  "meta_adpt": "+ meta adpt",
  "meta_ffn": "+ meta ffn",
  "meta_attn": "+ meta attn",
  "pcgrad": "PCGrad",
  "gradvac": "GradVac",
  "xlm": "XLM",
  "bert": "BERT",
  "roberta": "RoBERTa",
  "xlm-roberta": "XLM-R",
  "camembert": "CamemBERT",
  "scratch": "from scratch",
  "majority": "majority",
}
PAPER_LANGUAGES = ("en", "ar", "fr", "ru", "hi", "sw", "te")
ENGLISH = ("en", "xa")  # the language of every pair, and the lab's
SCALES = ("paper", "base", "small", "sample", "lab")


class Row(NamedTuple):
  """A row of a table: a system or a baseline."""

  system: str  # such as "adpt", "majority" or "scratch/adpt"
  variant: str = ""  # the settings that differ from the system's main row: "route=mean"

  @property
  def label(self) -> str:
    """The name in the table."""
    system, _, shape = self.system.partition("/")
    label = LABELS.get(system, system) + (f", {LABELS.get(shape, shape)}" if shape else "")
    return f"{label} ({self.variant})" if self.variant else label


class Column(NamedTuple):
  """A column of a table: the tested language, and what its models were trained on."""

  language: str  # the tested language
  pair: str = ""  # the model's languages where the tested one is not their target: "fr-en"
  subsample: int = 0  # training sentences of the target; 0: all
  similarity: float | None = None  # of the lab's target to xa

  @property
  def label(self) -> str:
    """The name in the table."""
    name = f"{self.language}{self.size}" if not self.pair else self.language
    if self.pair:
      name += f" in {self.pair.replace('-', f'{self.size}-', 1)}"
    return name if self.similarity is None else f"{name} @{self.similarity:g}"

  @property
  def size(self) -> str:
    """The size of a subsampled corpus as a suffix of the language; empty for the whole corpus."""
    return f"_l ({self.subsample:,})" if self.subsample else ""

  @property
  def published(self) -> str:
    """The name that the paper gives the column: fr_l is subsampled French."""
    return self.language + ("_l" if self.subsample else "")


class Key(NamedTuple):
  """Where a cell is."""

  scale: str  # sample | base | paper | lab
  task: str  # ner | pos | qa | nli
  setting: str  # within | zero_shot
  row: Row  # the system
  column: Column  # the language


class Tested(NamedTuple):
  """The scores of one model on one language."""

  run: Run  # the fine-tuning run
  scores: dict[str, float]  # per cent, by name
  examples: pathlib.Path  # the file of example statistics; it need not exist


# By (pretraining seed, fine-tuning seed). The first is None where no run of ours pretrained the model.
Cell = dict[tuple[int | None, int], Tested]


@dataclass
class Cells:
  """All cells of a study."""

  cells: dict[Key, Cell]  # only cells with a result
  scales: list[str]  # in the order of SCALES
  # (scale, task) -> {setting: its values in rows without a variant}, of settings that vary
  main: dict[tuple[str, str], dict[str, list]]

  def pooled(self, key: Key, score: str) -> Pooled | None:
    """Returns the mean and deviation of a score over the seeds; None where nothing was run.

    Scores that share their pretraining are no independent repeats of it. With several pretraining
    seeds, each gives one value, the mean over its fine-tuning seeds; with one, each fine-tuning seed
    gives a value.
    """
    by_origin = collections.defaultdict(list)
    for (origin_seed, _), tested in self.cells.get(key, {}).items():
      if score in tested.scores:
        by_origin[origin_seed].append(tested.scores[score])
    runs = [value for values in by_origin.values() for value in values]
    if not runs:
      return None
    if len(by_origin) == 1:
      return pool(runs, over="fine-tuning")
    means = pool(statistics.fmean(values) for values in by_origin.values())
    return dataclasses.replace(means, over="pretraining", count=len(runs))

  def find(self, scale: str, task: str, setting: str | None = None) -> list[Key]:
    """Returns the keys that have results, in the order of rows and columns."""
    found = [
      key
      for key in self.cells
      if key[:2] == (scale, task) and (setting is None or key.setting == setting)
    ]
    return sorted(found, key=lambda key: (row_order(key.row), column_order(key.column)))


def row_order(row: Row) -> tuple[int, Row]:
  """Returns a sort key: systems in the order of LABELS, then the others."""
  system = row.system.partition("/")[0]
  known = list(LABELS)
  return (known.index(system) if system in known else len(known), row)


def column_order(column: Column) -> tuple[int, str, str, str, int, float]:
  """Returns a sort key: languages in the order of the paper, then the others."""
  known, language = PAPER_LANGUAGES, column.language.removesuffix("_l")
  place = known.index(language) if language in known else len(known)
  similarity = -1.0 if column.similarity is None else column.similarity
  return place, language, column.pair, column.published, column.subsample, similarity


def collect(study: Study) -> Cells:
  """Sorts the fine-tuning runs of a study into cells; adds repeated seeds to `study.problems`."""
  found = {run.origin.scale for run in study.runs if not run.origin.imported}
  if found <= {"lab"}:
    found |= {run.origin.scale for run in study.runs}
  known = [scale for scale in SCALES if scale in found]
  scales = known + sorted(found - set(known))
  cells: dict[Key, Cell] = collections.defaultdict(dict)
  main = {}
  for (scale, task), runs in _by_scale_and_task(study).items():
    places = [_place(run) for run in runs]
    systems, columns = [system for system, _ in places], [column for _, column in places]
    identities = [
      (run.result["setting"], system) for run, (system, _) in zip(runs, places, strict=True)
    ]
    variants, main[scale, task] = split_by_place(
      columns, identities, systems, [_settings(run, study) for run in runs]
    )
    for run, system, column, variant in zip(runs, systems, columns, variants, strict=True):
      setting = run.result["setting"]
      everywhere = [s for s in scales if s != "lab"] if run.origin.imported else [scale]
      for each in everywhere:
        _add(cells[Key(each, task, setting, Row(system, variant), column)], run, study)
  return Cells(dict(cells), scales, main)


def _by_scale_and_task(study: Study) -> dict[tuple[str, str], list[Run]]:
  groups = collections.defaultdict(list)
  for run in study.tuning:
    groups[run.origin.scale, run.task].append(run)
  return groups


def _place(run: Run) -> tuple[str, Column]:
  """Returns a run's (system of its row, column)."""
  origin, language, baseline = run.origin, run.result["language"], run.result["baseline"]
  if origin.imported:
    own = {"none": origin.system, "scratch": f"scratch/{origin.system}"}
    system = own.get(baseline, baseline)
    return system, Column(language)
  system = origin.system if baseline == "none" else baseline
  if baseline == "scratch" and origin.system != "joint_pair":
    system = f"scratch/{origin.system}"
  pair = "" if language == origin.languages[0] else "-".join(origin.languages)
  return system, Column(language, pair, origin.subsample, origin.similarity)


def _settings(run: Run, study: Study) -> dict:
  """Returns every setting in which two runs of one cell could differ."""
  if run.result["baseline"] == "majority":  # depends on the data alone
    return {n: v for n, v in run.computed.items() if n.startswith("data.")}
  source = study.source_of(run.origin)
  pretraining = source.computed if source else {"train.steps": run.origin.steps}
  return run.computed | {f"pretraining {name}": value for name, value in pretraining.items()}


def split_by_place(
  places: Sequence[Hashable],
  identities: Sequence[Hashable],
  systems: Sequence[str],
  settings: list[dict],
) -> tuple[list[str], dict[str, list]]:
  """Returns what distinguishes runs of one identity whose settings differ, place by place.

  A place is where runs are compared: a column of a table, or a panel of a figure. Each has its own
  main settings, so that a run in one place cannot push another place's runs out of their main rows.

  Args:
    places: of each run.
    identities: what each run is in its place.
    systems: of each run; JointPair's runs choose the main settings (`split_variants`).
    settings: {name: value} of each run.

  Returns:
    (one text per run: its settings that do not have the main value; {setting: main values of all
    places, without repeats}).
  """
  texts = [""] * len(settings)
  main: dict[str, list] = {}
  for place in dict.fromkeys(places):
    here = [index for index, other in enumerate(places) if other == place]
    variants, chosen = split_variants(
      [identities[index] for index in here],
      [settings[index] for index in here],
      [systems[index] == "joint_pair" for index in here],
    )
    for index, variant in zip(here, variants, strict=True):
      texts[index] = variant
    for name, value in chosen.items():
      values = main.setdefault(name, [])
      values += [value] if value not in values else []
  return texts, main


def split_variants(
  identities: Sequence[Hashable], settings: list[dict], is_baseline: Sequence[bool] = ()
) -> tuple[list[str], dict]:
  """Returns what distinguishes runs of one identity whose settings differ.

  The main settings are those of a run that exists. If JointPair has runs, it is one of them, because
  every row is compared with JointPair's main row. Each setting in turn has the most common value that
  is left. A setting that a run does not have does not distinguish it from runs that have it.

  Args:
    identities: what each run is; only runs with equal identities are compared.
    settings: {name: value} of each run.
    is_baseline: whether each run is one of JointPair; empty: none is.

  Returns:
    (one text per run: its settings that do not have the main value; {setting: main value}).
  """
  runs = [{name: json.dumps(value) for name, value in each.items()} for each in settings]
  groups = collections.defaultdict(list)
  for identity, each in zip(identities, runs, strict=True):
    groups[identity].append(each)
  varying = {
    name
    for group in groups.values()
    for name in set().union(*group)
    if len({each[name] for each in group if name in each}) > 1
  }
  flags = is_baseline or [False] * len(runs)
  candidates = [each for each, chosen in zip(runs, flags, strict=True) if chosen] or runs
  main = {}
  for name in sorted(varying):
    legal = {each[name] for each in candidates if name in each}
    counts = collections.Counter(each[name] for each in runs if name in each)
    value = min(legal or counts, key=lambda value: (-counts[value], value))
    candidates = [each for each in candidates if each.get(name, value) == value]
    main[name] = json.loads(value)
  texts = [
    ", ".join(f"{n}={each[n]}" for n in main if n in each and each[n] != main[n])
    for each in settings
  ]
  return texts, main


def _add(cell: Cell, run: Run, study: Study) -> None:
  language = run.result["language"]
  is_majority = run.result["baseline"] == "majority"
  alone = {"seed": run.settings.get("seed", 1), "test": run.result["test"]}
  seeds = [alone] if is_majority else run.result["seeds"]
  origin_seed = None if is_majority else run.origin.seed
  for entry in seeds:
    key = (origin_seed, entry["seed"])
    if key not in cell:
      examples = run.path / f"seed{entry['seed']}" / "per_example" / f"{language}.json"
      cell[key] = Tested(run, entry["test"][language], examples)
    elif not is_majority:
      reason = f"repeats seeds {key} (pretraining, tuning) of {cell[key].run.workdir}; left out"
      study.problems.append(Problem(run.workdir, reason))
