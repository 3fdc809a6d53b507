"""launch.benchmark: what it times, how it reports, and that its peer computes the same numbers."""

import dataclasses
import functools
import json
import math
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import relative_difference

from launch.benchmark import race, table, timed_steps
from negint.errors import UserError
from negint.method import masking, parallel, steps
from negint.method.state import init_state
from negint.pretrained import xlm_weights

ROOT = pathlib.Path(__file__).parents[2]


def case(step="plain", **changes):
  return timed_steps.Case("tiny", step, "float32", 4)._replace(**changes)


def environment():
  return {"device": "a device", "devices": 2, "cores": 2, "load": 0.0, "python": "3.11"}


@functools.cache
def raced():
  """The rows of a race on tiny models."""
  contenders = [timed_steps.Step(case(name)) for name in ("plain", "first_order")]
  contenders.append(timed_steps.Matmul("tiny", "float32"))
  return race.race(contenders, 3, say=lambda text: None)


@pytest.mark.parametrize("size", ["toy", "base", "paper"])
def test_meta_and_plain_steps_take_equal_batches_of_two_languages(size):
  plain = timed_steps.options_of(case(size=size, batch_size=6, dtype="bfloat16"))
  meta = timed_steps.options_of(case("first_order", size=size, batch_size=6, remat="none"))
  assert (plain.batch_size, meta.batch_size, meta.meta.batch_size) == (6, 6, 6)
  assert len(plain.languages) == len(meta.languages) == 2
  assert (plain.model.dtype, meta.meta.gradient, meta.model.remat) == (
    "bfloat16",
    "first_order",
    "none",
  )
  assert not plain.meta.enabled and not plain.model.has_adapters


def test_what_the_flags_may_not_ask_for():
  for sizes, names, dtypes in (
    (["huge"], ["plain"], ["float32"]),
    (["toy"], ["sideways"], ["float32"]),
    (["toy"], ["plain"], ["float16"]),
  ):
    with pytest.raises(UserError, match="must be one of"):
      timed_steps.cases_of(sizes, names, dtypes, 0, "")


def test_a_race_times_every_contender_in_every_round():
  plain, meta, matmul = raced()
  for row in raced():
    assert len(row["seconds"]) == 3 and min(row["seconds"]) > 0
  assert math.isfinite(plain["loss"]) and math.isfinite(meta["loss"])
  assert "over_plain" not in plain and "over_plain" not in matmul
  np.testing.assert_allclose(meta["over_plain"], np.divide(meta["seconds"], plain["seconds"]))
  assert meta["flops"] > 2 * plain["flops"]
  memory = meta["memory"]
  assert (
    memory["total"]
    == memory["arguments"] + memory["outputs"] + memory["temporaries"] - memory["aliased"]
  )
  assert memory["aliased"] > 0.9 * memory["outputs"]  # the state is donated, as in training


def test_the_table_reads_what_json_kept():
  group = {"environment": environment(), "rows": json.loads(json.dumps(raced()))}
  memory = {"environment": environment(), "rows": [r for r in raced() if "memory" in r]}
  feed = {"environment": environment(), "rows": [{"what": "x", "value": 2.0, "unit": "s"}]}
  text = table.markdown({"steps": {"tiny": group}, "memory": memory, "feed": feed})
  assert "| first_order | float32 | negint | none |" in text
  assert "| x | 2.00 | s |" in text
  widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
  assert len(widths) == 3  # one a table


def test_the_command_writes_merges_and_shows(tmp_path):
  out = tmp_path / "results.json"
  out.write_text('{"feed": {"environment": {}, "rows": []}, "steps": {"toy": {}}}')
  command = [
    sys.executable,
    "-m",
    "launch.benchmark",
    "--quick",
    "--steps=plain",
    "--dtypes=float32",
  ]
  subprocess.run([*command, f"--out={out}"], cwd=ROOT, check=True)
  results = json.loads(out.read_text())
  assert results.keys() == {"feed", "steps"} and results["steps"].keys() == {"toy", "tiny"}
  assert [row["step"] for row in results["steps"]["tiny"]["rows"]] == ["plain", "matmul"]


