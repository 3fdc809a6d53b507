"""What a step does about its memory: the compiler's figures, the choice of remat, what would fit."""

import functools

import jax
import numpy as np
import pytest
from toy import assert_same_bits, counted_compilations, toy_config, toy_run, toy_tuning

from configs import gradient_similarity as similarity_config
from configs import ner
from configs import pruning as pruning_config
from negint import options, pretrain
from negint.analysis import gradient_similarity, pruning
from negint.errors import UserError
from negint.finetuning import finetune
from negint.method import memory, optim, parallel, steps
from negint.method.memory import Limit
from negint.run import auto_remat, runner
from negint.run.files import read_json, write_json
from negint.run.interrupt import Interruption

LARGE = dict(model__num_layers=3, train__batch_size=64, model__remat="auto", eval__batch_size=4)


def limit_between(low, high):
  """A limit that holds `low` bytes with the margin, and not `high` bytes."""
  return Limit(int((low + high) / 2 / (1 - memory.MARGIN)), "on a test")


pytestmark = pytest.mark.usefixtures("pretraining_compiled_once")


@pytest.fixture(scope="module")
def run():
  return toy_run("joint_pair", 2, **LARGE)


@pytest.fixture(scope="module")
def needs(run, pretraining_compiled_once):
  """Bytes of a step with each remat."""
  return {remat: memory.step_need(memory.with_remat(run, remat)).total for remat in options.REMATS}


def test_the_cheapest_choice_that_fits_is_taken(run, needs):
  none, layer = needs["none"], needs["layer"]
  assert layer < 0.8 * none
  assert memory.remat_of(run, Limit(10 * none, "")).remat == "none"
  assert memory.remat_of(run, Limit(none, "")).remat == "layer", "the margin counts"
  choice = memory.remat_of(run, limit_between(layer, none))
  assert choice.remat == "layer" and {r: n.total for r, n in choice.needs.items()} == needs
  assert "chose layer" in str(choice) and "without rematerialisation" in str(choice)
  assert "on a test, of which 10% stay free" in str(choice)
  assert memory.remat_of(run, None).remat == "layer"


@pytest.mark.slow
def test_what_does_not_fit_is_told_what_would(run, needs):
  available = limit_between(0.6 * needs["layer"], needs["layer"])
  with pytest.raises(UserError, match="even with model.remat=layer") as caught:
    memory.remat_of(run, available)
  words = str(caught.value)
  assert "It fits with --config.model.remat=layer --config.train.accumulate=" in words
  parts = int(words.partition("accumulate=")[2].partition(",")[0])
  fitting = toy_run("joint_pair", 2, **{**LARGE, "train__accumulate": parts})
  assert memory.remat_of(fitting, available).remat == "layer"
  smaller = toy_run("joint_pair", 2, **{**LARGE, "train__accumulate": parts // 2})
  assert not available.holds(memory.step_need(memory.with_remat(smaller, "layer")))
  with pytest.raises(UserError, match="Choose a smaller model"):
    memory.remat_of(run, Limit(1000, ""))


@pytest.mark.slow
def test_an_evaluation_that_does_not_fit_gets_smaller_batches():
  run = toy_run("joint_pair", 2, eval__batch_size=1024)
  most = memory.evaluation_need(run).total // 4
  flags, need = memory.remedy(run, lambda each: each.total <= most)
  assert flags.startswith("--config.eval.batch_size=") and need.total <= most
  size = int(flags.partition("=")[2])
  twice = toy_run("joint_pair", 2, eval__batch_size=2 * size)
  assert memory.evaluation_need(twice).total > most


@pytest.mark.parametrize("system", ["joint_pair", "meta_adpt", "pcgrad"])
def test_the_rungs_of_the_ladder_are_legal_and_start_with_what_keeps_the_results(system):
  fields = dict(train__batch_size=8, meta__batch_size=4)
  run = toy_run(system, 2, **fields)
  rungs = list(memory._rungs(run))
  assert rungs[0][0] == ["--config.model.remat=layer"]
  kinds = []
  for flags, changed in rungs:
    given = dict(fields)
    for flag in flags:
      name, _, value = flag.removeprefix("--config.").partition("=")
      given[name.replace(".", "__")] = int(value) if value.isdigit() else value
    assert toy_run(system, 2, **given) == changed
    kinds.append(flags[-1].partition("=")[0])
  assert list(dict.fromkeys(kinds)) == [
    "--config.model.remat",
    "--config.train.accumulate",
    "--config.model.dtype",
    *(["--config.meta.batch_size"] if system == "meta_adpt" else []),
  ]


@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("joint_pair", {}),
    pytest.param("meta_adpt", {}, marks=pytest.mark.slow),
    pytest.param("meta_adpt", dict(meta__variant="release"), marks=pytest.mark.slow),
    pytest.param("pcgrad", {}, marks=pytest.mark.slow),
    pytest.param("adpt", dict(train__phi_split="meta"), marks=pytest.mark.slow),
    pytest.param("adpt", dict(train__freeze_theta=True), marks=pytest.mark.slow),
  ],
)
def test_a_step_that_was_looked_at_is_not_compiled_again(system, fields, data_dir):
  run = toy_run(system, 2, data__dir=data_dir, **fields)
  memory.step_need(run)
  sampler = pretrain.prepare(run, lambda line: None).sampler
  state = parallel.replicate(pretrain.first_state(run, None))
  batch = parallel.split(sampler.batch(0))
  with counted_compilations() as compiled:
    rate = optim.learning_rate(run.schedule, 0)
    jax.block_until_ready(
      steps.make_train_step(run)(state, batch, rate, np.int32(0), sampler.held_out_languages(0))
    )
  assert not compiled


