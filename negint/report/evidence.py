"""What a study says about a claim: sums of scores, cosines of gradients, masks and losses, by seed.

A finder takes the evidence and a scale and returns a `Finding`. `claims` combines finders with the
paper's sentences.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from negint.report import budgets, models, pruning_figures, published, statistics, training_figures
from negint.report.cells import ENGLISH, MAIN_SCORES, Cells, Column, Key, Row
from negint.report.comparisons import Comparer, Term, mean_of
from negint.report.layout import TASK_NAMES
from negint.report.models import Model
from negint.report.records import Run, Study
from negint.report.statistics import Estimate, Sample

EARLY = 0.25  # share of a run's updates that are early
START = 0.1  # share of a run's updates that are its start
SAME_TEXT = 0.05  # relative difference below which two models read equally much of a language
# Systems of the paper's tables that train on the same two languages.
PAPER_SYSTEMS = ("joint_pair", "ffn", "attn", "adpt", "share_adpt", "meta_adpt")
_PAPER_TABLES = {"ner": "table2", "pos": "table2", "qa": "table3", "nli": "table6"}


@dataclass(frozen=True)
class Finding:
  """What was found about one claim."""

  estimates: Sequence[Estimate] = ()  # all must agree with the claim; empty: not run
  paper: float | None = None  # the same number, from the paper's tables
  parts: Sequence[tuple[str, Estimate]] = ()  # (task and language, the number there)


class Evidence(NamedTuple):
  """A study, ready to be asked."""

  study: Study  # its runs
  comparer: Comparer  # of its cells

  @property
  def cells(self) -> Cells:
    """The scores."""
    return self.comparer.cells


Finder = Callable[[Evidence, str], Finding]  # (evidence, scale)
Sums = dict[tuple[str, Column], tuple[Term, ...]]  # by (task, language)


class Side(NamedTuple):
  """One system in a sum of scores."""

  weight: float  # +1 or -1
  system: str  # of the row
  setting: str = "within"  # within | zero_shot | english: its bilingual model on English


def scores(*sides: Side) -> Finder:
  """Returns the finder of a sum of scores: the mean over all tasks and target languages that have it.

  Args:
    sides: what is summed.
  """

  def find(evidence: Evidence, scale: str) -> Finding:
    found = {
      (task, column): terms
      for column in evidence.cells.main_columns(scale)
      for task in TASK_NAMES
      if (terms := _terms(evidence.cells, scale, task, column, sides))
    }
    return finding(evidence.comparer, found, _paper(sides, scale, found))

  return find


def at_equal_text(system: str, other: str, setting: str) -> Finder:
  """Returns the finder of system - other, where both read equally much text of the target.

  Args:
    system: of the first row; of its runs with other updates, those that read as much count.
    other: of the second row.
    setting: within | zero_shot.
  """

  def find(evidence: Evidence, scale: str) -> Finding:
    cells = evidence.cells
    found: Sums = {}
    for column in cells.main_columns(scale):
      for task in TASK_NAMES:
        theirs = Key(scale, task, setting, Row(other), column)
        for ours in cells.find(scale, task, setting):
          if ours.column == column and ours.row.without_steps == Row(system):
            read, wanted = cells.tokens(ours), cells.tokens(theirs)
            if read and wanted and abs(read / wanted - 1) < SAME_TEXT:
              score = MAIN_SCORES[task]
              found[task, column] = (Term(1, ours, score), Term(-1, theirs, score))
    return finding(evidence.comparer, found, None)

  return find


def interference(matching: str, *, small: bool = False, languages: tuple[str, ...] = ()) -> Finder:
  """Returns the finder of Mono minus JointPair within the language, as the mean over tasks and languages.

  Args:
    matching: the budget that is equal, one of `budgets.MATCHINGS`.
    small: the targets are those with the least text, instead of those with all of it.
    languages: the only targets; empty: all.
  """
  sides = Side(1, "mono"), Side(-1, "joint_pair")

  def find(evidence: Evidence, scale: str) -> Finding:
    found = {}
    for column in _targets(evidence.cells, scale, small):
      for task in TASK_NAMES:
        pair = Key(scale, task, "within", Row("joint_pair"), column)
        terms = budgets.mono_minus(evidence.cells, pair, matching)
        if terms and (not languages or column.language in languages):
          found[task, column] = terms
    paper = _paper(sides, scale, found, small, languages) if matching == "steps" else None
    return finding(evidence.comparer, found, paper)

  return find


def finding(comparer: Comparer, found: Sums, paper: float | None) -> Finding:
  """Returns the mean of sums of scores, one per task and language, with each of them as a part."""
  whole = comparer.estimate(mean_of(list(found.values()))) if found else None
  parts = [
    (f"{TASK_NAMES[task]}, {column.label}", each)
    for (task, column), terms in found.items()
    if (each := comparer.estimate(terms))
  ]
  return Finding([whole] if whole else [], paper, parts)


def _targets(cells: Cells, scale: str, small: bool) -> list[Column]:
  """Returns the target languages, with all their text or with the least."""
  main = cells.main_columns(scale)
  if not small:
    return main
  columns = {key.column for key in cells.cells if key.scale == scale and key.column.subsample}
  found = []
  for column in main:
    same = [c for c in columns if c._replace(subsample=0) == column]
    found += [min(same, key=lambda c: c.subsample)] if same else []
  return found


def _terms(
  cells: Cells, scale: str, task: str, column: Column, sides: Sequence[Side]
) -> tuple[Term, ...] | None:
  """Returns the terms of one task and language; None where a cell is empty."""
  terms = []
  for side in sides:
    key = _key(scale, task, column, side)
    if key not in cells.cells:
      return None
    terms.append(Term(side.weight, key, MAIN_SCORES[task]))
  return tuple(terms)


def _key(scale: str, task: str, column: Column, side: Side) -> Key:
  if side.setting != "english":
    return Key(scale, task, side.setting, Row(side.system), column)
  english = ENGLISH[scale == "lab"]
  tested = column._replace(language=english, pair=f"{column.language}-{english}")
  return Key(scale, task, "within", Row(side.system), tested)


def _paper(
  sides: Sequence[Side],
  scale: str,
  found: Iterable[tuple[str, Column]],
  small: bool = False,
  languages: tuple[str, ...] = (),
) -> float | None:
  """Returns the paper's mean of a sum of scores, over the tasks and languages that we have, if any.

  The lab has none of the paper's languages: it is compared with the mean over all.
  """
  ours = {(task, column.published) for task, column in found} if scale != "lab" else set()
  every, both = [], []
  for task in TASK_NAMES:
    table = _PAPER_TABLES[task]
    if small or any(side.setting == "english" for side in sides):
      table = "table5"
    elif any(side.system == "joint_tri" for side in sides):
      table = "table4"
    score = MAIN_SCORES[task]
    for name in published.columns(table, task, score, sides[0].setting):
      values = [published.value(table, task, score, s.setting, s.system, name) for s in sides]
      if small != name.endswith("_l") or (languages and name not in languages):
        continue
      if all(value is not None for value in values):
        total = sum(s.weight * (v or 0) for s, v in zip(sides, values, strict=True))
        every.append(total)
        both += [total] if (task, name) in ours else []
  wanted = both or every
  return float(np.mean(wanted)) if wanted else None


def best(system: str, setting: str) -> Finder:
  """Returns the finder of a system's lead over each other one of the paper: all must be above zero."""

  def find(evidence: Evidence, scale: str) -> Finding:
    estimates: list[Estimate] = []
    parts: list[tuple[str, Estimate]] = []
    papers: list[float] = []
    for other in (each for each in PAPER_SYSTEMS if each != system):
      found = scores(Side(1, system, setting), Side(-1, other, setting))(evidence, scale)
      estimates += found.estimates
      papers += [] if found.paper is None else [found.paper]
      parts += [(f"over {Row(other).label}", each) for each in found.estimates]
    return Finding(estimates, min(papers, default=None), parts)

  return find


