"""Models of every system with random weights, and their exported folders, as tests need them."""

import functools
import importlib

import jax
import numpy as np
from toy import toy_model
from xlm_folder import LINES

from negint.data.tokenizer import train_tokenizer
from negint.finetuning import heads, testing
from negint.finetuning import options as finetune_options
from negint.inference.model import Finetuned, Model
from negint.method import model as method
from negint.method.phi import init_theta_and_phi, merge_params, select_language
from negint.pretrained.load import Pretrained
from negint.run.files import write_json

LANGUAGES = ("te", "ar", "en")  # 'te' is a part of 'adapter'
SYSTEMS = {
  "mono": dict(num_languages=1, language_embedding=False),
  "joint": {},
  "adpt": dict(specific=("adapter",)),
  "share_adpt": dict(shared_adapter=True),
  "ffn": dict(specific=("ffn",)),
  "attn": dict(specific=("attention",)),
  "everything": dict(specific=("adapter", "ffn", "attention")),
}
BERT = dict(softmax_transform="gelu", token_types=2, norm_epsilon=1e-5, num_heads=4, head_dim=4)
FAMILIES = {
  "bert": {**BERT, "pad_id": 0, "activation": "relu", "softmax_transform": "relu"},
  "untied_bert": {**BERT, "pad_id": 0, "tied_softmax": False},
  "xlm-roberta": {**BERT, "pad_id": 1, "position_offset": 2, "token_types": 1},
}
SHAPES = {
  "as_xlm": dict(ffn_dim=64),
  "narrow_ffn": dict(ffn_dim=20, activation="relu", adapter_activation="gelu"),
  "narrow_heads": dict(num_heads=3, head_dim=3, adapter_activation="relu"),
}


@functools.cache
def tokenizer():
  return train_tokenizer(iter(LINES * 30), 220)


def made(system, shape="as_xlm", **changes):
  """A model whose parameters all differ: a table of norms, say, is not all ones."""
  options = toy_model(vocab_size=220, num_languages=3)
  options = options.replace(**{**{**SHAPES, **FAMILIES}[shape], **SYSTEMS[system], **changes})
  shapes = jax.eval_shape(functools.partial(init_theta_and_phi, options), jax.random.key(0))
  rng = np.random.default_rng(0)
  theta, phi = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
  languages = LANGUAGES[: options.num_languages]
  return Model(
    "runs/made", {}, Pretrained("runs/made", options, languages, theta, phi, tokenizer())
  )


def rows(pad=2, length=17):
  """Random tokens of two rows, the second one padded: (tokens, lengths)."""
  tokens = np.random.default_rng(0).integers(4, 220, (2, length)).astype(np.int32)
  tokens[1, -5:] = pad
  return tokens, np.array([length, length - 5], np.int32)


@functools.partial(jax.jit, static_argnums=0)
def compute(options, theta, phi, index, tokens, lengths):
  params = merge_params(theta, select_language(phi, index))
  hidden = method.encode(options, params, tokens, index, lengths_B=lengths)
  return method.vocabulary_logits(options, params, hidden)


def logits(model, language):
  """What our encoder computes for `rows()` in a language; zero at padding."""
  tokens, lengths = rows(model.pretrained.model.pad_id)
  index = model.pretrained.language_index(language)
  found = compute(model.pretrained.model, model.theta, model.phi, index, tokens, lengths)
  return np.asarray(found) * (np.arange(tokens.shape[1]) < lengths[:, None])[..., None]


def finetuned(system, task, folder, shape="as_xlm", route="target"):
  """A model of a task with random weights, fine-tuned on "en" for "ar", whose run has a result.json."""
  model = made(system, shape)
  config = importlib.import_module(f"configs.{task}").get_config("ar,zero_shot")
  config.init_from, config.route = "runs/made", route
  config.data.max_length, config.data.max_question = 24, 8
  run = finetune_options.from_config(config, num_devices=1)
  labels = run.task.labels
  rng = np.random.default_rng(1)

  def other(leaf):
    return leaf + rng.normal(0, 0.2, leaf.shape).astype(np.float32)

  source = model.pretrained.language_index("en")
  weights = {
    "theta": jax.tree.map(other, model.theta),
    "phi": jax.tree.map(lambda leaf: other(leaf[source]), model.phi),
    "head": {
      "kernel": rng.normal(size=(model.pretrained.model.model_dim, len(labels))).astype(np.float32),
      "bias": rng.normal(size=len(labels)).astype(np.float32),
    },
  }
  write_json(folder / "result.json", {"test": {"ar": {run.task.main_score: 61.25}}})
  return Model(str(folder), config.to_dict(), model.pretrained, Finetuned(run, labels, 1, weights))


def head_logits(model, language):
  """What our fine-tuned model computes for `rows()` in a language."""
  tuned, options = model.finetuned, model.pretrained.model
  (theta, phi_i, head), index = testing.routed_parameters(
    tuned.run, model.pretrained, tuned.weights, language
  )
  tokens, lengths = rows(options.pad_id)
  first = tuned.run.task.first_position
  batch = {"tokens": tokens, "lengths": lengths}
  params = merge_params(theta, phi_i)
  return np.asarray(heads.logits(options, params, head, batch, index, first_position=first))
