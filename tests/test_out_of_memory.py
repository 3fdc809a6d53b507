"""Running out of memory is one sentence: what was asked for, what there is, what helps this run."""

import dataclasses
import errno

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import toy_config

from negint import out_of_memory, pretrain
from negint.errors import UserError
from negint.run import runner

GPU = (
  "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes.\nBufferAssignment "
  "OOM Debugging."
)
TPU = (
  "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.30G of 15.48G hbm. Exceeded "
  "hbm capacity by 4.82G."
)
LIBRARY = "INTERNAL: cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"


def allocated(count):
  return lambda: count


@pytest.mark.parametrize(
  ("fail", "asked"),
  [
    (lambda: np.zeros(1 << 45, np.float32), "128 TiB were asked for at once"),
    (lambda: jnp.zeros(1 << 45, jnp.float32), "128 TiB were asked for at once"),
    (lambda: bytearray(1 << 50), "an allocation failed"),
  ],
  ids=["numpy", "jax", "python"],
)
def test_real_failures_are_recognised(fail, asked):
  with pytest.raises(UserError) as caught, out_of_memory.reported(list):
    jax.block_until_ready(fail())
  message = str(caught.value)
  assert message.startswith(f"Out of memory: {asked}, and there are ")
  assert " on this machine, " in message and message.endswith("or ask for more of it.")


@pytest.mark.parametrize(
  ("text", "asked"),
  [
    (GPU, "8 GiB were asked for"),
    (
      "Failed to allocate request for 1.50GiB (1610612736B) on device: out of memory",
      "1.5 GiB were",
    ),
    (TPU, "an allocation failed"),
    (LIBRARY, "an allocation failed"),
    ("XlaRuntimeError: INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory", "an allocation failed"),
  ],
)
def test_messages_of_accelerators_are_recognised(text, asked):
  error = jax.errors.JaxRuntimeError(text)
  assert out_of_memory.is_out_of_memory(error)
  assert asked in out_of_memory.sentence(error)


@pytest.mark.parametrize(
  "error",
  [
    ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device"),  # tensorstore's
    OSError(errno.ENOSPC, "No space left on device"),
    jax.errors.JaxRuntimeError("INVALID_ARGUMENT: shapes differ"),
    RuntimeError("generator raised StopIteration"),
  ],
)
def test_other_errors_keep_their_type(error):
  assert not out_of_memory.is_out_of_memory(error)
  with pytest.raises(type(error)) as caught, out_of_memory.reported(list):
    raise error
  assert caught.value is error


def test_a_device_says_how_much_it_has(monkeypatch):
  class Device:
    device_kind = "NVIDIA H100"

    def memory_stats(self):
      return {"bytes_limit": 60 << 30, "bytes_in_use": 59 << 30}

  monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
  said = out_of_memory.sentence(jax.errors.JaxRuntimeError(GPU), [("--a=1", 0.5), ("--b=2", 0.75)])
  assert said == (
    "Out of memory: 8 GiB were asked for at once, and there are 60 GiB for JAX on NVIDIA H100, 59 GiB "
    "of them in use. Add --a=1 (about 50% less), or --b=2 (about 25% less), with another --workdir."
  )


def test_a_run_that_asks_for_too_much_ends_in_a_sentence(tmp_path):
  """A feed-forward layer of 2 TiB: the allocation is refused at once, and no option helps."""
  config = toy_config("joint_pair", data__dir=str(tmp_path), model__ffn_dim=1 << 35)
  with pytest.raises(UserError, match="Out of memory: .* Free memory that other programs hold"):
    runner.run(pretrain.KIND, config, tmp_path / "run", print)


@pytest.mark.slow
def test_a_run_whose_activations_are_too_large_is_told_what_helps(tmp_path):
  def fail(*arguments):
    raise jax.errors.JaxRuntimeError(GPU)

  kind = dataclasses.replace(pretrain.KIND, work=fail)
  config = toy_config("joint_pair", data__dir=str(tmp_path), train__batch_size=64)
  with pytest.raises(UserError, match=r"Add --config[.]\S.* \(about \d\d% less\), with another"):
    runner.run(kind, config, tmp_path / "run", print)