def size_of_the_other(evidence: Evidence, scale: str) -> Finding:
  """Finds how much better English is beside all text of the target than beside little of it."""
  side = Side(1, "joint_pair", "english")
  found: Sums = {}
  for column in _targets(evidence.cells, scale, True):
    for task in TASK_NAMES:
      large = _key(scale, task, column._replace(subsample=0), side)
      small = _key(scale, task, column, side)
      if large in evidence.cells.cells and small in evidence.cells.cells:
        score = MAIN_SCORES[task]
        found[task, column] = (Term(1, large, score), Term(-1, small, score))
  differences = []
  for task in ("ner", "pos", "qa"):
    for name in published.columns("table5", task, "f1", "english"):
      if name.endswith("_l"):
        where = ("table5", task, "f1", "english", "joint_pair")
        large_value, small_value = (
          published.value(*where, n) for n in (name.removesuffix("_l"), name)
        )
        differences.append((large_value or 0) - (small_value or 0))
  return finding(evidence.comparer, found, float(np.mean(differences)))


def distance(evidence: Evidence, scale: str) -> Finding:
  """Finds how much more a distant language interferes.

  In the lab: Mono - JointPair at the lowest similarity minus the same at the highest. Else: English in
  the French model minus English in the Russian one, as in Table 5.
  """
  paper = [
    (published.value("table5", task, "f1", "english", "joint_pair", "fr") or 0)
    - (published.value("table5", task, "f1", "english", "joint_pair", "ru") or 0)
    for task in ("ner", "pos")
  ]
  cells = evidence.cells
  found: Sums = {}
  if scale != "lab":
    side = Side(1, "joint_pair", "english")
    for task in TASK_NAMES:
      near, far = (_key(scale, task, Column(language), side) for language in ("fr", "ru"))
      if near in cells.cells and far in cells.cells:
        score = MAIN_SCORES[task]
        found[task, Column("en")] = (Term(1, near, score), Term(-1, far, score))
  else:
    for task in ("ner", "pos", "qa"):
      keys = [k for k in cells.find(scale, task, "within") if k.row == Row("joint_pair")]
      keys = [k for k in keys if not k.column.pair and not k.column.subsample]
      terms = {k.column: t for k in keys if (t := budgets.mono_minus(cells, k, "steps"))}
      order = sorted(terms, key=lambda column: column.similarity or 0)
      if len(order) > 1 and order[0].similarity != order[-1].similarity:
        negative = tuple(t._replace(weight=-t.weight) for t in terms[order[-1]])
        found[task, order[0]] = (*terms[order[0]], *negative)
  return finding(evidence.comparer, found, float(np.mean(paper)))


