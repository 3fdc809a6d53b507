"""House rules of the tests: two CPU devices, no silent rank promotion, a shared compilation cache."""

import gc
import os
import pathlib
import signal
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(tempfile.gettempdir()) / "negint-test-cache")
)
# XLA takes its threads from this number. With no more threads than cores, two devices whose
# collectives wait for each other can hold all threads, and never end.
os.environ.setdefault("NPROC", "16")

# Compiling is most of the suite's time, and its models are too small to need fast code. Processes
# that tests start take these from the environment, too.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jaxlib  # noqa: E402

# XLA's newer code generator takes twice as long to compile (jaxlib 0.11 has no other), and cutting
# programs in pieces to compile them side by side a tenth longer where all cores are busy.
if jaxlib.__version__.startswith("0.10."):
  faster = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
  os.environ["XLA_FLAGS"] = f"{faster} {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_rank_promotion", "raise")


# The files that take longest; each goes to one worker, and a long one at the end would leave the others
# idle.
LONGEST = ["test_finetune", "test_pretrain", "test_damage", "test_distributed", "test_docs"]
LONGEST += ["test_steps", "test_meta", "test_analyses", "test_accumulation", "test_golden"]


def pytest_collection_modifyitems(items):
  """Starts with the longest files."""
  rank = {name: number for number, name in enumerate(LONGEST)}
  items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.fixture(autouse=True, scope="module")
def freed_programs():
  """Drops a module's compiled programs: each holds memory maps, of which a process gets 65,530."""
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope="module")
def pretraining_compiled_once():
  """Lets the equal runs of a module share their compiled steps."""
  from toy import memoised

  from negint.method import steps

  with memoised(steps, "make_train_step", "make_eval_step"):
    yield


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  """Corpora and token caches, shared by the runs of a module."""
  return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def float64():
  """Runs a test with 64-bit types."""
  with jax.enable_x64(True):
    yield


@pytest.fixture
def heeds_hangup():
  """Lets the processes of a test heed SIGHUP, where `nohup` runs the tests, too."""
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, before)
