"""Scores of fine-tuning runs, sorted into the cells of the paper's tables.

Runs that differ only in their seeds share a cell. Runs of one system that differ in another setting
(`route`, `meta.gradient`, ...) get one row each. The row names the settings whose value is not that
of the main rows. Mono's runs that differ in nothing but `train.steps` are points of one curve: the
point with JointPair's steps is the row Mono, the others are `Cells.curve`'s.

Perplexities are cells, too: of the task "perplexity", with scores that have no test examples.
"""

import collections
import dataclasses
import math
import pathlib
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from negint.report import layout
from negint.report.records import Origin, Run, Study
from negint.report.statistics import Pooled, pool
from negint.report.variants import OF_ONE_SYSTEM, STEPS, split_by_place

PERPLEXITY = "perplexity"  # the task of the cells that hold perplexities
# The score that a task is judged by; "bits" are per character, or per token where no run has them.
MAIN_SCORES = {"ner": "f1", "pos": "f1", "qa": "f1", "nli": "accuracy", PERPLEXITY: "bits"}
_NEXT_SETTING = re.compile(r", (?=(?:pretraining )?[a-z_.]+=)")
ABLATED = ("adpt", "meta_adpt")  # systems whose variants have tables and a figure of their own
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
  "added": "added to",
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

  system: str  # such as "adpt", "majority", "scratch/adpt"; "added/adpt": a language came later
  variant: str = ""  # the settings that differ from the system's main row: "route=mean"
  steps: int = 0  # of a point of Mono's curve that is no row of a table; 0: a row

  @property
  def label(self) -> str:
    """The name in the table."""
    system, _, shape = self.system.partition("/")
    label = LABELS.get(system, system)
    if system == "added":
      label = f"{label} {LABELS.get(shape, shape).removeprefix('+ ') or 'a model'}"
    elif shape:
      label = f"{label}, {LABELS.get(shape, shape)}"
    shown = [each for each in self.settings if each != self._own_tokenizer]
    return f"{label} ({', '.join(shown)})" if shown else label

  @property
  def _own_tokenizer(self) -> str:
    """The setting of the tokenizer where it says no more than that of the languages."""
    named = [s.partition("=")[2] for s in self.settings if s.startswith("pretraining languages=")]
    return f"pretraining data.tokenizer_from={named[0]}" if named else ""

  @property
  def adds_language(self) -> bool:
    """Whether a language was added to its models after they were trained."""
    return self.system.startswith("added/")

  @property
  def joint_pair(self) -> "Row":
    """The row of JointPair with the same settings; those that JointPair does not read are left out."""
    return Row("joint_pair", ", ".join(s for s in self.settings if not OF_ONE_SYSTEM.match(s)))

  @property
  def without_steps(self) -> "Row":
    """The row of the same settings but for the pretraining's updates, which have the main value."""
    return Row(self.system, ", ".join(s for s in self.settings if not s.startswith(f"{STEPS}=")))

  @property
  def settings(self) -> list[str]:
    """The settings of the variant, each such as "route=mean"."""
    return _NEXT_SETTING.split(self.variant) if self.variant else []


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
  def alone(self) -> "Column":
    """The column of Mono on the tested language."""
    return self._replace(pair="", subsample=0 if self.pair else self.subsample)

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

  @property
  def model(self) -> "Key":
    """The same for all cells of one set of pretraining runs."""
    languages = self.column.pair or self.column.language
    column = self.column._replace(language=languages.partition("-")[0], pair="")
    return Key(self.scale, "", "", self.row, column)


