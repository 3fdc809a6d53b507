"""Several processes form one run: the numbers of one process, stopping, losing one, resuming.

Run as a script, the file is one of the processes: it makes the pretraining runs it is told of.
"""

import contextlib
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from absl.testing import flagsaver
from toy import assert_same_bits, has_logged, relative_difference, toy_config, wait_until

from negint import main, pretrain
from negint.errors import UserError
from negint.method import parallel
from negint.method.state import init_state
from negint.run import runner
from negint.run import workdir as workdir_lib
from negint.run.checkpoint import Checkpoints
from negint.run.records import read_metrics

ROOT = pathlib.Path(__file__).parent.parent
SLURM_PORTS = 65536 - 4096  # the first
SMALL = dict(
  model__num_layers=1, model__dropout=0.0, train__steps=4, meta__batch_size=4, checkpoint__keep=4
)
# Of a result: what rounding may change, where processes sum in another order.
MEASURED = {
  "perplexity",
  "meta_perplexity",
  "bits_per_character",
  "unigram_perplexity",
  "second_order_share",
}
LONG = dict(train__steps=80, model__dropout=0.1, checkpoint__every=10, log__every=5, eval__every=40)
# Gradients that are zero but for rounding (the keys' biases) move Adam by the sign of the rounding.
SMALL["train__eps"] = 1e-4


class Process:
  """Process `number` of `count`, with `devices` CPU devices of its own."""

  def __init__(self, number, count, port, arguments, devices, slurm):
    environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(devices),
      "PYTHONPATH": str(ROOT),
    }
    where = [
      f"--coordinator=127.0.0.1:{port}",
      f"--num_processes={count}",
      f"--process_id={number}",
    ]
    if slurm:
      environment |= {
        "SLURM_JOB_ID": str(port - SLURM_PORTS),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": str(count),
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
      }
      where = []
    self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115 (closed below)
    self.popen = subprocess.Popen(
      [sys.executable, *arguments, *where],
      cwd=ROOT,
      env=environment,
      stdout=self._files[0],
      stderr=self._files[1],
    )

  def ended(self) -> bool:
    return self.popen.poll() is not None

  def end(self):
    """(exit code, stdout, stderr)."""
    self.popen.kill()
    code, texts = self.popen.wait(), []
    for file in self._files:
      file.seek(0)
      texts.append(file.read())
      file.close()
    return code, *texts


def start(count, arguments, devices, slurm=False):
  port = free_port()
  return [Process(number, count, port, arguments, devices, slurm) for number in range(count)]


def free_port() -> int:
  """One of those that JAX derives from the numbers of SLURM's jobs."""
  while True:
    port = SLURM_PORTS + random.randrange(65536 - SLURM_PORTS)
    with socket.socket() as sock, contextlib.suppress(OSError):
      sock.bind(("127.0.0.1", port))
      return port


def ends(processes, timeout=300):
  """[(exit code, stdout, stderr)]; what is still there after `timeout` seconds is a failure."""
  wait_until(lambda: all(process.ended() for process in processes), seconds=timeout)
  late = [number for number, process in enumerate(processes) if not process.ended()]
  ends = [process.end() for process in processes]
  assert not late, f"process(es) {late} did not end: {ends}"
  return ends


def pretrain_by(count, devices, runs):
  """`runs`, a list of (system, fields, workdir), by `count` processes that start once."""
  runs = json.dumps([(system, fields, str(workdir)) for system, fields, workdir in runs])
  for code, _, errors in ends(start(count, [__file__, runs], devices)):
    assert code == 0, errors


def be_a_process(runs, coordinator, count, number):
  parallel.start(coordinator, count, number)
  for system, fields, workdir in runs:
    runner.run(pretrain.KIND, toy_config(system, **fields), pathlib.Path(workdir), print)


def state_of(system, fields, workdir):
  config = toy_config(system, **fields)
  run = pretrain.options.from_config(config, parallel.num_devices())
  like = parallel.replicate(init_state(run.model, run.optimiser, run.seed))
  checkpoints = Checkpoints(pathlib.Path(workdir), run.checkpoint_keep)
  state = checkpoints.restore(like, say=pytest.fail)
  checkpoints.close()
  return state


def tolerance(name):
  """Of a number up to rounding; the second-order term is a small difference of larger numbers."""
  return 1e-3 if name.startswith("meta/") or name == "second_order_share" else 1e-5