def test_a_run_keeps_its_choice_on_another_device_and_ends_as_if_it_had_been_asked(
  data_dir, tmp_path, monkeypatch
):
  config = functools.partial(toy_config, "joint_pair", data__dir=data_dir, train__steps=4)
  said = []
  work = functools.partial(runner.run, pretrain.KIND, say=said.append)
  asked = work(config(model__remat="layer"), tmp_path / "asked")
  monkeypatch.setattr(memory, "limit", lambda: Limit(1 << 40, "on a test"))
  chosen = tmp_path / "none" / "chosen.json"
  assert work(config(model__remat="auto"), tmp_path / "none")["remat"] == "none"
  assert read_json(chosen, "") == {"model.remat": "none"}
  assert sum("model.remat=auto chose none" in line for line in said) == 1
  folder = tmp_path / "layer"
  folder.mkdir()
  write_json(folder / "chosen.json", {"model.remat": "layer"})
  with pytest.raises(UserError):  # a folder without config.json holds no run
    work(config(model__remat="auto"), folder)
  write_json(folder / "config.json", config(model__remat="auto").to_dict())
  result = work(config(model__remat="auto"), folder)
  assert result == asked and result["remat"] == "layer"
  assert any("model.remat=auto stays layer" in line for line in said)
  states = [
    pretrain.Checkpoints(path, 2).restore_step(
      4, parallel.replicate(pretrain.first_state(options.from_config(config(), 2), None))
    )
    for path in (tmp_path / "asked", folder)
  ]
  assert_same_bits(*states)
  write_json(folder / "chosen.json", {"model.remat": "all"})
  (folder / "result.json").unlink()
  with pytest.raises(UserError, match="chosen.json is damaged"):
    work(config(model__remat="auto"), folder)


def test_a_run_that_no_longer_fits_resumes_with_rematerialisation(run, tmp_path):
  """It says so and records it; a run that fits, or of which nothing is known, keeps its choice."""
  need = memory.Need(1, 1, 1, 1, 1)
  fits, smaller = (memory.Choice(remat, {remat: need}, Limit(9, "")) for remat in options.REMATS)
  unknown = memory.Choice("layer", {}, None)
  said = []
  place = runner.Place(tmp_path, Interruption(), said.append)

  def remat(found):
    return auto_remat.chosen(run.model, place, found).remat

  write_json(tmp_path / "chosen.json", {"model.dtype": "float16", "model.remat": "none"})
  for choice in (fits, unknown):
    assert remat(lambda choice=choice: choice) == "none"
    assert "stays none" in said.pop()
  assert remat(lambda: smaller) == "layer"
  assert "began with none, which does not fit here. It resumes with layer" in said.pop()
  kept = {"model.dtype": "float16", "model.remat": "layer"}
  assert read_json(tmp_path / "chosen.json", "") == kept
  assert remat(lambda: pytest.fail("rematerialisation is the least that a step takes")) == "layer"


@pytest.mark.slow
def test_what_helps_a_run_that_chose_no_rematerialisation_is_rematerialisation(
  run, needs, monkeypatch
):
  """Where the figures fit and memory ran out all the same."""
  monkeypatch.setattr(memory, "limit", lambda: Limit(10 * needs["none"], "on a test"))
  [(flags, share)] = memory.remedies(run, print)
  assert flags.startswith("--config.model.remat=layer") and share < 0.8


