"""Figures of pretraining over time: perplexity, gradient cosines, early loss."""

import collections
import pathlib

import numpy as np
from matplotlib import ticker

from negint.report import drawing
from negint.report.cells import LABELS, Row, split_variants
from negint.report.drawing import BLUE, COLOURS, GREEN, SKY, VERMILLION, Axes, Canvas, Figure
from negint.report.records import Run, Study
from negint.report.run_tables import origin_order, pair_label

Model = tuple[str, int, float | None]  # (target, subsample, similarity): one panel
Cosines = tuple[np.ndarray, np.ndarray, np.ndarray | None]  # (steps, means, standard errors)

_CAPTION_2 = (
  "How well each model predicts hidden words of the target language as pretraining goes on, measured "
  "on text that neither was trained on. Mean over seeds."
)
_CAPTION_3 = (
  "Cosines of JointPair's gradients. X-Y: of a batch of the target and a batch of English. X-X: of two "
  "independent batches of one language, which sampling noise lowers below 1. Corrected: X-Y divided by "
  "the geometric mean of X-X and Y-Y. Lines without points: from the training log, averaged over "
  "neighbouring steps. Points: measured at checkpoints, with standard errors."
)
_CAPTION_4C = (
  "Masked-word loss on training batches, from the end of the warm-up to the middle of the run; mean "
  "over languages and seeds, averaged over neighbouring steps."
)


def by_model(
  study: Study, scale: str, systems: tuple[str, ...]
) -> dict[Model, dict[str, list[Run]]]:
  """Returns pretraining runs that have the most common settings.

  Args:
    study: all runs.
    scale: of the runs.
    systems: that are wanted.

  Returns:
    {model: {system: one run per seed}}, sorted.
  """
  runs = [run for run in study.pretraining if run.origin.scale == scale]
  runs = sorted(runs, key=lambda run: origin_order(run.origin))
  kinds = [(run.origin.system, pair_label(run.origin)) for run in runs]
  variants, _ = split_variants(kinds, [run.computed for run in runs])
  found: dict = collections.defaultdict(lambda: collections.defaultdict(list))
  for run, variant in zip(runs, variants, strict=True):
    origin = run.origin
    if origin.system in systems and not variant:
      model = origin.languages[0], origin.subsample, origin.similarity
      found[model][origin.system].append(run)
  return found


def model_label(model: Model) -> str:
  """Returns the title of a model's panel."""
  language, subsample, similarity = model
  name = f"{language}_l ({subsample:,})" if subsample else language
  return name if similarity is None else f"{name} @{similarity:g}"


def mean_series(runs: list[Run], name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps, means over runs) of a scalar, at the steps that all runs with it have."""
  series = [dict(points) for run in runs if (points := run.series(name))]
  if not series:
    return np.array([]), np.array([])
  steps = sorted(set.intersection(*(set(points) for points in series)))
  return np.array(steps), np.array([[points[s] for s in steps] for points in series]).mean(axis=0)


def figure2(study: Study, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws the perplexity of Mono and JointPair on the target's `valid` split."""
  found = by_model(study, scale, ("mono", "joint_pair"))
  found = {
    m: s for m, s in found.items() if len(s) == 2 and all(_perplexity(m, r) for r in s.values())
  }
  if not found:
    return None
  figure, axes = drawing.panels(len(found), 3, 2.3)
  for ax, (model, systems) in zip(axes, found.items(), strict=True):
    ends = []
    for system in ("mono", "joint_pair"):
      steps, values = mean_series(systems[system], f"perplexity/{model[0]}")
      ax.plot(steps, values, color=COLOURS[system], marker="o", markersize=2.5)
      ends.append((values[-1], LABELS[system], COLOURS[system]))
    _log_scale(ax)
    _finish(figure, ax, model_label(model), "perplexity (log scale)", ends)
  return drawing.save(figure, folder, "2", scale, _CAPTION_2)


def _log_scale(ax: Axes) -> None:
  """Makes y logarithmic, with plain numbers: more of them where the range is small."""
  ax.set_yscale("log")
  low, high = ax.get_ylim()
  subs = (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 6, 8)
  ax.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
  ax.yaxis.set_minor_locator(ticker.NullLocator())
  drawing.thousands(ax.yaxis)


def _perplexity(model: Model, runs: list[Run]) -> bool:
  return len(mean_series(runs, f"perplexity/{model[0]}")[0]) > 0