def by_seed(*groups: tuple[float, Sequence[tuple[int | None, float]]]) -> Estimate | None:
  """Returns a sum of means of groups of (pretraining seed, value); None where a group is empty."""
  samples = []
  for weight, values in groups:
    seeds: dict[int | None, list[float]] = {}
    for seed, value in values:
      seeds.setdefault(seed, []).append(value)
    means = np.array([weight * float(np.mean(each)) for each in seeds.values()])
    samples.append(Sample(means, None, statistics.PRETRAINING))
  if any(not len(sample.values) for sample in samples):
    return None
  return statistics.estimate(samples, without_examples=True)


class Cosines(NamedTuple):
  """Cosines of gradients at one point of a run."""

  share: float  # of the run's updates that were made
  weight: float  # share of the updates since the point before: what the point stands for
  between: float  # of a batch of the target and one of English
  target: float  # of two batches of the target; sampling noise lowers it below 1
  english: float  # of two batches of English


Curve = list[Cosines]


def cosines_of(run: Run, target: str, english: str, steps: int) -> Curve:
  """Returns the cosines of gradients of a run: from its log, or from its checkpoints."""
  pairs = (f"{target}-{english}", f"{target}-{target}", f"{english}-{english}")
  if run.task == "pretrain":
    series = [dict(run.series(f"gradient_cosine/all/{pair}")) for pair in pairs]
  else:
    series = [{}, {}, {}]
    for checkpoint in run.result["checkpoints"]:
      found = checkpoint["scopes"].get("all", {}).get("cosine", {})
      for each, pair in zip(series, pairs, strict=True):
        if found.get(pair, {}).get("mean") is not None:
          each[checkpoint["step"]] = found[pair]["mean"]
  together = sorted(set.intersection(*(set(each) for each in series)))
  before = [0, *together]
  return [
    Cosines(step / steps, (step - last) / steps, *(each[step] for each in series))
    for last, step in zip(before, together, strict=False)
  ]