def test_a_mistake_is_one_sentence(tmp_path):
  command = [sys.executable, "-m", "launch.benchmark", f"--show={tmp_path}/nothing.json"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
  assert "nothing.json" in done.stderr


def torch_peer():
  pytest.importorskip("torch")
  from launch.benchmark import torch_peer

  torch_peer.set_up()
  return torch_peer


def exact(step):
  """A run whose first step shows its gradients: no clipping, and a look-ahead that is felt."""
  run = timed_steps.options_of(case(step))
  return dataclasses.replace(
    run,
    optimiser=dataclasses.replace(run.optimiser, clip_norm=1e9),
    meta=dataclasses.replace(run.meta, inner_learning_rate=0.5),
  )


def masked_like_step(run, state, batch, peer):
  """The masks of the first step: (training batch, held-out batch of each language), for torch."""
  mask_key, _ = jax.random.split(jax.random.fold_in(state.key, state.step))

  def masked(key, tokens):
    length = run.data.sequence_length
    found = masking.mask_tokens(
      key,
      jnp.asarray(tokens),
      jnp.arange(len(tokens)),
      num_predicted=masking.num_predicted(run.mask_rate, length),
      vocab_size=run.model.vocab_size,
    )
    tensors = [peer.torch.tensor(np.asarray(x)).long() for x in found[:3]]
    return peer.Masked(*tensors)

  held_out = batch.get("held_out")
  others = [] if held_out is None else np.moveaxis(held_out, 1, 0)
  return masked(mask_key, batch["tokens"]), [
    masked(jax.random.fold_in(mask_key, j), tokens) for j, tokens in enumerate(others)
  ]


def first_step(run):
  """(state before, batch, state after, metrics) of negint's own step, in language 1."""
  state = init_state(run.model, run.optimiser, run.seed)
  batch = timed_steps.synthetic_sampler(run).batch(0)
  donated = parallel.replicate(jax.tree.map(jnp.copy, state))
  held_out = np.arange(len(run.languages)) if run.meta.enabled else None
  train_step = steps.make_train_step(run)
  after, metrics = train_step(donated, parallel.split(batch), np.int32(1), held_out)
  return state, batch, after, metrics


def test_the_peers_loss_is_ours():
  peer = torch_peer()
  run = exact("plain")
  state, batch, _, metrics = first_step(run)
  masked, _ = masked_like_step(run, state, batch, peer)
  weights = peer.load(xlm_weights.to_xlm(run.model, state.theta, {}))
  loss = peer.mlm_loss(run.model, weights, masked, 1, run.languages)
  twice = peer.mlm_loss(run.model, weights, masked, 1, run.languages, twice=True)
  assert loss.item() == pytest.approx(float(metrics["loss"]), rel=1e-5)
  assert twice.item() == pytest.approx(float(metrics["loss"]), rel=1e-5)


def test_the_loss_of_transformers_is_ours():
  peer = torch_peer()
  pytest.importorskip("transformers")
  run = exact("plain")
  state, batch, _, metrics = first_step(run)
  masked, _ = masked_like_step(run, state, batch, peer)
  loss = peer.HuggingFaceStep(case()).loss(masked, 1)
  assert loss.item() == pytest.approx(float(metrics["loss"]), rel=1e-5)


def test_the_peers_meta_gradient_is_ours():
  peer = torch_peer()
  run = exact("grad_of_grad")
  state, batch, after, _ = first_step(run)
  masked, held_out = masked_like_step(run, state, batch, peer)
  weights = peer.load(xlm_weights.to_xlm(run.model, state.theta, state.phi, run.languages))
  phi = {name: w for name, w in weights.items() if name.startswith("adapter")}
  theta = {name: w for name, w in weights.items() if name not in phi}

  def theirs(beta):
    return peer.meta_gradient(run.model, theta, phi, masked, held_out, 1, run.languages, beta)

  # Adam's first moments after one step are a tenth of the gradient.
  moments = xlm_weights.to_xlm(run.model, after.theta, after.phi_slots.mu, run.languages)
  ours = [10 * moments[name] for name in theirs(0.0)]
  assert relative_difference([g.numpy() for g in theirs(0.5).values()], ours) < 1e-4
  first_order = [g.numpy() for g in theirs(0.0).values()]
  assert relative_difference(first_order, ours) > 1e-3  # the double backward pass is felt
  by_func = peer.meta_gradient_by_func(
    run.model, theta, phi, masked, held_out, 1, run.languages, 0.5
  )
  assert relative_difference([g.numpy() for g in by_func.values()], ours) < 1e-4