class Tested(NamedTuple):
  """The scores of one model on one language."""

  run: Run  # the fine-tuning run, or the pretraining run of a perplexity
  scores: dict[str, float]  # per cent or bits, by name
  examples: (
    pathlib.Path | None
  )  # the file of example statistics, which need not exist; None: no examples


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
    """Returns the keys of the tables' cells that have results, in the order of rows and columns."""
    found = [
      key
      for key in self.cells
      if key[:2] == (scale, task)
      and (setting is None or key.setting == setting)
      and not key.row.steps
    ]
    return sorted(found, key=lambda key: (row_order(key.row), column_order(key.column)))

  def is_own(self, key: Key) -> bool:
    """Returns whether a cell's models were pretrained here, and not imported or without pretraining."""
    system = key.row.system.partition("/")[0]
    runs = [tested.run for tested in self.cells.get(key, {}).values()]
    return system not in ("majority", "scratch") and not any(run.origin.imported for run in runs)

  def main_columns(self, scale: str) -> list[Column]:
    """Returns the target languages, with all their text, at which systems are compared.

    In the lab this is the similarity with most results; elsewhere it is each target language.
    """
    count: dict[Column, int] = collections.Counter(
      key.column
      for key in self.cells
      if key.scale == scale and not (key.column.pair or key.column.subsample or key.row.steps)
    )
    columns = sorted((c for c in count if c.language not in ENGLISH), key=column_order)
    return [max(columns, key=count.__getitem__)] if scale == "lab" and columns else columns

  def ablation(self, scale: str, column: Column) -> list[Row]:
    """Returns the ABLATED systems with their variants in pretraining; none if there is no variant."""
    found = {
      key.row
      for key in self.cells
      if (key.scale, key.column) == (scale, column)
      and key.row.system in ABLATED
      and all(setting.startswith("pretraining ") for setting in key.row.settings)
    }
    return sorted(found, key=row_order) if any(row.variant for row in found) else []

  def curve(self, key: Key) -> list[tuple[float, Key]]:
    """Returns Mono's curve of a cell's task: (tokens of the target seen, key), ascending.

    Args:
      key: any cell within the target language; its row may be that of any system.
    """
    points = [
      each
      for each in self.cells
      if (each.scale, each.task, each.setting) == (key.scale, key.task, "within")
      and (each.row.system, each.column) == ("mono", key.column.alone)
      and (not each.row.variant or each.row.variant.startswith(f"{STEPS}="))
    ]
    found = [(tokens, each) for each in points if (tokens := self.tokens(each)) is not None]
    return sorted(found, key=lambda point: point[0])

  def tokens(self, key: Key) -> float | None:
    """Returns how many tokens of the tested language a cell's models saw; None where unknown."""
    return self._mean(key, lambda origin: origin.tokens.get(key.column.language))

  def flops(self, key: Key) -> float | None:
    """Returns the FLOPs of the pretraining of a cell's models; None where unknown."""
    return self._mean(key, lambda origin: origin.flops)

  def _mean(self, key: Key, count: Callable[[Origin], float | None]) -> float | None:
    """Returns the mean of a count over a cell's models; None where one is unknown."""
    found = [count(tested.run.origin) for tested in self.cells.get(key, {}).values()]
    known = [each for each in found if each is not None]
    return statistics.fmean(known) if known and len(known) == len(found) else None


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
  per_character = any("bits_per_character" in run.result for run in study.pretraining)
  for (scale, task), entries in _by_scale_and_task(study).items():
    systems = [entry.system for entry in entries]
    variants, main[scale, task] = split_by_place(
      [entry.column for entry in entries],
      [(entry.setting, entry.system) for entry in entries],
      systems,
      [entry.settings for entry in entries],
    )
    rows = _rows(entries, variants)
    for entry, row in zip(entries, rows, strict=True):
      everywhere = [s for s in scales if s != "lab"] if entry.run.origin.imported else [scale]
      for each in everywhere:
        key = Key(each, task, entry.setting, row, entry.column)
        _add(cells[key], entry, study, per_character)
  return Cells(dict(cells), scales, main)


class _Entry(NamedTuple):
  """A run in its place."""

  run: Run  # of a task, or a pretraining
  setting: str  # within | zero_shot
  system: str  # of its row
  column: Column  # its language
  settings: dict  # those that distinguish rows


def _by_scale_and_task(study: Study) -> dict[tuple[str, str], list[_Entry]]:
  groups = collections.defaultdict(list)
  for run in study.tuning:
    source = study.source_of(run.origin)
    system = system_of(run.origin, source)
    place = _place(run, system)
    entry = _Entry(run, run.result["setting"], *place, _settings(run, source))
    groups[run.origin.scale, run.task].append(entry)
  for run in study.pretraining:
    settings, system = row_settings(run), system_of(run.origin, run)
    for language in run.origin.languages:
      column = _column(run.origin, language)
      entry = _Entry(run, "within", system, column, settings)
      groups[run.origin.scale, PERPLEXITY].append(entry)
  return groups


