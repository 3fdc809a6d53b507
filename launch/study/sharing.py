"""How jobs share a machine: processor cores, and the memory of GPUs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from launch.study.jobs import Job
from negint import options
from negint.errors import UserError
from negint.method import flops
from negint.out_of_memory import amount

TAKEN = 0.9  # share of a GPU's memory that all jobs on it take together
CONTEXT = 1 << 29  # bytes of a GPU that each process takes beside its arrays
MOST = 8  # jobs on one GPU: more of them only wait for each other
ASSUMED = 16 << 30  # bytes of a GPU, where there is none to ask
FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
JOBS = 2  # at once where there is no GPU


def shares_of_cores(count: int) -> list[set[int]]:
  """Returns the processor cores of each slot; empty sets where the system cannot say."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
  return [set(cores[i::count]) or set(cores) for i in range(count)]


def shares_of_gpus(count: int, gpus: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
  """Returns the environment variables of each slot: its GPU, and its share of that GPU's memory.

  Args:
    count: slots.
    gpus: that they are spread over; 0: each job sees all that there are.
    environment: of the user, whose choice of GPUs and whose memory settings stay.

  Raises:
    UserError: the user's CUDA_VISIBLE_DEVICES names fewer GPUs.
  """
  given = environment.get("CUDA_VISIBLE_DEVICES")
  visible = given.split(",") if given else [str(gpu) for gpu in range(gpus)]
  if gpus and len(visible) < gpus:
    raise UserError(
      f"--gpus is {gpus}, but CUDA_VISIBLE_DEVICES={given} names {len(visible)}: lower the first or "
      "name more."
    )
  is_set = FRACTION in environment or (
    environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() in ("false", "0")
  )
  slots = []
  for slot in range(count):
    variables = {"CUDA_VISIBLE_DEVICES": visible[slot % gpus]} if gpus else {}
    sharing = len(range(slot % gpus, count, gpus)) if gpus else count
    if sharing > 1 and not is_set:
      variables[FRACTION] = f"{int(1000 * TAKEN / sharing) / 1000}"
    slots.append(variables)
  return slots


def jobs_that_fit(need: int, memory: int, gpus: int, cores: int) -> int:
  """Returns how many jobs run at once: as many on each GPU as its memory and the cores allow.

  Args:
    need: bytes of the largest job.
    memory: bytes of one GPU.
    gpus: number of GPUs.
    cores: of the processor; each job keeps one busy.
  """
  by_memory = int(TAKEN * memory // (need / TAKEN + CONTEXT))
  return gpus * max(min(by_memory, cores // gpus, MOST), 1)


def check(jobs: int | None, gpus: int) -> None:
  """UserError where --jobs or --gpus has no legal value."""
  if jobs is not None and jobs < 1:
    raise UserError(f"--jobs is {jobs}; it must be at least 1.")
  if gpus < 0:
    raise UserError(f"--gpus is {gpus}; it must be at least 0, which leaves GPUs to JAX.")


def jobs_at_once(
  asked: int | None, jobs: Sequence[Job], gpus: int, say: Callable[[str], object]
) -> int:
  """Returns how many jobs run at once.

  Args:
    asked: the user's number; None: as many as fit on the GPUs, or JOBS without GPUs.
    jobs: of the study.
    gpus: that they share; 0: none.
    say: receives a sentence about what fits.
  """
  if asked is not None or not gpus:
    return JOBS if asked is None else asked
  largest = largest_job(jobs)
  if largest is None:  # what starts from an imported model, of a size that is not known here
    return gpus
  found = probe(largest)
  memory = ASSUMED if found["limit"] is None else int(found["limit"])
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  count = jobs_that_fit(int(found["need"]), memory, gpus, cores)
  counted = "" if found["limit"] else ", counted for a GPU of 16 GiB by a compilation for the CPU"
  say(
    f"{count} jobs at once: the largest ({largest.name}) needs {amount(found['need'])} of the "
    f"{amount(memory)} of a GPU{counted}, and there are {cores} cores. --jobs=<n> sets another number."
  )
  return count


def largest_job(jobs: Sequence[Job]) -> Job | None:
  """Returns the pretraining with the most arithmetic in one part of a batch; None without any."""

  def size(job: Job) -> float:
    run = options.from_config(job.config, num_devices=1)
    return flops.step(run) / run.accumulate

  return max((job for job in jobs if job.config.task == "pretrain"), key=size, default=None)


def probe(job: Job) -> dict:
  """Returns {"need": bytes of a job's step, "limit": bytes of a GPU, None without one}.

  A process of its own compiles the step, because JAX would keep the GPU in this one.
  """
  environment = {
    **os.environ,
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    FRACTION: "1.0",
  }
  visible = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
  environment["CUDA_VISIBLE_DEVICES"] = visible
  words = [sys.executable, "-m", "launch.study.probe"]
  done = subprocess.run(
    words, env=environment, input=job.config.to_json(), capture_output=True, text=True
  )
  if done.returncode:
    said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    raise UserError(
      f"the memory of {job.name} could not be found out ({said[-1]}); give --jobs=<n>."
    )
  found: dict = json.loads(done.stdout.splitlines()[-1])
  return found
