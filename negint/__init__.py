"""A laboratory for negative interference in multilingual language models (arXiv 2010.03017).

  model = negint.load("runs/joint_pair-ar-en-sample-seed1")
  negint.runs("runs")                                         # finished runs and their results
  negint.metrics("runs/joint_pair-ar-en-sample-seed1")        # what a run logged, as columns

Importing negint is quick: JAX is imported by what needs it.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import numpy as np

  from negint.inference.model import Model


def load(path: str | os.PathLike[str], *, seed: int | None = None) -> "Model":
  """Returns a model to use: to fill masks, embed and score text, or to predict with.

  Args:
    path: the folder of a finished pretraining run, of a finished fine-tuning run, or of a Hugging
      Face checkpoint.
    seed: of a fine-tuning run with several seeds, the one whose weights are taken; None: the first.

  Raises:
    UserError: there is no such model, or a file is missing or damaged.
  """
  from negint.inference.load import load as load_model

  return load_model(path, seed=seed)


def runs(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:  # Any: numbers and texts
  """Returns the finished runs below a folder, one flat dict per run, as rows of a table.

  `pandas.DataFrame(negint.runs("runs"))` makes the table. The keys are `run` (the folder), `task`,
  `system`, `languages`, `scale`, `seed`, `steps`; then the entries of result.json, such as
  `perplexity.ar` and `test.ar.f1`; then the fields of the configuration, such as
  `config.train.learning_rate`. Runs that are unfinished or damaged are left out.

  Args:
    folder: the folder, or a file that `launch.study --pack` wrote.

  Raises:
    UserError: there is no such folder or file, or no finished run in it.
  """
  from negint.inference.runs import runs as read_runs

  return read_runs(folder)


def metrics(run: str | os.PathLike[str]) -> dict[str, "np.ndarray"]:
  """Returns what a run has logged so far: {name: values}, one value per line of metrics.jsonl.

  `step` counts updates. A value is NaN in the lines that lack its name, so that
  `pandas.DataFrame(negint.metrics(run))[["step", "perplexity/ar"]].dropna()` is a curve.

  Args:
    run: the folder that holds metrics.jsonl: a pretraining run's, or seed<k>/<trial> of a fine-tuning
      run.

  Raises:
    UserError: there is no metrics.jsonl.
  """
  from negint.inference.runs import metrics as read_columns

  return read_columns(run)