def _rows(entries: list[_Entry], variants: list[str]) -> list[Row]:
  """Returns the row of each run; runs of Mono with other steps than JointPair's are no table's rows.

  Where none of Mono's runs has JointPair's steps, the longest is a row that names its steps.
  """
  joint, alone = collections.defaultdict(set), collections.defaultdict(set)
  for entry, variant in zip(entries, variants, strict=True):
    steps = entry.run.origin.steps or 0
    if entry.system == "joint_pair" and not variant:
      joint[entry.column].add(steps)
    if entry.system == "mono":
      alone[entry.column, variant].add(steps)
  rows = []
  for entry, variant in zip(entries, variants, strict=True):
    row = Row(entry.system, variant)
    if entry.system == "mono":
      steps = entry.run.origin.steps or 0
      wanted, found = joint[entry.column], alone[entry.column, variant]
      if wanted and not wanted & found and steps == max(found):
        row = Row("mono", layout.listed(filter(None, (variant, f"{STEPS}={steps}"))))
      elif steps not in (wanted & found or {max(found)}):
        row = Row("mono", variant, steps)
    rows.append(row)
  return rows


def system_of(origin: Origin, source: Run | None) -> str:
  """Returns the system of a pretrained model's row; source: its run, None where it is not known."""
  return f"added/{origin.system}" if source and source.adds_language else origin.system


def _place(run: Run, model: str) -> tuple[str, Column]:
  """Returns a run's (system of its row, column); model: the system of the pretrained model's row."""
  origin, language, baseline = run.origin, run.result["language"], run.result["baseline"]
  if origin.imported:
    own = {"none": model, "scratch": f"scratch/{model}"}
    system = own.get(baseline, baseline)
    return system, Column(language)
  system = model if baseline == "none" else baseline
  if baseline == "scratch" and model != "joint_pair":
    system = f"scratch/{model}"
  return system, _column(origin, language)


def _column(origin: Origin, language: str) -> Column:
  pair = "" if language == origin.languages[0] else "-".join(origin.languages)
  return Column(language, pair, origin.subsample, origin.similarity)


def _settings(run: Run, source: Run | None) -> dict:
  """Returns every setting in which two runs of one cell could differ; source: of the pretraining."""
  if run.result["baseline"] == "majority":  # depends on the data alone
    return {n: v for n, v in run.computed.items() if n.startswith("data.")}
  steps = {STEPS: run.origin.steps} if run.origin.system != "mono" else {}
  return run.computed | (row_settings(source) if source else steps)


def row_settings(run: Run) -> dict:
  """Returns the settings of a pretraining run that make another row; Mono's steps do not."""
  found = run.pretraining_settings
  if run.origin.system == "mono":
    found.pop(STEPS, None)
  return found


def _add(cell: Cell, entry: _Entry, study: Study, per_character: bool) -> None:
  run, language = entry.run, entry.column.language
  if run.task == "pretrain":
    found = [((run.origin.seed, 0), Tested(run, _bits(run, language, per_character), None))]
  else:
    found = _tested(run, language)
  for key, tested in found:
    if key not in cell:
      cell[key] = tested
    elif run.result.get("baseline") != "majority":
      reason = f"repeats seeds {key} (pretraining, tuning) of {cell[key].run.workdir}; left out"
      study.add_problem(run.workdir, reason)


def _bits(run: Run, language: str, per_character: bool) -> dict[str, float]:
  """Returns the bits of held-out text per character or per token; {} where a run lacks the former."""
  if not per_character:
    return {"bits": math.log2(run.result["perplexity"][language])}
  bits = run.result.get("bits_per_character", {}).get(language)
  return {} if bits is None else {"bits": bits}


def _tested(run: Run, language: str) -> list[tuple[tuple[int | None, int], Tested]]:
  """Returns ((pretraining seed, fine-tuning seed), scores) of each trial of a task."""
  result = run.result
  is_majority = result["baseline"] == "majority"
  alone = {"seed": run.settings.get("seed", 1), "test": result["test"]}
  found = []
  for entry in [alone] if is_majority else result["seeds"]:
    examples = run.path / f"seed{entry['seed']}" / "per_example" / f"{language}.json"
    key = (None if is_majority else run.origin.seed, entry["seed"])
    found.append((key, Tested(run, entry["test"][language], examples)))
  return found
