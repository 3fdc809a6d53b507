"""Whole runs: every config, resuming bit for bit, interruptions, and what must not happen."""

import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import types

import jax
import numpy as np
import pytest
from toy import assert_same_bits, has_logged, slow, toy_config, toy_run, wait_until

from configs import base
from negint import config_file, options, pretrain
from negint.data.open_corpora import open_corpora
from negint.errors import Interrupted, NonFiniteLoss, UserError
from negint.method import flops, loss_scale, parallel, steps
from negint.method.state import init_state, state_of
from negint.pretrained.load import load_pretrained
from negint.run import checkpoint, runner
from negint.run.checkpoint import Checkpoints
from negint.run.files import write_json
from negint.run.lock import exclusive
from negint.run.records import read_metrics

ROOT = pathlib.Path(__file__).parent.parent


pytestmark = pytest.mark.usefixtures("pretraining_compiled_once")


def final_state(config, workdir):
  """The last checkpoint of a run."""
  run = pretrain.options.from_config(config, parallel.num_devices())
  like = parallel.replicate(state_of(run))
  checkpoints = Checkpoints(pathlib.Path(workdir), run.checkpoint_keep)
  state = checkpoints.restore(like, say=pytest.fail)
  checkpoints.close()
  return state


@pytest.mark.parametrize("system", sorted(base.SYSTEMS))
def test_every_system_runs_two_steps_and_reports(system, data_dir, tmp_path):
  config = toy_config(system, data__dir=data_dir, model__num_layers=1)
  said = []
  result = runner.run(pretrain.KIND, config, tmp_path / "run", said.append)
  assert result["steps"] == 2 and result["system"] == system
  assert list(result["tokens_seen_by_language"]) == list(config.languages)
  assert sum(result["tokens_seen_by_language"].values()) == result["tokens_seen"]
  assert set(result["perplexity"]) == set(config.languages) == set(result["unigram_perplexity"])
  for value in result["perplexity"].values():
    assert 20 < value < 2000  # an untrained model of 200 pieces
  has_phi = bool(base.SYSTEMS[system]["specific"])
  assert bool(result["parameters"]["phi_of_each_language"]) == has_phi
  records = read_metrics(tmp_path / "run" / "metrics.jsonl")
  assert [record["step"] for record in records] == [1, 2, 2]
  for language, value in result["perplexity"].items():
    assert records[-1][f"perplexity/{language}"] == value
  is_meta = base.SYSTEMS[system]["meta"]
  assert ("meta_perplexity" in result) == is_meta
  for language, value in result.get("meta_perplexity", {}).items():
    assert records[-1][f"meta_perplexity/{language}"] == value != result["perplexity"][language]
    assert 20 < value < 2000
  assert any(name.startswith("loss/") for name in records[0])
  assert ("meta/second_order_norm" in records[0]) == is_meta
  names = {path.name for path in (tmp_path / "run").iterdir()}
  assert names >= {
    "config.json",
    "result.json",
    "metrics.jsonl",
    "tokenizer.model",
    "checkpoints",
    "tensorboard",
  }
  again = runner.run(pretrain.KIND, config, tmp_path / "run", said.append)
  assert again == result and any("finished" in line for line in said)


def test_cudnns_attention_is_refused_where_there_is_none(data_dir):
  run = toy_run("joint_pair", data__dir=data_dir, model__attention="cudnn", model__dtype="bfloat16")
  with pytest.raises(UserError, match="capability 8.0 or later.*here is cpu.*attention=xla"):
    pretrain.prepare(run, print)


def test_bits_per_character_are_those_of_the_text_whatever_its_tokens(data_dir):
  """A uniform model over V pieces spends log2(V) bits per token; the characters are counted anew."""
  per_character = {}
  for size in (150, 300):
    run = toy_run("joint_pair", data__dir=data_dir, data__vocab_size=size)
    inputs = pretrain.prepare(run, print)
    corpora = open_corpora(run.data, run.languages, print)
    found = pretrain.bits_per_character(inputs.cache, {"xb": size, "xa": size})
    for corpus, stream in zip(corpora, inputs.cache.streams["valid"], strict=True):
      text = "".join(f"{line}\n" for lines in corpus.documents("valid") for line in lines)
      bits = len(stream) * math.log2(size)
      assert found[corpus.language] == pytest.approx(bits / len(text))
      per_character[corpus.language, size] = len(stream) / len(text)
  assert per_character["xb", 150] > per_character["xb", 300], "larger pieces, fewer tokens"


