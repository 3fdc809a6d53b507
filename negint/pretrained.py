"""A pretrained model as fine-tuning and the analyses read it: weights, tokenizer, languages."""

import dataclasses
import pathlib
from typing import Any

import jax
import ml_collections

from negint import language as lang
from negint import options, parallel
from negint.checkpoint import Checkpoints
from negint.data import tokenizer as tok
from negint.errors import UserError
from negint.options import ModelOptions, RunOptions
from negint.state import init_state
from negint.workdir import read_json


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """run: options of the pretraining. theta, phi: its weights at the last step. result: its
  result.json."""

  run: RunOptions
  theta: Any
  phi: Any
  tokenizer: tok.Tokenizer
  result: dict

  @property
  def model(self) -> ModelOptions:
    return self.run.model

  @property
  def lab(self):
    """LabOptions if the model speaks the lab's languages, else None."""
    return self.run.data.lab if self.run.data.source == "lab" else None

  def language_index(self, language: str) -> int:
    if language not in self.run.languages:
      raise UserError(
        f"'{language}' is not a language of the pretrained model ({', '.join(self.run.languages)}); "
        "choose one of these, or another --config.init_from."
      )
    return self.run.languages.index(language)


def load(workdir: str, *, scratch: bool = False) -> Pretrained:
  """The model of a finished pretraining run.

  Args:
    workdir: the run's folder.
    scratch: the weights that the run started from instead of those it ended with.

  Raises:
    UserError: there is no finished run, or none of its checkpoints can be read.
  """
  folder = pathlib.Path(workdir)
  for name in ("config.json", "result.json", "tokenizer.model"):
    if not (folder / name).is_file():
      raise UserError(
        f"--config.init_from={workdir} is not the workdir of a finished pretraining run: it has no "
        f"{name}. Finish the run first (start its command again), or name another folder."
      )
  config = ml_collections.ConfigDict(read_json(folder / "config.json"))
  if config.get("task") != "pretrain":
    raise UserError(
      f"--config.init_from={workdir} holds a run of task {config.get('task')!r}; fine-tuning starts "
      "from a pretraining run."
    )
  # That run's batch sizes need not suit the devices of this one: one device suits all.
  run = options.from_config(config, num_devices=1)
  result = read_json(folder / "result.json")
  state = parallel.replicate(init_state(run.model, run.optimiser, run.seed))
  if not scratch:
    checkpoints = Checkpoints(folder, run.checkpoint_keep)
    try:
      state = checkpoints.restore_step(result["steps"], state)
    except Exception as error:  # of many types, see checkpoint.py
      raise UserError(
        f"--config.init_from={workdir}: the checkpoint of its last step, {result['steps']}, cannot "
        f"be read ({(str(error).splitlines() or [''])[0][:200]}). Delete its result.json and start "
        "that run's command again to make it anew."
      ) from error
    finally:
      checkpoints.close()
  theta, phi = jax.device_get((state.theta, state.phi))
  return Pretrained(run, theta, phi, tok.load(folder / "tokenizer.model"), result)


def routed(pretrained_theta, phi, route: str, source: int, target: int):
  """(theta, phi_i, language index) that a test in the target language goes through.

  target: its own modules; source: those that were fine-tuned; mean: the mean of all languages. The
  language embedding follows the route.
  """
  if route == "mean":
    theta = dict(pretrained_theta)
    if "language" in theta:
      table = theta["language"]
      theta["language"] = jax.numpy.broadcast_to(table.mean(0, keepdims=True), table.shape)
    return theta, jax.tree.map(lambda leaf: leaf.mean(0), phi), source
  index = {"target": target, "source": source}[route]
  return pretrained_theta, lang.select(phi, index), index
