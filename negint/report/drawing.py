"""How figures look and are saved: palette, labels on lines, panels, deterministic files."""

import contextlib
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas

from negint.report.statistics import half_width
from negint.run.files import whole_file

# Okabe and Ito's palette, whose colours colour-blind readers can tell apart.
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
  "perplexity": BLACK,
}
WIDTH = 6.8  # inches, a text column
_STYLE: Any = {  # Any: matplotlib's type of it lists every setting by name
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
  """A drawn figure."""

  name: str  # of its files, figures/<name>.svg and .png
  title: str  # such as "Figure 1, scale lab"
  caption: str  # what it shows


def panels(
  count: int, columns: int, height: float, *, share_y: bool = False
) -> tuple[Canvas, list[Axes]]:
  """Returns an empty figure and its axes.

  Args:
    count: of the axes.
    columns: axes per row, at most.
    height: of each row, in inches.
    share_y: whether all axes have the same y axis.
  """
  columns = min(columns, count)
  rows = -(-count // columns)
  width = WIDTH if columns > 1 else 0.72 * WIDTH
  figure, axes = plt.subplots(
    rows,
    columns,
    figsize=(width, height * rows),
    squeeze=False,
    layout="constrained",
    sharey=share_y,
  )
  for unused in axes.ravel()[count:]:
    unused.remove()
  return figure, list(axes.ravel()[:count])


def save(canvas: Canvas, folder: pathlib.Path, number: str, scale: str, caption: str) -> Figure:
  """Writes a figure as SVG and as PNG at 200 dpi; the same figure always gives the same bytes.

  Args:
    canvas: the drawing; it is closed.
    folder: where the files go.
    number: of the figure: "4a".
    scale: of the runs that it shows.
    caption: what it shows.
  """
  name = f"figure{number}_{scale}"
  write(canvas, folder, name)
  return Figure(name, f"Figure {number}, scale {scale}", caption)


def write(canvas: Canvas, folder: pathlib.Path, name: str) -> None:
  """Writes <name>.svg and <name>.png, the same bytes for the same drawing, and closes it."""
  # No date, no program, and ids that depend on the name only.
  metadata: dict[str, dict] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
  with matplotlib.rc_context({"svg.hashsalt": name}):
    for suffix, entries in metadata.items():
      with whole_file(folder / f"{name}.{suffix}", "wb") as file:
        canvas.savefig(file, format=suffix, dpi=200, metadata=entries)
  plt.close(canvas)


def style() -> contextlib.AbstractContextManager:
  """Returns the context in which figures are drawn."""
  return matplotlib.rc_context(_STYLE)


def error_bars(
  axes: Axes,
  x: np.ndarray,
  y: np.ndarray,
  errors: np.ndarray | None,
  *,
  colour: str,
  linewidth: float | None = None,
) -> None:
  """Draws a line of points with error bars.

  Args:
    axes: where to draw.
    x: [points].
    y: [points].
    errors: [points], or [2, points] for lengths below and above.
    colour: of the line, the points and the bars.
    linewidth: of the line; None: the style's.
  """
  axes.errorbar(
    x,
    y,
    errors,
    color=colour,
    linewidth=linewidth,
    marker="o",
    markersize=3.5,
    capsize=2,
    elinewidth=0.8,
  )


def mean_line(
  axes: Axes,
  x: np.ndarray,
  values: np.ndarray,
  *,
  colour: str,
  marker: str = "",
  geometric: bool = False,
) -> float:
  """Draws the mean over runs as a line, with a band of its 95 % interval if there are three or more.

  Two runs are thin lines of their own: their interval is many times as wide as they lie apart.

  Args:
    axes: where to draw.
    x: [points].
    values: [runs, points].
    colour: of the line and the band.
    marker: at each point; empty: none.
    geometric: whether mean and interval are those of the logarithms, for values above 0 only.

  Returns:
    The last mean.
  """
  back = np.exp if geometric else np.asarray
  values = np.log(values) if geometric else values
  means = values.mean(axis=0)
  axes.plot(x, back(means), color=colour, marker=marker, markersize=2.5)
  if len(values) == 2:
    axes.plot(x, back(values).T, color=colour, linewidth=0.5)
  if len(values) > 2:
    half = half_width(values)
    low, high = back(means - half), back(means + half)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
  return float(back(means[-1]))


class Bar(NamedTuple):
  """A point with its interval."""

  value: float  # the point
  low: float | None  # lower end of the interval; None: open
  high: float | None  # upper end; None: open
  is_known: bool = True  # False: the value lies beyond the point, which is drawn hollow

  @property
  def numbers(self) -> list[float]:
    """The point and the closed ends."""
    return [each for each in self[:3] if each is not None]


def bars(axes: Axes, places: np.ndarray, found: list[Bar], *, colour: str, upright: bool) -> None:
  """Draws points with intervals; an end that is open or outside is an arrow to the limit of the axes.

  Args:
    axes: where to draw; the limits of the values' axis must be final.
    places: on the other axis, [points].
    found: the points.
    colour: of points and intervals.
    upright: whether values go upwards; else they go to the right.
  """
  limits = axes.get_ylim() if upright else axes.get_xlim()
  for place, (value, low, high, is_known) in zip(places, found, strict=True):
    for end, side, marker in ((low, 0, "v<"), (high, 1, "^>")):
      limit = limits[side]
      is_inside = end is not None and (end >= limit if side == 0 else end <= limit)
      reach = end if is_inside else limit
      x, y = [place, place], [value, reach]
      line = (x, y) if upright else (y, x)
      axes.plot(*line, color=colour, linewidth=0.9, clip_on=True)
      if not is_inside:
        tip = (place, limit) if upright else (limit, place)
        kind = marker[0] if upright else marker[1]
        axes.plot(*tip, color=colour, marker=kind, markersize=4, clip_on=False)
    point = (place, value) if upright else (value, place)
    inside = colour if is_known else "white"
    axes.plot(*point, color=colour, marker="o", markersize=3.5, markerfacecolor=inside)


def limits_of(found: Iterable[Bar], *, log: bool) -> tuple[float, float]:
  """Returns limits that hold all points and the closed ends of their intervals."""
  numbers = np.array([each for bar in found for each in bar.numbers])
  numbers = np.log(numbers) if log else numbers
  low, high = float(numbers.min()), float(numbers.max())
  room = 0.12 * (high - low) or 0.5
  ends = (low - room, high + room)
  return (float(np.exp(ends[0])), float(np.exp(ends[1]))) if log else ends


def limits_of_most(found: Iterable[Bar]) -> tuple[float, float]:
  """Returns limits without what lies far out: three times the middle half's width, or more, beyond it."""
  numbers = np.array([each for bar in found for each in bar.numbers])
  low, high = np.quantile(numbers, (0.25, 0.75))
  far = 3 * (high - low)
  inside = numbers[(numbers >= low - far) & (numbers <= high + far)]
  return limits_of([Bar(each, None, None) for each in inside], log=False)


def label_lines(axes: Axes, lines: list[tuple[float, str, str]]) -> None:
  """Writes names of lines at their right ends, in place of a legend.

  Texts that would touch are moved apart.

  Args:
    axes: where the lines are; its limits must be final.
    lines: (y of the last point, text, colour) of each line.
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


def spread(heights: Iterable[float], gap: float) -> list[float]:
  """Returns ascending heights moved apart until neighbours are at least `gap` apart.

  Heights that push each other form a group, which keeps its middle.
  """
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
  """Returns the (lowest, highest) place in a group."""
  middle, half = float(np.mean(group)), gap * (len(group) - 1) / 2
  return middle - half, middle + half


def thousands(axis: Axis) -> None:
  """Writes the numbers of an axis as 1,000."""
  axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))


def plain_ratios(axis: Axis) -> None:
  """Writes the numbers of a logarithmic axis as 0.5, 1, 2; its limits must be final."""
  low, high = axis.get_view_interval()
  subs = (1, 2, 5) if high / low > 4 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
  axis.set_major_locator(ticker.LogLocator(subs=subs))
  axis.set_minor_locator(ticker.NullLocator())
  axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))


def smooth(values: np.ndarray, width: int) -> np.ndarray:
  """Returns the centred moving average; the window shrinks at both ends."""
  values, half = np.asarray(values, float), width // 2
  return np.array([values[max(0, k - half) : k + half + 1].mean() for k in range(len(values))])
