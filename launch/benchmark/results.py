"""The JSON files of results: {"steps": {size: group}, "memory": group, "host": group}.

A group has an `environment` (the machine and the versions) and `rows` (what was measured).
"""

import json
import pathlib

from negint.errors import UserError
from negint.run.files import write_json


def read(path: pathlib.Path) -> dict:
  """Returns the results in a file.

  Raises:
    UserError: there is no such file, or it is not JSON.
  """
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(
      f"{path} is not a file of benchmark results ({error}); name one of launch/benchmarks/*.json."
    ) from error


def merge(path: pathlib.Path, results: dict) -> None:
  """Writes results into a file; what the file holds of other sizes and measurements stays."""
  there = read(path) if path.exists() else {}
  steps = {**there.get("steps", {}), **results.get("steps", {})}
  write_json(path, {**there, **results, **({"steps": steps} if steps else {})})
