"""Reads and writes the weights of BERT and RoBERTa checkpoints, without torch and without pickle.

Multilingual BERT is a BERT, and XLM-R a RoBERTa. Both have XLM's encoder with other names, other
embeddings and another language-model head, all of which are fields of ModelOptions.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from negint.errors import UserError
from negint.options import ModelOptions
from negint.pretrained import adapters
from negint.pretrained.checkpoint_files import (
  WEIGHTS,
  check_all_named,
  check_fixed,
  read_arrays,
  read_config,
  write_safetensors,
)
from negint.run.files import write_json

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = "embeddings.position_embeddings.weight"
TYPES = "embeddings.token_type_embeddings.weight"
BUFFERS = (".position_ids", ".token_type_ids")  # some versions save them, but they are not weights
OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}  # of LayerNorm, in mBERT's first checkpoints
FIXED = {  # fields of config.json that must have these values if they are there
  "is_decoder": False,
  "is_encoder_decoder": False,
  "add_cross_attention": False,
  "position_embedding_type": "absolute",
  "pruned_heads": {},
  "quantization_config": {},
}
ACTIVATIONS = {  # of hidden_act
  "gelu": "gelu",
  "gelu_python": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_fast": "gelu_tanh",
  "gelu_accurate": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_python_tanh": "gelu_tanh",
  "relu": "relu",
  "silu": "silu",
  "swish": "silu",
}
HIDDEN_ACTS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}


@dataclasses.dataclass(frozen=True)
class Family:
  """What the checkpoints of a family share and config.json does not say."""

  head: str  # what the names of the language-model head begin with
  transform: tuple[str, str]  # names of the head's dense layer and of its LayerNorm, behind `head`
  activation: str  # of the head; empty: hidden_act
  pad_id: int  # where config.json names none
  positions_follow_pad: bool  # the first position has row pad_id + 1 instead of 0

  @property
  def decoder(self) -> str:
    """The name of the softmax."""
    return f"{self.head}decoder"

  @property
  def bias(self) -> str:
    """The name of the softmax's bias."""
    return f"{self.head}bias"


BERT = Family(
  head="cls.predictions.",
  transform=("transform.dense", "transform.LayerNorm"),
  activation="",
  pad_id=0,
  positions_follow_pad=False,
)
ROBERTA = Family(
  head="lm_head.",
  transform=("dense", "layer_norm"),
  activation="gelu",
  pad_id=1,
  positions_follow_pad=True,
)
FAMILIES = {"bert": BERT, "roberta": ROBERTA, "xlm-roberta": ROBERTA, "camembert": ROBERTA}


def checked_config(folder: pathlib.Path) -> dict[str, Any]:
  """Returns config.json of a folder.

  Raises:
    UserError: it is missing or damaged, or the model is not an encoder of FAMILIES.
  """
  config = read_config(folder)
  if config["model_type"] not in FAMILIES:
    raise UserError(
      f"{folder}/config.json: model_type is {config['model_type']!r}; it must be one of "
      f"{', '.join(map(repr, FAMILIES))}: name another folder."
    )
  check_fixed(folder, config, FIXED)
  activation = config.setdefault("hidden_act", "gelu")
  if activation not in ACTIVATIONS:
    raise UserError(
      f"{folder}/config.json: hidden_act is {activation!r}; it must be one of "
      f"{', '.join(map(repr, ACTIVATIONS))}: name another checkpoint."
    )
  return config


def read_hugging_face(folder: str | os.PathLike) -> tuple[ModelOptions, dict, bool]:
  """Returns (options, theta, whether there is a language-model head) of a checkpoint.

  Without that head the softmax is that of the token embeddings, which serves for fine-tuning alone.
  Heads of tasks and poolers are left out. All weights become float32. The options do not have the
  special ids that only the tokenizer knows.

  Args:
    folder: with config.json and the weights in one file or in shards.

  Raises:
    UserError: a file is missing or damaged, or the model is not an encoder of FAMILIES.
  """
  folder = pathlib.Path(folder)
  config = checked_config(folder)
  family = FAMILIES[config["model_type"]]
  arrays = read_arrays(folder)
  has_head = any(name.startswith(family.head) for name in arrays)
  weights = _weights(folder, family, arrays)
  options = _options(folder, config, family, weights, has_head)
  names = _names(options, family)
  left = sorted(weights.keys() - {name for name, _ in names.values()})
  if left:
    raise UserError(
      f"{folder} has weights that its config.json does not tell of: {', '.join(left[:5])}"
      f"{' ...' if len(left) > 5 else ''}. Name a checkpoint of the encoder alone."
    )
  theta = {
    path: weights[name].T if transpose else weights[name]
    for path, (name, transpose) in names.items()
  }
  return options, traverse_util.unflatten_dict(theta), has_head


