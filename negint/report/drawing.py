"""How figures look and are saved: palette, labels on lines, panels, deterministic files."""

import pathlib
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker

# Okabe and Ito's palette, which colour-blind readers tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILLION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"
COLOURS = {
  "mono": BLUE,
  "joint_pair": VERMILLION,
  "xlm": GREY,
  "adpt": SKY,
  "meta_adpt": GREEN,
  "ner": BLUE,
  "pos": VERMILLION,
  "qa": GREEN,
  "nli": PURPLE,
}
WIDTH = 6.8  # inches, a text column
_STYLE = {
  "font.family": "DejaVu Sans",
  "font.size": 8.5,
  "axes.titlesize": 9,
  "axes.labelsize": 8.5,
  "xtick.labelsize": 8,
  "ytick.labelsize": 8,
  "legend.fontsize": 8.5,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": "#DDDDDD",
  "grid.linewidth": 0.5,
  "lines.linewidth": 1.6,
  "axes.linewidth": 0.7,
  "xtick.major.width": 0.7,
  "ytick.major.width": 0.7,
  "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Figure:
  """A drawn figure: figures/<name>.svg and .png."""

  name: str
  title: str
  caption: str


def panels(count: int, columns: int, height: float, **options):
  """(figure, [count] axes) in rows of `columns`; `height` inches a row."""
  columns = min(columns, count)
  rows = -(-count // columns)
  width = WIDTH if columns > 1 else 0.72 * WIDTH
  figure, axes = plt.subplots(
    rows, columns, figsize=(width, height * rows), squeeze=False, layout="constrained", **options
  )
  for unused in axes.ravel()[count:]:
    unused.remove()
  return figure, list(axes.ravel()[:count])


def save(figure, folder: pathlib.Path, name: str):
  """<name>.svg and <name>.png at 200 dpi; no date, no program, ids that depend on the name only."""
  with matplotlib.rc_context({"svg.hashsalt": name}):
    for suffix, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
      path = folder / f"{name}.{suffix}"
      temporary = path.with_name(path.name + ".tmp")
      figure.savefig(temporary, format=suffix, dpi=200, metadata=metadata)
      temporary.rename(path)
  plt.close(figure)


def style():
  """The context in which figures are drawn."""
  return matplotlib.rc_context(_STYLE)


def label_lines(axes, lines: list[tuple[float, str, str]]):
  """Names lines at their right ends instead of in a legend.

  Args:
    lines: (y of the last point, text, colour); texts that would touch are moved apart.
  """
  height = axes.get_window_extent().height * 72 / axes.figure.dpi
  gap = 10.5 / height  # of the axes' height, for 8-point text
  heights = axes.transAxes.inverted().transform(
    axes.transData.transform([(0, y) for y, _, _ in lines])
  )[:, 1]
  order = np.argsort(heights, kind="stable")
  placed = spread(heights[order], gap)
  for place, index in zip(placed, order, strict=True):
    _, text, colour = lines[index]
    axes.annotate(
      text,
      (1, place),
      xycoords="axes fraction",
      xytext=(4, 0),
      textcoords="offset points",
      color=colour,
      va="center",
      fontsize=8,
      annotation_clip=False,
    )


def spread(heights, gap: float) -> list[float]:
  """Ascending heights, moved apart to at least `gap`, each group about its own middle."""
  groups = [[height] for height in heights]
  merged = True
  while merged:
    merged = False
    for index in range(len(groups) - 1):
      if extent(groups[index + 1], gap)[0] - extent(groups[index], gap)[1] < gap - 1e-9:
        groups[index : index + 2] = [groups[index] + groups[index + 1]]
        merged = True
        break
  return [extent(group, gap)[0] + gap * k for group in groups for k in range(len(group))]


def extent(group: list[float], gap: float) -> tuple[float, float]:
  """(lowest, highest) place of a group's members."""
  middle, half = float(np.mean(group)), gap * (len(group) - 1) / 2
  return middle - half, middle + half


def thousands(axis):
  axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))


def smooth(values, width: int) -> np.ndarray:
  """Centred moving average; the window shrinks at both ends."""
  values, half = np.asarray(values, float), width // 2
  return np.array([values[max(0, k - half) : k + half + 1].mean() for k in range(len(values))])
