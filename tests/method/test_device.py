"""The dtype that suits a device, from descriptions of devices that are not here."""

from types import SimpleNamespace

import jax
import pytest

from negint.method import device


def described(kind, platform="gpu", **fields):
  return SimpleNamespace(device_kind=kind, platform=platform, **fields)


T4 = described("Tesla T4", compute_capability="7.5")
A100 = described("NVIDIA A100-SXM4-40GB", compute_capability="8.0")
GTX_1080 = described("NVIDIA GeForce GTX 1080", compute_capability="6.1")


@pytest.mark.parametrize(
  ("found", "dtype"),
  [
    (described("cpu", "cpu"), "float32"),
    (described("TPU v4", "tpu"), "bfloat16"),
    (T4, "float16"),
    (described("Tesla V100-SXM2-16GB", compute_capability="7.0"), "float16"),
    (described("Tesla P100-PCIE-16GB", compute_capability="6.0"), "float16"),
    (GTX_1080, "float32"),
    (A100, "bfloat16"),
    (described("NVIDIA GeForce RTX 3090", compute_capability="8.6"), "bfloat16"),
    (described("NVIDIA H100 80GB HBM3", compute_capability="9.0"), "bfloat16"),
    (described("NVIDIA B200", compute_capability="10.0"), "bfloat16"),
    (described("AMD Instinct MI250X", compute_capability="gfx90a"), "bfloat16"),
  ],
)
def test_each_device_gets_the_dtype_that_it_has_units_for(found, dtype):
  assert device.fast_dtype([found])[0] == dtype


def test_several_devices_get_what_all_are_fast_in_and_the_reason_names_the_slowest():
  for order in ([A100, T4], [T4, A100]):
    dtype, why = device.fast_dtype(order)
    assert dtype == "float16" and "Tesla T4" in why and "7.5" in why
  assert device.fast_dtype([A100, GTX_1080])[0] == "float32"


def test_a_cpu_of_jax_computes_in_float32():
  assert device.fast_dtype(jax.devices())[0] == "float32"


def test_cudnn_attention_needs_nvidias_gpus_since_ampere():
  amd = described("AMD Instinct MI250X", compute_capability="gfx90a")
  b200 = described("NVIDIA B200", compute_capability="10.0")
  assert device.has_cudnn_attention([A100, b200])
  for other in (T4, GTX_1080, amd, described("TPU v4", "tpu"), described("cpu", "cpu")):
    assert not device.has_cudnn_attention([A100, other])