class _Weights(dict[str, np.ndarray]):
  """The weights of a checkpoint by name; a missing one is the user's mistake."""

  def __init__(self, folder: pathlib.Path, arrays: Mapping[str, np.ndarray]):
    super().__init__(arrays)
    self._folder = folder

  def __missing__(self, name: str) -> np.ndarray:
    raise UserError(
      f"{self._folder} has no weight {name!r}, which its config.json and its other weights need; "
      "download it again or name another checkpoint."
    )


def _weights(folder: pathlib.Path, family: Family, arrays: Mapping[str, np.ndarray]) -> _Weights:
  """Returns the weights of the encoder, without the model's prefix, and of the head, in float32.

  A tied softmax is left out, and the softmax has a bias if there is a head.
  """
  arrays = {_new_name(name): array for name, array in arrays.items()}
  # "bert.", "roberta.", or "" where the encoder was saved alone.
  prefix = min((n.removesuffix(POSITIONS) for n in arrays if n.endswith(POSITIONS)), default="")
  kept = (f"{prefix}embeddings.", f"{prefix}encoder.", family.head)
  weights = _Weights(
    folder,
    {
      name.removeprefix(prefix): _float32(folder, name, array)
      for name, array in arrays.items()
      if name.startswith(kept) and not name.endswith(BUFFERS)
    },
  )
  decoder, decoder_bias = f"{family.decoder}.weight", f"{family.decoder}.bias"
  if decoder_bias in weights:  # where there are two, transformers adds this one
    weights[family.bias] = weights.pop(decoder_bias)
  if decoder in weights:
    weights.setdefault(WORDS, weights[decoder])  # tied, and saved under one name
    if np.array_equal(weights[decoder], weights[WORDS]):
      del weights[decoder]
  weights.setdefault(family.bias, np.zeros(len(weights[WORDS]), np.float32))
  return weights


def _new_name(name: str) -> str:
  """Returns the name that a weight has in files of today."""
  for old, new in OLD_NAMES.items():
    if name.endswith(old):
      return name.removesuffix(old) + new
  return name


def _float32(folder: pathlib.Path, name: str, array: np.ndarray) -> np.ndarray:
  """Returns an array in float32; UserError if its numbers are no plain floats."""
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise UserError(
      f"{folder}: {name} has numbers of type {array.dtype}; quantised checkpoints are not read: name "
      "one in float32, float16 or bfloat16."
    )
  return array.astype(np.float32, copy=False)


def _options(
  folder: pathlib.Path,
  config: dict[str, Any],
  family: Family,
  weights: Mapping[str, np.ndarray],
  has_head: bool,
) -> ModelOptions:
  """Returns the shape of the encoder; UserError if the model cannot have it."""
  vocab_size, model_dim = weights[WORDS].shape
  activation = ACTIVATIONS[config["hidden_act"]]
  heads = config.get("num_attention_heads", 12)
  if model_dim % heads:
    raise UserError(
      f"{folder}/config.json: num_attention_heads is {heads}, which does not divide the width "
      f"{model_dim} of these weights; correct it."
    )
  pad = config.get("pad_token_id")
  pad = family.pad_id if pad is None else pad
  offset = pad + 1 if family.positions_follow_pad else 0
  tied = f"{family.decoder}.weight" not in weights
  if has_head and tied and config.get("tie_word_embeddings") is False:
    raise UserError(
      f"{folder}/config.json: tie_word_embeddings is False, but the checkpoint has no softmax of its "
      f"own, {family.decoder}.weight; download it again or name another."
    )
  return ModelOptions(
    vocab_size=vocab_size,
    num_languages=1,
    num_layers=config.get("num_hidden_layers", 12),
    model_dim=model_dim,
    num_heads=heads,
    head_dim=model_dim // heads,
    ffn_dim=len(weights["encoder.layer.0.intermediate.dense.bias"]),
    max_length=len(weights[POSITIONS]) - offset,
    language_embedding=False,
    activation=activation,
    dropout=config.get("hidden_dropout_prob") or 0.0,
    attention_dropout=config.get("attention_probs_dropout_prob") or 0.0,
    norm_epsilon=config.get("layer_norm_eps", 1e-12),
    position_offset=offset,
    token_types=len(weights[TYPES]) if TYPES in weights else 0,
    softmax_transform=(family.activation or activation) if has_head else "none",
    tied_softmax=tied,
    pad_id=pad,
  )


