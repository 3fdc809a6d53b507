"""Runs the jobs of a study as processes: in dependency order, several at once, resumable.

What is finished (`launch.study.finished`) does not run again. Output goes to `<runs>/logs/<job>.log`.
"""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import IO

from launch.study.finished import in_folder, needed_weights
from launch.study.jobs import Job
from launch.study.sharing import shares_of_cores, shares_of_gpus
from negint.errors import Interrupted
from negint.run.progress import duration

EXIT_FAILED = 1  # some jobs failed
KILLED = "the system killed it, mostly for lack of memory: try fewer --jobs"
LOG_LINES = 8  # of a failed job that are shown
POLL_SECONDS = 0.2


def command(job: Job, runs: str) -> list[str]:
  """The job as words for a shell that stands in the folder of the repository."""
  return ["python", "-m", "negint.main", *job.arguments, f"--workdir={runs}/{job.name}"]


def finished_jobs(
  jobs: Sequence[Job], here: set[str], packed: Collection[str]
) -> tuple[set[str], set[str]]:
  """Returns (names that need not run, packed names that run again because a job needs their weights).

  Args:
    jobs: of the study, each after its model.
    here: names of those that count as finished in the folder of the runs.
    packed: names of those that are finished in packs.
  """
  finished = here | set(packed)
  again = needed_weights(jobs, finished, here)
  return finished - again, again


def unfinished(jobs: Sequence[Job], here: set[str], packed: Collection[str]) -> list[Job]:
  """Returns the jobs that are left to run; the arguments are those of `finished_jobs`."""
  finished, _ = finished_jobs(jobs, here, packed)
  return [job for job in jobs if job.name not in finished]


def estimate(jobs: Sequence[Job], at_once: int) -> str:
  """Returns a sentence about the time that jobs take."""
  seconds = sum(job.seconds for job in jobs)
  return (
    f"{len(jobs)} jobs: about {duration(seconds)} on one processor core, {duration(seconds / at_once)} "
    f"with --jobs={at_once} on as many idle cores."
  )


