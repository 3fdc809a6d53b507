"""A small chain of runs for the tests of damage: corpora, tokens, pretraining, fine-tuning, pruning.

All of it lies in the current folder. As a program it says when each phase begins:

  python tests/damage_chain.py
"""

import importlib
import json
import pathlib

from toy import toy_config

from negint import pretrain
from negint.analysis import pruning
from negint.data import open_corpora, prepare_corpus, token_cache
from negint.finetuning import finetune, trial
from negint.run import runner

BASE, TUNED, PRUNED = (pathlib.Path("runs", name) for name in ("base", "tuned", "pruned"))


def base_config():
  return toy_config(
    "joint_pair",
    data__dir="data",
    data__lab__documents=300,
    model__num_layers=1,
    model__max_length=48,
    train__steps=60,
    checkpoint__every=10,
    eval__every=20,
  )


def tuned_config():
  config = importlib.import_module("configs.ner").get_config("lab")
  config.init_from = str(BASE)
  config.data.update(max_length=48, lab_train=64, lab_dev=16, lab_test=24)
  config.train.update(batch_size=8, epochs=3, learning_rate=1e-3)
  config.eval.batch_size = 8
  config.checkpoint.every = 4
  return config


def pruned_config():
  config = importlib.import_module("configs.pruning").get_config("lab")
  config.init_from = str(BASE)
  config.update(batch_size=8, steps=20, checkpoint_every=5, seeds=1)
  return config


RUNS = {
  BASE: (pretrain.KIND, base_config),
  TUNED: (finetune.KIND, tuned_config),
  PRUNED: (pruning.KIND, pruned_config),
}


def run(workdir, say=lambda line: None):
  """The result of one run of the chain, as the same command gives it each time."""
  kind, make_config = RUNS[workdir]
  return json.loads(json.dumps(runner.run(kind, make_config(), workdir, say)))


def announced(phase, function):
  def announce(*args, **options):
    print(phase, flush=True)
    return function(*args, **options)

  return announce


if __name__ == "__main__":
  for phase, module, name in (
    ("prepare", open_corpora, "prepare"),
    ("write", prepare_corpus, "write_corpus"),
    ("tokenise", token_cache, "_build"),
    ("train", pretrain, "train"),
    ("evaluate", pretrain, "perplexities"),
    ("fine-tune", trial, "train"),
    ("fine-tune", finetune, "train"),
    ("prune", pruning.Pruner, "mask"),
  ):
    setattr(module, name, announced(phase, getattr(module, name)))
  for folder in RUNS:
    run(folder)
  print("end", flush=True)
