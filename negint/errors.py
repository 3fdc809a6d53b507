"""What can stop a run, and the exit code that each cause has.

`main.py` and `prepare.py` turn these into one sentence on stderr; every other exception is a defect of
ours and keeps its traceback.
"""

EXIT_USER_ERROR = 2
EXIT_NON_FINITE = 4
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes the run


class UserError(Exception):
  """A mistake in what the user asked for: names the value, the rule, the legal values, what to do."""

  exit_code = EXIT_USER_ERROR


class NonFiniteLoss(Exception):
  """The loss became NaN or infinite; the last good checkpoint is kept."""

  exit_code = EXIT_NON_FINITE


class Interrupted(Exception):
  """SIGTERM or Ctrl-C; the state was saved and the same command resumes it."""

  exit_code = EXIT_INTERRUPTED
