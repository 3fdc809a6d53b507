"""README, WORKSPACE and the lab's page: what they name exists, and their commands run."""

import functools
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
import xlm_folder

from launch.drawings import method as drawing
from negint import config_file
from negint.data.sources import parse_source
from negint.errors import UserError
from negint.run.workdir import default_workdir

ROOT = pathlib.Path(__file__).resolve().parents[1]
README, WORKSPACE, LAB, *_ = DOCUMENTS = (
  "README.md",
  "WORKSPACE.md",
  "launch/lab_study/README.md",
  "launch/real_study/README.md",
)
README_COMMANDS = (
  "pip install -r requirements.txt && python -m negint.main --config=configs/meta_adpt.py:ar",
  "pip install -r requirements.txt && python -m pytest",
)
# Appended to a README's command, so that it ends within seconds.
SHORT_PRETRAINING = (
  "--config.train.steps=20",
  "--config.train.warmup_steps=5",
  "--config.checkpoint.every=20",
  "--config.eval.every=10",
  "--config.log.every=5",
)
SMALL_LAB = ("--config.data.lab.documents=300",)
SMALL_MODEL = (
  "--config.model.num_layers=1",
  "--config.model.model_dim=32",
  "--config.model.num_heads=2",
  "--config.model.head_dim=16",
  "--config.model.ffn_dim=64",
  "--config.model.adapter_dim=8",
  "--config.model.remat=none",
  "--config.data.vocab_size=400",
  "--config.data.sequence_length=32",
  "--config.train.batch_size=8",
  "--config.meta.batch_size=4",
)
SHORT_TUNING = (
  "--config.train.epochs=1",
  "--config.data.max_length=32",
  "--config.data.lab_train=60",
  "--config.data.lab_dev=40",
  "--config.data.lab_test=40",
)
SHORT_ANALYSES = {
  "gradient_similarity": ("--config.sentences=64", "--config.batch_size=32", "--config.repeats=1"),
  "pruning": ("--config.steps=4", "--config.checkpoint_every=4", "--config.seeds=1"),
}


@functools.cache
def read(name: str) -> str:
  return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str) -> list[tuple[str, str]]:
  """The code blocks of a document: (language or "", text)."""
  return re.findall(r"^ *```(\w*)\n(.*?)^ *```$", read(name), re.M | re.S)


def commands(name: str) -> list[str]:
  """The `python -m` commands in a document's code blocks, each once, in order."""
  lines = "\n".join(text for language, text in blocks(name) if not language)
  lines = re.sub(r"\\\n\s*", "", lines).splitlines()
  return list(
    dict.fromkeys(line[line.index("python -m") :] for line in lines if "python -m" in line)
  )


def all_commands(name: str) -> list[str]:
  """Also those inside sentences, and those of sbatch; without the ones that hold a <placeholder>."""
  prose = re.sub(r"```.*?```", "", read(name), flags=re.S)
  inline = re.findall(r"`([^`\n]*(?:python -m|sbatch) [^`\n]+)`", prose)
  found = commands(name) + [re.sub(r".*&& (?=python)", "", command) for command in inline]
  return [command for command in found if "<" not in command]


def notebook_commands() -> list[str]:
  """The commands of the notebook that hold no Python variable."""
  cells = json.loads(read("launch/colab.ipynb"))["cells"]
  lines = [line.strip() for cell in cells for line in cell["source"]]
  return [line[1:] for line in lines if line.startswith("!python -m") and "$" not in line]


def spec_of(words: list[str]) -> str:
  """What follows `--config=` in a command's words."""
  (spec,) = (word for word in words if word.startswith("--config="))
  return spec.removeprefix("--config=")


def config_of(words: list[str]):
  """The configuration that a command's words ask for; UserError where they ask for none."""
  return config_file.load(spec_of(words), words)


def defined_flags(module: str) -> set[str]:
  """The names of the flags that a command line defines, read from its text."""
  path = ROOT / module.replace(".", "/")
  file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
  return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', file.read_text(encoding="utf-8")))


def check_command(command: str):
  """AssertionError or UserError where the command could not start."""
  words = shlex.split(command)
  if words[0] == "sbatch":
    assert (ROOT / "launch/slurm.sbatch").is_file()
    config_of(words)
    return
  module = words[2]
  if module == "pytest":
    return
  for word in words[3:]:
    name = word.removeprefix("--").partition("=")[0].partition(".")[0]
    assert name.removeprefix("no") in defined_flags(module) or name in defined_flags(module), word
  if module == "negint.main":
    config_of(words)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files(name):
  links = re.findall(r"\]\(([^)#]+)\)", read(name))
  relative = [link for link in links if not link.startswith("http")]
  assert relative
  assert [link for link in relative if not (ROOT / name).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_in_backticks_exist(name):
  paths = re.findall(r"`((?:negint|configs|launch|tests)/[\w./]*)`", read(name))
  assert [path for path in paths if not (ROOT / path).exists()] == []


def test_functions_on_the_path_of_a_batch_exist():
  section = read(WORKSPACE).partition("## The path of one batch")[2].partition("\n## ")[0]
  names = re.findall(r"`(negint(?:\.\w+)+)`", section)
  assert len(names) > 15
  for name in names:
    module, _, function = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function)), name


