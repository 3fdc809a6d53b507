"""Plans: what they say, that they leave nothing behind, and that they come near the truth."""

import time

import pytest
from toy import memoised, slow, toy_config, toy_tuning

from configs import gradient_similarity as similarity_config
from configs import ner
from configs import pruning as pruning_config
from negint import options, pretrain
from negint.analysis import gradient_similarity, gradients, pruning
from negint.finetuning import finetune, programs
from negint.method import flops, memory, steps
from negint.method.memory import Limit
from negint.plan import measure, of_run, plan, pretraining
from negint.run import runner


@pytest.fixture(scope="module", autouse=True)
def quick():
  """Steps are timed for no longer than they must be, and programs compiled once."""
  with (
    memoised(steps, "make_train_step", "make_eval_step"),
    memoised(programs, "make_tune_step", "make_predictor"),
    memoised(gradients, "make_gradient_step"),
    pytest.MonkeyPatch.context() as patch,
  ):
    patch.setattr(measure, "BUDGET", 0.1)
    patch.setattr(measure, "MATRIX", {"cpu": 64, "gpu": 64})
    yield


def contents(folder):
  return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def planned(kind, config, folder):
  return of_run.plan(kind.from_config(config, 2), folder, lambda line: None)


def test_a_plan_needs_no_corpora_and_leaves_nothing_behind(tmp_path):
  config = toy_config("joint_pair", data__dir=str(tmp_path / "data"), train__steps=10**6)
  found = planned(pretrain.KIND, config, tmp_path / "runs" / "run")
  assert contents(tmp_path) == []
  facts = dict(found.facts)
  assert "xb, xa not there yet (the run makes them" in facts["corpora"]
  assert f"{flops.step(options.from_config(config, 2)):.3g} FLOPs per step" in facts["arithmetic"]
  assert "it fits" in facts["memory"] and "of the" in facts["speed"]
  whole = {part.what: part.times for part in found.parts}
  assert whole["steps"] == 10**6 and whole["evaluations"] == 10**4
  assert found.seconds > sum(p.seconds for p in found.parts)
  text = plan.text(found)
  assert text.splitlines()[-1].startswith("time") and "1,000,000 steps" in text


def test_the_parts_are_those_of_the_run_and_of_what_is_left_of_it(tmp_path):
  run = options.from_config(
    toy_config("joint_pair", train__steps=10, checkpoint__every=4, eval__every=3), 2
  )
  times = pretraining.Times(1.0, 10.0, 100.0, 1000.0, 0.5)
  counts = {part.what: part.times for part in pretraining.parts(run, times)}
  assert counts == {
    "start": 1,
    "steps": 10,
    "evaluations": 4,  # at 3, 6, 9 and the end
    "measurements of gradients": 0,
    "checkpoints": 3,  # at 4, 8 and the end
  }
  (tmp_path / "checkpoints" / "8").mkdir(parents=True)
  assert pretraining.steps_done(tmp_path) == 8 and pretraining.steps_done(tmp_path / "none") == 0
  left = {part.what: part.times for part in pretraining.parts(run, times, 8)}
  assert (left["steps"], left["evaluations"], left["checkpoints"]) == (2, 2, 1)


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_not_timed_and_is_told_what_would(tmp_path, monkeypatch):
  fields = dict(model__num_layers=3, train__batch_size=64, data__dir=str(tmp_path / "data"))
  config = toy_config("joint_pair", eval__batch_size=4, **fields)
  run = options.from_config(config, 2)
  needs = [memory.step_need(memory.with_remat(run, remat)).total for remat in options.REMATS]
  limit = Limit(int(sum(needs) / 2 / (1 - memory.MARGIN)), "on a test")
  monkeypatch.setattr(memory, "limit", lambda: limit)
  found = planned(pretrain.KIND, config, tmp_path / "run")
  assert found.parts == () and found.need == needs[0]
  assert "DOES NOT FIT" in dict(found.facts)["memory"]
  assert "It fits with --config.model.remat=layer, which needs" in dict(found.facts)["memory"]
  config.model.remat = "auto"
  chosen = planned(pretrain.KIND, config, tmp_path / "run")
  assert chosen.parts and "auto chose layer" in dict(chosen.facts)["memory"]


