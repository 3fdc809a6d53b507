"""Tests of what was selected. No other code sees the examples of a test set."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from negint.finetuning.data import Inputs, Split, read_split
from negint.finetuning.heads import Head
from negint.finetuning.options import FinetuneOptions
from negint.finetuning.programs import Params
from negint.finetuning.trial import Shared
from negint.finetuning.weights import Tuned
from negint.method.phi import put_language
from negint.pretrained.load import Pretrained, routed
from negint.tasks import predictions
from negint.tasks.examples import Report


@dataclasses.dataclass(frozen=True)
class Tested:
  """What a test in one language says."""

  scores: dict[str, float]  # in per cent
  examples: int  # number of them
  report: Report  # what was repaired, dropped or cut in the test set


def tuned_phi(model: Pretrained, tuned: Tuned, source: int) -> Params:
  """Returns phi of all languages, with the fine-tuned slice of the source language."""
  if not tuned["phi"]:
    return model.phi
  return put_language(jax.tree.map(jnp.asarray, model.phi), source, tuned["phi"])


def routed_parameters(
  run: FinetuneOptions, model: Pretrained, tuned: Tuned, language: str
) -> tuple[tuple[Params, Params, Head], int]:
  """Returns what a test in a language computes with: ((theta, phi_i, head), language index).

  The route is `run.route`, but the source language always has the modules that were trained.

  Args:
    run: the options of the fine-tuning.
    model: the pretrained model.
    tuned: selected weights.
    language: code of the test's language. One that the model does not speak has no modules of its
      own: it needs another route than "target".
  """
  source = model.language_index(run.source_language)
  target = model.language_index(language) if model.speaks(language) else source
  route = run.route if language != run.source_language else "source"
  phi = tuned_phi(model, tuned, source)
  theta, phi_i, index = routed(tuned["theta"], phi, route, source, target)
  return (theta, phi_i, tuned["head"]), index


def test(shared: Shared, tuned: Tuned, language: str, folder: pathlib.Path) -> Tested:
  """Returns the scores of the selected weights on a language's test set.

  Writes `predictions/` and `per_example/` of the language in the folder.

  Args:
    shared: the run.
    tuned: selected weights.
    language: code of the test set's language.
    folder: of the seed.

  Raises:
    UserError: the test set cannot be read.
    Interrupted: SIGTERM or Ctrl-C.
  """
  run = shared.run
  data = read_split(run, shared.inputs.model, shared.inputs.labels, language, "test")
  params, index = routed_parameters(run, shared.inputs.model, tuned, language)
  scores = shared.predict(params, data.arrays, index, shared.interruption.poll)
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
