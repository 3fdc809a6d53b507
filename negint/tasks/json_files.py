"""Files of the tasks that hold values of JSON: one, an array, one per line, or the rows of a table."""

import json
import os
from collections.abc import Iterator
from typing import Any

from negint.data import tables
from negint.data.opener import kind_of
from negint.data.text import replace_surrogates
from negint.errors import UserError
from negint.tasks.examples import Report, count
from negint.tasks.task import Path
from negint.tasks.text_files import lines_of, read_text, where

ENDINGS = ("json", "jsonl", *tables.ENDINGS)  # of the names of such files

# Any: of JSON.


def has_values(path: Path) -> bool:
  """Returns whether a file holds values of JSON, by its name."""
  return kind_of(path) in ENDINGS


def read_values(path: Path, report: Report) -> list[tuple[Any, str]]:
  """Returns the values of a JSON file or the rows of a parquet or Arrow file, each with its place.

  A JSON file holds one value, an array of them, or one value per line (JSON lines). Places are ""
  for the only value of a file, "[0]" in an array or a table, and "line 1". Each surrogate without
  its other half becomes U+FFFD (counted), so that offsets hold.

  Raises:
    UserError: the file cannot be read or is not JSON, with its line.
  """
  if tables.is_table(path):
    return [(row, f"[{index}]") for index, row in enumerate(tables.read_table(path))]
  text = read_text(path)
  try:
    root = json.loads(text)
  except json.JSONDecodeError as error:
    placed = list(_of_lines(path, text, error))
  else:
    placed = [(root, "")]
    if isinstance(root, list):
      placed = [(value, f"[{index}]") for index, value in enumerate(root)]
  return [(_whole(value, report), place) for value, place in placed]


def read_records(path: Path, report: Report) -> list[tuple[dict[str, Any], str]]:
  """Returns the objects of a file, see `read_values`, each with its place, such as 'path, line 3'.

  An object with a list `data` stands for the objects in the list.

  Raises:
    UserError: as `read_values`, or a value is not an object.
  """
  records: list[tuple[dict[str, Any], str]] = []
  for value, place in read_values(path, report):
    inner = [(value, place)]
    if isinstance(value, dict) and isinstance(value.get("data"), list):
      inner = [(entry, f"data[{index}]") for index, entry in enumerate(value["data"])]
    for entry, at in inner:
      if not isinstance(entry, dict):
        raise UserError(
          f"{path}, {at or 'its value'}: not a JSON object. Each example must be an object with "
          "named fields."
        )
      records.append((entry, f"{path}, {at}" if at else str(path)))
  return records


def first_field(record: dict[str, Any], names: tuple[str, ...]) -> str | None:
  """Returns the first of the names that a record has, or None."""
  return next((name for name in names if name in record), None)


def label_name(value: Any, names: tuple[str, ...], place: str) -> str:
  """Returns a label as text; a number is looked up in `names`.

  Raises:
    UserError: the label is a number without a name, or neither a text nor a number.
  """
  if isinstance(value, str):
    return value
  if not isinstance(value, int) or isinstance(value, bool):
    raise UserError(f"{place}: the label {value!r} is neither a text nor a whole number.")
  if not 0 <= value < len(names):
    known = f"data.labels names {len(names)} labels" if names else "data.labels names none"
    raise UserError(
      f"{place}: the label {value} is a number, and {known}. Give the names of the file's numbers "
      "from 0 on, for example --config.data.labels=entailment,neutral,contradiction or "
      "--config.data.labels=O,B-PER,I-PER; or put the dataset_info.json of the data set beside it. "
      "--config.data.labels=0,1 and so on keeps the numbers as names."
    )
  return names[value]


def names_beside(path: Path, fields: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the names of a field's numbered labels, or () where nothing tells them.

  They stand in the table itself, or in the dataset_info.json beside the file, as the package
  datasets writes both: features.<field>.names, or features.<field>.feature.names.
  """
  features: Any = tables.features(path) if tables.is_table(path) else {}
  info = os.path.join(os.path.dirname(path), "dataset_info.json")
  if not first_field(features, fields) and os.path.isfile(info):
    values = read_values(info, {})
    features = values[0][0].get("features") if isinstance(values[0][0], dict) else None
  field = first_field(features, fields) if isinstance(features, dict) else None
  feature = features[field] if features and field else {}
  inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
  return tuple(inner.get("names", ())) if isinstance(inner, dict) else ()


def _of_lines(path: Path, text: str, error: json.JSONDecodeError) -> Iterator[tuple[Any, str]]:
  """Yields the values of JSON lines; `error` is why the whole text is not one value."""
  lines = [(number, line) for number, line in enumerate(lines_of(text), 1) if line.strip()]
  try:
    json.loads(lines[0][1])
  except json.JSONDecodeError:
    raise UserError(
      f"{where(path, error.lineno)}: not JSON: {error.msg} at column {error.colno}. The file must "
      "hold one JSON value, or one per line."
    ) from None
  for number, line in lines:
    try:
      yield json.loads(line), f"line {number}"
    except json.JSONDecodeError as wrong:
      raise UserError(
        f"{where(path, number)}: not JSON: {wrong.msg} at column {wrong.colno}. Each line of this "
        "file must hold one JSON value."
      ) from None


def _whole(value: Any, report: Report) -> Any:
  """Returns a JSON value without surrogates that lack their other half."""
  if isinstance(value, str):
    text, number = replace_surrogates(value)
    count(report, "lone surrogates replaced by U+FFFD", number)
    return text
  if isinstance(value, list):
    return [_whole(each, report) for each in value]
  if isinstance(value, dict):
    return {_whole(key, report): _whole(each, report) for key, each in value.items()}
  return value
