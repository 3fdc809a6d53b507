"""XLM weights in and out: an XLM state dict, the authors' adapters included, or a Hugging Face
folder (config.json + model.safetensors), read without torch and without pickle.
"""

import json
import os
import pathlib
import re
import shutil

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from negint.errors import UserError
from negint.options import ModelOptions
from negint.special_tokens import EOS, MASK, PAD, UNK

HF_PREFIX = "transformer."
HF_BUFFERS = ("position_ids",)  # saved by some versions; not weights
HF_FIXED = {  # fields of config.json that must have these values where they are given
  "model_type": "xlm",
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


def _names(options: ModelOptions):
  """Our path -> (XLM's name, with {} for an adapter's language; whether a matrix is transposed)."""
  names = {
    ("token",): ("embeddings.weight", False),
    ("position",): ("position_embeddings.weight", False),
    ("softmax_bias",): ("pred_layer.proj.bias", False),
    ("embedding_norm", "scale"): ("layer_norm_emb.weight", False),
    ("embedding_norm", "bias"): ("layer_norm_emb.bias", False),
  }
  if options.language_embedding:
    names[("language",)] = ("lang_embeddings.weight", False)
  for n in range(options.num_layers):
    linear = {
      ("attention", "query"): f"attentions.{n}.q_lin",
      ("attention", "key"): f"attentions.{n}.k_lin",
      ("attention", "value"): f"attentions.{n}.v_lin",
      ("attention", "output"): f"attentions.{n}.out_lin",
      ("ffn", "inner"): f"ffns.{n}.lin1",
      ("ffn", "outer"): f"ffns.{n}.lin2",
    }
    if options.has_adapters:
      for module, theirs in (("attention_adapter", "adapter1"), ("ffn_adapter", "adapter2")):
        linear[(module, "inner")] = f"{theirs}.{{}}.{n}.lin1"
        linear[(module, "outer")] = f"{theirs}.{{}}.{n}.lin2"
    for path, theirs in linear.items():
      names[(f"layers_{n}", *path, "kernel")] = (f"{theirs}.weight", True)
      names[(f"layers_{n}", *path, "bias")] = (f"{theirs}.bias", False)
    for path, theirs in (("attention_norm", "layer_norm1"), ("ffn_norm", "layer_norm2")):
      names[(f"layers_{n}", path, "scale")] = (f"{theirs}.{n}.weight", False)
      names[(f"layers_{n}", path, "bias")] = (f"{theirs}.{n}.bias", False)
  return names


def infer_options(weights: dict, *, num_heads: int, gelu: bool, languages) -> ModelOptions:
  """The encoder's shape as an XLM state dict shows it; heads and activation are not in it."""
  vocab_size, model_dim = weights["embeddings.weight"].shape
  layers = {int(m[1]) for name in weights if (m := re.match(r"attentions\.(\d+)\.", name))}
  adapter_dim = next(
    (w.shape[0] for name, w in weights.items() if re.match(r"adapter1\..*lin1\.bias$", name)), 0
  )
  width = weights["attentions.0.q_lin.weight"].shape[0]
  if width % num_heads:
    raise UserError(
      f"{num_heads} heads do not divide the attention width {width} of these weights."
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


def from_xlm(weights: dict, *, num_heads: int, gelu: bool, languages):
  """XLM's names and arrays to (ModelOptions, theta, phi); phi is {} without adapters.

  Args:
    weights: name -> array, under XLM's names (`attentions.0.q_lin.weight`, `adapter1.ar.0...`).
    num_heads: attention heads, which the arrays do not show.
    gelu: exact GELU, else ReLU, in feed-forward layers and adapters.
    languages: language codes in the order of `lang_embeddings`.

  Raises:
    UserError: a weight is missing, left over, or tied to the embeddings but different from them.
  """
  weights = dict(weights)
  missing = [
    n
    for n in (
      "embeddings.weight",
      "position_embeddings.weight",
      "pred_layer.proj.bias",
      "attentions.0.q_lin.weight",
      "ffns.0.lin1.weight",
    )
    if n not in weights
  ]
  if missing:
    raise UserError(f"not an XLM masked language model: it has no {', '.join(missing)}.")
  tied = weights.pop("pred_layer.proj.weight", None)
  if tied is not None and not np.array_equal(tied, weights["embeddings.weight"]):
    raise UserError(
      "pred_layer.proj.weight differs from embeddings.weight; only tied softmax weights are "
      "supported: export the checkpoint with shared input and output embeddings."
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

  def take(name, transpose):
    if name not in weights:
      raise UserError(f"the checkpoint has no weight {name!r}, which its other weights call for.")
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
      f"weights that this encoder does not have: {', '.join(left[:5])}"
      f"{' ...' if len(left) > 5 else ''}."
    )
  return options, traverse_util.unflatten_dict(theta), traverse_util.unflatten_dict(phi)


def to_xlm(options: ModelOptions, theta, phi, languages=()) -> dict[str, np.ndarray]:
  """(theta, phi) under XLM's names; phi may hold adapters only."""
  if set(options.specific) - {"adapter"} or options.shared_adapter:
    raise UserError(
      f"model.specific={options.specific!r}, model.shared_adapter={options.shared_adapter}: XLM's "
      "names exist for a shared encoder with or without adapters of a language each."
    )
  theta, phi = traverse_util.flatten_dict(theta), traverse_util.flatten_dict(phi)
  if any(len(leaf) != len(languages) for leaf in phi.values()):
    raise UserError(f"{len(languages)} language codes for a phi of another number of languages.")
  weights = {}
  for path, (name, transpose) in _names(options).items():
    leaves = (
      {name.format(code): phi[path][i] for i, code in enumerate(languages)}
      if "{}" in name
      else {name: theta[path]}
    )
    for key, leaf in leaves.items():
      leaf = np.asarray(leaf)
      weights[key] = np.ascontiguousarray(leaf.T if transpose else leaf)
  return weights


def read_object(path: pathlib.Path) -> dict:
  """The JSON object in a checkpoint's file; UserError if it is damaged."""
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}); download it again.") from error
  if not isinstance(value, dict):
    raise UserError(f"{path} holds a {type(value).__name__}, not a JSON object; download it again.")
  return value


