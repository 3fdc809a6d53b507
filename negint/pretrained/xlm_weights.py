"""Reads and writes XLM's weights, without torch and without pickle.

They are an XLM state dict, with the adapters of the paper's authors, or a Hugging Face folder
(config.json and model.safetensors). theta are the parameters that all languages share, phi those
that belong to one language each.
"""

import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from negint.errors import UserError
from negint.options import ModelOptions
from negint.pretrained import adapters
from negint.pretrained.checkpoint_files import (
  WEIGHTS,
  array_names,
  check_all_named,
  check_fixed,
  read_arrays,
  read_config,
  write_safetensors,
)
from negint.run.files import write_json
from negint.special_tokens import EOS, MASK, PAD, UNK

HF_PREFIX = "transformer."
HF_BUFFERS = ("position_ids",)  # some versions save them, but they are not weights
EMBEDDINGS = "embeddings.weight"
SOFTMAX, SOFTMAX_BIAS = "pred_layer.proj.weight", "pred_layer.proj.bias"
HF_FIXED = {  # fields of config.json that must have these values if they are there
  "asm": False,
  "causal": False,
  "is_encoder": True,
  "layer_norm_eps": 1e-12,
  "eos_index": EOS,
  "pad_index": PAD,
  "unk_index": UNK,
  "mask_index": MASK,
  "eos_token_id": EOS,
  "pad_token_id": PAD,
}

# Fields that tell BERT's and RoBERTa's encoder from XLM's.
NOT_XLMS = ("norm_epsilon", "position_offset", "token_types", "softmax_transform", "tied_softmax")


def _names(options: ModelOptions) -> dict[tuple[str, ...], tuple[str, bool]]:
  """Returns path of a parameter -> (XLM's name of it, whether XLM stores its transpose).

  A name has {} in the place of an adapter's language.
  """
  names: dict[tuple[str, ...], tuple[str, bool]] = {
    ("token",): ("embeddings.weight", False),
    ("position",): ("position_embeddings.weight", False),
    ("softmax_bias",): ("pred_layer.proj.bias", False),
    ("embedding_norm", "scale"): ("layer_norm_emb.weight", False),
    ("embedding_norm", "bias"): ("layer_norm_emb.bias", False),
  }
  if options.language_embedding:
    names[("language",)] = ("lang_embeddings.weight", False)
  for n in range(options.num_layers):
    linear: dict[tuple[str, ...], str] = {
      ("attention", "query"): f"attentions.{n}.q_lin",
      ("attention", "key"): f"attentions.{n}.k_lin",
      ("attention", "value"): f"attentions.{n}.v_lin",
      ("attention", "output"): f"attentions.{n}.out_lin",
      ("ffn", "inner"): f"ffns.{n}.lin1",
      ("ffn", "outer"): f"ffns.{n}.lin2",
    }
    for path, theirs in linear.items():
      names[(f"layers_{n}", *path, "kernel")] = (f"{theirs}.weight", True)
      names[(f"layers_{n}", *path, "bias")] = (f"{theirs}.bias", False)
    for norm, theirs in (("attention_norm", "layer_norm1"), ("ffn_norm", "layer_norm2")):
      names[(f"layers_{n}", norm, "scale")] = (f"{theirs}.{n}.weight", False)
      names[(f"layers_{n}", norm, "bias")] = (f"{theirs}.{n}.bias", False)
  if options.has_adapters:
    names |= adapters.names(options.num_layers)
  return names


