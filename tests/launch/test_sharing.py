"""Jobs share a machine: its cores, and the memory of its GPUs."""

import collections
import json
import subprocess
import sys

import pytest
from toy import toy_config

from launch.study import execute, planned, sharing
from launch.study.jobs import Job
from negint import options
from negint.errors import UserError
from negint.method import memory


@pytest.mark.parametrize(("count", "gpus"), [(4, 2), (5, 2), (8, 1), (3, 3), (7, 3)])
def test_slots_share_the_gpus_evenly_and_leave_a_part_of_each_free(count, gpus):
  slots = sharing.shares_of_gpus(count, gpus, {})
  of_gpu = collections.Counter(slot["CUDA_VISIBLE_DEVICES"] for slot in slots)
  assert set(of_gpu) == {str(gpu) for gpu in range(gpus)}
  assert max(of_gpu.values()) - min(of_gpu.values()) <= 1
  taken = collections.Counter()
  for slot in slots:
    taken[slot["CUDA_VISIBLE_DEVICES"]] += float(slot.get(sharing.FRACTION, 0))
  for gpu, share in taken.items():
    assert share <= sharing.TAKEN
    assert share > 0.98 * sharing.TAKEN or of_gpu[gpu] == 1, "one job has JAX's own share"


@pytest.mark.parametrize(
  "settings",
  [
    {sharing.FRACTION: "0.3"},
    {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
  ],
)
def test_the_users_memory_settings_and_gpus_are_kept(settings):
  environment = {"CUDA_VISIBLE_DEVICES": "5,7", **settings}
  slots = sharing.shares_of_gpus(4, 2, environment)
  assert [slot.pop("CUDA_VISIBLE_DEVICES") for slot in slots] == ["5", "7", "5", "7"]
  assert slots == [{}] * 4
  with pytest.raises(UserError, match="--gpus is 3, but CUDA_VISIBLE_DEVICES=5,7 names 2"):
    sharing.shares_of_gpus(4, 3, environment)


def test_preallocation_asked_for_is_no_setting_of_the_memory():
  slots = sharing.shares_of_gpus(2, 1, {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"})
  assert all(sharing.FRACTION in slot for slot in slots)


def test_without_gpus_named_jobs_share_the_memory_of_those_that_jax_finds():
  """Two processes at JAX's own share of three quarters would not fit one GPU."""
  assert sharing.shares_of_gpus(3, 0, {}) == [{sharing.FRACTION: "0.3"}] * 3
  assert sharing.shares_of_gpus(1, 0, {}) == [{}]
  assert sharing.shares_of_gpus(2, 0, {sharing.FRACTION: "0.2"}) == [{}] * 2


def test_a_job_starts_on_the_gpu_that_has_the_most_free_slots():
  slots = execute.Slots(6, 2)
  taken = [slots.take() for _ in range(6)]
  assert [slot % 2 for slot in taken] == [0, 1] * 3 and slots.free == 0
  for slot in taken:
    if slot % 2:
      slots.give_back(slot)
  assert slots.take() % 2 == 1
  slots.give_back(taken[0])
  assert slots.take() % 2 == 1, "two of its slots are free, one of the other GPU"


def test_as_many_jobs_as_the_memory_and_the_cores_allow():
  gib = 1 << 30
  assert sharing.jobs_that_fit(100 << 20, 16 * gib, gpus=1, cores=64) == sharing.MOST
  assert sharing.jobs_that_fit(100 << 20, 16 * gib, gpus=1, cores=4) == 4
  assert sharing.jobs_that_fit(100 << 20, 16 * gib, gpus=2, cores=6) == 6
  assert sharing.jobs_that_fit(5 * gib, 16 * gib, gpus=2, cores=64) == 4
  assert sharing.jobs_that_fit(40 * gib, 16 * gib, gpus=2, cores=64) == 2, "one each, at least"
  for need in (gib // 8, gib, 3 * gib, 6 * gib):
    count = sharing.jobs_that_fit(need, 80 * gib, gpus=1, cores=64)
    share = sharing.TAKEN / count * 80 * gib
    assert need <= (1 - memory.MARGIN) * share, "the share holds a job with its margin"


def test_an_explicit_number_wins_and_nothing_is_compiled_for_it(monkeypatch):
  monkeypatch.setattr(sharing, "probe", None)
  said = []
  assert sharing.jobs_at_once(3, [], 2, said.append) == 3
  assert sharing.jobs_at_once(None, [], 0, said.append) == sharing.JOBS
  assert said == []
  for jobs, gpus in ((0, 1), (1, -1)):
    with pytest.raises(UserError):
      sharing.check(jobs, gpus)


def job(system, **fields):
  flags = [f"--config.{name}={value}" for name, value in fields.items()]
  return Job(system, system, (f"--config=configs/{system}.py:lab", *flags))


def test_the_largest_job_decides_and_the_sentence_says_where_its_memory_was_counted(monkeypatch):
  jobs = [job("mono"), job("meta_adpt"), job("joint_pair")]
  assert sharing.largest_job(jobs).name == "meta_adpt"
  assert sharing.largest_job([]) is None
  asked, said = [], []
  for limit, words in ((80 << 30, "80 GiB of a GPU, and"), (None, "by a compilation for the CPU")):
    found = {"need": 1 << 30, "limit": limit}
    monkeypatch.setattr(sharing, "probe", lambda job, found=found: asked.append(job) or found)
    count = sharing.jobs_at_once(None, jobs, 1, said.append)
    assert count >= 1 and words in said[-1] and said[-1].startswith(f"{count} jobs at once")
  assert [each.name for each in asked] == ["meta_adpt"] * 2


@pytest.mark.slow
def test_the_probe_counts_what_the_run_would_take():
  fields = {"model.model_dim": 16, "model.head_dim": 4, "model.ffn_dim": 32}
  small = job("joint_pair", **fields)
  found = sharing.probe(small)
  run = options.from_config(small.config, num_devices=1)
  assert found["limit"] is None
  words = [sys.executable, "-m", "launch.study.probe"]
  text = small.config.to_json().encode()
  again = json.loads(subprocess.run(words, input=text, capture_output=True, check=True).stdout)
  assert again == found and run.model.model_dim == 16
  with pytest.raises(UserError, match="give --jobs"):
    sharing.probe(job("joint_pair", **{"model.model_dim": 0}))


def test_shapes_are_those_of_the_arithmetic_alone():
  def shape(**fields):
    return planned.of_steps(options.from_config(toy_config("meta_adpt", **fields), 1))

  same = dict(seed=2, train__steps=9, train__learning_rate=0.5, data__lab__similarity=0.1)
  assert shape(**same, checkpoint__every=2) == shape()
  for changed in (
    dict(train__batch_size=8),
    dict(meta__gradient="first_order"),
    dict(model__ffn_dim=48),
  ):
    assert shape(**changed) != shape()


@pytest.mark.slow
def test_a_study_is_planned_by_measured_steps(monkeypatch, tmp_path):
  monkeypatch.setattr(planned, "take_a_slot", lambda at_once, gpus: None)
  monkeypatch.setattr(planned, "BUDGET", 1.0)
  small = {"model.model_dim": 16, "model.head_dim": 4, "model.ffn_dim": 32, "train.steps": 50}
  models = [job("mono", **small), job("joint_pair", **small)]
  flags = ("--config.init_from=runs/joint_pair", "--config.data.lab_train=20")
  task = Job("ner", "ner", ("--config=configs/ner.py:lab,zero_shot", *flags), models[1], 9.0)
  text = planned.plan([*models, task], [*models, task], str(tmp_path / "runs"), at_once=2, gpus=0)
  for words in ("pretraining mono", "pretraining joint_pair", "fine-tuning ner", "3 jobs take"):
    assert words in text
  assert "with --jobs=2, at the speed" in text and not list(tmp_path.iterdir())


def test_a_probe_that_the_system_kills_asks_for_a_number_of_jobs(monkeypatch):
  killed = subprocess.CompletedProcess([], -9, stdout="", stderr="")
  monkeypatch.setattr(sharing.subprocess, "run", lambda *_, **__: killed)
  with pytest.raises(UserError, match="exit code -9.*--jobs"):
    sharing.probe(job("mono"))
