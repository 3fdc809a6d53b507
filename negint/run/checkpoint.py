"""Checkpoints of a run: the only file that imports orbax."""

import contextlib
import errno
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from negint import out_of_memory
from negint.errors import UserError
from negint.method import parallel


class Checkpoints:
  """The newest `keep` states of a run under `<workdir>/checkpoints`, written in the background.

  The processes of a run write together, each a part. The first of them reads for all, so that they
  agree on which checkpoint is readable. Any number of processes can resume from the same files.
  """

  def __init__(self, workdir: pathlib.Path, keep: int):
    self._damaged = workdir.absolute() / "damaged"
    self._directory = workdir.absolute() / "checkpoints"
    self._manager = ocp.CheckpointManager(
      self._directory, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
    )

  def save(self, state: Any) -> None:
    """Starts writing a state under its `step`, unless that step is there already.

    Raises the error of the last write.
    """
    step = int(state.step)
    with self._disk_errors():
      if step not in self._manager.all_steps():
        self._manager.save(step, args=ocp.args.StandardSave(parallel.as_global(state)))

  def steps(self) -> list[int]:
    """Returns the steps whose states are on disk, ascending."""
    return sorted(self._manager.all_steps())

  def newest(self) -> int | None:
    """Returns the last step whose state is on disk."""
    return self._manager.latest_step()

  def restore(self, like: Any, say: Callable[[str], object]) -> Any | None:
    """Returns the newest readable state, or None if none was saved.

    An unreadable checkpoint is moved to `<workdir>/damaged` and the one before is tried.

    Args:
      like: a state with the shapes and devices of the one that is read; for one process shapes alone,
        as of `parallel.replicated_shapes`, are enough.
      say: receives sentences for the user.

    Raises:
      UserError: there are checkpoints and none can be read.
    """
    if parallel.num_processes() == 1:
      return self._newest_readable(self._manager, like, say)
    state = None
    if parallel.is_first():
      with contextlib.closing(self._reader()) as manager:
        state = self._newest_readable(manager, like, say)
    state = parallel.from_first(state, like)
    self._manager.reload()
    return state

  def restore_step(self, step: int, like: Any) -> Any:
    """Returns the state of one step, with the shapes and devices of `like`."""
    return _read(self._manager, step, like)

  def _reader(self) -> ocp.CheckpointManager:
    """Returns a manager for the first process alone; the others need not wait for it."""
    alone = ocp.options.MultiprocessingOptions(
      primary_host=0, active_processes={0}, barrier_sync_key_prefix="reader"
    )
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone)
    return ocp.CheckpointManager(self._directory, options=options)

  def _newest_readable(
    self, manager: ocp.CheckpointManager, like: Any, say: Callable[[str], object]
  ) -> Any | None:
    steps = sorted(manager.all_steps())[::-1]
    for step in steps:
      try:
        return _read(manager, step, like)
      except PermissionError:
        raise
      except Exception as error:  # orbax has no type of its own for a damaged folder
        if out_of_memory.is_out_of_memory(error):
          raise  # the checkpoint may be whole
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        self._set_aside(step)
        manager.reload()
        say(
          f"The checkpoint of step {step} cannot be read ({reason}); it was moved to "
          f"{self._damaged}" + (", and the one before is tried." if step != steps[-1] else ".")
        )
    # Also when the same command runs again: it must not start over in silence.
    lost = steps or self._set_aside_before()
    if lost:
      raise UserError(
        f"None of the checkpoints of steps {', '.join(map(str, lost))} can be read; they are in "
        f"{self._damaged}. Put a good copy back into {self._directory}, delete {self._damaged} to "
        "start over here, or choose another --workdir."
      )
    return None

  def _set_aside_before(self) -> list[int]:
    """Returns the steps of the checkpoints that `_set_aside` has moved, descending."""
    names = {path.name.partition("-")[0] for path in self._damaged.glob("*")}
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

  def _set_aside(self, step: int) -> None:
    self._damaged.mkdir(exist_ok=True)
    target = self._damaged / str(step)
    number = 1
    while target.exists():
      number += 1
      target = self._damaged / f"{step}-{number}"
    (self._directory / str(step)).rename(target)

  def wait(self) -> None:
    """Returns when everything is on disk; OSError if it cannot be."""
    with self._disk_errors():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits for the last write and lets the folder go."""
    with self._disk_errors():
      self._manager.close()

  @contextlib.contextmanager
  def _disk_errors(self) -> Iterator[None]:
    """Turns tensorstore's ValueError about a full disk into an OSError."""
    try:
      yield
    except ValueError as error:
      if "RESOURCE_EXHAUSTED" not in str(error) and "No space left" not in str(error):
        raise
      directory = str(self._directory)
      raise OSError(errno.ENOSPC, "no space left to write a checkpoint", directory) from error


def _read(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
  abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
  return manager.restore(step, args=ocp.args.StandardRestore(abstract))