def test_surgery_hears_every_language_at_every_step_and_counts_it(data_dir, tmp_path):
  config = toy_config("gradvac", data__dir=data_dir, model__num_layers=1, train__steps=3)
  result = runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert result["tokens_seen"] == 3 * 2 * 4 * 24  # steps, languages, rows, tokens
  joint = toy_config("joint_pair", model__num_layers=1)
  assert result["flops"] == 3 * 2 * flops.step(options.from_config(joint, 1))
  records = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if "learning_rate" in r]
  assert [record["step"] for record in records] == [1, 2, 3]
  for record in records:
    assert {n for n in record if n.startswith("loss/")} == {"loss/xb", "loss/xa"}
    assert -1 <= record["surgery/cosine"] <= 1
  state = final_state(config, tmp_path / "run")
  assert_same_bits(load_pretrained(tmp_path / "run").theta, state.theta)
  assert state.rho_LL.shape == (2, 2)


def test_mono_with_the_tokenizer_of_a_pair_reads_the_pairs_tokens(data_dir, tmp_path):
  """By the languages' names, and by the folder of the pair's run."""
  say = pytest.fail
  pair = pretrain.prepare(toy_run("joint_pair", data__dir=data_dir), say).cache
  fields = dict(data__dir=data_dir, languages=("xb",))
  mono = pretrain.prepare(toy_run("mono", data__tokenizer_from="xb-xa", **fields), say).cache
  own = pretrain.prepare(toy_run("mono", **fields), say).cache
  assert mono.tokenizer.model == pair.tokenizer.model != own.tokenizer.model
  np.testing.assert_array_equal(mono.streams["valid"][0], pair.streams["valid"][0])
  runner.run(pretrain.KIND, toy_config("joint_pair", data__dir=data_dir), tmp_path / "pair", print)
  run = toy_run("mono", data__tokenizer_from=str(tmp_path / "pair"), **fields)
  found = pretrain.prepare(run, say).cache
  np.testing.assert_array_equal(found.streams["train"][0], pair.streams["train"][0])
  (tmp_path / "pair" / "tokenizer.model").write_bytes(b"")
  with pytest.raises(UserError, match="tokenizer.model is damaged"):
    pretrain.prepare(run, say)


@pytest.mark.slow
def test_a_meta_run_counts_the_languages_that_it_drew(data_dir, tmp_path):
  config = toy_config(
    "meta_adpt",
    data__dir=data_dir,
    model__num_layers=1,
    languages=("xb", "xc", "xa"),
    train__accumulate=2,
    meta__batch_size=4,
    meta__languages_per_step=2,
  )
  result = runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert result["tokens_seen"] == 2 * 4 * 24
  assert result["held_out_tokens_seen"] == 2 * 4 * 24 * 2
  assert set(result["perplexity"]) == {"xb", "xc", "xa"}


@pytest.mark.slow
def test_a_release_run_counts_both_batches_and_averages_the_second_order_share(data_dir, tmp_path):
  config = toy_config(
    "meta_adpt",
    data__dir=data_dir,
    model__num_layers=1,
    train__steps=5,
    log__every=2,
    meta__variant="release",
    meta__inner_learning_rate=0.3,
  )
  result = runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert result["tokens_seen"] == 5 * 2 * 4 * 24
  assert result["held_out_tokens_seen"] == 5 * 2 * 2 * 24
  records = read_metrics(tmp_path / "run" / "metrics.jsonl")
  shares = {r["step"]: r["meta/second_order_share"] for r in records if "learning_rate" in r}
  assert list(shares) == [2, 4, 5] and all(0 < share < 1 for share in shares.values())
  expected = (2 * shares[2] + 2 * shares[4] + shares[5]) / 5
  assert result["second_order_share"] == pytest.approx(expected)
  state = final_state(config, tmp_path / "run")
  assert_same_bits(load_pretrained(tmp_path / "run").phi, state.phi)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(state.meta_slots))


