"""A pretrained model as fine-tuning and the analyses read it: weights, tokenizer, languages.

It comes from the workdir of a finished pretraining run, or from a folder in Hugging Face's layout: that
of XLM (config.json, model.safetensors, vocab.json, merges.txt) or that of BERT and RoBERTa, so also of
multilingual BERT and XLM-R (config.json, model.safetensors, tokenizer.json or BERT's vocab.txt). theta
are the parameters that all languages share, phi those that belong to one language each.
"""

import dataclasses
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import ml_collections

from negint import options
from negint.data.fast_tokenizer import FastTokenizer
from negint.data.tokenizer import Tokenizer, load_tokenizer
from negint.errors import UserError
from negint.method import device, parallel
from negint.method.phi import init_theta_and_phi, select_language
from negint.method.state import TrainState, init_state, state_of
from negint.options import LabOptions, ModelOptions, RunOptions
from negint.pretrained import adapters, bert_weights, tokenizer_json, xlm_tokenizer, xlm_weights
from negint.pretrained.checkpoint_files import read_config
from negint.pretrained.xlm_tokenizer import XlmTokenizer
from negint.run.checkpoint import Checkpoints
from negint.run.files import checksum, read_json
from negint.run.workdir import read_data_record

HF_FIELDS = {"architectures", "n_heads", "vocab_size"}  # of checkpoints older than model_type
FAMILIES = ("xlm", *bert_weights.FAMILIES)  # model_type of checkpoints that can be imported


