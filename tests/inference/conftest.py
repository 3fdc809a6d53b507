"""A toy run with adapters, and fine-tuned models on it: one by a run, the others by hand.

The shapes are those of test_finetune.py (`toy_tuning`), so that both compile the same programs once.
"""

import importlib

import jax
import numpy as np
import pytest
from toy import toy_config, toy_tuning

import negint
from negint import pretrain
from negint.finetuning import finetune, heads
from negint.finetuning import options as finetune_options
from negint.inference.model import Finetuned, Model
from negint.run import runner
from negint.tasks.table import TASKS


def tuning_config(task, base, arg="lab,zero_shot"):
  config = importlib.import_module(f"configs.{task}").get_config(arg if task != "nli" else "lab")
  return toy_tuning(config, base)


@pytest.fixture(scope="session")
def root(tmp_path_factory):
  return tmp_path_factory.mktemp("inference") / "runs"


@pytest.fixture(scope="session")
def base(root):
  """The workdir of a pretrained toy model of xb and xa, with adapters that differ by language."""
  config = toy_config(
    "adpt",
    data__dir=str(root.parent / "data"),
    data__sequence_length=48,
    model__max_length=48,
    model__num_layers=1,
    model__adapter_init_std=0.5,
  )
  runner.run(pretrain.KIND, config, root / "adpt", lambda line: None)
  return root / "adpt"


@pytest.fixture(scope="session")
def model(base):
  return negint.load(base)


@pytest.fixture(scope="session")
def ner_run(base):
  """The workdir of a fine-tuning run on xa, tested on xb and xa."""
  workdir = base.parent / "ner"
  runner.run(finetune.KIND, tuning_config("ner", base), workdir, lambda line: None)
  return workdir


@pytest.fixture(scope="session")
def by_hand(base, model):
  """(task, **changes of the options) -> a fine-tuned model with a random head, without training."""

  def make(task, **changes):
    config = tuning_config(task, base)
    config.update(changes)
    run = finetune_options.from_config(config, 1)
    labels = TASKS[task].labels
    head = heads.init_head(jax.random.key(5), model._pretrained.model.model_dim, len(labels))
    head = jax.tree.map(lambda x: np.asarray(x) * 100, head)
    source = model.languages.index(run.source_language)
    phi = jax.tree.map(lambda leaf: leaf[source] + 0.1, model.phi)
    weights = {"theta": model.theta, "phi": phi, "head": head}
    tuned = Finetuned(run, labels, 1, weights)
    return Model("by hand", config.to_dict(), model._pretrained, tuned)

  return make
