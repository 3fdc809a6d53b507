"""Times the host's work: tokenising, sampling, imports, start-up."""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from launch.benchmark import timed_steps
from negint.data import token_cache
from negint.data.open_corpora import NO_FILTERS
from negint.data.prepare_corpus import prepare
from negint.data.sources import parse_source

ROOT = pathlib.Path(__file__).resolve().parents[2]
LANGUAGES = ("ar", "en")
VOCAB_SIZE = 2000  # pieces; the sample's sentences hold no more
IMPORTS = {  # what negint.main imports, before and after it has read the flags
  "python itself": "",
  "negint.main": "import negint.main",
  "jax": "import jax",
  "negint.main, jax and what a run imports": (
    "import negint.main, jax; from negint import pretrain; from negint.finetuning import finetune; "
    "from negint.analysis import gradient_similarity, pruning"
  ),
}
Found = list[tuple[str, float, str]]  # (what was measured, value, unit)
COMMAND = ("--config=configs/joint_pair.py:ar", "--config.train.steps=1", "--config.eval.every=1")


def rows(fastest: dict | None, *, quick: bool, say: Callable[[str], None]) -> list[dict]:
  """Returns the rows of the table: what, value, unit.

  Args:
    fastest: the row of the fastest measured step, which the sampler is compared with.
    quick: measures once and leaves the start-up out.
    say: is told of the progress.
  """
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    say("tokenising")
    found = tokenising(folder / "data", repeats=2 if quick else 100)
    say("sampling")
    found += sampling(fastest)
    say("imports")
    found += imports(repeats=1 if quick else 5)
    if not quick:
      say("start-up")
      found += start_up(folder)
  return [{"what": what, "value": value, "unit": unit} for what, value, unit in found]


def tokenising(folder: pathlib.Path, repeats: int) -> Found:
  """Times building the token cache of a corpus that repeats the sample's sentences."""
  corpora, size = [], 0
  for language in LANGUAGES:
    documents = list(parse_source("sample", language).documents())
    text = "\n".join(line for document in documents for line in document) + "\n"
    path = folder / f"{language}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text * repeats, encoding="utf-8")
    size += path.stat().st_size
    source = parse_source(f"text:{path}", language)
    corpora.append(prepare(source, language, folder, NO_FILTERS, say=lambda text: None))
  data = dataclasses.replace(
    timed_steps.options_of(timed_steps.Case("sample", "plain", "float32", 32)).data,
    dir=str(folder),
    vocab_size=VOCAB_SIZE,
    tokenizer_sentences=2000,
  )
  start = time.perf_counter()
  cache = token_cache.open_cache(corpora, data)
  seconds = time.perf_counter() - start
  megabytes = size / 1e6
  lines = (folder / "en.txt").read_text(encoding="utf-8").splitlines()[:100_000]
  encoded = sum(len(line.encode()) for line in lines) / 1e6
  start = time.perf_counter()
  cache.tokenizer.encode_many(lines, num_threads=1)
  alone = time.perf_counter() - start
  return [
    (f"token cache of {megabytes:.0f} MB, BPE training included", seconds, "s"),
    ("the same, per core", megabytes / seconds / timed_steps.cores(), "MB/s"),
    ("SentencePiece alone on English, one thread", encoded / alone, "MB/s"),
  ]


def sampling(fastest: dict | None) -> Found:
  """Returns the batches per second that the sampler makes, and that the fastest step takes."""
  if fastest is None:
    case = timed_steps.Case("sample", "plain", "float32", 32)
  else:
    names = ("size", "step", "dtype", "batch_size", "remat")
    case = timed_steps.Case(*(fastest[name] for name in names))
  seconds = timed_steps.host_seconds(timed_steps.options_of(case))
  found: Found = [(f"sampler, batches of {case.size} {case.step}", 1 / seconds, "batches/s")]
  if fastest is not None:
    taken = 1 / float(np.median(fastest["seconds"]))
    by = f"fastest measured step ({case.size} {case.step}, {case.dtype}, {fastest['by']})"
    found.append((by, taken, "batches/s"))
  return found


def imports(repeats: int) -> Found:
  """Times a new process that imports something, and does no more."""
  return [
    (f"import: {name}", min(run([sys.executable, "-c", code]) for _ in range(repeats)), "s")
    for name, code in IMPORTS.items()
  ]


def start_up(folder: pathlib.Path) -> Found:
  """Times a run of one step: with nothing there, and with data and compiled programs there."""

  def one_step(name: str) -> float:
    words = [sys.executable, "-m", "negint.main", *COMMAND]
    return run([*words, f"--config.data.dir={folder}/run-data", f"--workdir={folder}/runs/{name}"])

  return [
    ("a run of one step, first time (data, tokens, compilation)", one_step("first"), "s"),
    ("a run of one step, second time", one_step("second"), "s"),
  ]


def run(words: list[str]) -> float:
  """Returns the seconds that a command takes from start to end."""
  start = time.perf_counter()
  subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
  return time.perf_counter() - start
