"""What can stop a run, and the exit code of each cause.

`command_line.py` prints these as one sentence on stderr. Every other exception is a defect of
the code and keeps its traceback.
"""

EXIT_USER_ERROR = 2
EXIT_NON_FINITE = 4
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes the run


class UserError(Exception):
  """A mistake of the user. Its message says the value, the rule, the legal values and what to do."""

  exit_code = EXIT_USER_ERROR


class NonFiniteLoss(Exception):
  """The loss became NaN or infinite; the last good checkpoint is kept."""

  exit_code = EXIT_NON_FINITE


class Interrupted(Exception):
  """SIGTERM, SIGHUP or Ctrl-C; the state was saved and the same command resumes it."""

  exit_code = EXIT_INTERRUPTED
