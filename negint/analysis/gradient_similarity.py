"""Gradient conflict over the checkpoints of a finished pretraining run (Figure 3, afterwards)."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from negint.analysis import gradients
from negint.analysis.training_tokens import open_streams
from negint.data.token_cache import TokenCache
from negint.method import memory, parallel, similarity
from negint.options import check_at_least, check_choice, check_divisible
from negint.out_of_memory import Remedies
from negint.pretrained.load import Pretrained, load_pretrained, read_state
from negint.run import auto_remat
from negint.run.checkpoint import Checkpoints
from negint.run.files import read_json, write_json
from negint.run.progress import progress_bar
from negint.run.runner import Kind, Place, Say, smaller_batches

CHECKPOINTS = ("all", "last")


@dataclasses.dataclass(frozen=True)
class SimilarityRun:
  """configs/gradient_similarity.py says what each field means."""

  init_from: str
  seed: int
  checkpoints: str
  sentences: int
  batch_size: int
  repeats: int


def from_config(config: ConfigDict, num_devices: int) -> SimilarityRun:
  """Checks the ConfigDict and freezes it; UserError at the first broken rule."""
  fields = config.to_dict()
  del fields["task"]
  run = SimilarityRun(**fields)
  check_choice("checkpoints", run.checkpoints, CHECKPOINTS)
  check_at_least("seed", run.seed, 0)
  check_at_least("sentences", run.sentences, 1)
  check_at_least("repeats", run.repeats, 1)
  check_divisible("batch_size", run.batch_size, num_devices)
  return run


class Inputs(NamedTuple):
  """The model and the text that it learned from."""

  model: Pretrained
  cache: TokenCache
  sentences: int  # sequences per gradient


def prepare(run: SimilarityRun, say: Say) -> Inputs:
  """Opens the model and its text; UserError if the text does not suffice."""
  model = load_pretrained(run.init_from)
  cache = open_streams(model, run.init_from, say)
  sentences = gradients.available_sentences(
    cache.streams["train"], model.run.data.sequence_length, run.sentences, run.batch_size
  )
  if sentences < run.sentences:
    say(
      f"{sentences} sequences per gradient, not {run.sentences}: the smallest corpus has no more."
    )
  return Inputs(model, cache, sentences)


def work(run: SimilarityRun, inputs: Inputs, place: Place) -> dict:
  """Measures every checkpoint that is not on record yet; returns the contents of result.json."""
  model, cache, sentences = inputs
  params, size = (model.theta, model.phi), run.batch_size
  found = auto_remat.chosen(
    model.model,
    place,
    lambda: gradients.remat_of(model.run, params, size, memory.limit()),
  )
  measure = gradients.make_measure(
    memory.with_remat(model.run, found.remat),
    cache.streams["train"],
    sentences,
    run.batch_size,
    place.interruption.poll,
  )
  checkpoints = [
    measured_checkpoint(run, model, measure, step, place.workdir / "steps" / f"{step}.json")
    for step in steps_to_measure(run, model)
  ]
  return {
    "task": "gradient_similarity",
    "init_from": run.init_from,
    "pretraining": model.identity(),
    "sentences": sentences,
    "repeats": run.repeats,
    "checkpoints": checkpoints,
  }


def steps_to_measure(run: SimilarityRun, model: Pretrained) -> list[int]:
  """Returns the steps of the checkpoints to measure, ascending."""
  last = model.result["steps"]
  if run.checkpoints == "last":
    return [last]
  folder = pathlib.Path(run.init_from)
  with contextlib.closing(Checkpoints(folder, model.run.checkpoint_keep)) as checkpoints:
    return checkpoints.steps()


def measured_checkpoint(
  run: SimilarityRun,
  model: Pretrained,
  measure: Callable,
  step: int,
  path: pathlib.Path,
) -> dict:
  """Returns the record of one checkpoint, measured unless it is on disk already."""
  if path.exists():
    return read_json(path, "this analysis; delete the file to measure the checkpoint again")
  params = load_step(run, model, step)
  repeats = [
    measure(params, (run.seed, step, number))
    for number in progress_bar(range(run.repeats), desc=f"gradients at step {step}", leave=False)
  ]
  record = {"step": step, "scopes": summarised(repeats)}
  write_json(path, record)
  return record


def load_step(run: SimilarityRun, model: Pretrained, step: int) -> tuple[Any, Any]:
  """Returns (theta, phi) of one checkpoint, on every device."""
  if step == model.result["steps"]:
    return parallel.replicate((model.theta, model.phi))
  otherwise = "--config.checkpoints=last leaves it out."
  state = read_state(pathlib.Path(run.init_from), model.run, step, otherwise)
  return state.theta, state.phi


def summarised(repeats: list[dict]) -> dict:
  """Returns {scope: estimates of its cosines, raw and corrected} of one or more measurements."""
  return {scope: similarity.estimates([each[scope] for each in repeats]) for scope in repeats[0]}


def summary(result: dict, workdir: pathlib.Path) -> str:
  """Returns the table that ends a run: the scopes of the last checkpoint."""
  last = result["checkpoints"][-1]
  languages = result["pretraining"]["languages"]
  pairs = list(last["scopes"]["all"]["cosine"])
  between = [pair for pair in pairs if not similarity.language_of(pair)]
  lines = [
    "",
    f"gradient cosines of {result['pretraining']['system']} on {', '.join(languages)} at step "
    f"{last['step']:,}, {result['sentences']:,} sequences per gradient, {result['repeats']} repeats "
    "(+- standard error)",
    f"{'scope':<22}"
    + "".join(f"{pair:>17}" for pair in pairs)
    + "".join(f"{pair + ' corrected':>20}" for pair in between),
  ]
  for scope, values in last["scopes"].items():
    cells = [(values["cosine"][pair], 17) for pair in pairs]
    cells += [(values["corrected"][pair], 20) for pair in between]
    lines.append(f"{scope:<22}" + "".join(f"{show(cell):>{width}}" for cell, width in cells))
  lines.append(f"in {workdir}: result.json with all {len(result['checkpoints'])} checkpoint(s)")
  return "\n".join(lines)


def show(cell: dict) -> str:
  """Returns a cosine with its standard error, as text."""
  if cell["mean"] is None:
    return "undefined"
  error = "" if cell["standard_error"] is None else f" +- {cell['standard_error']:.3f}"
  return f"{cell['mean']:.3f}{error}"


def remedies(run: SimilarityRun, say: Say) -> Remedies:
  """Returns flags that lower the memory."""
  del say  # nothing is compiled
  return smaller_batches({"batch_size": run.batch_size})


KIND = Kind(from_config, prepare, work, summary, remedies)
