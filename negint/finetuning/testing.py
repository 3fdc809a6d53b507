"""Tests of what was selected. No other code sees the examples of a test set."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from negint.finetuning.data import Inputs, Split, read_split
from negint.finetuning.options import FinetuneOptions
from negint.finetuning.trial import Shared
from negint.method.phi import put_language
from negint.pretrained.load import routed
from negint.tasks import predictions
from negint.tasks.examples import Report


@dataclasses.dataclass(frozen=True)
class Tested:
  """What a test in one language says."""

  scores: dict[str, float]  # in per cent
  examples: int  # number of them
  report: Report  # what was repaired, dropped or cut in the test set


# Any: the weights are a tree of arrays.
def test(shared: Shared, tuned: dict[str, Any], language: str, folder: pathlib.Path) -> Tested:
  """Returns the scores of the selected weights on a language's test set.

  Writes `predictions/` and `per_example/` of the language in the folder.

  Args:
    shared: the run.
    tuned: selected weights, as TuneState has them.
    language: code of the test set's language.
    folder: of the seed.

  Raises:
    UserError: the test set cannot be read.
    Interrupted: SIGTERM or Ctrl-C.
  """
  run, model = shared.run, shared.inputs.model
  data = read_split(run, model, shared.inputs.labels, language, "test")
  phi = model.phi
  if tuned["phi"]:
    phi = put_language(jax.tree.map(jnp.asarray, phi), shared.source, tuned["phi"])
  target = model.language_index(language) if model.speaks(language) else shared.source
  # The source language is always tested with the modules that were trained.
  route = run.route if language != run.source_language else "source"
  theta, phi_i, index = routed(tuned["theta"], phi, route, shared.source, target)
  scores = shared.predict(
    (theta, phi_i, tuned["head"]), data.arrays, index, shared.interruption.poll
  )
  predicted = run.task.decode(scores, data.arrays, data.examples, shared.inputs.labels, run.limits)
  predictions.write(folder / "predictions", run.task, language, predicted)
  return _tested(run, data, predicted, language, folder)


def test_majority(
  run: FinetuneOptions, inputs: Inputs, language: str, folder: pathlib.Path
) -> Tested:
  """Returns the scores of the most frequent training label or answer on a test set.

  Writes `per_example/` of the language in the folder; raises as `test`.
  """
  data = read_split(run, inputs.model, inputs.labels, language, "test")
  predicted = run.task.majority(inputs.train.examples, data.examples)
  return _tested(run, data, predicted, language, folder)


def _tested(
  run: FinetuneOptions, data: Split, predicted: Any, language: str, folder: pathlib.Path
) -> Tested:
  rows = run.task.per_example(data.examples, predicted)
  predictions.write_per_example(folder / "per_example", run.task, language, rows)
  return Tested(run.task.scores(rows), len(data.examples), data.report)