def _measured(evidence: Evidence, scale: str) -> dict[Model, list[tuple[int | None, Curve]]]:
  """Returns the (seed, cosines) of JointPair's runs by model; logs are preferred to checkpoints."""
  logged = models.by_model(evidence.study, scale, ("joint_pair",))
  found: dict = {}
  runs = [(model, run) for model, systems in logged.items() for run in systems["joint_pair"]]
  measured = models.analyses_by_model(evidence.study, "gradient_similarity", scale)
  runs += [(model, run) for model, each in measured.items() for run in each]
  for model, run in runs:
    languages = run.origin.languages
    curve = cosines_of(run, languages[0], languages[-1], run.origin.steps or 1)
    seeds = {seed for seed, _ in found.get(model, [])}
    if curve and run.origin.seed not in seeds:
      found.setdefault(model, []).append((run.origin.seed, curve))
  return found


def _main_models(evidence: Evidence, scale: str, found: Iterable[Model]) -> list[Model]:
  main = {(c.language, c.subsample, c.similarity) for c in evidence.cells.main_columns(scale)}
  found = list(found)
  return [model for model in found if model in main] or [m for m in found if not m[1]][:1]


def conflict(value: Callable[[Curve], float]) -> Finder:
  """Returns the finder of a number that the cosines of a run give; NaN: the run does not tell."""

  def find(evidence: Evidence, scale: str) -> Finding:
    measured, parts = _measured(evidence, scale), []
    for model in _main_models(evidence, scale, measured):
      values = [(seed, value(curve)) for seed, curve in measured[model]]
      estimate = by_seed((1, [each for each in values if math.isfinite(each[1])]))
      parts += [(models.model_label(model), estimate)] if estimate else []
    return Finding([estimate for _, estimate in parts], None, parts)

  return find


def over_updates(curve: Curve, value: Callable[[Cosines], float]) -> float:
  """Returns the mean of a value over the updates of a curve, NaN if it has none.

  Runs measure more often at the start, so each point counts for the updates since the one before.
  """
  total = sum(each.weight for each in curve)
  return sum(each.weight * value(each) for each in curve) / total if total else math.nan


def gap(curve: Curve) -> float:
  """Returns by how much gradients of one language agree more than those of two."""
  return over_updates(curve, lambda each: (each.target + each.english) / 2 - each.between)


def early_loss(curve: Curve) -> float:
  """Returns how much less two languages agree in the first quarter of the updates than in the rest."""
  early = [each for each in curve if each.share <= EARLY]
  return agreement([each for each in curve if each.share > EARLY]) - agreement(early)


def agreement(curve: Curve) -> float:
  """Returns the cosine of two languages, corrected for sampling noise, which grows during a run.

  It is the cosine between them, divided by the geometric mean of those within each; NaN where one of
  these is not positive.
  """
  between = between_languages(curve)
  target = over_updates(curve, lambda each: each.target)
  english = over_updates(curve, lambda each: each.english)
  return between / math.sqrt(target * english) if target > 0 and english > 0 else math.nan


def between_languages(curve: Curve) -> float:
  """Returns the mean cosine of two languages over the updates of a curve."""
  return over_updates(curve, lambda each: each.between)


def start(curve: Curve) -> float:
  """Returns the mean cosine of two languages in the first tenth of the updates."""
  return between_languages([each for each in curve if each.share <= START])


def near_minus_far(evidence: Evidence, scale: str) -> Finding:
  """Finds how much more the gradients of a close pair agree than those of a distant pair."""
  measured = _measured(evidence, scale)
  whole = {model: curves for model, curves in measured.items() if not model[1]}
  if scale == "lab":
    order = sorted((m for m in whole if m[2] is not None), key=lambda model: model[2] or 0)
    far, near = (order[0], order[-1]) if len(order) > 1 else (None, None)
  else:
    near, far = (next((m for m in whole if m[0] == code), None) for code in ("fr", "ar"))
  if near is None or far is None:
    return Finding()
  values = [
    [(seed, between_languages(curve)) for seed, curve in whole[model]] for model in (near, far)
  ]
  estimate = by_seed((1, values[0]), (-1, values[1]))
  return Finding([estimate] if estimate else [])