@dataclasses.dataclass(frozen=True)
class Trained:
  """What is known of a model that a pretraining run made."""

  run: RunOptions  # its options
  result: dict  # its result.json


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A pretrained model."""

  workdir: str  # the folder that it was read from
  model: ModelOptions  # the encoder's shape
  languages: tuple[str, ...]  # in the order of phi and the language embeddings; () accepts any
  theta: dict  # nested, of arrays
  phi: dict  # nested, of arrays [languages, ...]; {} without language-specific modules
  tokenizer: Tokenizer | XlmTokenizer | FastTokenizer
  origin: Trained | None = None  # None for an imported checkpoint
  family: str = ""  # of an imported checkpoint, one of FAMILIES
  has_head: bool = True  # whether it predicts hidden tokens; an encoder alone, an untied XLM do not

  @property
  def run(self) -> RunOptions:
    """The options of the pretraining. UserError for an imported checkpoint."""
    return self._trained().run

  @property
  def result(self) -> dict:
    """The result.json of the pretraining. UserError for an imported checkpoint."""
    return self._trained().result

  def _trained(self) -> Trained:
    if self.origin is None:
      raise UserError(
        f"--config.init_from={self.workdir} is an imported checkpoint, whose pretraining text is not "
        "known; the analyses read the text of a pretraining run: name the workdir of one."
      )
    return self.origin

  @property
  def system(self) -> str:
    """The system of the pretraining, such as "joint_pair"; the family of an imported checkpoint."""
    return self.origin.run.system if self.origin else self.family

  @property
  def steps(self) -> int | None:
    """Updates of the pretraining; None if unknown."""
    return self.origin.result["steps"] if self.origin else None

  @property
  def sequence_length(self) -> int:
    """Tokens of a pretraining sequence; all positions if unknown."""
    return self.origin.run.data.sequence_length if self.origin else self.model.max_length

  @property
  def lab(self) -> LabOptions | None:
    """The options of the lab if the model speaks the lab's languages, else None."""
    if self.origin is None or self.origin.run.data.source != "lab":
      return None
    return self.origin.run.data.lab

  def speaks(self, language: str) -> bool:
    """Returns whether a language is one of the model's."""
    return not self.languages or language in self.languages

  def language_index(self, language: str) -> int:
    """Returns the row of a language in phi and in the language embeddings.

    Raises:
      UserError: it is not a language of the model.
    """
    if not self.speaks(language):
      raise UserError(
        f"'{language}' is not a language of the pretrained model ({', '.join(self.languages)}); "
        "choose one of these, or another --config.init_from."
      )
    return self.languages.index(language) if self.languages else 0

  def identity(self) -> dict:
    """Returns what a result says of the pretraining that it started from; None where unknown.

    Steps, tokens (without held-out ones) and FLOPs are those of the whole pretraining. A run from
    scratch has them too, although it uses only the shape and the tokenizer.
    """
    run = self.origin.run if self.origin else None
    result = self.origin.result if self.origin else {}
    return {
      "workdir": self.workdir,
      "system": self.system,
      "languages": list(self.languages),
      "vocabulary": self._vocabulary(),
      "scale": run.scale if run else "imported",
      "seed": run.seed if run else None,
      "steps": self.steps,
      "subsample": run.data.subsample if run else 0,
      "similarity": self.lab.similarity if self.lab else None,
      "tokens_seen": result.get("tokens_seen"),
      "tokens_seen_by_language": result.get("tokens_seen_by_language"),
      "flops": result.get("flops"),
    }

  def _vocabulary(self) -> str:
    """Returns a digest of the tokenizer's pieces in the order of their ids."""
    pieces = (str(self.tokenizer.piece(token)) for token in range(self.tokenizer.vocab_size))
    return hashlib.sha256("\n".join(pieces).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def load_pretrained(workdir: str, *, scratch: bool = False) -> Pretrained:
  """Returns the model of a finished pretraining run, or of a Hugging Face folder.

  Args:
    workdir: the run's folder, or the checkpoint's.
    scratch: return random weights of the same shape instead of the trained ones.

  Raises:
    UserError: the folder has neither, the run is not finished, or a file is missing or damaged.
  """
  folder, config = pathlib.Path(workdir), read_run_config(workdir)
  if config is None:
    return _imported(folder, scratch)
  return _trained_here(folder, config, scratch)


def read_run_config(workdir: str) -> ml_collections.ConfigDict | None:
  """Returns the config of a finished pretraining run; None for a Hugging Face folder.

  Raises:
    UserError: the folder has neither, or the run is not finished.
  """
  folder, named = pathlib.Path(workdir), f"--config.init_from={workdir}"
  if not folder.is_dir():
    what = "is a file" if folder.exists() else f"does not exist (looked from {pathlib.Path.cwd()})"
    raise UserError(
      f"{named} {what}; name the folder of a finished pretraining run or of a Hugging Face "
      "checkpoint. To download one: hf download FacebookAI/xlm-roberta-base --local-dir my_model "
      "(pip install huggingface_hub)."
    )
  if not (folder / "config.json").is_file():
    if any(folder.glob("*.safetensors")):
      return None
    raise UserError(
      f"{named} is neither a pretraining run nor a Hugging Face checkpoint: it has no "
      f"config.json. {_near(folder)}"
    )
  config = read_json(folder / "config.json", f"{named}; copy that folder again, or name another")
  if "model_type" in config or ("task" not in config and HF_FIELDS & config.keys()):
    return None
  _check_finished(folder, config)
  return ml_collections.ConfigDict(config)


def _near(folder: pathlib.Path) -> str:
  """Returns a sentence that names a folder to use instead: one that holds it, or one inside it."""
  for parent in list(folder.absolute().parents)[:3]:
    if (parent / "config.json").is_file():
      return f"It lies inside {parent}, which has one: name that folder."
  cached = folder.glob("snapshots/*/config.json")  # of a model in Hugging Face's own cache
  inside = sorted(path.parent for path in [*folder.glob("*/config.json"), *cached])
  if inside:
    names = ", ".join(path.relative_to(folder).as_posix() for path in inside[:5])
    names += ", ..." * (len(inside) > 5)
    return f"Folders inside it have one: name one of {names} with its path."
  return "Name another folder."


def read_state(folder: pathlib.Path, run: RunOptions, step: int, otherwise: str) -> TrainState:
  """Returns the state of a pretraining run at a step, on every device.

  Args:
    folder: the run's.
    run: its options.
    step: one whose checkpoint is kept.
    otherwise: a sentence that says what to do when the checkpoint cannot be read.

  Raises:
    UserError: the checkpoint cannot be read.
  """
  # Its shapes alone: compiling its start would take longer than reading it.
  like = parallel.replicated_shapes(jax.eval_shape(lambda: state_of(run)))
  checkpoints = Checkpoints(folder, run.checkpoint_keep)
  try:
    return checkpoints.restore_step(step, like)
  except (
    Exception
  ) as error:  # for a damaged checkpoint orbax raises many types, and bare Exceptions
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    raise UserError(
      f"--config.init_from={folder}: the checkpoint of step {step} cannot be read ({reason}). "
      f"{otherwise}"
    ) from error
  finally:
    checkpoints.close()


def routed(theta: dict, phi: dict, route: str, source: int, target: int) -> tuple[dict, dict, int]:
  """Returns the (theta, phi_i, language index) that a test in the target language uses.

  phi_i are one language's parameters of phi; the language embedding follows the route.

  Args:
    theta: fine-tuned.
    phi: of all languages, that of the source language fine-tuned.
    route: "target": the target language's own modules; "source": the fine-tuned ones; "mean": the
      mean of all languages.
    source: index of the language of the fine-tuning.
    target: index of the language of the test.
  """
  if route == "mean":
    theta = dict(theta)
    if "language" in theta:
      table = theta["language"]
      theta["language"] = jnp.broadcast_to(table.mean(0, keepdims=True), table.shape)
    return theta, jax.tree.map(lambda leaf: leaf.mean(0), phi), source
  index = {"target": target, "source": source}[route]
  return theta, select_language(phi, index), index


def _check_finished(folder: pathlib.Path, config: dict) -> None:
  """Checks that a folder with a config of this project is a whole, finished pretraining run.

  Raises:
    UserError: it is not.
  """
  named, task = f"--config.init_from={folder}", config.get("task")
  if task is None:
    raise UserError(
      f"{named} is neither a pretraining run nor a Hugging Face checkpoint: its config.json has "
      "neither task nor model_type. Name another folder."
    )
  if task != "pretrain":
    raise UserError(
      f"{named} is a run of task {task!r}, not a pretraining run. Name the pretraining run that it "
      f"started from, --config.init_from={config.get('init_from')}, or another."
    )
  if not (folder / "result.json").is_file():
    raise UserError(
      f"{named} is a pretraining run that is not finished: it has no result.json. Start its command "
      "again to finish it, or name another folder."
    )
  if not (folder / "tokenizer.model").is_file():
    raise UserError(
      f"{named} is a pretraining run without its tokenizer.model; copy the whole folder, or name "
      "another."
    )


def _trained_here(
  folder: pathlib.Path, config: ml_collections.ConfigDict, scratch: bool
) -> Pretrained:
  """Returns the model of a finished pretraining run; its attention is one that the devices have."""
  # The batch sizes of that run need not divide by the number of devices here, but by 1 they do.
  run = options.from_config(config, num_devices=1)
  if run.model.attention == "cudnn" and not device.has_cudnn_attention(jax.devices()):
    run = dataclasses.replace(run, model=run.model.replace(attention="xla"))  # the same function
  again = "Delete its result.json and start that run's command again, which makes it anew"
  result = read_json(folder / "result.json", f"--config.init_from={folder}. {again}")
  if scratch:
    state = init_state(run.model, run.optimiser, run.seed)
  else:
    state = read_state(folder, run, result["steps"], f"{again}.")
  theta, phi = jax.device_get((state.theta, state.phi))
  tokenizer = own_tokenizer(folder, again)
  return Pretrained(
    str(folder), run.model, run.languages, theta, phi, tokenizer, Trained(run, result)
  )


def own_tokenizer(folder: pathlib.Path, again: str) -> Tokenizer | XlmTokenizer | FastTokenizer:
  """Returns the tokenizer in a run's folder; UserError if it is not the one that the run used.

  Args:
    folder: the run's.
    again: a sentence, without its full stop, that says how the file is made again.
  """
  path = folder / "tokenizer.model"
  if checksum(path) != read_data_record(folder).tokenizer:
    raise UserError(f"{path} is damaged (it has other contents than were written). {again}.")
  return xlm_tokenizer.from_model(path.read_bytes()) or load_tokenizer(path)


def _imported(folder: pathlib.Path, scratch: bool) -> Pretrained:
  """Returns the model of a Hugging Face folder."""
  config = read_config(folder)
  model_type = config["model_type"]
  if model_type not in FAMILIES:
    raise UserError(
      f"{folder}/config.json: model_type is {model_type!r}; it must be one of "
      f"{', '.join(map(repr, FAMILIES))}: name a checkpoint of one of these."
    )
  found = _xlm(folder) if model_type == "xlm" else _bert(folder)
  if found.tokenizer.vocab_size > found.model.vocab_size:
    raise UserError(
      f"{folder}: its tokenizer has ids up to {found.tokenizer.vocab_size - 1}, but the checkpoint has "
      f"{found.model.vocab_size} token embeddings; put the tokenizer files of this checkpoint there."
    )
  if (folder / adapters.FILE).is_file():
    shape, phi, languages = adapters.read(folder, config, found.model)
    found = dataclasses.replace(found, model=shape, phi=phi, languages=languages)
  if not scratch:
    return found
  found = dataclasses.replace(found, theta={}, phi={})  # free memory before as much is allocated
  init = jax.jit(init_theta_and_phi, static_argnums=0)
  theta, phi = jax.device_get(init(found.model, jax.random.key(0)))
  return dataclasses.replace(found, theta=theta, phi=phi)


def _xlm(folder: pathlib.Path) -> Pretrained:
  """Returns the model of an XLM folder."""
  config = xlm_weights.checked_config(folder)  # first: other models have other files
  exported = not (folder / "vocab.json").is_file() and (folder / tokenizer_json.FILE).is_file()
  tokenizer = (tokenizer_json if exported else xlm_tokenizer).load(folder)
  model, theta, phi, languages = xlm_weights.read_hugging_face(folder, head=False)
  if not config.get("lang2id"):
    if model.language_embedding:
      raise UserError(
        f"{folder}/config.json does not say whose its {model.num_languages} language embeddings are; "
        'add "lang2id", an object of language codes and rows such as {"ar": 0, "en": 1}.'
      )
    languages = ()
  has_head = xlm_weights.has_head(folder)
  return Pretrained(
    str(folder), model, languages, theta, phi, tokenizer, family="xlm", has_head=has_head
  )


def _bert(folder: pathlib.Path) -> Pretrained:
  """Returns the model of a BERT or RoBERTa folder, whose languages are not known."""
  config = bert_weights.checked_config(folder)  # first, as above
  tokenizer = tokenizer_json.load(folder)
  model, theta, has_head = bert_weights.read_hugging_face(folder)
  special = tokenizer.special
  if special.second_type >= max(model.token_types, 1):  # the model does not tell the texts apart
    tokenizer = FastTokenizer(tokenizer.text, dataclasses.replace(special, second_type=0))
  model = model.replace(mask_id=special.mask, kept_ids=special.ids)
  family = config["model_type"]
  return Pretrained(str(folder), model, (), theta, {}, tokenizer, family=family, has_head=has_head)