@pytest.mark.slow
def test_a_sample_of_real_sentences_runs(data_dir, tmp_path):
  config = toy_config(
    "joint_pair", "te", data__dir=data_dir, data__vocab_size=400, model__num_layers=1
  )
  config.train.warmup_steps = 30
  said = []
  result = runner.run(pretrain.KIND, config, tmp_path / "run", said.append)
  assert result["training_sentences"]["te"] > 800
  assert any("the learning rate never reaches its peak" in line for line in said)
  assert any("bundled sample" in line and "negint.prepare" in line for line in said)


@pytest.mark.slow
def test_a_longer_run_starts_with_the_shorter_one(data_dir, tmp_path):
  """With a constant rate, step n does not depend on how many follow."""
  fields = dict(
    data__dir=data_dir,
    train__schedule="constant",
    checkpoint__every=1,
    checkpoint__keep=10,
    model__num_layers=1,
  )
  short = toy_config("adpt", train__steps=3, **fields)
  long = toy_config("adpt", train__steps=5, **fields)
  runner.run(pretrain.KIND, short, tmp_path / "short", print)
  runner.run(pretrain.KIND, long, tmp_path / "long", print)
  for step in (5, 4):
    shutil.rmtree(tmp_path / "long" / "checkpoints" / str(step))
  assert_same_bits(final_state(short, tmp_path / "short"), final_state(long, tmp_path / "long"))


@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("adpt", {}),
    slow("adpt", dict(train__phi_split="meta")),
    slow("meta_adpt", {}),
    slow("meta_adpt", dict(meta__variant="release")),
    slow("gradvac", {}),
    slow("meta_adpt", dict(model__dtype="float16")),
    slow("meta_adpt", dict(model__dtype="float16", meta__variant="release")),
  ],
)
def test_resumed_equals_uninterrupted_bit_for_bit(system, fields, data_dir, tmp_path, monkeypatch):
  """Stopped after step 3 by a signal and started again: parameters, Adam's slots, key, metrics."""
  config = toy_config(
    system, data__dir=data_dir, train__steps=6, model__num_layers=1, checkpoint__every=4, **fields
  )
  whole = runner.run(pretrain.KIND, config, tmp_path / "whole", print)

  make = steps.make_train_step

  def interrupting(run):
    step = make(run)

    def wrapped(*inputs):
      state, metrics = step(*inputs)
      if int(state.step) == 3:
        signal.raise_signal(signal.SIGTERM)
      return state, metrics

    return wrapped

  monkeypatch.setattr(steps, "make_train_step", interrupting)
  with pytest.raises(Interrupted, match="step 3 of 6"):
    runner.run(pretrain.KIND, config, tmp_path / "halved", print)
  monkeypatch.setattr(steps, "make_train_step", make)
  said = []
  with monkeypatch.context() as patch:
    patch.setattr(pretrain, "first_state", lambda *_: pytest.fail("a model was initialised"))
    with pytest.raises(pytest.fail.Exception, match="initialised"):  # where nothing is on disk
      runner.run(pretrain.KIND, config, tmp_path / "new", print)
    halved = runner.run(pretrain.KIND, config, tmp_path / "halved", said.append)
  assert any("Resuming at step 3" in line for line in said)
  assert halved == whole
  assert_same_bits(
    final_state(config, tmp_path / "halved"), final_state(config, tmp_path / "whole")
  )
  records = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("halved", "whole")]
  for ours, theirs in zip(*records, strict=True):
    ours.pop("tokens_per_second", None), theirs.pop("tokens_per_second", None)
    assert ours == theirs


