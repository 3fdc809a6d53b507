"""Draws the method: the encoder with theta and phi, and one step of Algorithm 1.

  python -m launch.drawings.method

It writes launch/drawings/method.svg, always the same bytes.
"""

import pathlib

FILE = pathlib.Path(__file__).with_suffix(".svg")
WIDTH, HEIGHT = 880, 520

PAPER = "#ffffff"  # the drawing has a background of its own, so that it reads on a dark page
INK = "#1f2933"
GREY = "#616e7c"
LINE = "#cbd2d9"
THETA, THETA_LIGHT = "#1d5fa8", "#dbe9f8"  # shared by all languages
PHI, PHI_LIGHT = "#c2410c", "#fde4d3"  # of the language of this step
OTHER, OTHER_LIGHT = "#616e7c", "#eef1f4"  # of the other languages


def escape(text: str) -> str:
  """Returns the text with the characters replaced that SVG reserves."""
  return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def box(x: int, y: int, width: int, height: int, fill: str, stroke: str, radius: int = 6) -> str:
  """Returns a rectangle with round corners."""
  return (
    f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" fill="{fill}" '
    f'stroke="{stroke}" stroke-width="1.5"/>'
  )


def text(
  x: int,
  y: int,
  words: str,
  size: int = 14,
  colour: str = INK,
  anchor: str = "start",
  weight: str = "normal",
) -> str:
  """Returns a line of text; `a_b` sets b as a subscript, up to the next space or bracket."""
  return (
    f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
    f'font-weight="{weight}">{_subscripts(escape(words), size)}</text>'
  )


def _subscripts(words: str, size: int) -> str:
  first, *rest = words.split("_")
  parts = [first]
  for part in rest:
    parts.append(
      f'<tspan dy="4" font-size="{size - 4}">{part[0]}</tspan><tspan dy="-4">{part[1:]}</tspan>'
    )
  return "".join(parts)


def arrow(points: list[tuple[int, int]], colour: str, dashed: bool = False) -> str:
  """Returns a line through the points that ends in an arrow head."""
  path = " ".join(f"{x},{y}" for x, y in points)
  name = {THETA: "theta", PHI: "phi"}.get(colour, "ink")
  dashes = ' stroke-dasharray="6 4"' if dashed else ""
  return (
    f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes} '
    f'marker-end="url(#{name})"/>'
  )


def heads() -> str:
  """Returns the arrow heads, one per colour."""
  colours = {"theta": THETA, "phi": PHI, "ink": GREY}
  return "".join(
    f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
    f'orient="auto"><path d="M0,0 L10,5 L0,10 z" fill="{colour}"/></marker>'
    for name, colour in colours.items()
  )


def modules(y: int) -> list[str]:
  """Returns one module per language, side by side; language i's, in the middle, is in use."""
  parts = []
  for centre, name in ((74, "φ_1"), (155, "φ_i"), (236, "φ_L")):
    used = name == "φ_i"
    fill, stroke, ink = (PHI_LIGHT, PHI, PHI) if used else (OTHER_LIGHT, LINE, OTHER)
    parts.append(box(centre - 27, y, 54, 30, fill, stroke))
    parts.append(text(centre, y + 20, name, 15, ink, "middle", "bold"))
  parts += [text(centre, y + 19, "…", 14, OTHER, "middle") for centre in (114, 196)]
  return parts


def model() -> list[str]:
  """Returns the left half: where theta and phi are in the encoder."""
  x, width, middle = 24, 262, 155
  parts = [
    text(x, 40, "The model of L languages", 18, weight="bold"),
    box(x, 60, width, 34, THETA_LIGHT, THETA),
    text(middle, 82, "prediction of hidden words", 14, THETA, "middle"),
    box(x, 118, width, 236, "#f8fafc", LINE, 10),
    text(x + width - 10, 137, "each layer", 12, GREY, "end"),
    *modules(146),
    box(x + 16, 196, width - 32, 34, THETA_LIGHT, THETA),
    text(middle, 218, "feed-forward", 14, THETA, "middle"),
    *modules(254),
    box(x + 16, 304, width - 32, 34, THETA_LIGHT, THETA),
    text(middle, 326, "attention", 14, THETA, "middle"),
    box(x, 378, width, 34, THETA_LIGHT, THETA),
    text(middle, 400, "embeddings", 14, THETA, "middle"),
  ]
  for start, end in ((378, 340), (304, 286), (254, 232), (196, 178), (146, 96)):
    parts.append(arrow([(middle, start), (middle, end)], PHI))
  parts += [
    box(x, 430, 18, 18, THETA_LIGHT, THETA, 3),
    text(x + 28, 444, "θ (theta): shared by all languages"),
    box(x, 458, 18, 18, PHI_LIGHT, PHI, 3),
    text(x + 28, 472, "φ_i (phi): of language i alone,"),
    text(x + 28, 491, "here adapters after each block"),
  ]
  return parts


def stage(y: int, height: int, number: int, title: str, colour: str, light: str) -> list[str]:
  """Returns the frame of one stage of the step, with its number and title."""
  return [
    box(336, y, 520, height, light, colour, 10),
    f'<circle cx="362" cy="{y + 25}" r="13" fill="{colour}"/>',
    text(362, y + 30, str(number), 15, PAPER, "middle", "bold"),
    text(386, y + 30, title, 15, colour, weight="bold"),
  ]


def step() -> list[str]:
  """Returns the right half: one training step of Algorithm 1, on a batch of language i."""
  return [
    text(336, 40, "One training step, on a batch of language i", 18, weight="bold"),
    *stage(60, 92, 1, "Look ahead with the shared parameters", GREY, "#f8fafc"),
    text(386, 114, "θ′ = θ − β × gradient of loss_i(θ, φ_i) on the training batch", 15),
    text(386, 138, "θ′ is a trial and is not kept. β is a learning rate.", 13, GREY),
    arrow([(440, 152), (440, 172)], GREY),
    *stage(174, 92, 2, "Test θ′ on held-out text of every language", GREY, "#f8fafc"),
    text(386, 228, "mean of loss_1(θ′, φ_1), …, loss_L(θ′, φ_L) on held-out batches", 15),
    text(386, 252, "The mean is low if the step of language i helps all languages.", 13, GREY),
    arrow([(440, 266), (440, 286)], PHI),
    *stage(288, 92, 3, "Update φ_i by the meta-gradient", PHI, PHI_LIGHT),
    text(386, 342, "the gradient of that mean with respect to φ_i, also through θ′", 15),
    text(386, 366, "Because θ′ contains a gradient, this takes second derivatives.", 13, GREY),
    arrow([(440, 380), (440, 400)], THETA),
    *stage(402, 92, 4, "Update θ", THETA, THETA_LIGHT),
    text(386, 456, "by the gradient of loss_i(θ, new φ_i) on the training batch", 15),
    text(386, 480, "The batch and its hidden words are the same as in 1.", 13, GREY),
  ]


def draw() -> str:
  """Returns the drawing as SVG."""
  lines = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
    f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="Helvetica, Arial, DejaVu Sans, sans-serif">',
    "<title>The method: shared parameters theta, parameters phi of each language, one step</title>",
    f"<defs>{heads()}</defs>",
    box(1, 1, WIDTH - 2, HEIGHT - 2, PAPER, LINE, 12),
    *model(),
    *step(),
    "</svg>",
  ]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  FILE.write_text(draw(), encoding="utf-8", newline="\n")
  print(FILE)
