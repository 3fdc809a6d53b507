"""The plan of any run, by what its config asks for."""

import pathlib
from typing import Any

from negint.analysis.gradient_similarity import SimilarityRun
from negint.analysis.pruning import PruningRun
from negint.options import RunOptions
from negint.plan import analyses, pretraining, tuning
from negint.plan.plan import Plan
from negint.run.runner import Say


def plan(
  options: Any, folder: pathlib.Path, say: Say
) -> Plan:  # Any: the options of some kind of run
  """Returns the plan of a run; nothing is written into its folder.

  Args:
    options: of the run, as its Kind makes them.
    folder: of the run.
    say: receives sentences for the user.

  Raises:
    UserError: the model that it starts from, or its labelled data, are missing.
  """
  if isinstance(options, RunOptions):
    return pretraining.plan(options, folder, say)
  if isinstance(options, SimilarityRun):
    return analyses.similarity(options, folder, say)
  if isinstance(options, PruningRun):
    return analyses.masks(options, folder, say)
  return tuning.plan(options, folder, say)
