"""How every command line ends: a sentence for what the user can change, a traceback for a defect."""

import pathlib
import subprocess
import sys

import pytest

from negint import command_line, config_file
from negint.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import errno, os, signal
from negint import command_line
from negint.errors import *
def main():
  {body}
command_line.run("program", main, example="--a=b")
"""


def run(body, *arguments):
  """Runs a program whose main is `body`; returns (exit code, lines of stderr)."""
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM.format(body=body), *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
  ("body", "code", "line"),
  [
    ("raise UserError('steps is\\n 0; give more.')", 2, "program: steps is 0; give more."),
    ("raise NonFiniteLoss('the loss is nan')", 4, "program: the loss is nan"),
    ("raise Interrupted('stopped by SIGTERM')", 75, "program: stopped by SIGTERM"),
    ("os.kill(os.getpid(), signal.SIGTERM)", 75, "program: interrupted."),
    ("raise OSError(errno.ENOSPC, 'No space left', 'f')", 2, "No space left: 'f'"),
    ("open('/proc/self/status/x')", 2, "Not a directory"),
  ],
)
def test_what_the_user_can_change_is_one_sentence(body, code, line):
  returned, errors = run(body)
  assert returned == code and len(errors) == 1 and line in errors[0]


@pytest.mark.parametrize(
  ("body", "name"),
  [
    ("None.steps", "AttributeError"),
    ("1 + 'a'", "TypeError"),
    ("{}['steps']", "KeyError"),
    ("int('x')", "ValueError"),
    ("open('/nowhere/that/our/code/did/not/look/for')", "FileNotFoundError"),
    ("raise OSError('a library gave no number')", "OSError"),
  ],
)
def test_a_defect_shows_its_traceback(body, name):
  returned, errors = run(body)
  assert returned == 1
  assert "Traceback (most recent call last):" in errors and errors[-1].startswith(name)


def test_main_gives_the_exit_code_and_flags_are_checked_first():
  assert run("return 3") == (3, [])
  assert run("pass") == (0, [])
  assert run("raise ValueError", "more")[1] == [
    "program: 'more' is not a flag; flags look like --a=b."
  ]
  code, errors = run("raise ValueError", "--unknown=1")
  assert code == 2 and len(errors) == 1 and "unknown" in errors[0]


def config(folder, text):
  path = folder / "mine.py"
  path.write_text(text, encoding="utf-8")
  return str(path)


def test_a_mistake_in_an_override_names_the_field_and_the_legal_ones():
  with pytest.raises(UserError, match="config.train has no field 'stepps'.*Did you mean steps?"):
    config_file.load("configs/adpt.py:ar", ["--config.train.stepps=3"])
  with pytest.raises(UserError, match="config.seed has no field 'x'; it has none"):
    config_file.load("configs/adpt.py:ar", ["--config.seed.x=3"])
  for value in ("many", "0.5", "1e3", ""):
    with pytest.raises(UserError, match=f"steps is '{value}'; it must be a whole number, such as"):
      config_file.load("configs/adpt.py:ar", [f"--config.train.steps={value}"])
  with pytest.raises(UserError, match="--config.train.learning_rate is '1,5'; it must be a number"):
    config_file.check_command_line(
      ["--config=configs/adpt.py:ar", "--config.train.learning_rate=1,5"]
    )
  with pytest.raises(UserError, match="configs/nothing.py, which is not a file.*meta_adpt.py"):
    config_file.load("configs/nothing.py:ar")


def test_overrides_are_read_as_on_the_command_line():
  flags = [
    "--config.train.steps=7",
    "--config.data.subsample=3",
    "--config.train.learning_rate=1e-3",
  ]
  made = config_file.load("configs/ner.py:ar", ["--config.freeze_phi", "--verbosity=1"])
  assert made.freeze_phi is True
  assert config_file.load("configs/ner.py:ar", ["--config.freeze_phi=False"]).freeze_phi is False
  made = config_file.load("configs/adpt.py:ar", flags)
  assert (made.train.steps, made.data.subsample, made.train.learning_rate) == (7, 3, 1e-3)
  specific = "--config.model.specific=('adapter', 'ffn')"
  assert config_file.load("configs/adpt.py:ar", [specific]).model.specific == ("adapter", "ffn")


@pytest.mark.parametrize(
  ("argument", "plain"),
  [
    ("configs/adpt.py:lab,similarity=0.3,seed=4", "configs/adpt.py:lab"),
    ("configs/ner.py:ar,zero_shot,seed=4", "configs/ner.py:ar,zero_shot"),
    ("configs/pruning.py", "configs/pruning.py"),
  ],
)
def test_defaults_are_those_of_the_argument_without_its_changes(argument, plain):
  assert config_file.defaults(argument).to_dict() == config_file.load(plain).to_dict()


@pytest.mark.parametrize(
  ("text", "error"),
  [
    ("def get_config(arg):\n  return arg.steps", AttributeError),
    ("def get_config(arg):\n  return {}['steps']", KeyError),
    ("def get_config():\n  return None", TypeError),
    ("import nothing_of_this_name", ModuleNotFoundError),
  ],
)
def test_a_defect_of_a_config_file_keeps_its_type(tmp_path, text, error):
  with pytest.raises(error):
    config_file.load(config(tmp_path, text) + ":ar")


def test_main_shows_the_traceback_of_a_config_files_defect(tmp_path):
  path = config(tmp_path, "def get_config(arg=None):\n  return arg.steps")
  done = subprocess.run(
    [sys.executable, "-m", "negint.main", f"--config={path}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  assert f'File "{path}", line 2, in get_config' in done.stderr
  assert done.stderr.splitlines()[-1].startswith("AttributeError")


@pytest.mark.parametrize(
  ("body", "words"),
  [
    ("bytearray(1 << 50)", "program: Out of memory: an allocation failed, and there are"),
    ("import jax; jax.devices()", "program: JAX_PLATFORMS=cuda, but this jax finds no such device"),
    (
      "import jax.numpy as jnp; jnp.zeros(3)",
      "install the jax of that device, such as jax[cuda12]",
    ),
  ],
)
def test_what_the_machine_lacks_is_one_sentence(body, words, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cuda")  # a test runs on a CPU's build of jax
  returned, errors = run(body)
  assert returned == 2 and len(errors) == 1 and words in errors[0]


def test_an_unknown_platform_is_one_sentence(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "abacus")
  returned, errors = run("import jax; jax.devices()")
  assert returned == 2 and len(errors) == 1 and "'abacus' is not in the list" in errors[0]


def test_the_home_folder_is_found_where_a_shell_leaves_it(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  assert command_line.with_home("--out=~/report") == "--out=/home/me/report"
  assert command_line.with_home("--config.init_from=~") == "--config.init_from=/home/me"
  assert command_line.with_home("--runs=runs,~/more") == "--runs=runs,/home/me/more"
  for word in ("~/report", "--out", "--source=text:~/a", "--labels=a~b", "--out=./~"):
    assert command_line.with_home(word) == word


def test_assertions_of_our_own_show_their_traceback():
  returned, errors = run("assert 1 > 2")
  assert returned == 1 and errors[-1].startswith("AssertionError")
