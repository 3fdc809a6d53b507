"""Keeps background writers quiet about a full disk, which the main thread reports in one sentence."""

import logging
import re
import sys
import threading
import warnings

_WORDS = "No space left|Disk quota exceeded|RESOURCE_EXHAUSTED: Error writing"
_ABOUT_DISK = re.compile(_WORDS)
# tensorboardX's thread still writes to a file that the main thread has closed.
_IN_THREADS = re.compile(f"{_WORDS}|handle is closed")


def keep_writers_quiet() -> None:
  """Drops what threads, loggers and warnings of libraries would print about a full disk.

  The writers of checkpoints (orbax), TensorBoard events and compiled programs each print their own
  tracebacks. Every other error of theirs is still printed.
  """
  threading.excepthook = _in_thread
  sys.unraisablehook = _unraisable
  for name in ("absl", "asyncio", "jax"):
    logging.getLogger(name).addFilter(_is_worth_logging)
  warnings.filterwarnings("ignore", f"(?s).*({_WORDS})")


def is_about_disk(error: BaseException | None) -> bool:
  """Whether an error, or one that it follows from, says that a disk is full."""
  while error is not None:
    if _ABOUT_DISK.search(str(error)):
      return True
    error = error.__cause__ or error.__context__
  return False


def _in_thread(args: threading.ExceptHookArgs) -> None:
  if not is_about_disk(args.exc_value) and not _IN_THREADS.search(str(args.exc_value)):
    threading.__excepthook__(args)


def _unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
  """Prints what no caller can catch, but not the answers to a writer that the full disk has ended.

  tensorstore's own threads answer every pending write through the event loop that waits for them. After
  the first failure, which the loop raises, the loop is closed.
  """
  traceback = unraisable.exc_traceback
  is_answer = traceback is not None and traceback.tb_frame.f_code.co_name == "call_soon_threadsafe"
  if not is_about_disk(unraisable.exc_value) and not is_answer:
    sys.__unraisablehook__(unraisable)


def _is_worth_logging(record: logging.LogRecord) -> bool:
  error = record.exc_info[1] if record.exc_info else None
  return not is_about_disk(error) and not _ABOUT_DISK.search(record.getMessage())
