"""The life that all kinds of runs share, with a kind that adds numbers."""

import json
import os
import signal

import pytest
from ml_collections import ConfigDict

from negint.errors import Interrupted, UserError
from negint.run import runner
from negint.run.files import write_text


def make_kind(log, on_work=lambda place: None):
  """A kind of run that notes in `log` what was called, in order."""

  def from_config(config, num_devices):
    log.append("options")
    if config.first < 0:
      raise UserError(f"first is {config.first}; it must be at least 0.")
    assert num_devices >= 1
    return config.first, config.second

  def prepare(options, say):
    log.append("prepare")
    say("prepared")
    if options[1] == 0:
      raise UserError("second is 0; there is nothing to add.")
    return {"numbers": options}

  def work(options, inputs, place):
    log.append("work")
    assert (place.workdir / "config.json").exists() and inputs["numbers"] == options
    on_work(place)
    return {"sum": sum(options)}

  return runner.Kind(
    from_config,
    prepare,
    work,
    lambda result, workdir: f"{result['sum']} in {workdir}",
    lambda options, say: [(f"--config.first={options[0] // 2}", 0.5)],
  )


def config(**changes):
  return ConfigDict({"task": "add", "first": 1, "second": 2, "seed": 1, **changes})


def test_a_run_works_once_and_shows_its_result_again(tmp_path):
  log, said, folder = [], [], tmp_path / "run"
  kind = make_kind(log)
  assert runner.run(kind, config(), folder, said.append) == {"sum": 3}
  assert log == ["options", "prepare", "work"]
  assert said == ["prepared", f"3 in {folder}"]
  assert json.loads((folder / "result.json").read_text()) == {"sum": 3}
  assert runner.run(kind, config(), folder, said.append) == {"sum": 3}
  assert log == ["options", "prepare", "work", "options"], "a finished run only shows its result"
  assert said[2:] == [f"{folder} holds this run, finished. Its result:", f"3 in {folder}"]


@pytest.mark.parametrize("changes", [dict(first=-1), dict(second=0)])
def test_a_refused_run_claims_no_folder(tmp_path, changes):
  with pytest.raises(UserError):
    runner.run(make_kind([]), config(**changes), tmp_path / "run", lambda line: None)
  assert not (tmp_path / "run").exists()


def test_a_run_that_fails_has_no_result_and_starts_again(tmp_path):
  def fail(place):
    write_text(place.workdir / "half", "")
    raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    runner.run(make_kind([], fail), config(), tmp_path, lambda line: None)
  assert not (tmp_path / "result.json").exists() and (tmp_path / "half").exists()
  assert runner.run(make_kind([]), config(), tmp_path, lambda line: None) == {"sum": 3}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_asked_for_after_a_step_and_says_how_to_resume(tmp_path, number):
  before = signal.getsignal(number)

  def stop(place):
    assert place.interruption.asked() is None
    os.kill(os.getpid(), number)
    raise place.interruption.asked()

  with pytest.raises(
    Interrupted, match=f"stopped by {number.name}; the state is saved in .*resume"
  ):
    runner.run(make_kind([], stop), config(), tmp_path, lambda line: None)
  assert signal.getsignal(number) == before


def test_two_processes_cannot_share_a_folder(tmp_path):
  def again(place):
    runner.run(make_kind([]), config(), place.workdir, lambda line: None)

  with pytest.raises(UserError, match="Another process is running in"):
    runner.run(make_kind([], again), config(), tmp_path, lambda line: None)
