"""Figures of pretraining over time: perplexity, gradient cosines, early loss."""

import collections
import math
import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib import ticker

from negint.method import similarity
from negint.report import drawing
from negint.report.cells import LABELS, Row
from negint.report.drawing import BLUE, COLOURS, GREEN, SKY, VERMILLION, Axes, Canvas, Figure
from negint.report.models import Model, analyses_by_model, by_model, model_label
from negint.report.records import Run, Study

NEAR = (
  1.5  # measurements at steps s and t are averaged only if the larger is below NEAR x the smaller
)
_COLOURS_3 = (VERMILLION, GREEN, SKY, BLUE)  # of the curves of Figure 3

_CAPTION_2 = (
  "How well each model predicts hidden words of the target language as pretraining goes on, measured "
  "on text that neither was trained on. Perplexities compare between models with one tokenizer "
  "(`data.tokenizer_from`). Geometric mean over seeds; bands: its 95 % intervals over three "
  "or more seeds; thin lines: two seeds."
)
_CAPTION_3 = (
  "Cosines of JointPair's gradients. X-Y: of a batch of the target and a batch of English. X-X: of two "
  "independent batches of one language, which sampling noise lowers below 1. Corrected: X-Y divided by "
  "the geometric mean of X-X and Y-Y, each averaged first. Rows of the language embedding are left out. "
  "Lines: from the training log, averaged over neighbouring measurements. Points: measured at "
  "checkpoints, with standard errors."
)
_CAPTION_4C = (
  "Masked-word loss on training batches, from the end of the warm-up to the middle of the run; mean "
  "over languages and seeds, averaged over neighbouring steps. Bands: 95 % intervals over three or more "
  "seeds; thin lines: two seeds."
)


def series_of(runs: list[Run], name: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps, values [runs, steps]) of a scalar, at the steps that all runs with it have."""
  return _together([dict(points) for run in runs if (points := run.series(name))])


def _together(curves: list[dict[int, float]]) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps, values [curves, steps]) of {step: value} curves, at the steps that all have."""
  steps = sorted(set.intersection(*(set(points) for points in curves))) if curves else []
  return np.array(steps), np.array([[points[step] for step in steps] for points in curves])


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
      steps, values = series_of(systems[system], f"perplexity/{model[0]}")
      colour = COLOURS[system]
      end = drawing.mean_line(ax, steps, values, colour=colour, marker="o", geometric=True)
      ends.append((end, LABELS[system], colour))
    _log_scale(ax)
    _finish(figure, ax, model_label(model), "perplexity (log scale)", ends)
  return drawing.save(figure, folder, "2", scale, _CAPTION_2)


def _log_scale(ax: Axes) -> None:
  """Makes y, of perplexities, logarithmic, with plain numbers: more of them where the range is small."""
  ax.set_yscale("log")
  ax.set_ylim(bottom=max(ax.get_ylim()[0], 1))  # no perplexity lies below
  low, high = ax.get_ylim()
  subs = (1, 2, 5) if high / low > 8 else (1, 1.5, 2, 3, 4, 5, 6, 8)
  ax.yaxis.set_major_locator(ticker.LogLocator(subs=subs))
  ax.yaxis.set_minor_locator(ticker.NullLocator())
  drawing.thousands(ax.yaxis)


def _perplexity(model: Model, runs: list[Run]) -> bool:
  return len(series_of(runs, f"perplexity/{model[0]}")[0]) > 0