def assert_same_run(system, fields, workdir, other):
  """The same parameters, losses and perplexities up to rounding."""
  ours, theirs = (state_of(system, fields, each) for each in (workdir, other))
  assert int(ours.step) == int(theirs.step) == fields["train__steps"]
  assert relative_difference(ours.theta, theirs.theta) < 1e-5
  if ours.phi:
    assert relative_difference(ours.phi, theirs.phi) < 1e-5
  ours, theirs = (read_metrics(each / "metrics.jsonl") for each in (workdir, other))
  assert [sorted(record) for record in ours] == [sorted(record) for record in theirs]
  for record, expected in zip(ours, theirs, strict=True):
    for name in expected.keys() - {"tokens_per_second"}:
      assert record[name] == pytest.approx(expected[name], rel=tolerance(name)), name
  ours, theirs = (json.loads((each / "result.json").read_text()) for each in (workdir, other))
  ours.pop("device"), theirs.pop("device")
  for name in theirs.keys() & MEASURED:
    assert ours.pop(name) == pytest.approx(theirs.pop(name), rel=tolerance(name)), name
  assert ours == theirs


def cut_back(workdir, copy, step):
  """A copy of a finished run as it was when it had saved `step`."""
  shutil.copytree(workdir, copy)
  (copy / "result.json").unlink()
  for folder in (copy / "checkpoints").iterdir():
    if folder.name.isdigit() and int(folder.name) > step:
      shutil.rmtree(folder)
  return copy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("distributed")


@pytest.fixture(scope="module")
def fields(folder):
  return SMALL | {"data__dir": str(folder / "data")}


@pytest.fixture(scope="module")
def one(folder, fields):
  """Both systems by this process alone."""
  for system in ("joint_pair", "meta_adpt"):
    runner.run(pretrain.KIND, toy_config(system, **fields), folder / "one" / system, print)
  return folder / "one"


@pytest.fixture(scope="module")
def two(folder, fields, one):
  """The same by two processes of two devices; one's run gone on with; and a longer run."""
  two, fresh = folder / "two", fields | {"data__dir": str(folder / "data_of_two")}
  cut_back(one / "joint_pair", two / "from_one", 2)
  runs = [
    ("joint_pair", fresh, two / "joint_pair"),  # on data that they make
    ("meta_adpt", fields, two / "meta_adpt"),
    ("joint_pair", fields, two / "from_one"),
    ("joint_pair", fields | LONG, two / "long"),
  ]
  pretrain_by(2, 2, runs)
  return two


@pytest.fixture(scope="module")
def four(folder, fields, two):
  """By four processes of a device: a run of their own, and two's gone on with."""
  four, fresh = folder / "four", fields | {"data__dir": str(folder / "data_of_two")}
  cut_back(two / "joint_pair", four / "from_two", 2)
  runs = [("meta_adpt", fields, four / "meta_adpt"), ("joint_pair", fresh, four / "from_two")]
  pretrain_by(4, 1, runs)
  return four


@pytest.mark.slow
@pytest.mark.parametrize("system", ["joint_pair", "meta_adpt"])
def test_two_processes_do_what_one_does(system, one, two, fields):
  assert_same_run(system, fields, two / system, one / system)


@pytest.mark.slow
def test_four_processes_do_what_one_does(one, four, fields):
  assert_same_run("meta_adpt", fields, four / "meta_adpt", one / "meta_adpt")


@pytest.mark.slow
@pytest.mark.parametrize("gone_on_with", ["two/from_one", "four/from_two"])
def test_a_run_goes_on_with_more_processes(gone_on_with, folder, one, two, four, fields):
  assert_same_run("joint_pair", fields, folder / gone_on_with, one / "joint_pair")


@pytest.mark.slow
def test_a_run_of_two_processes_goes_on_with_one(one, two, fields, tmp_path):
  alone, said = cut_back(two / "meta_adpt", tmp_path / "alone", 2), []
  runner.run(pretrain.KIND, toy_config("meta_adpt", **fields), alone, said.append)
  assert any("Resuming at step 2 of 4" in line for line in said)
  assert_same_run("meta_adpt", fields, alone, one / "meta_adpt")


@pytest.mark.slow
def test_the_parameters_moved(one, fields):
  """Negative control of the comparisons above."""
  run = pretrain.options.from_config(toy_config("meta_adpt", **fields), 1)
  start = init_state(run.model, run.optimiser, run.seed)
  state = state_of("meta_adpt", fields, one / "meta_adpt")
  assert relative_difference(state.theta, start.theta) > 1e-3
  assert relative_difference(state.phi, start.phi) > 1e-3


def command(config, workdir):
  """The command line that makes this joint_pair run: a flag for each field that is not default."""
  default = importlib.import_module("configs.joint_pair").get_config("lab")
  differing = workdir_lib._differences(default.to_dict(), config.to_dict())
  return [
    *("-m", "negint.main", "--config=configs/joint_pair.py:lab", f"--workdir={workdir}"),
    *(f"--config.{name}={value}" for name, (_, value) in differing.items()),
    "--distributed",
  ]