@pytest.mark.slow
def test_an_evaluation_cut_short_is_made_up_for(data_dir, tmp_path, monkeypatch):
  """Stopped in the middle of an evaluation: state saved, and the perplexity logged after all."""
  config = toy_config(
    "adpt", data__dir=data_dir, train__steps=4, model__num_layers=1, eval__every=2
  )
  runner.run(pretrain.KIND, config, tmp_path / "whole", print)
  train = pretrain.train

  def at_step_2(run, state, sampler, checkpoints, writer, observers, interruption):
    def stopped(state):
      signal.raise_signal(signal.SIGTERM)
      return perplexity.measure(state)

    (perplexity,) = observers
    observers = [perplexity._replace(measure=stopped)]
    return train(run, state, sampler, checkpoints, writer, observers, interruption)

  monkeypatch.setattr(pretrain, "train", at_step_2)
  with pytest.raises(Interrupted, match="at step 2 of 4"):
    runner.run(pretrain.KIND, config, tmp_path / "halved", print)
  monkeypatch.setattr(pretrain, "train", train)
  runner.run(pretrain.KIND, config, tmp_path / "halved", print)
  ours, theirs = (
    [r for r in read_metrics(tmp_path / name / "metrics.jsonl") if "perplexity/xb" in r]
    for name in ("halved", "whole")
  )
  assert ours == theirs and [r["step"] for r in ours] == [2, 4]


def test_measurements_do_not_count_as_training_time(monkeypatch):
  """Ten steps of a second each, with an evaluation of a minute between them."""
  clock = [0.0]
  monkeypatch.setattr(pretrain.time, "perf_counter", lambda: clock[0])
  run = toy_run("joint_pair")

  def tokens_per_second(evaluation):
    window = pretrain.Window(run, 0)
    for step in range(10):
      if step == 5:
        with window.paused(np.zeros(())):
          clock[0] += evaluation
      clock[0] += 1.0
      window.add(step + 1, 0, {"loss": 1.0, "learning_rate": 0.1})
    return window.fetch()["tokens_per_second"]

  expected = run.batch_size * run.data.sequence_length
  assert tokens_per_second(0.0) == tokens_per_second(60.0) == pytest.approx(expected)


def test_a_run_with_the_dtype_auto_takes_what_suits_the_device_and_keeps_it(
  data_dir, tmp_path, monkeypatch
):
  """Begun on a T4, it goes on in float16 on an A100, and refuses another dtype."""
  config = toy_config("adpt", data__dir=data_dir, model__num_layers=1, model__dtype="auto")
  said = []
  t4 = types.SimpleNamespace(platform="gpu", device_kind="Tesla T4", compute_capability="7.5")
  with monkeypatch.context() as patch:
    patch.setattr(pretrain.jax, "devices", lambda: [t4])
    begun = pretrain.decide(config, None, said.append)
  assert begun.model.dtype == "float16" and config.model.dtype == "auto"
  assert "auto: float16, because Tesla T4" in said[0]
  result = runner.run(pretrain.KIND, begun, tmp_path / "run", print)
  assert (result["dtype"], result["skipped_steps"]) == ("float16", 0)
  records = read_metrics(tmp_path / "run" / "metrics.jsonl")
  assert [record.get("skipped_share") for record in records] == [0, 0, None]
  (tmp_path / "run" / "result.json").unlink()
  again = runner.run(pretrain.KIND, config, tmp_path / "run", said.append)  # on a CPU
  assert again == result and "auto: float16, because the run began with it" in said[1]
  assert load_pretrained(tmp_path / "run").model.dtype == "float16"
  config.model.dtype = "float32"
  with pytest.raises(UserError, match="dtype: 'float16' there, 'float32' here"):
    runner.run(pretrain.KIND, config, tmp_path / "run", print)


def window_of(*steps_of_metrics):
  window = pretrain.Window(toy_run("joint_pair"), 0)
  for number, metrics in enumerate(steps_of_metrics):
    window.add(number + 1, 0, {"learning_rate": 0.1, **metrics})
  return window


def test_skipped_steps_are_logged_and_stop_a_run_only_below_the_smallest_loss_scale():
  good = {"loss": 2.0, "loss_scale": 4.0, "skipped_share": 0.0}
  skipped = {"loss": math.inf, "loss_scale": 2.0, "skipped_share": 1.0}
  scalars = window_of(good, skipped, good, skipped).fetch()
  assert (scalars["loss/xb"], scalars["loss_scale"], scalars["skipped_share"]) == (2.0, 3.0, 0.5)
  scalars = window_of(skipped).fetch()
  assert not any(name.startswith("loss/") for name in scalars)
  assert "not finite" in pretrain.describe(scalars)
  window_of(skipped | {"loss_scale": loss_scale.FLOOR}).fetch()
  below = skipped | {"loss_scale": loss_scale.FLOOR / 2}
  with pytest.raises(
    NonFiniteLoss, match=r"step 2 on 'xb'.*loss scale of float16 fell to its floor"
  ):
    window_of(good, below).fetch()
  with pytest.raises(NonFiniteLoss, match="loss is inf"):  # negative control
    window_of(good, {"loss": math.inf}).fetch()