def figure3(study: Study, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws cosines of gradients while JointPair trains: logged (lines) and at checkpoints (points)."""
  logged = by_model(study, scale, ("joint_pair",))
  measured = analyses_by_model(study, "gradient_similarity", scale)
  draws: dict[Model, list[Cosines]] = {}
  for model in list(logged) + [model for model in measured if model not in logged]:
    runs = logged.get(model, {}).get("joint_pair", [])
    languages = (runs or measured[model])[0].origin.languages
    curves = cosine_curves(runs, measured.get(model, []), languages[0], languages[-1])
    if any(len(curve.steps) for curve in curves):
      draws[model] = curves
  if not draws:
    return None
  figure, axes = drawing.panels(len(draws), 2, 2.5, share_y=True)
  ends = [_draw_cosines(ax, curves) for ax, curves in zip(axes, draws.values(), strict=True)]
  for ax, model, each in zip(axes, draws, ends, strict=True):  # the shared y axis is final now
    _finish(figure, ax, model_label(model), "cosine of gradients", each, log_steps=True)
  return drawing.save(figure, folder, "3", scale, _CAPTION_3 + undefined(draws))


class Cosines(NamedTuple):
  """One curve of Figure 3."""

  name: str  # "ar-en", "ar-en, corrected", "ar-ar" or "en-en"
  is_log: bool  # from the training log, and not from checkpoints
  steps: np.ndarray  # ascending, [points]
  means: np.ndarray  # NaN where undefined, [points]
  errors: np.ndarray  # standard errors, 0 where unknown, [points]


def _draw_cosines(ax: Axes, curves: list[Cosines]) -> list[tuple[float, str, str]]:
  """Draws the curves of one model; returns what `label_lines` needs."""
  ends: dict[str, tuple[float, str, str]] = {}
  colours = dict(zip(dict.fromkeys(c.name for c in curves), _COLOURS_3, strict=True))
  ax.axhline(0, color="black", linewidth=0.7)
  for curve in curves:
    found = np.isfinite(curve.means)
    if not found.any():
      continue
    colour, (steps, means, errors) = colours[curve.name], curve[2:]
    if curve.is_log:
      ax.plot(steps, means, color=colour, linewidth=1.3)
    else:
      drawing.error_bars(ax, steps[found], means[found], errors[found], colour=colour, linewidth=0)
    ends.setdefault(curve.name, (means[found][-1], curve.name, colour))
  return list(ends.values())


def cosine_curves(
  logged: list[Run], measured: list[Run], target: str, english: str
) -> list[Cosines]:
  """Returns the curves of one model: each kind of cosine from the log, then from the checkpoints."""
  pairs = [
    (f"{target}-{english}", "cosine", f"{target}-{english}"),
    (f"{target}-{english}, corrected", "corrected", f"{target}-{english}"),
    (f"{target}-{target}", "cosine", f"{target}-{target}"),
    (f"{english}-{english}", "cosine", f"{english}-{english}"),
  ]
  lines = logged_estimates(logged, list(dict.fromkeys(pair for _, _, pair in pairs)))
  curves = []
  for name, kind, pair in pairs:
    steps = [step for step, _ in lines]
    found = [(e[kind][pair]["mean"] if e else None, 0.0) for _, e in lines]
    curves.append(_curve(name, True, steps, found))
    curves.append(_checkpoint_means(name, measured, kind, pair))
  return curves


def logged_estimates(runs: list[Run], pairs: list[str]) -> list[tuple[int, dict | None]]:
  """Returns (step, estimates) of the logged cosines over `all`, at the steps that all runs have.

  The estimates are those of the checkpoints (`negint.method.similarity.estimates`); their repeats are
  the measurements of all runs (seeds) at neighbouring steps: about a twelfth of all points, and none
  whose number of updates differs by the factor NEAR or more, so that the beginning, where cosines
  change fast, is not blurred. None: a cosine had no value in any of them.

  Args:
    runs: one per seed.
    pairs: of languages.
  """
  prefix = "gradient_cosine/all/"
  logs = [
    {
      record["step"]: {pair: record.get(prefix + pair, math.nan) for pair in pairs}
      for record in run.metrics
      if any(name.startswith("gradient_cosine/") for name in record)
    }
    for run in runs
  ]
  logs = [log for log in logs if log]
  steps = sorted(set.intersection(*(set(log) for log in logs))) if logs else []
  half = max(1, len(steps) // 24)
  result: list[tuple[int, dict | None]] = []
  for place, step in enumerate(steps):
    near = steps[max(0, place - half) : place + half + 1]
    near = [s for s in near if max(s, step) < NEAR * min(s, step)]
    repeats = [log[s] for log in logs for s in near if all(map(math.isfinite, log[s].values()))]
    result.append((step, similarity.estimates(repeats) if repeats else None))
  return result


def _checkpoint_means(name: str, runs: list[Run], kind: str, pair: str) -> Cosines:
  """Returns a curve of means over the runs (seeds) that measured a checkpoint."""
  found = collections.defaultdict(list)
  for run in runs:
    for checkpoint in run.result["checkpoints"]:
      value = checkpoint["scopes"].get("all", {}).get(kind, {}).get(pair)
      if value:
        found[checkpoint["step"]].append(value)
  points: list[tuple[float | None, float]] = []
  steps = sorted(found)
  for values in (found[step] for step in steps):
    defined = [value for value in values if value["mean"] is not None]
    errors = [value["standard_error"] or 0.0 for value in defined]
    mean = float(np.mean([value["mean"] for value in defined])) if defined else None
    points.append((mean, float(np.linalg.norm(errors)) / max(1, len(defined))))
  return _curve(name, False, steps, points)


def _curve(
  name: str, is_log: bool, steps: list[int], points: list[tuple[float | None, float]]
) -> Cosines:
  """Returns a curve of (mean, standard error) pairs."""
  means = np.array([math.nan if mean is None else mean for mean, _ in points])
  return Cosines(name, is_log, np.array(steps), means, np.array([error for _, error in points]))


def undefined(draws: dict[Model, list[Cosines]]) -> str:
  """Returns the sentence that says which points are undefined; empty if none is."""
  found = []
  for model, curves in draws.items():
    for curve in curves:
      if count := int(np.sum(~np.isfinite(curve.means))):
        where = "in the log" if curve.is_log else "of the checkpoints"
        found.append(f"{model_label(model)}, {curve.name}: {count} of {len(curve.steps)} {where}")
  if not found:
    return ""
  return (
    " Undefined and not drawn, because two gradients of one language had a mean cosine of 0 or below, or "
    f"a gradient was zero: {'; '.join(found)}."
  )


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
      end = drawing.mean_line(ax, steps, losses, colour=COLOURS[system])
      ends.append((end, Row(system).label, COLOURS[system]))
    _finish(figure, ax, model_label(model), "training loss, nats per token", ends)
  return drawing.save(figure, folder, "4c", scale, _CAPTION_4C)


def _early_loss(runs: list[Run]) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps, losses [runs, steps]) from the end of the warm-up to the middle of the run."""
  curves = [dict(zip(*map(np.ndarray.tolist, loss_curve(run)), strict=True)) for run in runs]
  steps, losses = _together([curve for curve in curves if curve])
  if not len(steps):
    return steps, losses
  warmup = runs[0].settings.get("train.warmup_steps", 0)
  early = (steps >= warmup) & (steps <= (runs[0].origin.steps or 0) / 2)
  return steps[early], losses[:, early]


def loss_curve(run: Run) -> tuple[np.ndarray, np.ndarray]:
  """Returns (steps, loss): the mean over languages on the steps of the first one, smoothed."""
  curves = [np.array(run.series(f"loss/{language}")) for language in run.origin.languages]
  if not all(len(curve) for curve in curves):
    return np.array([]), np.array([])
  grid = curves[0][:, 0]
  losses = np.mean([np.interp(grid, curve[:, 0], curve[:, 1]) for curve in curves], axis=0)
  return grid, drawing.smooth(losses, 5)


def _finish(
  figure: Canvas,
  ax: Axes,
  title: str,
  ylabel: str,
  ends: list[tuple[float, str, str]],
  *,
  log_steps: bool = False,
) -> None:
  """Adds titles, ticks and the names of the lines; `log_steps` makes the axis of steps logarithmic."""
  ax.set_title(title, loc="left")
  ax.set_xlabel("pretraining step")
  place = ax.get_subplotspec()
  if place and place.is_first_col():
    ax.set_ylabel(ylabel)
  if log_steps:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(ticker.LogLocator(numticks=5))
    ax.xaxis.set_minor_formatter(ticker.NullFormatter())
  else:
    ax.xaxis.set_major_locator(ticker.MaxNLocator(3, integer=True, steps=(1, 2, 5, 10)))
  drawing.thousands(ax.xaxis)
  figure.canvas.draw()
  drawing.label_lines(ax, ends)
