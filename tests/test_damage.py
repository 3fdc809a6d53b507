"""Kills, full disks and damaged files: the same command ends with the same numbers or one sentence.

All of it happens to one small chain of runs (damage_chain.py): corpora, tokens, pretraining,
fine-tuning and pruning. The whole file takes about five minutes on two cores.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import damage_chain
import numpy as np
import pytest
from damage_chain import BASE, PRUNED, RUNS, TUNED
from toy import memoised

from negint.data.token_cache import damage
from negint.errors import UserError
from negint.finetuning import programs
from negint.method import steps

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
# 20 kills: the phase that must have begun, and how often.
KILLS = {
  "prepare": 3,
  "write": 2,
  "tokenise": 3,
  "train": 4,
  "evaluate": 2,
  "fine-tune": 3,
  "prune": 3,
}


@pytest.fixture(scope="module", autouse=True)
def programs_compiled_once():
  with (
    memoised(steps, "make_train_step", "make_eval_step"),
    memoised(programs, "make_tune_step", "make_predictor"),
  ):
    yield


def start(folder):
  folder.mkdir(exist_ok=True)
  path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
  return subprocess.Popen(
    [sys.executable, str(ROOT / "tests" / "damage_chain.py")],
    cwd=folder,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
  )


def finish(folder):
  """Runs the chain to its end; returns [(phase, seconds since the phase before)]."""
  times = [("", time.monotonic())]
  with start(folder) as process:
    times += [(line.strip(), time.monotonic()) for line in process.stdout]
    errors = process.stderr.read()
  assert process.returncode == 0 and "Traceback" not in errors, errors
  return [(times[i][0], times[i + 1][1] - times[i][1]) for i in range(1, len(times) - 1)]


def results(folder):
  return {run: json.loads((folder / run / "result.json").read_text()) for run in RUNS}


def test_twenty_kills_at_random_moments_change_no_number(tmp_path):
  lasted = dict(finish(tmp_path / "whole"))
  rng, moments = np.random.default_rng(), []
  for phase, count in KILLS.items():
    for _ in range(count):
      with start(tmp_path / "killed") as process:
        for line in process.stdout:
          if line.strip() == phase:
            break
        # The end of a phase may have come before; then the kill meets what follows it, or nothing.
        moments.append((phase, float(rng.uniform(0, 0.7 * lasted[phase]))))
        time.sleep(moments[-1][1])
        process.kill()
  assert len(moments) == 20
  finish(tmp_path / "killed")
  assert results(tmp_path / "killed") == results(tmp_path / "whole"), moments
  left = [path.name for path in (tmp_path / "killed").rglob("*.tmp*")]
  assert not [name for name in left if "orbax" not in name], "unfinished files of our own stay"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A finished chain, and what its runs returned."""
  folder = tmp_path_factory.mktemp("whole")
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    found = {workdir: damage_chain.run(workdir) for workdir in RUNS}
  return folder, found