class Slots:
  """Places where a job can run: each has a share of the processor cores and, with GPUs, of a GPU."""

  def __init__(self, count: int, gpus: int):
    """Makes `count` places.

    Raises:
      UserError: CUDA_VISIBLE_DEVICES names fewer than `gpus` GPUs.
    """
    self.cores = shares_of_cores(count)
    self.environments = shares_of_gpus(count, gpus, os.environ)
    self._free = list(range(count))
    self._gpus = max(gpus, 1)

  @property
  def free(self) -> int:
    """Number of free slots."""
    return len(self._free)

  def take(self) -> int:
    """Returns a free slot, of the GPU that has the most."""
    free = [slot % self._gpus for slot in self._free]
    slot = max(self._free, key=lambda each: (free.count(each % self._gpus), -each))
    self._free.remove(slot)
    return slot

  def give_back(self, slot: int) -> None:
    """Makes a slot free."""
    self._free.append(slot)

  def start(self, slot: int, job: Job, runs: str, log: IO[bytes]) -> subprocess.Popen:
    """Starts a job in a slot that was taken; its output goes to the log."""
    environment = {**os.environ, **self.environments[slot]}
    words = [sys.executable, *command(job, runs)[1:]]
    # In a session of its own, so that Ctrl-C does not reach it directly and through us.
    process = subprocess.Popen(
      words, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    if self.cores[slot]:
      # Jobs that share their cores slow each other down by more than the sharing.
      os.sched_setaffinity(process.pid, self.cores[slot])
    return process


class Execution:
  """One pass over the jobs.

  Attributes:
    finished: names of jobs that are done, of earlier passes and in packs too.
    failures: {name: why}, in the order of their happening.
  """

  def __init__(
    self,
    jobs: list[Job],
    runs: str,
    *,
    at_once: int,
    gpus: int,
    say: Callable[[str], object],
    packed: Collection[str] = (),
  ):
    """Finds out what is finished.

    Args:
      jobs: each after its model.
      runs: folder of the runs.
      at_once: jobs that run at the same time.
      gpus: that the jobs are spread over; 0: leave that to JAX.
      say: receives sentences for the user.
      packed: names of jobs that are finished in packs.
    """
    self.jobs, self.runs, self.say = jobs, runs, say
    self.finished, self.again = finished_jobs(jobs, in_folder(pathlib.Path(runs), jobs), packed)
    self.failures: dict[str, str] = {}
    self._slots = Slots(at_once, gpus)
    self._running: dict[str, tuple[Job, subprocess.Popen, int, float]] = {}  # job, slot, start
    self._estimated, self._taken = 0.0, 0.0  # seconds of the jobs that finished in this pass

  def run(self) -> None:
    """Runs what is not finished; failures are collected, not raised.

    Raises:
      Interrupted: Ctrl-C or SIGTERM; running jobs have saved their state.
    """
    (pathlib.Path(self.runs) / "logs").mkdir(parents=True, exist_ok=True)
    if self.finished:
      self.say(f"{len(self.finished)} of {len(self.jobs)} jobs are finished already.")
    if self.again:
      self.say(
        f"A pack has no weights, so {len(self.again)} packed runs that other jobs start from run "
        f"again: {', '.join(sorted(self.again))}."
      )
    waiting = [job for job in self.jobs if job.name not in self.finished]
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
      while waiting or self._running:
        waiting = self._start(waiting)
        self._collect()
        time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
      self._stop()
      raise Interrupted(
        f"interrupted with {len(self.finished)} of {len(self.jobs)} jobs finished; running jobs "
        "have saved their state: start the same command again to resume."
      ) from None
    except BaseException:
      self._stop()  # left alone they would hold their folders against the next start
      raise
    finally:
      signal.signal(signal.SIGTERM, previous)

  def _start(self, waiting: list[Job]) -> list[Job]:
    """Starts what can start, and returns what still waits."""
    left = []
    for job in waiting:
      model = job.model.name if job.model else None
      if model in self.failures:
        self.failures[job.name] = f"not run: it needs {model}, which failed."
      elif self._slots.free and (model is None or model in self.finished):
        slot = self._slots.take()
        with self._log(job).open("ab") as log:
          process = self._slots.start(slot, job, self.runs, log)
        self._running[job.name] = job, process, slot, time.monotonic()
      else:
        left.append(job)
    return left

  def _collect(self) -> None:
    for name, (job, process, slot, start) in list(self._running.items()):
      if process.poll() is None:
        continue
      del self._running[name]
      self._slots.give_back(slot)
      seconds = time.monotonic() - start
      if process.returncode == 0:
        self.finished.add(name)
        self._estimated += job.seconds
        self._taken += seconds
        self.say(f"[{self._progress()}] {name} ({duration(seconds)}){self._time_left()}")
      else:
        killed = f" ({KILLED})" if process.returncode == -signal.SIGKILL else ""
        self.failures[name] = (
          f"exit code {process.returncode}{killed}; the end of {self._log(job)}:"
        )
        self.say(f"[{self._progress()}] {name} FAILED after {duration(seconds)}")

  def _stop(self) -> None:
    for _, process, _, _ in self._running.values():
      process.send_signal(signal.SIGTERM)
    for _, process, _, _ in self._running.values():
      process.wait()

  def _log(self, job: Job) -> pathlib.Path:
    return pathlib.Path(self.runs) / "logs" / f"{job.name}.log"

  def _progress(self) -> str:
    return f"{len(self.finished) + len(self.failures)}/{len(self.jobs)}"

  def _time_left(self) -> str:
    """Says how long the rest takes: the estimates, corrected by what the finished jobs took."""
    rate = self._taken / self._estimated
    done = self.finished | self.failures.keys()
    left = sum(job.seconds for job in self.jobs if job.name not in done) * rate
    for job, _, _, start in self._running.values():
      left -= min(time.monotonic() - start, job.seconds * rate)
    at_once = len(self._running) + self._slots.free
    unfinished = len(self.jobs) - len(done)
    return f", about {duration(left / at_once)} left" if unfinished else ""

  def report_failures(self) -> None:
    """Says what failed, with the last lines of each log."""
    self.say(f"\n{len(self.failures)} of {len(self.jobs)} jobs failed:")
    for name, why in self.failures.items():
      self.say(f"\n{name}: {why}")
      log = pathlib.Path(self.runs) / "logs" / f"{name}.log"
      if "exit code" in why and log.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
        for line in [line for line in lines if line.strip()][-LOG_LINES:]:
          self.say(f"  {line}")


def run(
  jobs: list[Job], runs: str, *, at_once: int, gpus: int, packed: Collection[str] = ()
) -> bool:
  """Runs jobs on this machine, and says what happens; returns whether all are finished.

  The arguments are those of `Execution`.
  """
  say = functools.partial(print, flush=True)
  execution = Execution(jobs, runs, at_once=at_once, gpus=gpus, say=say, packed=packed)
  execution.run()
  if execution.failures:
    execution.report_failures()
  return not execution.failures