def wait_for_step(workdir, step, processes):
  ended = lambda: any(process.ended() for process in processes)  # noqa: E731
  if not wait_until(lambda: has_logged(workdir, step), ended):
    pytest.fail(f"the run did not reach step {step}: {[process.end() for process in processes]}")


@pytest.mark.slow
def test_stopped_and_bereaved_runs_end_like_an_undisturbed_one(two, fields, tmp_path):
  """The command line: SIGTERM to one of two processes, SIGKILL to one, then to the end by SLURM."""
  arguments = command(toy_config("joint_pair", **fields | LONG), tmp_path / "run")
  processes = start(2, arguments, 2)
  wait_for_step(tmp_path / "run", 15, processes)
  processes[1].popen.send_signal(signal.SIGTERM)
  (code, _, errors), (other_code, _, other_errors) = ends(processes, 60)
  assert code == other_code == 75, errors + other_errors
  sentences = [line for line in (errors + other_errors).splitlines() if "negint: " in line]
  assert len(sentences) == 1 and "stopped by SIGTERM" in sentences[0]
  assert "start the same command again" in sentences[0]
  stopped_at = int(sentences[0].split(" at step ")[1].split()[0])
  assert stopped_at >= 15 and (tmp_path / "run" / "checkpoints" / str(stopped_at)).is_dir()

  processes = start(2, arguments, 2)
  wait_for_step(tmp_path / "run", 45, processes)
  processes[0].popen.kill()
  (_, output, _), (code, _, errors) = ends(processes, 60)
  assert f"Resuming at step {stopped_at} of 80" in output
  assert code != 0 and ("another process" in errors or "another task died" in errors)

  (code, output, errors), (other_code, silence, other_errors) = ends(
    start(2, arguments, 2, slurm=True)
  )
  assert code == other_code == 0, errors + other_errors
  assert "Resuming at step" in output and "perplexity" in output
  assert "Going on" not in silence and "perplexity" not in silence and "step/s" not in other_errors
  both = two / "long", tmp_path / "run"
  assert_same_bits(*(state_of("joint_pair", fields | LONG, each) for each in both))
  for name in ("config.json", "data.json", "result.json"):
    assert len({(each / name).read_text() for each in both}) == 1
  ours, theirs = ({r["step"]: r for r in read_metrics(each / "metrics.jsonl")} for each in both)
  for step in (60, 70, 80):
    ours[step].pop("tokens_per_second", None), theirs[step].pop("tokens_per_second", None)
    assert ours[step] == theirs[step]


JOINT = "--config=configs/joint_pair.py:lab"
ALL_THREE = ["--coordinator=127.0.0.1:9", "--num_processes=2"]


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    ([JOINT, "--num_processes=2"], ["--num_processes", "add --distributed"]),
    ([JOINT, "--distributed"], ["SLURM", "srun", "--coordinator=<host>:<port>"]),
    (
      [JOINT, "--distributed", "--coordinator=node01:9"],
      ["--coordinator", "--num_processes", "--process_id"],
    ),
    (
      [JOINT, "--distributed", "--coordinator=node01", "--num_processes=2", "--process_id=0"],
      ["--coordinator=node01", "<host>:<port>"],
    ),
    ([JOINT, "--distributed", *ALL_THREE, "--process_id=2"], ["--process_id=2", "from 0 to"]),
    (
      ["--config=configs/ner.py:lab", "--distributed", "--config.init_from=x"],
      ["--distributed", "pretraining", "'ner'"],
    ),
  ],
)
def test_a_mistake_in_the_flags_is_one_sentence(flags, words, monkeypatch):
  for name in [name for name in os.environ if name.startswith("SLURM")]:
    monkeypatch.delenv(name)
  with flagsaver.flagsaver(), pytest.raises(UserError) as caught:
    monkeypatch.setattr(sys, "argv", ["main", *flags])  # where ml_collections looks for overrides
    main.flags.FLAGS(sys.argv)
    main.check_flags()
  assert all(word in str(caught.value) for word in words)


def test_an_agreement_of_one_process_is_its_own_number():
  agree = parallel.Agreement()
  assert [agree(0), agree(15), agree(0)] == [0, 15, 0]


def test_a_batch_is_cut_into_one_share_a_device():
  rows = np.arange(12).reshape(6, 2)
  assert parallel.split({"x": rows})["x"].tolist() == rows.reshape(2, 3, 2).tolist()


if __name__ == "__main__":
  runs, *flags = sys.argv[1:]
  coordinator, count, number = (flag.partition("=")[2] for flag in flags)
  be_a_process(json.loads(runs), coordinator, int(count), int(number))
