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


def load(path: str | os.PathLike[str], *, seed: int | None = None, dtype: str = "auto") -> "Model":
  """Returns a model to use: to fill masks, embed and score text, or to predict with.

  Args:
    path: the folder of a finished pretraining run, of a finished fine-tuning run, or of a Hugging
      Face checkpoint.
    seed: of a fine-tuning run with several seeds, the one whose weights are taken; None: the first.
    dtype: of matrix products: "float32", "bfloat16", "float16", or "auto", the fastest that the
      device has units for, but never less exact than in the training of a run. Of an imported
      model that training is not known: for the exact numbers of float32, ask for it. On French text
      bfloat16 moved the vectors of a small model by up to 0.7 % and perplexities by 0.3 %, float16 by
      0.1 %.

  Raises:
    UserError: there is no such model, a file is missing or damaged, or dtype is none of these.
  """
  from negint.inference.load import load as load_model

  return load_model(path, seed=seed, dtype=dtype)


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
