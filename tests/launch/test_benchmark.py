"""launch.benchmark: what it times, what it reports, and that the peer computes the same numbers."""

import dataclasses
import functools
import json
import math
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import relative_difference

from launch.benchmark import measure, race, results, table, timed_steps
from negint.errors import UserError
from negint.method import masking, optim, parallel, steps
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


@pytest.mark.parametrize("size", ["sample", "base", "paper"])
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
    (["sample"], ["sideways"], ["float32"]),
    (["sample"], ["plain"], ["float8"]),
  ):
    with pytest.raises(UserError, match="must be one of"):
      timed_steps.cases_of(sizes, names, dtypes, 0, "")


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_table_reads_what_json_kept():
  group = {"environment": environment(), "rows": json.loads(json.dumps(raced()))}
  memory = {"environment": environment(), "rows": [r for r in raced() if "memory" in r]}
  host = {"environment": environment(), "rows": [{"what": "x", "value": 2.0, "unit": "s"}]}
  text = table.markdown({"steps": {"tiny": group}, "memory": memory, "host": host})
  assert "| first_order | float32 | negint | none |" in text
  assert "| x | 2.00 | s |" in text
  widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
  assert len(widths) == 3  # one per table


@pytest.mark.parametrize("path", sorted((ROOT / "launch" / "benchmarks").glob("*.json")))
def test_kept_results_can_be_shown(path):
  kept = results.read(path)
  text = table.markdown(kept)
  rows = [row for group in kept["steps"].values() for row in group["rows"]]
  assert text.count(" | negint | ") == sum(
    row["by"] == "negint" and row["step"] != "matmul" for row in rows
  )
  assert all(row["size"] == size for size, group in kept["steps"].items() for row in group["rows"])


def test_what_a_file_holds_of_other_sizes_and_measurements_stays(tmp_path):
  path = tmp_path / "results.json"
  path.write_text('{"host": {"rows": []}, "steps": {"sample": {"rows": []}, "tiny": "old"}}')
  results.merge(path, {"steps": {"tiny": "new"}, "memory": 1})
  steps = {"sample": {"rows": []}, "tiny": "new"}
  assert results.read(path) == {"host": {"rows": []}, "steps": steps, "memory": 1}


def test_a_quick_look_is_kept_only_where_it_is_told_to(tmp_path, monkeypatch):
  monkeypatch.setattr(race, "race", lambda contenders, *_: [each.row for each in contenders])
  monkeypatch.setattr(measure, "FOLDER", tmp_path / "benchmarks")
  request = measure.Request(steps=("plain",), dtypes=("float32",), quick=True)
  found = measure.measure_steps(request)
  assert [row["step"] for row in found["steps"]["tiny"]["rows"]] == ["plain", "matmul"]
  assert not list(tmp_path.iterdir())
  measure.measure_steps(request._replace(out=str(tmp_path / "quick.json")))
  assert results.read(tmp_path / "quick.json").keys() == {"steps"}


def test_the_readme_of_the_results_names_flags_and_files_that_exist():
  folder = ROOT / "launch" / "benchmarks"
  text = (folder / "README.md").read_text("utf-8").replace("\\\n", " ")
  commands = re.findall(r"python -m launch\.benchmark( .*)", text)
  named = {flag for command in commands for flag in re.findall(r"--(\w+)", command)}
  source = (ROOT / "launch" / "benchmark" / "__main__.py").read_text("utf-8")
  defined = set(re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', source))
  assert {"sizes", "measure", "peer"} <= named <= defined
  links = re.findall(r"\]\((.*?)\)", text)
  assert links and all((folder / link).exists() for link in links)


def benchmark(*arguments) -> subprocess.CompletedProcess:
  command = [sys.executable, "-m", "launch.benchmark", *map(str, arguments)]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["steps", "memory", "host"])
def test_the_command_measures_and_merges(what, tmp_path):
  out = tmp_path / "results.json"
  out.write_text('{"steps": {"sample": {"environment": {}, "rows": []}}}')
  options = ("--quick", "--steps=plain", "--dtypes=float32", f"--measure={what}", f"--out={out}")
  done = benchmark(*options)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("### ") and "| plain |" in done.stdout or what == "host"
  found = json.loads(out.read_text())
  assert found.keys() == {"steps", what}
  assert found["steps"].keys() == {"sample", *(["tiny"] if what == "steps" else [])}


def test_a_mistake_is_one_sentence(tmp_path):
  done = benchmark(f"--show={tmp_path}/nothing.json")
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
  rate = optim.learning_rate(run.schedule, 0)
  after, metrics = train_step(donated, parallel.split(batch), rate, np.int32(1), held_out)
  return state, batch, after, metrics


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_loss_of_transformers_is_ours():
  peer = torch_peer()
  pytest.importorskip("transformers")
  run = exact("plain")
  state, batch, _, metrics = first_step(run)
  masked, _ = masked_like_step(run, state, batch, peer)
  loss = peer.HuggingFaceStep(case()).loss(masked, 1)
  assert loss.item() == pytest.approx(float(metrics["loss"]), rel=1e-5)


@pytest.mark.slow
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