@pytest.mark.slow
def test_a_run_that_no_loss_scale_saves_ends(data_dir, tmp_path):
  config = toy_config(
    "adpt",
    data__dir=data_dir,
    model__num_layers=1,
    model__dtype="float16",
    train__steps=30,
    train__learning_rate=1e20,
    log__every=30,
  )
  with pytest.raises(NonFiniteLoss, match="loss scale of float16"):
    runner.run(pretrain.KIND, config, tmp_path / "run", print)


@pytest.mark.slow
def test_training_in_float16_ends_where_float32_does(data_dir, tmp_path):
  perplexity = {}
  for dtype in ("float32", "float16"):
    config = toy_config(
      "meta_adpt",
      data__dir=data_dir,
      model__num_layers=1,
      model__model_dim=32,
      model__head_dim=16,
      model__dropout=0.0,
      model__dtype=dtype,
      train__steps=600,
      train__batch_size=16,
      train__warmup_steps=30,
      train__learning_rate=6e-3,
      log__every=100,
      checkpoint__every=600,
    )
    result = runner.run(pretrain.KIND, config, tmp_path / dtype, print)
    perplexity[dtype] = result["perplexity"]
    for language, value in result["perplexity"].items():
      assert value < result["unigram_perplexity"][language], "it has learnt something"
  for language, value in perplexity["float16"].items():
    assert value == pytest.approx(perplexity["float32"][language], rel=0.02)


def test_another_seed_is_another_run(data_dir, tmp_path):
  """Negative control of the comparisons above."""
  for seed in (1, 2):
    config = toy_config("adpt", data__dir=data_dir, seed=seed, model__num_layers=1)
    runner.run(pretrain.KIND, config, tmp_path / str(seed), print)
  with pytest.raises(AssertionError):
    assert_same_bits(final_state(config, tmp_path / "1"), final_state(config, tmp_path / "2"))


@pytest.fixture(scope="module")
def saved_run(data_dir, tmp_path_factory):
  """A finished run with checkpoints of steps 2 and 4, its result taken away."""
  config = toy_config("adpt", data__dir=data_dir, train__steps=4, model__num_layers=1)
  workdir = tmp_path_factory.mktemp("saved") / "run"
  result = runner.run(pretrain.KIND, config, workdir, print)
  (workdir / "result.json").unlink()
  return config, workdir, result


@pytest.mark.slow
def test_every_truncated_file_falls_back_or_reads_right(saved_run, tmp_path):
  """Cuts each file of the newest checkpoint in half: never a wrong state, and it says so."""
  config, workdir, _ = saved_run
  good = final_state(config, workdir)
  newest = workdir / "checkpoints" / "4"
  files = [f for f in newest.rglob("*") if f.is_file() and f.stat().st_size > 1]
  fell_back = 0
  for number, file in enumerate(files):
    copy = tmp_path / str(number)
    shutil.copytree(workdir, copy)
    target = copy / file.relative_to(workdir)
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    run = pretrain.options.from_config(config, parallel.num_devices())
    like = parallel.replicate(init_state(run.model, run.optimiser, run.seed))
    checkpoints, said = Checkpoints(copy, 2), []
    state = checkpoints.restore(like, said.append)
    checkpoints.close()
    if said:
      fell_back += 1
      assert int(state.step) == 2 and "step 4" in said[0] and "moved" in said[0]
      assert (copy / "damaged" / "4").exists()
    else:
      assert_same_bits(state, good)
  assert fell_back >= 1


def test_a_damaged_newest_checkpoint_still_ends_in_the_same_result(saved_run, tmp_path):
  config, workdir, result = saved_run
  shutil.copytree(workdir, tmp_path / "run")
  for file in (tmp_path / "run" / "checkpoints" / "4").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  said = []
  assert runner.run(pretrain.KIND, config, tmp_path / "run", said.append) == result
  assert any("cannot be read" in line for line in said)