def damaged(contents, how):
  noise = np.random.default_rng(len(contents)).bytes(len(contents))
  return {"cut": contents[: len(contents) // 2], "empty": b"", "noise": noise}[how]


def files_in(folder):
  """Files that a run reads; locks and TensorBoard's events are only written."""
  return sorted(
    path
    for path in folder.rglob("*")
    if path.is_file() and path.stat().st_size and "tensorboard" not in path.parts
  )


def outcome(workdir, expected):
  """What the same command does: "same", "sentence", or a description of what must not happen."""
  said = []
  try:
    found = damage_chain.run(workdir, said.append)
  except UserError as error:
    named = any(name in str(error) for name in ("data/", str(BASE), str(workdir)))
    return "sentence" if "\n" not in str(error) and named else f"unclear: {error}"
  except Exception as error:  # a traceback for the user
    return f"{type(error).__name__}: {str(error)[:200]}"
  return "same" if found == expected else f"other numbers, after {said}"


def disturb(whole, copy, patch, read, workdir, finished):
  """Damages each file below `read` in turn and runs the same command again; returns what happened.

  Args:
    whole: the fixture.
    copy: a folder for the damaged chain.
    patch: pytest's monkeypatch.
    read: folder of the chain whose files are damaged.
    workdir: the run that reads them.
    finished: whether the run had ended before.
  """
  folder, found = whole
  happened = {}
  copy.mkdir(exist_ok=True)
  patch.chdir(copy)
  for number, original in enumerate(files_in(folder / read)):
    name = original.relative_to(folder)
    hows = ["cut", "empty", "noise"]
    if (
      "checkpoints" in name.parts or "masks" in name.parts
    ):  # many files: some of them, one way each
      hows = [hows[number % 3]] if number % 4 == 0 else []
    for how in hows:
      for part in {read.parts[0], "runs"} if finished else {"data", "runs"}:
        shutil.rmtree(copy / part, ignore_errors=True)
        shutil.copytree(folder / part, copy / part, ignore=shutil.ignore_patterns("tensorboard"))
      if not finished:
        (copy / workdir / "result.json").unlink()
      if not (copy / name).exists():
        continue
      (copy / name).write_bytes(damaged(original.read_bytes(), how))
      happened[str(name), how] = outcome(workdir, found[workdir])
  return happened


def assert_never_silent(happened):
  wrong = {at: what for at, what in happened.items() if what not in ("same", "sentence")}
  assert happened and not wrong, wrong


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("workdir", list(RUNS), ids=lambda path: path.name)
def test_every_damaged_file_of_a_run(whole, tmp_path, monkeypatch, workdir, finished):
  happened = disturb(whole, tmp_path / "copy", monkeypatch, workdir, workdir, finished)
  assert_never_silent(happened)


def test_every_damaged_file_of_a_corpus(whole, tmp_path, monkeypatch):
  copy = tmp_path / "copy"
  happened = disturb(whole, copy, monkeypatch, pathlib.Path("data", "lab"), BASE, False)
  assert_never_silent(happened)
  assert list(happened.values()).count("sentence") >= 3 * 2 * 5  # languages, files of TFDS


def test_every_damaged_file_of_a_token_cache_is_made_anew(whole, tmp_path, monkeypatch):
  copy = tmp_path / "copy"
  happened = disturb(whole, copy, monkeypatch, pathlib.Path("data", "tokens"), BASE, False)
  assert set(happened.values()) == {"same"} and len(happened) == 3 * (6 + 3)


def test_a_stream_cut_on_disk_would_change_the_numbers(whole, tmp_path, monkeypatch):
  """Negative control: with the check of files switched off, other numbers come out silently."""
  monkeypatch.setattr("negint.data.token_cache.damage", lambda folder: None)
  assert damage is not None
  folder, found = whole
  shutil.copytree(folder, tmp_path / "copy")
  monkeypatch.chdir(tmp_path / "copy")
  (stream,) = pathlib.Path("data", "tokens").glob("*/xb-valid.tokens")
  stream.write_bytes(stream.read_bytes()[:600])
  (BASE / "result.json").unlink()
  assert outcome(BASE, found[BASE]).startswith("other numbers")


@pytest.mark.parametrize("workdir", [TUNED, PRUNED], ids=lambda path: path.name)
def test_every_damaged_file_of_the_model_that_a_run_starts_from(
  whole, tmp_path, monkeypatch, workdir
):
  happened = disturb(whole, tmp_path / "copy", monkeypatch, BASE, workdir, False)
  assert_never_silent(happened)


@pytest.fixture
def small_disk(tmp_path):
  """A function from a size in KiB to a folder of that size, which it can also make larger."""
  folder = tmp_path / "disk"
  folder.mkdir()

  def mount(kilobytes, again=False):
    options = f"size={kilobytes}k" + ",remount" * again
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
      subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
      pytest.skip(f"a small file system cannot be mounted here: {error}")
    return folder

  yield mount
  subprocess.run(["umount", str(folder)], check=False, capture_output=True)


FULL_DISK = """
import os, sys, pathlib
import damage_chain
from negint import command_line, main
def work():
  kind, make_config = damage_chain.RUNS[damage_chain.BASE]
  class Flag:
    value = make_config()
  class Workdir:
    value = str(damage_chain.BASE)
  main.CONFIG, main.WORKDIR = Flag, Workdir
  main._config_spec, main.config_file.defaults = str, lambda spec: Flag.value
  main.main()
command_line.run("negint", work, example="--config=x")
"""


@pytest.mark.parametrize("kilobytes", [200, 700, 1100])
def test_a_full_disk_is_one_sentence_and_room_for_more_ends_the_run(small_disk, kilobytes, whole):
  """The disk fills while corpora are written, tokens, or checkpoints."""
  path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
  environment = {**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
  folder = small_disk(kilobytes)

  def run():
    return subprocess.run(
      [sys.executable, "-c", FULL_DISK],
      cwd=folder,
      env={**environment, "JAX_NUM_CPU_DEVICES": "2"},
      capture_output=True,
      text=True,
    )

  done = run()
  assert done.returncode == 2, done.stderr
  said = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
  bars = ("step/s", "char/s", "?step", "?char", "joint_pair:", "tokenising:")
  (sentence,) = [line for line in said if not any(word in line for word in bars)]
  assert sentence.startswith("negint: ") and ("space" in sentence or "No space" in done.stderr)
  small_disk(40_000, again=True)
  done = run()
  assert done.returncode == 0, done.stderr
  assert json.loads((folder / BASE / "result.json").read_text()) == whole[1][BASE]