def infer_options(
  weights: Mapping[str, np.ndarray], *, num_heads: int, gelu: bool, languages: Sequence[str]
) -> ModelOptions:
  """Returns the shape of the encoder that an XLM state dict belongs to.

  The arguments are those of `from_xlm`.

  Raises:
    UserError: the heads do not divide the width of the attention.
  """
  vocab_size, model_dim = weights["embeddings.weight"].shape
  layers = {int(m[1]) for name in weights if (m := re.match(r"attentions\.(\d+)\.", name))}
  adapter_dim = next(
    (w.shape[0] for name, w in weights.items() if re.match(r"adapter1\..*lin1\.bias$", name)), 0
  )
  width = weights["attentions.0.q_lin.weight"].shape[0]
  if width % num_heads:
    raise UserError(
      f"{num_heads} heads do not divide the attention width {width} of these weights; give the number "
      "of heads (n_heads in config.json) that the checkpoint was trained with."
    )
  activation = "gelu" if gelu else "relu"
  return ModelOptions(
    vocab_size=vocab_size,
    num_languages=len(languages),
    num_layers=len(layers),
    model_dim=model_dim,
    num_heads=num_heads,
    head_dim=width // num_heads,
    ffn_dim=weights["ffns.0.lin1.weight"].shape[0],
    max_length=weights["position_embeddings.weight"].shape[0],
    language_embedding="lang_embeddings.weight" in weights,
    adapter_dim=adapter_dim,
    adapter_activation=activation,
    specific=("adapter",) if adapter_dim else (),
    activation=activation,
    dtype="float64" if weights["embeddings.weight"].dtype == np.float64 else "float32",
  )


def from_xlm(
  weights: Mapping[str, np.ndarray], *, num_heads: int, gelu: bool, languages: Sequence[str]
) -> tuple[ModelOptions, dict, dict]:
  """Returns the (options, theta, phi) of an XLM state dict; phi is {} without adapters.

  Args:
    weights: XLM's name (`attentions.0.q_lin.weight`, `adapter1.ar.0...`) -> array.
    num_heads: attention heads, which the arrays do not show.
    gelu: whether feed-forward layers and adapters use exact GELU instead of ReLU.
    languages: language codes in the order of `lang_embeddings`.

  Raises:
    UserError: a weight is missing or unknown, or the softmax weights differ from the embeddings.
  """
  weights = dict(weights)
  missing = [
    n
    for n in (
      EMBEDDINGS,
      "position_embeddings.weight",
      SOFTMAX_BIAS,
      "attentions.0.q_lin.weight",
      "ffns.0.lin1.weight",
    )
    if n not in weights
  ]
  if missing:
    only_head = missing == [SOFTMAX_BIAS]
    raise UserError(
      f"The checkpoint is not an XLM masked language model: it has no {', '.join(missing)}. "
      + ("An encoder without that head serves for fine-tuning alone. " if only_head else "")
      + "Name another."
    )
  tied = weights.pop(SOFTMAX, None)
  if tied is not None and not np.array_equal(tied, weights[EMBEDDINGS]):
    raise UserError(
      f"{SOFTMAX} differs from {EMBEDDINGS}; they must be tied: export the checkpoint with shared input "
      "and output embeddings."
    )
  rows = len(weights.get("lang_embeddings.weight", languages))
  if rows != len(languages):
    raise UserError(
      f"lang_embeddings.weight has {rows} rows for {len(languages)} languages "
      f"({', '.join(languages)}); name as many languages, in the order of the rows."
    )
  options = infer_options(weights, num_heads=num_heads, gelu=gelu, languages=languages)
  theta, phi = {}, {}
  taken = set()

  def take(name: str, transpose: bool) -> np.ndarray:
    if name not in weights:
      raise UserError(
        f"The checkpoint has no weight {name!r}, which its other weights need; download it again or "
        "name another."
      )
    taken.add(name)
    return weights[name].T if transpose else weights[name]

  for path, (name, transpose) in _names(options).items():
    if "{}" in name:
      phi[path] = np.stack([take(name.format(code), transpose) for code in languages])
    else:
      theta[path] = take(name, transpose)
  left = sorted(weights.keys() - taken)
  if left:
    raise UserError(
      f"The checkpoint has weights that this encoder does not have: {', '.join(left[:5])}"
      f"{' ...' if len(left) > 5 else ''}. Name a checkpoint of XLM's encoder alone."
    )
  return options, traverse_util.unflatten_dict(theta), traverse_util.unflatten_dict(phi)


