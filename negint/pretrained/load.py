"""A pretrained model as fine-tuning and the analyses read it: weights, tokenizer, languages.

It comes from the workdir of a finished pretraining run, or from a folder in Hugging Face's XLM
layout (config.json, model.safetensors, vocab.json, merges.txt), such as XLM-100's.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import ml_collections

from negint import options
from negint.data import tokenizer as tok
from negint.errors import UserError
from negint.method import parallel
from negint.method.phi import init_theta_and_phi, select_language
from negint.method.state import init_state
from negint.options import ModelOptions, RunOptions
from negint.pretrained import xlm_tokenizer, xlm_weights
from negint.run.checkpoint import Checkpoints
from negint.run.files import read_json

IMPORTED = "xlm"  # the system of every imported checkpoint


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """workdir: where it was read. model: the encoder's shape. languages: codes in the order of phi and
  of the language embeddings; empty if there is neither and the folder names none: then any is
  accepted. theta, phi: the weights at the last step. run, result: the options of the pretraining
  and its result.json; None for an imported checkpoint."""

  workdir: str
  model: ModelOptions
  languages: tuple[str, ...]
  theta: Any
  phi: Any
  tokenizer: tok.Tokenizer | xlm_tokenizer.XlmTokenizer
  run: RunOptions | None = None
  result: dict | None = None

  @property
  def system(self) -> str:
    return self.run.system if self.run else IMPORTED

  @property
  def steps(self) -> int | None:
    """Updates of the pretraining; None if unknown."""
    return self.result["steps"] if self.run else None

  @property
  def sequence_length(self) -> int:
    """Tokens of a pretraining sequence; all positions if unknown."""
    return self.run.data.sequence_length if self.run else self.model.max_length

  @property
  def lab(self):
    """LabOptions if the model speaks the lab's languages, else None."""
    return self.run.data.lab if self.run and self.run.data.source == "lab" else None

  def speaks(self, language: str) -> bool:
    return not self.languages or language in self.languages

  def language_index(self, language: str) -> int:
    if not self.speaks(language):
      raise UserError(
        f"'{language}' is not a language of the pretrained model ({', '.join(self.languages)}); "
        "choose one of these, or another --config.init_from."
      )
    return self.languages.index(language) if self.languages else 0

  def identity(self) -> dict:
    """What a result says of the pretraining that it started from; None where unknown.

    Its steps, tokens (held-out ones apart) and FLOPs are those of the whole run, also of a row from
    scratch, which takes only the run's shape and tokenizer.
    """
    run, result = self.run, self.result or {}
    return {
      "workdir": self.workdir,
      "system": self.system,
      "languages": list(self.languages),
      "scale": run.scale if run else "imported",
      "seed": run.seed if run else None,
      "steps": self.steps,
      "subsample": run.data.subsample if run else 0,
      "similarity": self.lab.similarity if self.lab else None,
      "tokens_seen": result.get("tokens_seen"),
      "flops": result.get("flops"),
    }


def load_pretrained(workdir: str, *, scratch: bool = False) -> Pretrained:
  """The model of a finished pretraining run, or of a Hugging Face XLM folder.

  Args:
    workdir: the run's folder, or the checkpoint's.
    scratch: the weights that the run started from instead of those it ended with; for a checkpoint,
      random ones of its shape.

  Raises:
    UserError: there is neither, or it cannot be read.
  """
  folder = pathlib.Path(workdir)
  config = (
    read_json(folder / "config.json", f"--config.init_from={workdir}; name another folder")
    if (folder / "config.json").is_file()
    else {}
  )
  if "model_type" in config and "task" not in config:
    return _imported(folder, scratch)
  for name in ("config.json", "result.json", "tokenizer.model"):
    if not (folder / name).is_file():
      raise UserError(
        f"--config.init_from={workdir} is not the workdir of a finished pretraining run (nor a "
        f"Hugging Face XLM checkpoint): it has no {name}. Finish the run first (start its command "
        "again), or name another folder."
      )
  if config.get("task") != "pretrain":
    raise UserError(
      f"--config.init_from={workdir} holds a run of task {config.get('task')!r}; fine-tuning starts "
      "from a pretraining run."
    )
  return _trained_here(folder, ml_collections.ConfigDict(config), scratch)


def _trained_here(folder: pathlib.Path, config, scratch: bool) -> Pretrained:
  # That run's batch sizes need not suit the devices of this one: one device suits all.
  run = options.from_config(config, num_devices=1)
  result = read_json(
    folder / "result.json",
    f"--config.init_from={folder}; delete it and start that run's command again",
  )
  state = parallel.replicate(init_state(run.model, run.optimiser, run.seed))
  if not scratch:
    checkpoints = Checkpoints(folder, run.checkpoint_keep)
    try:
      state = checkpoints.restore_step(result["steps"], state)
    except Exception as error:  # of many types, see checkpoint.py
      raise UserError(
        f"--config.init_from={folder}: the checkpoint of its last step, {result['steps']}, cannot "
        f"be read ({(str(error).splitlines() or [''])[0][:200]}). Delete its result.json and start "
        "that run's command again to make it anew."
      ) from error
    finally:
      checkpoints.close()
  theta, phi = jax.device_get((state.theta, state.phi))
  tokenizer = tok.load(folder / "tokenizer.model")
  return Pretrained(str(folder), run.model, run.languages, theta, phi, tokenizer, run, result)


def _imported(folder: pathlib.Path, scratch: bool) -> Pretrained:
  tokenizer = xlm_tokenizer.load(folder)
  model, theta, phi, languages = xlm_weights.read_hugging_face(folder)
  if tokenizer.vocab_size > model.vocab_size:
    raise UserError(
      f"{folder}/vocab.json has ids up to {tokenizer.vocab_size - 1}, but the checkpoint has "
      f"{model.vocab_size} token embeddings; put the tokenizer files of this very checkpoint there."
    )
  if not xlm_weights.read_object(folder / "config.json").get("lang2id"):
    if model.language_embedding:
      raise UserError(
        f"{folder}/config.json does not say whose its {model.num_languages} language embeddings are; "
        'add "lang2id", an object of language codes and rows such as {"ar": 0, "en": 1}.'
      )
    languages = ()
  if scratch:
    del theta, phi
    theta, phi = jax.device_get(
      jax.jit(init_theta_and_phi, static_argnums=0)(model, jax.random.key(0))
    )
  return Pretrained(str(folder), model, languages, theta, phi, tokenizer)


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
  return pretrained_theta, select_language(phi, index), index
