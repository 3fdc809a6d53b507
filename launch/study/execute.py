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
from typing import IO, NamedTuple

from launch.study.finished import in_folder, needed_weights
from launch.study.jobs import Job
from launch.study.sharing import shares_of_cores, shares_of_gpus
from negint.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, Interrupted
from negint.run import interrupt
from negint.run.progress import duration
from negint.run.workdir import is_running

EXIT_FAILED = 1  # some jobs failed
KILLED = "the system killed it, mostly for lack of memory: try fewer --jobs"
LOG_LINES = 8  # of a failed job that are shown
POLL_SECONDS = 0.2


def command(job: Job, runs: str) -> list[str]:
  """Returns the job as words for a shell that stands in the folder of the repository."""
  return [sys.executable, "-m", "negint.main", *job.arguments, f"--workdir={runs}/{job.name}"]


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
    # In a session of its own, so that Ctrl-C does not reach it directly and through us.
    process = subprocess.Popen(
      command(job, runs),
      stdout=log,
      stderr=subprocess.STDOUT,
      env=environment,
      start_new_session=True,
    )
    if self.cores[slot]:
      # Jobs that share their cores slow each other down by more than the sharing.
      os.sched_setaffinity(process.pid, self.cores[slot])
    return process


class Running(NamedTuple):
  """A job that has a slot."""

  job: Job
  process: subprocess.Popen | None  # None: another process than ours runs it
  slot: int
  start: float  # as time.monotonic gives it


