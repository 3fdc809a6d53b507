"""What a device computes fast, by what JAX says of it."""

from collections.abc import Sequence
from typing import Any

# Compute capabilities of NVIDIA GPUs that multiply in float16 fast and have no units for bfloat16:
# P100 (6.0), V100 (7.0), T4 (7.5). GPUs of 6.1 and before 6.0 are slow in float16.
FLOAT16_ONLY = ("6.0", "7.0", "7.2", "7.5")
ASCENDING = ("float32", "float16", "bfloat16")  # each also suits the devices of those after it


def fast_dtype(devices: Sequence[Any]) -> tuple[str, str]:
  """The dtype of matrix products that suits all devices of a run, and why, as a clause.

  Args:
    devices: of JAX, of all processes. Any: tests describe devices that are not there.
  """
  return min((_of_one(device) for device in devices), key=lambda each: ASCENDING.index(each[0]))


def has_cudnn_attention(devices: Sequence[Any]) -> bool:
  """Whether all devices have cuDNN's attention: NVIDIA's GPUs of compute capability 8.0 and later.

  Args:
    devices: as in `fast_dtype`.
  """
  return all((_major(device) or 0) >= 8 for device in devices)


def _major(device: Any) -> int | None:
  """The major number of an NVIDIA GPU's compute capability; None of another device."""
  major = str(getattr(device, "compute_capability", "")).partition(".")[0]
  return int(major) if major.isdecimal() else None  # AMD's is such as gfx90a


def _of_one(device: Any) -> tuple[str, str]:
  kind, platform = device.device_kind, device.platform
  if platform == "tpu":
    return "bfloat16", f"{kind} has units for it"
  if platform not in ("gpu", "cuda", "rocm"):
    return "float32", "half precision saves no time on a CPU"
  capability = str(getattr(device, "compute_capability", ""))
  major = _major(device)
  if major is None:  # AMD's, of which JAX supports those with units for bfloat16
    return "bfloat16", f"{kind} has units for it"
  of_capability = f"{kind} (compute capability {capability})"
  if major >= 8:
    return "bfloat16", f"{of_capability} has units for it"
  if capability in FLOAT16_ONLY:
    return "float16", f"{of_capability} has units for it and none for bfloat16"
  return "float32", f"{of_capability} is fast in no half precision"
