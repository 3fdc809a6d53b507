"""Long runs keep memory flat, and large corpora need only the pages that are read."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from toy import toy_config

from negint import pretrain
from negint.data.sampling import cut_blocks
from negint.run import runner
from negint.run.records import MetricsWriter

ROOT = pathlib.Path(__file__).parents[2]
TOKENS = 1_500_000_000  # 3 GB of uint16
LARGE_CORPUS = """
import pathlib, sys
sys.path[:0] = [{root!r}, {tests!r}]
import jax, numpy as np
from toy import toy_run
from negint.method import optim, parallel, steps
from negint.data.sampling import BatchSampler, cut_blocks, language_schedule
from negint.method.state import init_state
run = toy_run("joint_pair", num_devices=1, train__steps=1000, model__num_layers=1)
stream = np.memmap({path!r}, np.uint16, "r")
blocks = cut_blocks("train", {{code: stream for code in run.languages}}, 24, seed=1)
sampler = BatchSampler(blocks, 4, language_schedule([0.5, 0.5], steps=1000, seed=1))
state = parallel.replicate(init_state(run.model, run.optimiser, 1))
train_step = steps.make_train_step(run)
for step in range(200):
  batch = parallel.split(sampler.batch(step))
  rate = optim.learning_rate(run.schedule, step)
  state, metrics = train_step(state, batch, rate, np.int32(sampler.language(step)))
assert np.isfinite(float(metrics["loss"]))
status = pathlib.Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.slow
def test_a_corpus_of_three_gigabytes_trains_in_under_two(tmp_path):
  """The file is sparse: it uses no disk, but as many addresses as a full one."""
  path = tmp_path / "large.tokens"
  with path.open("wb") as file:
    file.truncate(2 * TOKENS)
  program = LARGE_CORPUS.format(root=str(ROOT), tests=str(ROOT / "tests"), path=str(path))
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert int(done.stdout) < 2_000_000, "KiB of resident memory"


def test_batches_of_a_large_corpus_come_from_all_of_it(tmp_path):
  path = tmp_path / "large.tokens"
  stream = np.memmap(path, np.uint16, "w+", shape=(4_000_000,))
  stream[:] = np.arange(len(stream)) // 1000 % 60_000
  [blocks] = cut_blocks("train", {"en": stream}, 100, seed=1)
  seen = np.concatenate([blocks.take(step * 100, 100)[:, 0] for step in range(50)])
  assert np.ptp(seen) > 0.9 * 4000 and len(np.unique(seen)) > 2000


def resident_kib() -> int:
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") // 1024


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.slow
def test_memory_stays_flat_over_many_steps(tmp_path, monkeypatch):
  seen = {}
  write = MetricsWriter.write

  def watched(self, step, scalars):
    seen[step] = resident_kib()
    write(self, step, scalars)

  monkeypatch.setattr(MetricsWriter, "write", watched)
  config = toy_config(data__dir=str(tmp_path / "data"), model__num_layers=1)
  config.train.steps, config.log.every, config.checkpoint.every = 1500, 100, 500
  runner.run(pretrain.KIND, config, tmp_path / "run", lambda line: None)
  # The first hundreds of steps fill caches; a leak of one batch per step would add 600 KiB.
  assert seen[1500] - seen[700] < 20_000, "KiB"