def figure3(study: Study, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws cosines of gradients while JointPair trains: logged (lines) and measured (points)."""
  logged = by_model(study, scale, ("joint_pair",))
  measured = collections.defaultdict(list)
  for run in study.of("gradient_similarity"):
    origin = run.origin
    if origin.system == "joint_pair" and origin.scale == scale:
      measured[origin.languages[0], origin.subsample, origin.similarity].append(run)
  draws: dict[Model, dict[str, tuple[Cosines, bool]]] = {}
  for model in list(logged) + [model for model in measured if model not in logged]:
    runs = logged.get(model, {}).get("joint_pair", [])
    languages = (runs or measured[model])[0].origin.languages
    lines = _cosines(runs, measured.get(model, []), languages[0], languages[-1])
    if any(len(steps) for (steps, _, _), _ in lines.values()):
      draws[model] = lines
  if not draws:
    return None
  figure, axes = drawing.panels(len(draws), 2, 2.5, share_y=True)
  ends = [_draw_cosines(ax, lines) for ax, lines in zip(axes, draws.values(), strict=True)]
  for ax, model, each in zip(axes, draws, ends, strict=True):  # the shared y axis is final now
    _finish(figure, ax, model_label(model), "cosine of gradients", each)
  return drawing.save(figure, folder, "3", scale, _CAPTION_3)


def _draw_cosines(ax: Axes, lines: dict[str, tuple[Cosines, bool]]) -> list[tuple[float, str, str]]:
  """Draws the lines of one model; returns what `label_lines` needs."""
  ends = []
  ax.axhline(0, color="black", linewidth=0.7)
  for name, colour in zip(lines, (VERMILLION, GREEN, SKY, BLUE), strict=True):
    (steps, values, errors), is_log = lines[name]
    if not len(steps):
      continue
    if is_log:
      ax.plot(steps, values, color=colour, linewidth=1.3)
    else:
      drawing.error_bars(ax, steps, values, errors, colour=colour, linewidth=1.0)
    ends.append((values[-1], name, colour))
  return ends


def _cosines(
  logged: list[Run], measured: list[Run], target: str, english: str
) -> dict[str, tuple[Cosines, bool]]:
  """Returns {name: (cosines, whether from the log)}; the log serves where no checkpoint was measured."""
  pairs = {
    f"{target}-{english}": ("cosine", f"{target}-{english}"),
    f"{target}-{english}, corrected": ("corrected", f"{target}-{english}"),
    f"{target}-{target}": ("cosine", f"{target}-{target}"),
    f"{english}-{english}": ("cosine", f"{english}-{english}"),
  }
  log_names = {"cosine": "gradient_cosine", "corrected": "gradient_cosine_corrected"}
  lines: dict[str, tuple[Cosines, bool]] = {}
  for name, (kind, pair) in pairs.items():
    lines[name] = _checkpoint_means(measured, kind, pair), False
    if not len(lines[name][0][0]):
      steps, values = mean_series(logged, f"{log_names[kind]}/all/{pair}")
      values = drawing.smooth(values, max(1, len(values) // 12)) if len(values) else values
      lines[name] = (steps, values, None), True
  return lines


def _checkpoint_means(runs: list[Run], kind: str, pair: str) -> Cosines:
  """Returns the cosines over the runs (seeds) that measured a step."""
  found = collections.defaultdict(list)
  for run in runs:
    for checkpoint in run.result["checkpoints"]:
      value = checkpoint["scopes"].get("all", {}).get(kind, {}).get(pair)
      if value and value["mean"] is not None:
        found[checkpoint["step"]].append((value["mean"], value["standard_error"] or 0.0))
  steps = sorted(found)
  means = [np.mean([mean for mean, _ in found[s]]) for s in steps]
  errors = [np.sqrt(np.sum([e * e for _, e in found[s]])) / len(found[s]) for s in steps]
  return np.array(steps), np.array(means), np.array(errors)


def figure4c(study: Study, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws the training loss from the end of the warm-up to the middle of the run."""
  systems = ("joint_pair", "adpt", "meta_adpt")
  draws = {}
  for model, runs in by_model(study, scale, systems).items():
    curves = {s: c for s in systems if len((c := _early_loss(runs.get(s, [])))[0]) > 1}
    if "joint_pair" in curves and len(curves) > 1:
      draws[model] = curves
  if not draws:
    return None
  figure, axes = drawing.panels(len(draws), 2, 2.5)
  for ax, (model, curves) in zip(axes, draws.items(), strict=True):
    ends = []
    for system, (steps, losses) in curves.items():
      ax.plot(steps, losses, color=COLOURS[system])
      ends.append((losses[-1], Row(system).label, COLOURS[system]))
    _finish(figure, ax, model_label(model), "training loss, nats per token", ends)
  return drawing.save(figure, folder, "4c", scale, _CAPTION_4C)


def _early_loss(runs: list[Run]) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps, loss): the mean over languages on the steps of the first one, smoothed."""
  if not runs:
    return np.array([]), np.array([])
  curves = [mean_series(runs, f"loss/{language}") for language in runs[0].origin.languages]
  if any(not len(steps) for steps, _ in curves):
    return np.array([]), np.array([])
  grid = curves[0][0]
  warmup = runs[0].settings.get("train.warmup_steps", 0)
  early = (grid >= warmup) & (grid <= (runs[0].origin.steps or 0) / 2)
  losses = np.mean([np.interp(grid, steps, values) for steps, values in curves], axis=0)
  return grid[early], drawing.smooth(losses, 5)[early]


def _finish(
  figure: Canvas, ax: Axes, title: str, ylabel: str, ends: list[tuple[float, str, str]]
) -> None:
  """Adds titles, ticks and the names of the lines."""
  ax.set_title(title, loc="left")
  ax.set_xlabel("pretraining step")
  place = ax.get_subplotspec()
  if place and place.is_first_col():
    ax.set_ylabel(ylabel)
  ax.xaxis.set_major_locator(ticker.MaxNLocator(3, integer=True, steps=(1, 2, 5, 10)))
  drawing.thousands(ax.xaxis)
  figure.canvas.draw()
  drawing.label_lines(ax, ends)