def test_no_readable_checkpoint_is_an_error_and_nothing_is_lost(saved_run, tmp_path):
  config, workdir, _ = saved_run
  shutil.copytree(workdir, tmp_path / "run")
  for file in (tmp_path / "run" / "checkpoints").rglob("*"):
    if file.is_file():
      file.write_bytes(b"")
  for _ in range(2):  # the second time the folder has no checkpoint any more
    with pytest.raises(UserError, match="None of the checkpoints of steps 4, 2 can be read"):
      runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert {p.name for p in (tmp_path / "run" / "damaged").iterdir()} == {"2", "4"}
  assert len(read_metrics(tmp_path / "run" / "metrics.jsonl")) >= 4


def test_a_checkpoint_that_memory_is_too_small_for_is_not_damaged(saved_run, tmp_path, monkeypatch):
  config, workdir, result = saved_run
  shutil.copytree(workdir, tmp_path / "run")

  def read(*_):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes.")

  with monkeypatch.context() as patch:
    patch.setattr(checkpoint, "_read", read)
    with pytest.raises(UserError, match="Out of memory"):
      runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert not (tmp_path / "run" / "damaged").exists()
  assert runner.run(pretrain.KIND, config, tmp_path / "run", print) == result


def test_corpora_prepared_anew_are_refused(saved_run, tmp_path):
  config, workdir, _ = saved_run
  shutil.copytree(workdir, tmp_path / "run")
  write_json(tmp_path / "run" / "data.json", {"tokens": "0123456789abcdef", "tokenizer": ""})
  with pytest.raises(UserError, match="began with the token cache 0123456789abcdef"):
    runner.run(pretrain.KIND, config, tmp_path / "run", print)


def test_a_workdir_in_use_is_refused(saved_run, tmp_path):
  config, workdir, _ = saved_run
  shutil.copytree(workdir, tmp_path / "run")
  refused = pytest.raises(UserError, match="Another process is running in")
  with exclusive(tmp_path / "run" / ".lock", "testing"), refused:
    runner.run(pretrain.KIND, config, tmp_path / "run", print)


def test_a_missing_newest_checkpoint_still_ends_in_the_same_result(saved_run, tmp_path):
  config, workdir, result = saved_run
  shutil.copytree(workdir, tmp_path / "run")
  shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
  assert runner.run(pretrain.KIND, config, tmp_path / "run", print) == result


def test_a_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(
  data_dir, tmp_path, monkeypatch
):
  make = steps.make_train_step

  def diverging(run):
    step = make(run)

    def wrapped(*inputs):
      state, metrics = step(*inputs)
      bad = int(state.step) == 4
      return state, {**metrics, "loss": jax.numpy.where(bad, np.nan, metrics["loss"])}

    return wrapped

  monkeypatch.setattr(steps, "make_train_step", diverging)
  config = toy_config(
    "joint_pair", data__dir=data_dir, train__steps=6, log__every=3, model__num_layers=1
  )
  with pytest.raises(NonFiniteLoss, match=r"loss is nan at step 4 on 'x[ab]' \(learning rate"):
    runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert int(final_state(config, tmp_path / "run").step) == 2
  assert not (tmp_path / "run" / "result.json").exists()


def test_another_config_is_refused_with_both_values(saved_run):
  config, workdir, _ = saved_run
  other = config.copy_and_resolve_references()
  other.train.learning_rate = 0.125
  before = sorted(p.name for p in workdir.iterdir())
  with pytest.raises(UserError, match=r"train.learning_rate: 0.002 there, 0.125 here"):
    runner.run(pretrain.KIND, other, workdir, print)
  assert sorted(p.name for p in workdir.iterdir()) == before


