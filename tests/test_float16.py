"""Fine-tuning and the analyses of a model that was pretrained in float16."""

import importlib
import types

import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_config, toy_tuning

import negint
from negint import pretrain
from negint.analysis import pruning
from negint.errors import NonFiniteLoss
from negint.export import folders
from negint.finetuning import finetune, programs, trial
from negint.method import loss_scale
from negint.pretrained.load import load_pretrained
from negint.run import runner
from negint.run.records import read_metrics


def scaled_tuning(scale, loss_sum=6.0, skipped=0):
  state = programs.ScaledTuneState(
    step=jnp.int32(14),
    loss_sum=jnp.float32(loss_sum),
    key=None,
    tuned={},
    slots={},
    loss_scale=loss_scale.first(),
  )
  found = state.loss_scale.replace(scale=jnp.float32(scale), skipped=jnp.int32(skipped))
  return state.replace(loss_scale=found)


def test_the_mean_loss_of_an_epoch_leaves_skipped_steps_out():
  def scalars(tuning):
    state = types.SimpleNamespace(step=14, epoch_start=10, tuning=tuning)
    return trial.epoch_scalars(state, "xb")

  expected = {"loss/xb": 2.0, "loss_scale": 8.0, "skipped_share": 0.25}
  assert scalars(scaled_tuning(8.0, skipped=1)) == expected
  assert scalars(types.SimpleNamespace(loss_sum=6.0)) == {"loss/xb": 1.5}
  assert "loss/xb" not in scalars(scaled_tuning(8.0, 0.0, skipped=4))


def test_a_trial_ends_below_the_smallest_loss_scale():
  setting = types.SimpleNamespace(learning_rate=0.1)
  trial.check_finite(scaled_tuning(loss_scale.FLOOR), setting, 0, "xb")
  with pytest.raises(
    NonFiniteLoss, match="loss scale of float16 fell to its floor of 1 in epoch 1"
  ):
    trial.check_finite(scaled_tuning(loss_scale.FLOOR / 2), setting, 0, "xb")


@pytest.mark.slow
def test_what_follows_a_pretraining_in_float16(data_dir, tmp_path, monkeypatch):
  """A fine-tuning skips its first steps and learns; gradients and masks are measured in float32."""
  config = toy_config(
    "adpt",
    data__dir=data_dir,
    data__sequence_length=48,
    model__max_length=48,
    model__num_layers=1,
    model__dtype="float16",
  )
  runner.run(pretrain.KIND, config, tmp_path / "base", print)

  model = negint.load(tmp_path / "base")
  [[candidates]] = model.fill_mask(["[MASK]"], "xb")
  assert len(candidates) == 5 and np.all(np.isfinite(model.embed(["kala mobo"], "xb")))
  folders.write(model, tmp_path / "exported")
  assert (
    "Training multiplied matrices in float16" in (tmp_path / "exported" / "README.md").read_text()
  )

  monkeypatch.setattr(loss_scale, "START", 2.0**30)
  config = toy_tuning(importlib.import_module("configs.pos").get_config("lab"), tmp_path / "base")
  config.train.update(epochs=8, learning_rate=0.01)
  config.checkpoint.every = 4
  result = runner.run(finetune.KIND, config, tmp_path / "pos", print)
  records = [
    record
    for path in (tmp_path / "pos" / "seed1").glob("*/metrics.jsonl")
    for record in read_metrics(path)
  ]
  assert len(records) == 8
  assert records[0]["skipped_share"] > 0
  assert records[-1]["skipped_share"] == 0 and 1 <= records[-1]["loss_scale"] < 2**24
  losses = [record["loss/xb"] for record in records if "loss/xb" in record]
  assert losses[-1] < 0.9 * losses[0]
  assert 0 < result["test"]["xb"]["accuracy"] <= 100

  for name in ("gradient_similarity", "pruning"):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.init_from = str(tmp_path / "base")
    if name == "pruning":
      config.update(steps=2, batch_size=4, seeds=1)
    else:
      config.update(sentences=8, batch_size=4, repeats=1)
    kind = importlib.import_module(f"negint.analysis.{name}").KIND
    assert runner.run(kind, config, tmp_path / name, print)["task"] == name
  model = load_pretrained(tmp_path / "base").model
  assert (model.dtype, pruning.shape_of(model).dtype) == ("float16", "float32")
