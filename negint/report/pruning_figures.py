"""Figures of the pruning masks: similarity by layer, and the most extreme groups."""

import collections
import re

import numpy as np

from negint.report import drawing
from negint.report.drawing import BLUE, VERMILLION, Figure
from negint.report.records import Run, Study
from negint.report.run_tables import origin_order, pair_label

_LAYER = re.compile(r"layer(\d+)/(attention|ffn)")


def by_pair(study: Study, scale: str) -> dict[str, list[Run]]:
  """JointPair's pruning runs, by what the model is."""
  found = collections.defaultdict(list)
  for run in sorted(study.of("pruning"), key=lambda run: origin_order(run.origin)):
    if run.origin.scale == scale and run.origin.system == "joint_pair":
      found[pair_label(run.origin)].append(run)
  return found


def figure4a(study: Study, scale: str, folder) -> Figure | None:
  """Cosine of two masks by layer and module: two languages against one language's two seeds."""
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
  name = f"figure4a_{scale}"
  drawing.save(figure, folder, name)
  caption = (
    "How alike the pruning masks of the target and English are, layer by layer (solid), and how alike "
    "two masks of one language learned from different seeds are, which bounds what can be seen "
    "(dashed). Left: cosine; right: after taking each mask's mean away, so that keeping most groups "
    "does not count as likeness."
  )
  return Figure(name, f"Figure 4a, scale {scale}", caption)


def _curves(runs: list[Run]) -> dict:
  """{(module, "ar-en" or "en-en"): {layer: [(cosine, centred), ...]}} over runs and seeds."""
  curves = collections.defaultdict(lambda: collections.defaultdict(list))
  for run in runs:
    for entry in run.result["similarity"]:
      target, english = run.origin.languages[0], run.origin.languages[-1]
      match, pair = _LAYER.fullmatch(entry["scope"]), sorted(entry["languages"])
      if match and pair in (sorted((target, english)), [english, english]):
        name = f"{english if pair[0] == pair[1] else target}-{english}"
        curves[match[2], name][int(match[1])].append((entry["cosine"], entry["centred"]))
  return curves


def _draw_curves(figure, ax, curves: dict, kind: str):
  ends, layers = [], sorted({layer for curve in curves.values() for layer in curve})
  for (module, name), curve in sorted(curves.items()):
    x, ceiling = sorted(curve), len(set(name.split("-"))) == 1
    y = [np.mean([pair[kind == "centred"] for pair in curve[layer]]) for layer in x]
    colour = BLUE if module == "attention" else VERMILLION
    ax.plot(x, y, color=colour, linestyle="--" if ceiling else "-", marker="o", markersize=3)
    ends.append((y[-1], f"{module}, {name}", colour))
  ax.set_xticks(layers)
  figure.canvas.draw()
  drawing.label_lines(ax, ends)


def figure4b(study: Study, scale: str, folder) -> Figure | None:
  """π of the target's most extreme groups beside English's π of the same groups."""
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
  name = f"figure4b_{scale}"
  drawing.save(figure, folder, name)
  caption = (
    "The ten groups of weights that the target's mask rejects most strongly (top) and the ten that it "
    "keeps most strongly (bottom), with the other language's π of the same groups, as shares of the "
    "largest |π| shown. Opposite signs: the group serves one language only. First seed."
  )
  return Figure(name, f"Figure 4b, scale {scale}", caption)


def _draw_groups(ax, entry: dict):
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