def to_xlm(
  options: ModelOptions, theta: dict, phi: dict, languages: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  """Returns the XLM state dict of (theta, phi).

  Args:
    options: the encoder's shape.
    theta: nested dict of arrays.
    phi: nested dict of arrays [languages, ...] of adapters; {} without them.
    languages: the codes of phi's rows.

  Raises:
    UserError: phi has other modules than adapters, theta has an adapter, or XLM has no name for an
      array.
  """
  for name in NOT_XLMS:
    if getattr(options, name) != getattr(ModelOptions, name):
      raise UserError(
        f"model.{name} is {getattr(options, name)!r}; XLM's encoder has {getattr(ModelOptions, name)!r}: "
        "only a model of XLM's family has XLM's names."
      )
  if set(options.specific) - {"adapter"} or options.shared_adapter:
    raise UserError(
      f"model.specific={options.specific!r}, model.shared_adapter={options.shared_adapter}: XLM "
      "has names only for a shared encoder with or without adapters per language; export a system "
      "without these modules."
    )
  theta, phi = traverse_util.flatten_dict(theta), traverse_util.flatten_dict(phi)
  if any(len(leaf) != len(languages) for leaf in phi.values()):
    raise ValueError(f"phi does not have {len(languages)} languages: {', '.join(languages)}.")
  names, weights = _names(options), {}
  check_all_named([*theta, *phi], names)
  for path, (name, transpose) in names.items():
    leaves = (
      {name.format(code): phi[path][i] for i, code in enumerate(languages)}
      if "{}" in name
      else {name: theta[path]}
    )
    for key, leaf in leaves.items():
      leaf = np.asarray(leaf)
      weights[key] = np.ascontiguousarray(leaf.T if transpose else leaf)
  return weights


def checked_config(folder: pathlib.Path) -> dict[str, Any]:
  """Returns config.json of a Hugging Face XLM folder.

  Raises:
    UserError: it is missing or damaged, or the model is not XLM's encoder with XLM's special tokens.
  """
  config = read_config(folder)
  if config["model_type"] != "xlm" or "n_heads" not in config:
    raise UserError(
      f"{folder}/config.json: model_type is {config['model_type']!r} and n_heads "
      f"{config.get('n_heads')}; an XLM model has 'xlm' and a number of heads: name another folder."
    )
  check_fixed(folder, config, HF_FIXED)
  return config


def _encoder_of(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the weights without the heads of tasks, and with a bias of the softmax (0 if unknown).

  In a folder of transformers all names of the encoder begin with HF_PREFIX, or, where the encoder was
  saved alone, none.
  """
  if any(name.startswith(HF_PREFIX) for name in weights):
    weights = {n: w for n, w in weights.items() if n.startswith(HF_PREFIX) or n == SOFTMAX_BIAS}
  embeddings = _embeddings(weights)
  if embeddings is not None:
    weights = {SOFTMAX_BIAS: np.zeros(len(embeddings), embeddings.dtype), **weights}
  return {name: array for name, array in weights.items() if name != SOFTMAX}


def _embeddings(weights: Mapping[str, np.ndarray]) -> np.ndarray | None:
  """Returns the token embeddings of a folder of transformers; None if they are missing."""
  return weights.get(HF_PREFIX + EMBEDDINGS, weights.get(EMBEDDINGS))


def has_head(folder: pathlib.Path) -> bool:
  """Returns whether a Hugging Face XLM folder has the language-model head of this encoder.

  A softmax that differs from the token embeddings is another head.
  """
  names = array_names(folder)
  if SOFTMAX not in names or SOFTMAX_BIAS not in names:
    return SOFTMAX_BIAS in names
  arrays = read_arrays(folder)
  embeddings = _embeddings(arrays)
  return embeddings is not None and np.array_equal(arrays[SOFTMAX], embeddings)


def read_hugging_face(
  folder: str | os.PathLike, *, head: bool = True
) -> tuple[ModelOptions, dict, dict, tuple[str, ...]]:
  """Returns the (options, theta, phi, language codes) of a Hugging Face XLM folder.

  The codes are those of config.json's lang2id in the order of their ids, or the ids themselves if
  it has none. Half-precision weights become float32.

  Args:
    folder: with config.json and the weights in one file or in shards.
    head: whether the language-model head is needed. Fine-tuning does not need it, so that it can
      start from an encoder alone or from a fine-tuned XLM, whose own head is left out.

  Raises:
    UserError: a file is missing or damaged, or the model is not XLM's encoder with XLM's special
      tokens.
  """
  folder = pathlib.Path(folder)
  config = checked_config(folder)
  arrays = read_arrays(folder)
  weights = {
    name.removeprefix(HF_PREFIX): array.astype(
      np.promote_types(array.dtype, np.float32), copy=False
    )
    for name, array in (arrays if head else _encoder_of(arrays)).items()
    if not name.endswith(HF_BUFFERS)
  }
  count = config.get("n_langs", 1)
  codes: dict[str, int] = config.get("lang2id") or {str(i): i for i in range(count)}
  languages = tuple(sorted(codes, key=lambda code: codes[code]))
  if count == 1 or not config.get(
    "use_lang_emb", True
  ):  # XLM does not use embeddings that are there
    weights.pop("lang_embeddings.weight", None)
  elif "lang_embeddings.weight" not in weights or sorted(codes.values()) != list(range(count)):
    raise UserError(
      f"{folder}/config.json: use_lang_emb is True and n_langs {count}, which needs "
      f"lang_embeddings.weight and one code in lang2id per row; lang2id is {codes}. Correct config.json."
    )
  options, theta, phi = from_xlm(
    weights,
    num_heads=config["n_heads"],
    gelu=config.get("gelu_activation", True),
    languages=languages,
  )
  options = options.replace(
    dropout=config.get("dropout", 0.0), attention_dropout=config.get("attention_dropout", 0.0)
  )
  return options, theta, phi, languages


def write_hugging_face(
  folder: str | os.PathLike,
  options: ModelOptions,
  theta: dict,
  phi: dict,
  languages: Sequence[str],
  *,
  head: Mapping[str, np.ndarray] | None = None,
  more: Mapping[str, Any] | None = None,
) -> None:
  """Writes config.json and model.safetensors, and adapters.safetensors if there are adapters.

  Args:
    folder: where; made if it is not there.
    options: the encoder's shape.
    theta: nested dict of arrays.
    phi: nested dict of arrays [languages, ...] of adapters; {} without them.
    languages: codes in the order of the language embeddings and of phi.
    head: weights of a task's head by transformers' names; None: the language-model head.
    more: fields of config.json beside those of the encoder.

  Raises:
    UserError: phi has other modules than adapters, or the heads do not make up the model's width.
  """
  folder = pathlib.Path(folder)
  if options.activation not in ("gelu", "relu"):
    raise UserError(
      f"model.activation is {options.activation!r}; Hugging Face's XLM has only 'gelu' and 'relu'."
    )
  if options.num_heads * options.head_dim != options.model_dim:
    raise UserError(
      f"{options.num_heads} heads of {options.head_dim} are {options.num_heads * options.head_dim} "
      f"wide; Hugging Face's XLM needs model.model_dim = {options.model_dim}."
    )
  weights = {
    name if name == SOFTMAX_BIAS else HF_PREFIX + name: array
    for name, array in to_xlm(options, theta, phi, languages).items()
    if not name.startswith("adapter")
  }
  if head is not None:
    del weights[SOFTMAX_BIAS]
  config = {
    "architectures": ["XLMWithLMHeadModel"],
    "model_type": "xlm",
    "vocab_size": options.vocab_size,
    "emb_dim": options.model_dim,
    "n_layers": options.num_layers,
    "n_heads": options.num_heads,
    "dropout": options.dropout,
    "attention_dropout": options.attention_dropout,
    "gelu_activation": options.activation == "gelu",
    "sinusoidal_embeddings": False,
    "causal": False,
    "asm": False,
    "is_encoder": True,
    "n_langs": options.num_languages,
    "use_lang_emb": options.language_embedding,
    "lang2id": {code: i for i, code in enumerate(languages)},
    "id2lang": {str(i): code for i, code in enumerate(languages)},
    "max_position_embeddings": options.max_length,
    "layer_norm_eps": 1e-12,
    "bos_index": 0,
    "eos_index": EOS,
    "pad_index": PAD,
    "unk_index": UNK,
    "mask_index": MASK,
    "mask_token_id": MASK,
    "tie_word_embeddings": True,
  }
  config |= adapters.write(folder, options, phi, languages)
  write_safetensors(folder / WEIGHTS, {**weights, **(head or {})})
  write_json(folder / "config.json", {**config, **(more or {})})
