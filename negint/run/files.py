"""Files that are there whole or not at all."""

import json
import os
import pathlib

from negint.errors import UserError


def write_json(path: pathlib.Path, value):
  """Writes JSON whole or not at all."""
  temporary = path.with_name(path.name + ".tmp")
  with temporary.open("w", encoding="utf-8") as file:
    json.dump(value, file, indent=2, ensure_ascii=False)
    file.write("\n")
    file.flush()
    os.fsync(file.fileno())
  temporary.rename(path)


def read_json(path: pathlib.Path):
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise UserError(f"{path} is damaged ({error}); choose another --workdir.") from error