def masks(value: Callable[[pruning_figures.Curves, str], float]) -> Finder:
  """Returns the finder of a number that the masks of a run give: (curves, kind of similarity)."""

  def find(evidence: Evidence, scale: str) -> Finding:
    parts = []
    found = models.analyses_by_model(evidence.study, "pruning", scale)
    for model in _main_models(evidence, scale, found):
      numbers = []
      for run in found[model]:
        curves = pruning_figures.mask_curves([run])
        ranked = pruning_figures.has_kind(curves, "rank_correlation")
        kind = "rank_correlation" if ranked else "centred"
        numbers.append((run.origin.seed, value(curves, kind)))
      estimate = by_seed((1, [each for each in numbers if math.isfinite(each[1])]))
      parts += [(models.model_label(model), estimate)] if estimate else []
    return Finding([estimate for _, estimate in parts], None, parts)

  return find


def _similarities(
  curves: pruning_figures.Curves, kind: str, *, module: str = "", one_language: bool = False
) -> dict[int, list[float]]:
  """Returns the defined similarities by layer."""
  found: dict[int, list[float]] = {}
  for (name, _, is_ceiling), layers in curves.items():
    if is_ceiling == one_language and module in ("", name):
      for layer, entries in layers.items():
        found.setdefault(layer, []).extend(e[kind] for e in entries if math.isfinite(e[kind]))
  return found


def _mean(layers: dict[int, list[float]]) -> float:
  """Returns the mean of the similarities of all layers, NaN if there are none."""
  values = [value for each in layers.values() for value in each]
  return float(np.mean(values)) if values else math.nan


def lower_minus_upper(curves: pruning_figures.Curves, kind: str) -> float:
  """Returns how much more alike two languages' masks are in the lower half of the layers."""
  layers = _similarities(curves, kind)
  order = sorted(layers)
  half = len(order) // 2
  lower, upper = order[:half], order[len(order) - half :]
  return _mean({k: layers[k] for k in lower}) - _mean({k: layers[k] for k in upper})


def attention_minus_ffn(curves: pruning_figures.Curves, kind: str) -> float:
  """Returns how much more alike two languages' masks are in attention than in feed-forward layers."""
  attention, ffn = (_similarities(curves, kind, module=name) for name in ("attention", "ffn"))
  return _mean(attention) - _mean(ffn)


def one_minus_two_languages(curves: pruning_figures.Curves, kind: str) -> float:
  """Returns how much more alike two masks of one language are than masks of two languages."""
  own, cross = (_similarities(curves, kind, one_language=one) for one in (True, False))
  return _mean(own) - _mean(cross)


def faster(system: str, than: str) -> Finder:
  """Returns the finder of the updates that `system` saves until it reaches a training loss.

  The loss is the highest that a run of the two systems has in the middle of its updates, so that all
  reach it.
  """

  def find(evidence: Evidence, scale: str) -> Finding:
    found = models.by_model(evidence.study, scale, (system, than))
    parts = []
    for model in _main_models(evidence, scale, found):
      runs = {name: found[model].get(name, []) for name in (system, than)}
      curves = {
        name: [(r.origin.seed, *training_figures.loss_curve(r)) for r in each]
        for name, each in runs.items()
      }
      every = [curve for each in curves.values() for curve in each if len(curve[1]) > 1]
      if not all(runs.values()) or len(every) < sum(map(len, runs.values())):
        continue
      level = max(float(np.interp(steps[-1] / 2, steps, losses)) for _, steps, losses in every)
      reached = {
        name: [(seed, reach(steps, losses, level)) for seed, steps, losses in each]
        for name, each in curves.items()
      }
      estimate = saved(reached[than], reached[system])
      if estimate:
        parts.append((f"{models.model_label(model)}, loss {level:.2f}", estimate))
    return Finding([estimate for _, estimate in parts], None, parts)

  return find


def saved(
  than: Sequence[tuple[int | None, float]], own: Sequence[tuple[int | None, float]]
) -> Estimate | None:
  """Returns the mean of than - own over (seed, updates), paired by seed where both have the same."""
  theirs, ours = dict(than), dict(own)
  if theirs.keys() != ours.keys():
    return by_seed((1, than), (-1, own))
  return by_seed((1, [(seed, theirs[seed] - ours[seed]) for seed in theirs]))


def reach(steps: np.ndarray, losses: np.ndarray, level: float) -> float:
  """Returns the step at which a curve first is at a level or below, between its points."""
  place = int(np.argmax(losses <= level))
  if place == 0:
    return float(steps[0])
  share = (losses[place - 1] - level) / (losses[place - 1] - losses[place])
  return float(steps[place - 1] + share * (steps[place] - steps[place - 1]))