def test_one_process_of_several_that_runs_out_of_memory_asks_no_other(run, monkeypatch):
  """The others may wait in a step, and would never answer; a compiler for GPUs asks them, too."""

  class Asked(Exception):
    pass

  def ask(*arguments):
    raise Asked

  available = Limit(1 << 40, "on a test")
  monkeypatch.setattr(memory, "limit", lambda: available)
  monkeypatch.setattr(parallel, "num_processes", lambda: 2)
  with monkeypatch.context() as patch:
    patch.setattr(parallel, "everywhere", ask)
    patch.setattr(jax.stages.Lowered, "compile", ask)
    assert memory.remedies(run, pytest.fail) == [("--config.train.accumulate=2", 0.5)]
    smallest = toy_run("joint_pair", 2, train__batch_size=2)
    assert memory.remedies(smallest, pytest.fail) == []
    with pytest.raises(Asked):  # the patch is where a compilation passes
      memory.step_need(run)
  monkeypatch.setattr(parallel, "everywhere", ask)
  with pytest.raises(Asked):  # when a run begins, all processes choose together
    memory.remat_of(run, available)


def test_what_is_waited_for_is_said_once_and_first(run, monkeypatch):
  """Before anything is compiled for the advice; not where there is nothing to look for."""
  happened = []

  def step_need(_):
    happened.append("compiled")
    return memory.Need(1, 1, 1, 1, 1)

  for name in ("step_need", "evaluation_need"):
    monkeypatch.setattr(memory, name, step_need)
  monkeypatch.setattr(memory, "limit", lambda: Limit(1 << 40, "on a test"))
  for look in (
    lambda: memory.remedies(run, happened.append),
    lambda: memory.advice(run, Limit(1, ""), happened.append),
  ):
    happened.clear()
    look()
    assert happened[0] == memory.LOOKING and set(happened[1:]) == {"compiled"}
  happened.clear()
  memory.remat_of(run, Limit(1 << 40, ""), happened.append)
  assert happened == ["compiled"], "it fits"
  with pytest.raises(UserError) as caught:
    memory.remat_of(run, Limit(1, ""), happened.append)
  assert happened.count(memory.LOOKING) == 1 and memory.LOOKING not in str(caught.value)
  monkeypatch.setattr(memory, "limit", lambda: Limit(1000, "on a test"))
  assert memory.remedies(run, pytest.fail) == [], "no option shrinks the state"


def test_what_auto_means_after_an_error_is_what_it_meant_at_the_start(run, needs):
  limits = [Limit(10 * needs["none"], ""), limit_between(needs["layer"], needs["none"]), None]
  for available in limits:
    assert memory._by_limit(run, available) == memory.remat_of(run, available).remat
  assert memory._by_limit(run, Limit(1000, "")) == "layer", "nothing fits"


@pytest.mark.slow
def test_what_trains_from_a_run_chooses_for_its_own_steps(data_dir, tmp_path, monkeypatch):
  """A model of an `auto` run leaves the choice open: a fine-tuning has other batches and devices."""
  base = tmp_path / "base"
  config = toy_config("joint_pair", data__dir=data_dir, model__remat="auto")
  runner.run(pretrain.KIND, config, base, lambda line: None)
  tuning = toy_tuning(ner.get_config("lab,zero_shot"), base)
  tuning.data.max_length, tuning.train.epochs = 24, 1
  similarity = similarity_config.get_config("lab")
  similarity.update(init_from=str(base), sentences=8, batch_size=4, repeats=1)
  masks = pruning_config.get_config("lab")
  masks.update(init_from=str(base), steps=2, batch_size=4, seeds=1)
  found = {}
  for remat, limit in (("none", Limit(1 << 40, "on a test")), ("layer", None)):
    monkeypatch.setattr(memory, "limit", lambda limit=limit: limit)
    for kind, each in (
      (finetune.KIND, tuning),
      (gradient_similarity.KIND, similarity),
      (pruning.KIND, masks),
    ):
      folder = tmp_path / f"{each.task}-{remat}"
      found[each.task, remat] = runner.run(kind, each, folder, lambda line: None)
      assert read_json(folder / "chosen.json", "") == {"model.remat": remat}
  assert [found["ner", remat]["remat"] for remat in options.REMATS] == ["none", "layer"]
  for task in ("gradient_similarity", "pruning"):
    assert found[task, "none"].keys() == found[task, "layer"].keys()
