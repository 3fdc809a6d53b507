"""What a pretraining run takes from the model that it starts from: shape, tokenizer and weights.

theta are the parameters that all languages share, phi those that belong to one language each. Before
its first update the run computes the same function of a language as the old model does.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from negint import options
from negint.config_file import flatten
from negint.errors import UserError
from negint.method.phi import MODULES
from negint.method.tree import Tree
from negint.options import ModelOptions
from negint.pretrained.load import Pretrained, load_pretrained, read_run_config

# Fields of ModelOptions that a run may choose for itself; all others are the old model's.
OWN = {"vocab_size", "num_languages", "language_embedding", "specific", "shared_adapter", "init"}
OWN |= {"adapter_dim", "adapter_activation", "adapter_init_std"}
OWN |= {"dropout", "attention_dropout", "dtype", "attention", "remat"}
# Fields that a run which adds a language does not take from the old run.
NEW = {"seed", "init_from", "new_language", "data.subsample", "data.tokenizer_from"}
NEW |= {
  "train.freeze_theta",
  "meta.enabled",
  "meta.variant",
  "surgery.method",
  "gradient_similarity.every",
}

Path = tuple[str, ...]


def shape_of(folder: str) -> ModelOptions:
  """Returns the shape of the model in a folder."""
  return load_pretrained(folder).model


def complete(
  config: ConfigDict, default: ConfigDict, shape: Callable[[str], ModelOptions] = shape_of
) -> ConfigDict:
  """Returns a pretraining config with what it takes from the model in `init_from`.

  These are the shape of the encoder, the vocabulary and the tokenizer. A run that adds a language also
  takes the old run's other fields.

  Args:
    config: of a command line.
    default: the same config without the changes of flags.
    shape: gives the shape of an imported checkpoint.

  Raises:
    UserError: the model cannot be read, or a flag contradicts it.
  """
  if not config.init_from:
    if config.new_language:
      raise UserError(
        "--config.init_from is empty; configs/add_language.py adds a language to a finished "
        "pretraining run: name its folder, such as --config.init_from=runs/adpt-xb-xa-lab-seed1."
      )
    return config
  old_run = read_run_config(config.init_from)
  if old_run is not None:
    return complete_with(config, default, old_run)
  if config.new_language:
    raise UserError(
      f"--config.init_from={config.init_from} is an imported checkpoint, whose run is not known: "
      f"start another system from it, such as --config=configs/adpt.py:{config.new_language}-en "
      "with --config.train.freeze_theta=True."
    )
  fixed = _of_model(config, shape(config.init_from))
  return _replaced(config, {}, fixed, _changed(config, default))


def complete_with(config: ConfigDict, default: ConfigDict, old_run: ConfigDict) -> ConfigDict:
  """Returns `complete(config, default)` for the config of the run in `init_from`; reads no file.

  Raises:
    UserError: a flag contradicts the old run.
  """
  model = options.from_config(old_run, num_devices=1).model
  changed = _changed(config, default)
  taken = _of_old_run(config, old_run, model, changed) if config.new_language else {}
  return _replaced(config, taken, _of_model(config, model), changed)


def _changed(config: ConfigDict, default: ConfigDict) -> dict[str, Any]:
  """Returns {name: value} of the fields that flags have changed."""
  before = dict(flatten(default.to_dict()))
  return {name: v for name, v in flatten(config.to_dict()) if v != before.get(name)}


def _replaced(
  config: ConfigDict, taken: dict[str, Any], fixed: dict[str, Any], changed: dict[str, Any]
) -> ConfigDict:
  """Returns the config with the values of `taken` and `fixed`; flags must not contradict `fixed`."""
  for name, value in fixed.items():
    if name in changed and _tuples(changed[name]) != _tuples(value):
      raise UserError(
        f"{name} is {changed[name]!r}, but the model in --config.init_from={config.init_from} has "
        f"{value!r}, which the run takes over: leave --config.{name} out."
      )
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in {**taken, **fixed}.items():
      section, _, field = name.rpartition(".")
      (config[section] if section else config)[field] = _tuples(value)
  return config


def _tuples(value: Any) -> Any:  # Any: a field of a config
  """Returns a list, as JSON has it, as a tuple; other values as they are."""
  return tuple(value) if isinstance(value, list) else value


def _of_model(config: ConfigDict, model: ModelOptions) -> dict[str, Any]:
  """Returns {name: value} of the fields that the old model decides."""
  fields = {
    f"model.{field.name}": getattr(model, field.name)
    for field in dataclasses.fields(model)
    if field.name not in OWN
    and (field.name in config.model or getattr(model, field.name) != field.default)
  }
  if model.has_adapters:
    for name in ("adapter_dim", "adapter_activation"):
      fields[f"model.{name}"] = getattr(model, name)
  if model.language_embedding:
    fields["model.language_embedding"] = True
  fields["data.vocab_size"] = model.vocab_size
  is_bare = "/" not in config.init_from  # with ./ it cannot be read as the code of a language
  fields["data.tokenizer_from"] = f"./{config.init_from}" if is_bare else config.init_from
  return fields


def _of_old_run(
  config: ConfigDict, old_run: ConfigDict, model: ModelOptions, changed: dict[str, Any]
) -> dict[str, Any]:
  """Returns {name: value} of what a run that adds a language takes from the old run."""
  languages = tuple(old_run.languages)
  if config.new_language in languages:
    raise UserError(
      f"'{config.new_language}' is a language of {config.init_from} already ({', '.join(languages)}); "
      "name another one."
    )
  here = {name for name, _ in flatten(config.to_dict())}
  fields = {
    name: value
    for name, value in flatten(old_run.to_dict())
    if name in here and name not in NEW and name not in changed
  }
  if config.train.freeze_theta and not model.specific and "model.specific" not in changed:
    # Adapters are trained instead. If theta has adapters, each language gets a copy of them.
    fields |= {"model.specific": ("adapter",), "model.shared_adapter": False}
  fields["languages"] = (config.new_language, *languages)
  fields["model.language_embedding"] = True
  return fields


def check_fits(origin: Pretrained, run: ModelOptions) -> None:
  """UserError unless a model with the options `run` can compute what the old model computes."""
  old = origin.model
  named = f"--config.init_from={origin.workdir}"
  for field in dataclasses.fields(old):
    values = getattr(old, field.name), getattr(run, field.name)
    if (field.name == "vocab_size" or field.name not in OWN) and values[0] != values[1]:
      raise UserError(
        f"{named} has model.{field.name} {values[0]!r}, and this run {values[1]!r}: give the run the "
        "shape of that model."
      )
  for module in old.specific:
    if module not in run.specific:
      raise UserError(
        f"{named} has {module!r} in phi, of each language its own, and this run's model.specific is "
        f"{run.specific}: start a system with {module!r} in phi, such as "
        f"configs/{ {'adapter': 'adpt', 'attention': 'attn'}.get(module, module) }.py."
      )
  if old.shared_adapter and not run.has_adapters:
    raise UserError(
      f"{named} has adapters in theta, and this run has none: start configs/share_adpt.py or "
      "configs/adpt.py from it."
    )


def parameters(
  origin: Pretrained, languages: Sequence[str], fresh_theta: Tree, fresh_phi: Tree
) -> tuple[Tree, Tree]:
  """Returns the (theta, phi) that a run starts with.

  What the old model has is taken by its name. New adapters are the identity: their second matrix is
  zero. New attention or feed-forward layers are copies of the shared ones. A language that the old
  model does not know gets the mean of the language embeddings, and of phi new adapters, and the
  attention and feed-forward layers of the old model's last language.

  Args:
    origin: the old model; it fits (`check_fits`).
    languages: of the run.
    fresh_theta: random theta of the run.
    fresh_phi: random phi of the run, leaves [languages, ...].
  """
  old_theta = traverse_util.flatten_dict(origin.theta)
  old_phi = traverse_util.flatten_dict(origin.phi)
  rows = [origin.languages.index(c) if c in origin.languages else None for c in languages]

  def shared(path: Path, fresh: np.ndarray) -> np.ndarray:
    if path == ("language",):
      return _language_rows(old_theta.get(path), rows, fresh)
    return old_theta[path] if path in old_theta else _identity(path, fresh)

  def specific(path: Path, fresh: np.ndarray) -> np.ndarray:
    if path in old_theta:
      return np.broadcast_to(old_theta[path], fresh.shape)
    if path not in old_phi:
      return _identity(path, fresh)
    known = old_phi[path]
    if _is_adapter(path):
      unknown = _identity(path, fresh)
    else:
      unknown = np.broadcast_to(known[-1], fresh.shape)
    return np.stack([unknown[i] if row is None else known[row] for i, row in enumerate(rows)])

  theta, phi = (
    {path: make(path, np.asarray(leaf)) for path, leaf in traverse_util.flatten_dict(tree).items()}
    for make, tree in ((shared, fresh_theta), (specific, fresh_phi))
  )
  return traverse_util.unflatten_dict(theta), traverse_util.unflatten_dict(phi)


def _is_adapter(path: Path) -> bool:
  return bool(set(MODULES["adapter"]) & set(path))


def _identity(path: Path, fresh: np.ndarray) -> np.ndarray:
  """Returns a leaf of a new adapter that does nothing; only adapters can be new."""
  if not _is_adapter(path):
    raise ValueError(f"the old model has no parameter {'/'.join(path)}")
  return np.zeros_like(fresh) if path[-2:] == ("outer", "kernel") else fresh


def _language_rows(
  old: np.ndarray | None, rows: Sequence[int | None], fresh: np.ndarray
) -> np.ndarray:
  """Returns language embeddings: old ones, their mean for new languages; 0 if there were none."""
  if old is None:
    return np.zeros_like(fresh)
  mean = old.mean(0)
  return np.stack([mean if row is None else old[row] for row in rows])