def command(workdir, data_dir, *flags):
  """The real command line on a toy run that takes a while."""
  return [
    sys.executable,
    "-m",
    "negint.main",
    "--config=configs/adpt.py:lab",
    f"--workdir={workdir}",
    f"--config.data.dir={data_dir}",
    "--config.data.lab.documents=200",
    "--config.data.vocab_size=200",
    "--config.data.sequence_length=24",
    "--config.model.num_layers=1",
    "--config.model.model_dim=16",
    "--config.model.num_heads=2",
    "--config.model.head_dim=8",
    "--config.model.ffn_dim=32",
    "--config.model.adapter_dim=4",
    "--config.model.dropout=0.1",
    "--config.train.batch_size=4",
    "--config.train.steps=400",
    "--config.checkpoint.every=50",
    "--config.log.every=10",
    "--config.eval.every=200",
    *flags,
  ]


def start(arguments):
  return subprocess.Popen(
    arguments,
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )


def wait_for_step(workdir, step, process):
  """Until the step is logged and there is a checkpoint: it is written beside the training, and the
  first may come many steps late."""

  def happened():
    saved = any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
    return saved and has_logged(workdir, step)

  if not wait_until(happened, lambda: process.poll() is not None):
    pytest.fail(f"the run did not reach step {step}: {process.communicate()}")


@pytest.mark.slow
def test_killed_and_stopped_runs_end_like_an_undisturbed_one(data_dir, tmp_path):
  """The command line itself: SIGKILL at a random moment, SIGTERM, then to the end."""
  undisturbed = start(command(tmp_path / "whole", data_dir))
  _, errors = undisturbed.communicate(timeout=240)
  assert undisturbed.returncode == 0, errors
  assert "Traceback" not in errors

  arguments = command(tmp_path / "killed", data_dir)
  process = start(arguments)
  moment = int(np.random.default_rng().integers(60, 200))
  wait_for_step(tmp_path / "killed", moment, process)
  process.kill()
  process.communicate()
  last = read_metrics(tmp_path / "killed" / "metrics.jsonl")[-1]["step"]

  process = start(arguments)
  wait_for_step(tmp_path / "killed", last + 10, process)
  process.send_signal(signal.SIGTERM)
  output, errors = process.communicate(timeout=120)
  assert process.returncode == 75, errors
  assert "Resuming at step" in output
  assert "stopped by SIGTERM" in errors and "start the same command again" in errors
  assert "Traceback" not in errors

  process = start(arguments)
  output, errors = process.communicate(timeout=240)
  assert process.returncode == 0, errors
  results = [json.loads((tmp_path / n / "result.json").read_text()) for n in ("whole", "killed")]
  assert results[0] == results[1], f"killed at step {moment}"
  assert "perplexity" in output and "unigram" in output


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--config=configs/mono.py:sw"], ["sw", "negint.prepare"]),
    (
      ["--config=configs/adpt.py:ar", "--config.train.stepps=3"],
      ["'stepps'", "Did you mean steps"],
    ),
  ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, words, tmp_path):
  """The command line itself; the mistakes below are found in this process."""
  process = start(
    [
      sys.executable,
      "-m",
      "negint.main",
      f"--workdir={tmp_path / 'run'}",
      *arguments,
      f"--config.data.dir={tmp_path}",
    ]
  )
  _, errors = process.communicate(timeout=120)
  assert process.returncode == 2, errors
  (line,) = errors.splitlines()
  assert line.startswith("negint: ") and all(word in line for word in words)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("spec", "flags", "words"),
  [
    ("configs/joint_pair.py:xx", [], ["'xx'", "only in ar, en, fr"]),
    ("configs/joint_pair.py:Arabic", [], ["'Arabic'", "a code such as ar (with en)"]),
    ("configs/joint_pair.py:ar,huge", [], ["'huge'", "sample small base paper"]),
    ("configs/nothing.py:ar", [], ["configs/nothing.py", "meta_adpt.py"]),
    ("configs/mono.py:sw,base", [], ["sw", "negint.prepare"]),
    ("configs/adpt.py:ar", ["--config.train.steps=x"], ["train.steps"]),
    ("configs/adpt.py:ar", ["--config.model.init=warm"], ["'warm'", "'local'", "'xlm'"]),
  ],
)
def test_a_mistake_in_a_config_is_a_sentence_and_leaves_no_folder(spec, flags, words, tmp_path):
  with pytest.raises(UserError) as caught:
    config = config_file.load(spec, [*flags, f"--config.data.dir={tmp_path}"])
    runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert all(word in str(caught.value) for word in words)
  assert not (tmp_path / "run").exists()