def _names(options: ModelOptions, family: Family) -> dict[tuple[str, ...], tuple[str, bool]]:
  """Returns path of a parameter -> (its name in a checkpoint, whether that is its transpose)."""
  dense: dict[tuple[str, ...], str] = {}
  norms: dict[tuple[str, ...], str] = {("embedding_norm",): "embeddings.LayerNorm"}
  for n in range(options.num_layers):
    layer, theirs = f"layers_{n}", f"encoder.layer.{n}"
    for name in ("query", "key", "value"):
      dense[(layer, "attention", name)] = f"{theirs}.attention.self.{name}"
    dense[(layer, "attention", "output")] = f"{theirs}.attention.output.dense"
    dense[(layer, "ffn", "inner")] = f"{theirs}.intermediate.dense"
    dense[(layer, "ffn", "outer")] = f"{theirs}.output.dense"
    norms[(layer, "attention_norm")] = f"{theirs}.attention.output.LayerNorm"
    norms[(layer, "ffn_norm")] = f"{theirs}.output.LayerNorm"
  if options.softmax_transform != "none":
    of_dense, of_norm = family.transform
    dense[("transform", "dense")] = family.head + of_dense
    norms[("transform", "norm")] = family.head + of_norm
  names: dict[tuple[str, ...], tuple[str, bool]] = {
    ("token",): (WORDS, False),
    ("position",): (POSITIONS, False),
    ("softmax_bias",): (family.bias, False),
  }
  if options.token_types:
    names[("token_type",)] = (TYPES, False)
  if not options.tied_softmax:
    names[("softmax",)] = (f"{family.decoder}.weight", False)
  for path, theirs in dense.items():
    names[(*path, "kernel")] = (f"{theirs}.weight", True)
    names[(*path, "bias")] = (f"{theirs}.bias", False)
  for path, theirs in norms.items():
    names[(*path, "scale")] = (f"{theirs}.weight", False)
    names[(*path, "bias")] = (f"{theirs}.bias", False)
  return names


def write_hugging_face(
  folder: pathlib.Path,
  options: ModelOptions,
  theta: dict,
  phi: dict,
  languages: Sequence[str],
  *,
  head: Mapping[str, np.ndarray] | None = None,
  more: Mapping[str, Any] | None = None,
) -> None:
  """Writes config.json and model.safetensors of a BERT, or of an XLM-R where positions have an offset.

  The arguments are those of `xlm_weights.write_hugging_face`. The model has no language embedding.
  """
  model_type, prefix, family = "bert", "bert.", BERT
  if options.position_offset:
    model_type, prefix, family = "xlm-roberta", "roberta.", ROBERTA
  leaves = traverse_util.flatten_dict(theta)
  names, weights = _names(options, family), {}
  check_all_named(leaves, names)
  for path, (name, transpose) in names.items():
    if name.startswith(("embeddings.", "encoder.")):
      name = prefix + name
    elif head is not None:
      continue
    weights[name] = np.ascontiguousarray(leaves[path].T if transpose else leaves[path])
  if not options.token_types:  # transformers has at least one
    weights[prefix + TYPES] = np.zeros((1, options.model_dim), np.float32)
  if head is None and not options.tied_softmax:  # then the bias has a second name, too
    weights[f"{family.decoder}.bias"] = weights[family.bias]
  config = {
    "model_type": model_type,
    "architectures": ["XLMRobertaForMaskedLM" if options.position_offset else "BertForMaskedLM"],
    "vocab_size": options.vocab_size,
    "hidden_size": options.model_dim,
    "num_hidden_layers": options.num_layers,
    "num_attention_heads": options.num_heads,
    "intermediate_size": options.ffn_dim,
    "hidden_act": HIDDEN_ACTS[options.activation],
    "hidden_dropout_prob": options.dropout,
    "attention_probs_dropout_prob": options.attention_dropout,
    "max_position_embeddings": options.position_offset + options.max_length,
    "type_vocab_size": max(options.token_types, 1),
    "layer_norm_eps": options.norm_epsilon,
    "pad_token_id": options.pad_id,
    "tie_word_embeddings": options.tied_softmax,
  }
  config |= adapters.write(folder, options, phi, languages)
  write_safetensors(folder / WEIGHTS, {**weights, **(head or {})})
  write_json(folder / "config.json", {**config, **(more or {})})
