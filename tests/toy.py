"""What many tests share: a config that compiles in seconds, options, batches, comparisons."""

import contextlib
import dataclasses
import functools
import importlib
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from negint import options
from negint.method import optim, parallel, steps
from negint.run.records import read_metrics

TOY = dict(
  vocab_size=61,
  num_layers=2,
  model_dim=16,
  num_heads=2,
  head_dim=8,
  ffn_dim=32,
  max_length=24,
  adapter_dim=4,
  init="xlm",
  language_embedding=True,
)


KEPT = 13  # a token that `random_tokens` never draws


def slow(*values):
  """Parameters of a test that is left out of the default suite."""
  return pytest.param(*values, marks=pytest.mark.slow)


def toy_config(system="joint_pair", arg="lab", **fields):
  """A config of configs/ at a size that trains in seconds; `a__b=value` sets its field a.b."""
  config = importlib.import_module(f"configs.{system}").get_config(arg)
  config.model.update(
    num_layers=2,
    model_dim=16,
    num_heads=2,
    head_dim=8,
    ffn_dim=32,
    max_length=24,
    adapter_dim=4,
    dropout=0.1,
  )
  config.data.update(vocab_size=200, sequence_length=24)
  config.data.lab.documents = 200
  config.train.update(steps=2, batch_size=4, warmup_steps=2, learning_rate=2e-3, phi_rate=1.0)
  config.meta.batch_size = 2
  config.checkpoint.every, config.log.every = 2, 1
  config.eval.update(every=100, batch_size=64)
  for name, value in fields.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return config


def toy_tuning(config, base):
  """A fine-tuning config at a size that trains in no time, from the model in `base`."""
  config.init_from = str(base)
  config.data.update(
    max_length=48, stride=16, max_question=16, lab_train=48, lab_dev=16, lab_test=24
  )
  config.train.update(batch_size=8, epochs=2, epoch_size=0, learning_rate=1e-3)
  config.eval.batch_size = 8
  return config


def toy_run(system="meta_adpt", num_devices=1, **fields) -> options.RunOptions:
  return options.from_config(toy_config(system, **fields), num_devices)


def toy_model(**changes) -> options.ModelOptions:
  return options.ModelOptions(num_languages=2, **TOY).replace(**changes)


def random_tokens(seed, *shape, vocab_size=200):
  return np.random.default_rng(seed).integers(14, vocab_size, shape).astype(np.int32)


def keeping(run):
  """The run where the token KEPT is never hidden, as the special tokens of an imported model."""
  return dataclasses.replace(run, model=run.model.replace(kept_ids=(KEPT,)))


def batch_of(rows, length, held_out_rows=None, num_languages=2, uneven=False, surgery=False):
  """Random tokens, held-out ones of every language; `uneven` fills up some rows with KEPT.

  In a run of `keeping`, the shares of such a batch predict different numbers of tokens.
  """
  shape = (rows, num_languages) if surgery else (rows,)
  batch = {"tokens": random_tokens(1, *shape, length)}
  if held_out_rows:
    batch["held_out"] = random_tokens(2, held_out_rows, num_languages, length)
  if uneven:
    for name, ends in (("tokens", (3, length)), ("held_out", (length, 3))):
      if name in batch:
        lengths = np.linspace(*ends, batch[name][..., 0].size).reshape(batch[name].shape[:-1])
        batch[name][np.arange(length) >= lengths[..., None]] = KEPT
  return batch


def all_held_out(batch):
  """Indices of the languages of a held-out batch that has every language; None without held-out."""
  return np.arange(batch["held_out"].shape[1]) if "held_out" in batch else None


def step_on(num_devices, run):
  """One training step at its learning rate, as of a run, on the first `num_devices` devices.

  Returns:
    (state, batch, language, held-out languages; by default all) -> (state, metrics).
  """
  devices = jax.devices()[:num_devices]
  mapped = jax.pmap(
    functools.partial(steps.step_of(run), run),
    axis_name=parallel.AXIS,
    in_axes=(None, 0, None, None, None),
    out_axes=None,
    devices=devices,
  )

  def step(state, batch, language, held_out_languages=None):
    state = jax.device_put(state, NamedSharding(Mesh(devices, ("d",)), PartitionSpec()))
    share = jax.tree.map(lambda x: x.reshape(num_devices, -1, *x.shape[1:]), batch)
    if held_out_languages is None:
      held_out_languages = all_held_out(batch)
    rate = optim.learning_rate(run.schedule, int(state.step))
    return mapped(state, share, rate, np.int32(language), held_out_languages)

  return step


def wait_until(happened, ended=lambda: False, seconds=120):
  """Whether `happened()` came true before `ended()` and the deadline."""
  deadline = time.time() + seconds
  while time.time() < deadline and not ended():
    if happened():
      return True
    time.sleep(0.02)
  return False


def has_logged(workdir, step):
  """Whether a run's metrics reach the step."""
  path = workdir / "metrics.jsonl"
  return path.exists() and any(record["step"] >= step for record in read_metrics(path))


@contextlib.contextmanager
def memoised(module, *names):
  """Caches the results of a module's functions, so that equal runs compile their steps once."""
  with pytest.MonkeyPatch.context() as patch:
    for name in names:
      patch.setattr(module, name, functools.lru_cache(32)(getattr(module, name)))
    yield


@contextlib.contextmanager
def counted_compilations():
  """Yields a list with one entry for each program that XLA has compiled since."""
  compiled = []

  def listen(event, duration, **_):
    del duration
    compiled.extend([event] * event.endswith("backend_compile_duration"))

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield compiled
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


def relative_difference(tree, other) -> float:
  """|a - b| / |b| over all leaves."""
  square = lambda t: sum(float(np.sum(np.square(np.asarray(x, np.float64)))) for x in t)  # noqa: E731
  leaves, others = jax.tree.leaves(tree), jax.tree.leaves(other)
  assert len(leaves) == len(others)
  return (
    square([np.asarray(a, np.float64) - b for a, b in zip(leaves, others, strict=True)])
    / max(square(others), 1e-300)
  ) ** 0.5


def assert_same_bits(tree, other):
  leaves, others = jax.tree.leaves(tree), jax.tree.leaves(other)
  assert len(leaves) == len(others)
  for a, b in zip(leaves, others, strict=True):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
