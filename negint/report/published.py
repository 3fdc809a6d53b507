"""Looks up the paper's numbers (`published.toml`) by table, task, score, setting, row and column."""

import functools
import pathlib
import tomllib


@functools.cache
def _tables() -> dict:
  path = pathlib.Path(__file__).with_name("published.toml")
  return tomllib.loads(path.read_text(encoding="utf-8"))


def block(table: str, task: str, score: str, setting: str) -> dict[str, list]:
  """Returns the rows of one block and its `columns`; {} where the paper has no such block."""
  return _tables().get(table, {}).get(task, {}).get(score, {}).get(setting, {})


def rows(table: str, task: str, score: str, setting: str) -> list[str]:
  """Returns the systems with a row in the block, in the order of the paper."""
  return [name for name in block(table, task, score, setting) if name != "columns"]


def columns(table: str, task: str, score: str, setting: str) -> list[str]:
  """Returns the languages of the block, without `avg`, in the order of the paper."""
  return [name for name in block(table, task, score, setting).get("columns", []) if name != "avg"]


def value(table: str, task: str, score: str, setting: str, row: str, column: str) -> float | None:
  """Returns one printed number, in per cent; None where the paper prints none."""
  entries = block(table, task, score, setting)
  if row not in entries or column not in entries["columns"]:
    return None
  return entries[row][entries["columns"].index(column)]


def corpus_sizes() -> dict[str, float]:
  """Returns the millions of sentences of each language (Table 1)."""
  return dict(_tables()["table1"])
