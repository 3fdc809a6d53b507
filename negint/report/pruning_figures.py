"""Figures of the pruning masks: similarity by layer, and the groups with the most extreme π.

π is the log-odds of a gate (`negint.analysis.l0`): the larger, the more surely its weights are kept.
"""

import collections
import pathlib
import re

import numpy as np

from negint.report import drawing
from negint.report.drawing import BLUE, VERMILLION, Axes, Canvas, Figure
from negint.report.records import Run, Study
from negint.report.run_tables import origin_order, pair_label

_LAYER = re.compile(r"layer(\d+)/(attention|ffn)")
_CAPTION_4A = (
  "Solid: how alike the pruning masks of the target and of English are, layer by layer. Dashed: how "
  "alike two masks of one language are that were learned from different seeds; no pair of languages "
  "can be expected to be more alike. Left: cosine. Right: cosine after the mean of each mask is "
  "subtracted, so that masks do not look alike because both keep most groups."
)
_CAPTION_4B = (
  "The ten groups of weights that the target's mask rejects most strongly (top) and the ten that it "
  "keeps most strongly (bottom), with the other language's π of the same groups, as shares of the "
  "largest |π| shown. Opposite signs: the group serves one language only. First seed."
)

# {(module, "ar-en" or "en-en"): {layer: [(cosine, centred cosine), ...]}} over runs and seeds
Curves = dict[tuple[str, str], dict[int, list[tuple[float, float]]]]


def by_pair(study: Study, scale: str) -> dict[str, list[Run]]:
  """Returns JointPair's pruning runs by the label of their languages."""
  found = collections.defaultdict(list)
  for run in sorted(study.of("pruning"), key=lambda run: origin_order(run.origin)):
    if run.origin.scale == scale and run.origin.system == "joint_pair":
      found[pair_label(run.origin)].append(run)
  return found


def figure4a(study: Study, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws the cosine of two masks by layer: of two languages, and of two seeds of one language."""
  draws = {
    pair: curves for pair, runs in by_pair(study, scale).items() if (curves := _curves(runs))
  }
  if not draws:
    return None
  lowest = min(np.min(v) for curves in draws.values() for c in curves.values() for v in c.values())
  limits = min(lowest, 0.0) - 0.05, 1.05  # the same in every panel
  figure, axes = drawing.panels(2 * len(draws), 2, 2.5)
  for index, (pair, curves) in enumerate(draws.items()):
    for ax, kind in zip(axes[2 * index : 2 * index + 2], ("cosine", "centred"), strict=True):
      ax.set_ylim(limits)
      _draw_curves(figure, ax, curves, kind)
      what = "cosine" if kind == "cosine" else "cosine of centred masks"
      ax.set_title(f"{pair}: {what}", loc="left")
      ax.set_xlabel("layer, from the embeddings up")
      ax.set_ylabel("similarity of π")
  return drawing.save(figure, folder, "4a", scale, _CAPTION_4A)


def _curves(runs: list[Run]) -> Curves:
  curves: Curves = collections.defaultdict(lambda: collections.defaultdict(list))
  for run in runs:
    for entry in run.result["similarity"]:
      target, english = run.origin.languages[0], run.origin.languages[-1]
      match, pair = _LAYER.fullmatch(entry["scope"]), sorted(entry["languages"])
      if match and pair in (sorted((target, english)), [english, english]):
        name = f"{english if pair[0] == pair[1] else target}-{english}"
        curves[match[2], name][int(match[1])].append((entry["cosine"], entry["centred"]))
  return curves


def _draw_curves(figure: Canvas, ax: Axes, curves: Curves, kind: str) -> None:
  ends, layers = [], sorted({layer for curve in curves.values() for layer in curve})
  for (module, name), curve in sorted(curves.items()):
    x, ceiling = sorted(curve), len(set(name.split("-"))) == 1
    y = [float(np.mean([pair[kind == "centred"] for pair in curve[layer]])) for layer in x]
    colour = BLUE if module == "attention" else VERMILLION
    ax.plot(x, y, color=colour, linestyle="--" if ceiling else "-", marker="o", markersize=3)
    ends.append((y[-1], f"{module}, {name}", colour))
  ax.set_xticks(layers)
  figure.canvas.draw()
  drawing.label_lines(ax, ends)


def figure4b(study: Study, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws the target's most extreme π beside the π of English for the same groups of weights."""
  draws = {}
  for pair, runs in by_pair(study, scale).items():
    target = runs[0].origin.languages[0]
    entries = [e for e in runs[0].result["extreme"] if e["language"] == target and e["groups"]]
    if entries:
      draws[pair] = entries[0]
  if not draws:
    return None
  figure, axes = drawing.panels(len(draws), 2, 4.6)
  for ax, (pair, entry) in zip(axes, draws.items(), strict=True):
    _draw_groups(ax, entry)
    ax.set_title(pair, loc="left")
  return drawing.save(figure, folder, "4b", scale, _CAPTION_4B)


def _draw_groups(ax: Axes, entry: dict) -> None:
  groups = entry["groups"]
  values = np.array([[group["pi"], group["other_pi"]] for group in groups])
  values /= np.abs(values).max() or 1
  places = np.arange(len(groups))
  ax.barh(places - 0.2, values[:, 0], 0.38, color=VERMILLION, label=entry["language"])
  ax.barh(places + 0.2, values[:, 1], 0.38, color=BLUE, label=entry["other"])
  ax.axvline(0, color="black", linewidth=0.7)
  ax.set_yticks(places, [group["group"] for group in groups])
  ax.set_ylim(len(groups) - 0.3, -0.7)
  ax.grid(axis="y", visible=False)
  ax.set_xlim(-1.05, 1.05)
  ax.set_xlabel("π / largest |π|  (negative: pruned)")
  ax.legend(loc="lower right", bbox_to_anchor=(1.02, 0.99), ncols=2, frameon=False)
