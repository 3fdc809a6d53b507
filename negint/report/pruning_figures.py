"""Figures of the pruning masks: similarity by layer, and the groups with the most extreme π.

π is the log-odds of a gate (`negint.analysis.l0`): the larger, the more surely its weights are kept.
"""

import collections
import math
import pathlib
import re

import numpy as np

from negint.method import similarity
from negint.report import drawing
from negint.report.drawing import BLUE, VERMILLION, Axes, Canvas, Figure
from negint.report.models import analyses_by_model
from negint.report.records import Run, Study
from negint.report.run_tables import pair_label

KINDS = {
  "cosine": "cosine",
  "centred": "centred cosine",
  "rank_correlation": "rank correlation",
}
_LAYER = re.compile(r"layer(\d+)/(attention|ffn)")
_CAPTION_4A = (
  "Solid: how alike the pruning masks of the target and of English are, layer by layer. Dashed: how "
  "alike two masks of one language are that were learned from different seeds; no pair of languages "
  "can be expected to be more alike. Left: cosine, without parts whose gates are saturated, where it is "
  "high for any two languages. Right: cosine after the mean of each mask is subtracted, so that masks do "
  "not look alike because both keep most groups; not defined where a mask is constant. Rank correlation, "
  "where runs have it: whether two masks put the gates into the same order."
)
_CAPTION_4B = (
  "The ten groups of weights that the target's mask rejects most strongly (top) and the ten that it "
  "keeps most strongly (bottom), with the other language's π of the same groups, as shares of the "
  "largest |π| shown. Opposite signs: the group serves one language only. Mean over the seeds of the masks; "
  "after each name, in how many of them the group is among these ten. First model."
)

# {(module, "ar-en" or "en-en", whether it is a ceiling): {layer: [{"cosine": ..., "centred": ...}]}} over
# runs and seeds; a saturated plain cosine and an undefined centred one are NaN
Curves = dict[tuple[str, str, bool], dict[int, list[dict[str, float]]]]


def by_pair(study: Study, scale: str) -> dict[str, list[Run]]:
  """Returns JointPair's pruning runs by the label of their languages."""
  found = analyses_by_model(study, "pruning", scale).values()
  return {pair_label(runs[0].origin): runs for runs in found}


def figure4a(study: Study, scale: str, folder: pathlib.Path) -> Figure | None:
  """Draws the cosine of two masks by layer: of two languages, and of two seeds of one language."""
  draws = {
    pair: curves for pair, runs in by_pair(study, scale).items() if (curves := mask_curves(runs))
  }
  if not draws:
    return None
  drawn = [
    value
    for curves in draws.values()
    for curve in curves.values()
    for entries in curve.values()
    for entry in entries
    for value in entry.values()
    if math.isfinite(value)
  ]
  limits = min([0.0, *drawn]) - 0.05, 1.05  # the same in every panel
  kinds = [kind for kind in KINDS if any(has_kind(curves, kind) for curves in draws.values())]
  figure, axes = drawing.panels(len(kinds) * len(draws), len(kinds), 2.5)
  for index, (pair, curves) in enumerate(draws.items()):
    for ax, kind in zip(axes[len(kinds) * index :], kinds, strict=False):
      ax.set_ylim(limits)
      _draw_curves(figure, ax, curves, kind)
      ax.set_title(f"{pair}\n{KINDS[kind]}", loc="left")
      ax.set_xlabel("layer")
      ax.set_ylabel("similarity of π" if ax is axes[len(kinds) * index] else "")
  return drawing.save(figure, folder, "4a", scale, _CAPTION_4A)


def mask_curves(runs: list[Run]) -> Curves:
  """Returns the similarities of JointPair's masks by module, pair of languages and layer."""
  curves: Curves = collections.defaultdict(lambda: collections.defaultdict(list))
  for run in runs:
    for entry in run.result["similarity"]:
      target, english = run.origin.languages[0], run.origin.languages[-1]
      match, pair = _LAYER.fullmatch(entry["scope"]), sorted(entry["languages"])
      if match and pair in (sorted((target, english)), [english, english]):
        is_ceiling = pair[0] == pair[1]
        name = f"{english if is_ceiling else target}-{english}"
        found = {kind: entry.get(kind) for kind in KINDS}
        values = {kind: math.nan if value is None else value for kind, value in found.items()}
        if similarity.is_saturated(entry):
          values["cosine"] = math.nan
        curves[match[2], name, is_ceiling][int(match[1])].append(values)
  return curves


def has_kind(curves: Curves, kind: str) -> bool:
  """Returns whether a similarity is among those of some masks; the rank correlation is newer."""
  entries = [e for layers in curves.values() for each in layers.values() for e in each]
  return kind != "rank_correlation" or any(math.isfinite(e[kind]) for e in entries)


def _draw_curves(figure: Canvas, ax: Axes, curves: Curves, kind: str) -> None:
  """Draws one kind of cosine, the mean over runs and seeds where it has a meaning in all of them."""
  ends, layers = [], sorted({layer for curve in curves.values() for layer in curve})
  for (module, name, is_ceiling), curve in sorted(curves.items()):
    x = sorted(curve)
    y = np.array([np.mean([entry[kind] for entry in curve[layer]]) for layer in x])
    colour = BLUE if module == "attention" else VERMILLION
    ax.plot(x, y, color=colour, linestyle="--" if is_ceiling else "-", marker="o", markersize=3)
    if np.isfinite(y).any():
      ends.append((float(y[np.isfinite(y)][-1]), f"{module}, {name}", colour))
  ax.set_xticks(layers)
  figure.canvas.draw()
  if ends:
    drawing.label_lines(ax, ends)
  else:
    ax.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
    text = "gates are saturated:\nthe cosine says nothing" if kind == "cosine" else "undefined"
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center")


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
  handles, labels = axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
  return drawing.save(figure, folder, "4b", scale, _CAPTION_4B)


def group_label(group: dict, seeds: int | None) -> str:
  """Returns "layer1/ffn/inner[3], 2 of 2": a group, and in how many seeds it is among the extreme ones.

  Runs of one seed, or of before this was counted, have the name alone.
  """
  if not seeds or seeds < 2 or "in_seeds" not in group:
    return group["group"]
  return f"{group['group']}, {group['in_seeds']} of {seeds}"


def _draw_groups(ax: Axes, entry: dict) -> None:
  groups = entry["groups"]
  values = np.array([[group["pi"], group["other_pi"]] for group in groups])
  values /= np.abs(values).max() or 1
  places = np.arange(len(groups))
  ax.barh(
    places - 0.2,
    values[:, 0],
    0.38,
    color=VERMILLION,
    label="the mask's language, the pair's first",
  )
  ax.barh(places + 0.2, values[:, 1], 0.38, color=BLUE, label="the other language")
  ax.axvline(0, color="black", linewidth=0.7)
  ax.set_yticks(places, [group_label(group, entry.get("seeds")) for group in groups])
  ax.set_ylim(len(groups) - 0.3, -0.7)
  ax.grid(axis="y", visible=False)
  ax.set_xlim(-1.05, 1.05)
  ax.set_xlabel("π / largest |π|  (negative: pruned)")