class Execution:
  """One pass over the jobs.

  Attributes:
    finished: names of jobs that are done, of earlier passes and in packs too.
    failures: {name: why}, in the order of their happening.
    stopped: names of jobs that a signal stopped after they saved their state, or that need one of them.
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
    self.stopped: list[str] = []
    self._waiting = [job for job in jobs if job.name not in self.finished]
    self._slots = Slots(at_once, gpus)
    self._running: dict[str, Running] = {}
    self._estimated, self._taken = 0.0, 0.0  # seconds of the jobs that finished in this pass

  def run(self) -> None:
    """Runs what is not finished; failures are collected, not raised.

    Raises:
      Interrupted: Ctrl-C, SIGTERM or SIGHUP; the running jobs were stopped, and have ended.
    """
    (pathlib.Path(self.runs) / "logs").mkdir(parents=True, exist_ok=True)
    if self.finished:
      self.say(f"{len(self.finished)} of {len(self.jobs)} jobs are finished already.")
    if self.again:
      self.say(
        f"A pack has no weights, so {len(self.again)} packed runs that other jobs start from run "
        f"again: {', '.join(sorted(self.again))}."
      )
    with interrupt.caught() as interruption:
      try:
        while self._waiting or self._running:
          if stop := interruption.asked():
            raise Interrupted(f"{stop} with {self._stop()}")
          self._start()
          self._collect()
          time.sleep(POLL_SECONDS)
      except Interrupted:
        raise
      except BaseException:
        self._stop()  # left alone they would hold their folders against the next start
        raise

  def _start(self) -> None:
    """Starts what can start."""
    left = []
    for job in self._waiting:
      model = job.model.name if job.model else None
      if model in self.failures:
        self.failures[job.name] = f"not run: it needs {model}, which failed."
      elif model in self.stopped:
        self.stopped.append(job.name)
      elif self._slots.free and (model is None or model in self.finished):
        self._start_job(job)
      else:
        left.append(job)
    self._waiting = left

  def _start_job(self, job: Job) -> None:
    """Starts a job, or waits in its slot for another process that runs it."""
    slot = self._slots.take()
    process = None
    if is_running(self._folder(job)):
      self.say(f"{job.name} runs already in another process: waiting for its end.")
    else:
      with self._log(job).open("ab") as log:
        process = self._slots.start(slot, job, self.runs, log)
    self._running[job.name] = Running(job, process, slot, time.monotonic())

  def _collect(self) -> None:
    """Notes which jobs have ended, and how."""
    for name, (job, process, slot, start) in list(self._running.items()):
      if is_running(self._folder(job)) if process is None else process.poll() is None:
        continue
      del self._running[name]
      self._slots.give_back(slot)
      seconds = time.monotonic() - start
      if process is None:
        self._waiting.insert(0, job)  # it only shows its result, if it is finished
      elif process.returncode == EXIT_USER_ERROR and is_running(self._folder(job)):
        self._waiting.insert(0, job)  # another process was faster to claim the folder
      elif process.returncode == EXIT_INTERRUPTED:
        self.stopped.append(name)
        self.say(
          f"[{self._progress()}] {name} was stopped after {duration(seconds)}; its state is saved"
        )
      elif process.returncode == 0:
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

  def _stop(self) -> str:
    """Stops the running jobs, waits for their end, and returns what became of them."""
    ours = {name: each.process for name, each in self._running.items() if each.process}
    for process in ours.values():
      process.send_signal(signal.SIGTERM)
    codes = {name: process.wait() for name, process in ours.items()}
    self.finished |= {name for name, code in codes.items() if code == 0}
    saved = [name for name, code in codes.items() if code == EXIT_INTERRUPTED]
    lost = [name for name, code in codes.items() if code not in (0, EXIT_INTERRUPTED)]
    said = f"{len(self.finished)} of {len(self.jobs)} jobs finished"
    if saved or lost:
      said += f"; {len(saved)} of {len(saved + lost)} running jobs saved their state"
    if lost:
      said += f" (not {', '.join(lost)}, which will resume from an older checkpoint)"
    return f"{said}: start the same command again to resume."

  def _folder(self, job: Job) -> pathlib.Path:
    return pathlib.Path(self.runs) / job.name

  def _log(self, job: Job) -> pathlib.Path:
    return pathlib.Path(self.runs) / "logs" / f"{job.name}.log"

  def _progress(self) -> str:
    ended = len(self.finished) + len(self.failures) + len(self.stopped)
    return f"{ended}/{len(self.jobs)}"

  def _time_left(self) -> str:
    """Says how long the rest takes: the estimates, corrected by what the finished jobs took."""
    rate = self._taken / self._estimated
    done = self.finished | self.failures.keys() | set(self.stopped)
    left = sum(job.seconds for job in self.jobs if job.name not in done) * rate
    for each in self._running.values():
      left -= min(time.monotonic() - each.start, each.job.seconds * rate)
    at_once = len(self._running) + self._slots.free
    unfinished = len(self.jobs) - len(done)
    return f", about {duration(left / at_once)} left" if unfinished else ""

  def report(self) -> None:
    """Says what failed, with the last lines of each log, and what was stopped."""
    if self.failures:
      self.say(f"\n{len(self.failures)} of {len(self.jobs)} jobs failed:")
    for name, why in self.failures.items():
      self.say(f"\n{name}: {why}")
      log = pathlib.Path(self.runs) / "logs" / f"{name}.log"
      if "exit code" in why and log.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
        for line in [line for line in lines if line.strip()][-LOG_LINES:]:
          self.say(f"  {line}")
    if self.stopped:
      self.say(
        f"\n{len(self.stopped)} of {len(self.jobs)} jobs were stopped with their state saved, or need "
        f"one that was: {', '.join(self.stopped)}. Start the same command again to resume."
      )

  @property
  def exit_code(self) -> int:
    """0 if all jobs are finished; EXIT_FAILED if some failed; else EXIT_INTERRUPTED."""
    if self.failures:
      return EXIT_FAILED
    return EXIT_INTERRUPTED if self.stopped else 0


def run(
  jobs: list[Job], runs: str, *, at_once: int, gpus: int, packed: Collection[str] = ()
) -> int:
  """Runs jobs on this machine, and says what happens; returns the exit code.

  The arguments are those of `Execution`.
  """
  say = functools.partial(print, flush=True)
  execution = Execution(jobs, runs, at_once=at_once, gpus=gpus, say=say, packed=packed)
  execution.run()
  execution.report()
  return execution.exit_code