@pytest.mark.slow
def test_the_memory_of_measuring_gradients_is_planned_too(tmp_path, monkeypatch):
  fields = dict(data__dir=str(tmp_path / "data"), gradient_similarity__every=10)
  fields |= dict(gradient_similarity__sentences=512)
  config = toy_config("joint_pair", gradient_similarity__batch_size=2, **fields)
  few = planned(pretrain.KIND, config, tmp_path / "run")
  config.gradient_similarity.batch_size = 512
  many = planned(pretrain.KIND, config, tmp_path / "run")
  assert many.need > 2 * few.need and few.parts and many.parts
  monkeypatch.setattr(memory, "limit", lambda: Limit((few.need + many.need) // 2, "on a test"))
  found = planned(pretrain.KIND, config, tmp_path / "run")
  assert found.parts == () and pretraining.LOWER_MEASUREMENTS in dict(found.facts)["memory"]


@pytest.fixture(scope="module")
def base(data_dir, tmp_path_factory):
  folder = tmp_path_factory.mktemp("base") / "run"
  config = toy_config("joint_pair", data__dir=data_dir)
  runner.run(pretrain.KIND, config, folder, lambda line: None)
  return folder


def tuning(base):
  config = toy_tuning(ner.get_config("lab,zero_shot"), base)
  config.data.max_length = 24
  return config


def similarity(base):
  config = similarity_config.get_config("lab")
  config.update(init_from=str(base), sentences=8, batch_size=4, repeats=2)
  return config


def masks(base):
  config = pruning_config.get_config("lab")
  config.update(init_from=str(base), steps=7, batch_size=4, seeds=2)
  return config


@pytest.mark.parametrize(
  ("kind", "make", "part", "times"),
  [
    slow(finetune.KIND, tuning, "updates", None),  # below
    slow(gradient_similarity.KIND, similarity, "measurements", 2),
    slow(pruning.KIND, masks, "updates", 28),  # 2 languages, 2 seeds
  ],
)
def test_what_starts_from_a_run_has_a_plan(base, tmp_path, kind, make, part, times):
  before = contents(base)
  found = planned(kind, make(base), tmp_path / "run")
  assert contents(tmp_path) == [] and contents(base) == before
  counts = {each.what: each.times for each in found.parts}
  if times is None:  # 2 epochs of rows that all have one width, 8 in a batch
    run = kind.from_config(make(base), 2)
    every = len(kind.prepare(run, lambda line: None).train.arrays["lengths"])
    rows = run.trials[0].epoch_size or every
    times = 2 * -(-rows // 8)
  assert counts[part] == times
  assert "it fits" in dict(found.facts)["memory"] and found.seconds > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretraining", "fine-tuning"])
def test_a_plan_is_near_the_duration_of_its_run(base, data_dir, tmp_path, monkeypatch, name):
  """Without the start, since the run finds the programs that the plan compiled.

  Within a factor of four, which a wrong unit or a forgotten part exceeds: tests beside this one take
  their share of the machine, at one time more than at another.
  """
  monkeypatch.setattr(measure, "BUDGET", 3.0)
  if name == "pretraining":
    kind, config = pretrain.KIND, toy_config("adpt", data__dir=data_dir, train__steps=500)
    config.checkpoint.every = config.eval.every = 250
    config.log.every = 20
  else:
    kind, config = finetune.KIND, tuning(base)
    config.train.epochs = 10
  found = planned(kind, config, tmp_path / "run")
  start = time.perf_counter()
  runner.run(kind, config, tmp_path / "run", lambda line: None)
  took = time.perf_counter() - start
  start_part = found.parts[0]
  assert start_part.what.startswith("start")
  assert 1 / 4 < (found.seconds - start_part.seconds) / took < 4, plan.text(found)


def test_a_part_that_was_not_measured_is_said_and_counts_nothing():
  parts = (plan.Part("start", 1, 2.0), plan.Part("checkpoints", 500, None))
  said = plan.text(plan.Plan("a run", (), parts))
  assert "2 s: start 2 s, 500 checkpoints (not measured" in said


def test_steps_are_timed_with_what_overlaps():
  taken = []

  def take():
    taken.append(time.sleep(0.01))
    return 0

  start = time.perf_counter()
  found = measure.seconds_of(take, 0.1)
  assert 0.01 <= found <= time.perf_counter() - start
  assert len(taken) > measure.FEWEST