def test_every_room_is_on_the_map():
  rooms = {f"negint/{p.name}/" for p in (ROOT / "negint").iterdir() if (p / "__init__.py").exists()}
  assert rooms <= set(re.findall(r"`(negint/\w+/)`", read(WORKSPACE)))


def test_readme_is_short():
  lines = read(README).splitlines()
  assert len(lines) <= 145
  assert [line for line in lines if len(line) > 112] == []


@pytest.mark.parametrize("command", README_COMMANDS)
def test_readme_gives_the_two_commands(command):
  assert command in read(README)


@pytest.mark.parametrize(
  "command", [command for name in DOCUMENTS for command in all_commands(name)] + notebook_commands()
)
def test_commands_parse(command):
  check_command(command)


@pytest.mark.parametrize(
  "command",
  [
    "python -m negint.main --config=configs/mono.py:klingon",
    "python -m negint.main --config=configs/mono.py:ar --config.train.step=3",
    "python -m negint.main --config=configs/mono.py:ar --work_dir=runs/x",
    "python -m launch.study --presets=lab",
  ],
)
def test_wrong_commands_do_not_parse(command):
  with pytest.raises((AssertionError, UserError)):
    check_command(command)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_fields_named_in_sentences_exist(name):
  words = ("configs/joint_pair.py:ar", "configs/ner.py:ar", "configs/pruning.py")
  configs = [config_of([f"--config={word}"]) for word in words]
  known = {field for config in configs for field, _ in config_file.flatten(config.to_dict())}
  assert set(re.findall(r"--config\.([\w.]*\w)", read(name))) <= known


def test_readme_s_python_compiles():
  ((_, code),) = [block for block in blocks(README) if block[0] == "python"]
  compile(code, README, "exec")


def test_drawing_is_what_its_script_draws():
  assert drawing.FILE.read_bytes() == drawing.draw().encode()
  assert "launch/drawings/method.svg" in read(README)


def shortened(command: str) -> list[str]:
  """The command's words with flags that shorten it, in the folder that the whole one would take."""
  _, _, module, *flags = shlex.split(command)
  words = [sys.executable, "-m", module, *flags]
  if module == "launch.study":
    return [*words, "--dry_run"]  # its jobs are commands like the others
  if module == "launch.sweep":
    return [*words, *SHORT_PRETRAINING, *SMALL_LAB]
  if module != "negint.main":
    return words
  config = config_of(flags)
  words.append(f"--workdir={default_workdir(config, config_file.defaults(spec_of(flags)))}")
  if config.task in SHORT_ANALYSES:
    return [*words, *SHORT_ANALYSES[config.task]]
  if config.task != "pretrain":
    return [*words, *SHORT_TUNING]
  small = {"lab": SMALL_LAB, "base": SMALL_MODEL}.get(config.scale, ())
  if config.init_from:  # its model has a shape and a vocabulary
    own = ("--config.model.", "--config.data.vocab_size")
    small = [flag for flag in small if not flag.startswith(own)]
  return [*words, *SHORT_PRETRAINING, *small]


def write_my_files(folder: pathlib.Path):
  """What README's reader brings along: text, labelled data, an XLM checkpoint."""
  for language in ("ar", "en"):
    documents = parse_source("sample", language).documents()
    text = "\n\n".join("\n".join(lines).strip() for lines in documents)
    (folder / "my_text" / language).mkdir(parents=True)
    (folder / "my_text" / language / "1.txt").write_text(text, encoding="utf-8")
  tasks = folder / "my_tasks" / "ner" / "ar"
  tasks.mkdir(parents=True)
  sentence = "".join(f"{word}\t{tag}\n" for word, tag in (("النهر", "B-LOC"), ("إلى", "O")))
  for split in ("train", "dev", "test"):
    (tasks / f"{split}.tsv").write_text(f"{sentence}\n" * 8, encoding="utf-8")
  xlm_folder.write_checkpoint(folder / "my_model", max_length=64)
  (folder / "my_masks.txt").write_text("ولد في مدينة [MASK].\n", encoding="utf-8")


@pytest.mark.slow
def test_commands_of_readme_and_lab_run(tmp_path):
  """In their order, in an empty folder, each to its end; then README's Python."""
  for name in ("configs", "launch", "negint"):
    (tmp_path / name).symlink_to(ROOT / name)
  write_my_files(tmp_path)
  environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
  run = functools.partial(
    subprocess.run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
  )
  ran = list(dict.fromkeys(commands(README) + commands(LAB)))
  assert len(ran) > 10
  for command in ran:
    done = run(shortened(command))
    assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
  figures = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
  assert "figure2_lab.svg" in figures
  assert re.search(r"JointPair \| [\d.]+ \(1\)", (tmp_path / "report" / "report.md").read_text())
  ((_, code),) = [block for block in blocks(README) if block[0] == "python"]
  done = run([sys.executable, "-c", code])
  assert done.returncode == 0, done.stderr[-3000:]
  assert "<negint model: meta_adpt of ar, en" in done.stdout
  assert "Candidate(" in done.stdout