def read_hugging_face(folder: str | os.PathLike):
  """A Hugging Face XLM folder to (ModelOptions, theta, phi, language codes).

  The codes are those of config.json's lang2id in the order of their ids, or the ids themselves where
  it names none. Half-precision weights become float32.

  Raises:
    UserError: a file is missing or damaged, or it is another architecture than XLM's encoder with
      XLM's special tokens.
  """
  folder = pathlib.Path(folder)
  for name in ("config.json", "model.safetensors"):
    if not (folder / name).is_file():
      raise UserError(
        f"{folder} has no {name}; a Hugging Face XLM folder needs config.json and "
        "model.safetensors (pickled pytorch_model.bin files are not read: convert them first)."
      )
  config = read_object(folder / "config.json")
  if "n_heads" not in config:
    raise UserError(f"{folder}/config.json has no n_heads; it is not the config of an XLM model.")
  for field, wanted in HF_FIXED.items():
    if config.get(field, wanted) != wanted:
      raise UserError(f"{folder}/config.json: {field} is {config[field]!r}; only {wanted!r} works.")
  try:
    arrays = load_file(folder / "model.safetensors")
  except SafetensorError as error:
    raise UserError(
      f"{folder}/model.safetensors cannot be read ({error}); download it again."
    ) from error
  weights = {
    name.removeprefix(HF_PREFIX): array.astype(
      np.promote_types(array.dtype, np.float32), copy=False
    )
    for name, array in arrays.items()
    if not name.endswith(HF_BUFFERS)
  }
  count = config.get("n_langs", 1)
  codes = config.get("lang2id") or {str(i): i for i in range(count)}
  languages = tuple(sorted(codes, key=codes.get))
  if count == 1 or not config.get("use_lang_emb", True):  # some checkpoints keep what they ignore
    weights.pop("lang_embeddings.weight", None)
  elif "lang_embeddings.weight" not in weights or sorted(codes.values()) != list(range(count)):
    raise UserError(
      f"{folder}/config.json: use_lang_emb is True and n_langs {count}, which calls for "
      f"lang_embeddings.weight and a code in lang2id for each of its rows; lang2id is {codes}."
    )
  options, theta, phi = from_xlm(
    weights,
    num_heads=config["n_heads"],
    gelu=config.get("gelu_activation", True),
    languages=languages,
  )
  dropout = config.get("dropout", 0.0), config.get("attention_dropout", 0.0)
  return options.replace(dropout=dropout[0], attention_dropout=dropout[1]), theta, phi, languages


def write_hugging_face(folder: str | os.PathLike, options: ModelOptions, theta, phi, languages):
  """Writes config.json and model.safetensors of a system without phi, atomically.

  Raises:
    UserError: the system has a phi or adapters, which Hugging Face's XLM cannot hold; or the
      folder exists already.
  """
  folder = pathlib.Path(folder)
  if options.specific or options.shared_adapter:
    raise UserError(
      f"model.specific={options.specific!r}, model.shared_adapter={options.shared_adapter}: Hugging "
      "Face's XLM has neither language-specific modules nor adapters; only mono, joint_pair and "
      "joint_tri can be exported."
    )
  if options.num_heads * options.head_dim != options.model_dim:
    raise UserError(
      f"{options.num_heads} heads of {options.head_dim} are {options.num_heads * options.head_dim} "
      f"wide; Hugging Face's XLM needs model.model_dim = {options.model_dim}."
    )
  if folder.exists():
    raise UserError(f"{folder} exists; choose a new folder for the exported checkpoint.")
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
    "tie_word_embeddings": True,
  }
  weights = to_xlm(options, theta, phi)
  named = {
    name if name.startswith("pred_layer") else HF_PREFIX + name: array
    for name, array in weights.items()
  }
  temporary = folder.with_name(folder.name + ".tmp")
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir(parents=True)
  save_file(named, temporary / "model.safetensors", metadata={"format": "pt"})
  (temporary / "config.json").write_text(json.dumps(config, indent=2) + "\n")
  temporary.rename(folder)
