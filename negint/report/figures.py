"""Draws every figure that has data, and lists the other figures with the runs that they need."""

import pathlib

from negint.report import ablation, drawing, pruning_figures, score_figures, training_figures, worth
from negint.report.comparisons import Comparer
from negint.report.drawing import Figure
from negint.report.layout import Missing
from negint.report.records import Study
from negint.report.worth import Worths

_TUNE = "configs/ner.py:<language> on a finished mono and a joint_pair run of that language"
_NEEDS = {
  "Figure 1": _TUNE,
  "Figure 2": "configs/mono.py:<language> and configs/joint_pair.py:<language>",
  "Figure 3": "the gradient similarity of a joint_pair run (or log it while pretraining one)",
  "Figure 4a": "the pruning of a joint_pair run, with two seeds for English",
  "Figure 4b": "the pruning of a joint_pair run",
  "Figure 4c": "configs/joint_pair.py:<language> and adpt.py or meta_adpt.py of that language",
  "Figure 5": "joint_pair.py:lab and mono.py:lab at two or more values of similarity, and a task on them",
}


def draw_all(
  study: Study, worths: Worths, comparer: Comparer, folder: pathlib.Path, missing: list[Missing]
) -> list[Figure]:
  """Draws the figures of a study.

  Args:
    study: the runs.
    worths: what their scores are worth in tokens of one language alone.
    comparer: compares their scores.
    folder: where the .svg and .png files go.
    missing: figures without data are added to it.

  Returns:
    The figures that were drawn, sorted by name.
  """
  figures, cells = [], comparer.cells
  with drawing.style():
    for scale in cells.scales:
      drawn = {
        "Equivalent monolingual tokens": worth.figure(worths, scale, folder),
        "Figure 1": score_figures.figure1(cells, comparer, scale, folder),
        "Figure 2": training_figures.figure2(study, scale, folder),
        "Figure 3": training_figures.figure3(study, scale, folder),
        "Figure 4a": pruning_figures.figure4a(study, scale, folder),
        "Figure 4b": pruning_figures.figure4b(study, scale, folder),
        "Figure 4c": training_figures.figure4c(study, scale, folder),
      }
      if scale == "lab":
        drawn["Figure 5"] = score_figures.figure5(cells, comparer, folder)
      for name, figure in drawn.items():
        if figure:
          figures.append(figure)
        elif name in _NEEDS:
          missing.append(Missing(f"{name}, scale {scale}", f"needs {_NEEDS[name]}"))
      figures += ablation.draw(cells, comparer, scale, folder)
  return sorted(figures, key=lambda figure: figure.name)
