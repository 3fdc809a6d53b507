"""Config files: loading one outside of a command line, and the defaults that a run's name refers to.

`--config=<file>[:<argument>]` names a file with a function `get_config`. Parts `key=value` of the
argument, and flags such as `--config.train.steps=100`, change single fields.
"""

import difflib
import functools
import importlib.util
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from negint.errors import UserError

_NUMBERS = {int: "a whole number", float: "a number"}


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
  """Returns the config that a command line would make.

  Args:
    spec: what follows `--config=`, such as "configs/meta_adpt.py:ar,seed=2".
    overrides: flags, such as "--config.train.steps=100"; flags that are not of the config are ignored.

  Raises:
    UserError: there is no such file, it refuses the argument, or an override does not fit.
  """
  return _overridden(spec, tuple(fields_among(overrides))).copy_and_resolve_references()


def fields_among(words: Iterable[str]) -> list[str]:
  """Returns the words that are flags for fields of the config, such as "--config.train.steps=100"."""
  return [word for word in words if re.match("--?(no)?config[.]", word)]


@functools.cache  # reading overrides takes ten milliseconds, and a study asks for each config often
def _overridden(spec: str, fields: tuple[str, ...]) -> ConfigDict:
  config = _get_config(spec)
  check_fields(config, fields)
  for flag in fields:
    if not isinstance(_field(config, flag), bool) and "=" not in flag:
      raise UserError(f"{flag} has no value; write {flag}=<value>, without a space.")
  known = flags.FlagValues()
  config_flags.DEFINE_config_dict(
    "config", config, flag_values=known, lock_config=True, sys_argv=["", *fields]
  )
  try:
    known(["", *fields])
  except (flags.Error, TypeError, ValueError) as error:  # the fields exist: a value does not fit
    raise UserError(str(error)) from error
  return known["config"].value


def defaults(spec: str) -> ConfigDict:
  """Returns the config of the same file and argument without the argument's `key=value` parts."""
  path, colon, argument = spec.partition(":")
  return _get_config(path + colon + ",".join(p for p in argument.split(",") if "=" not in p))


def _get_config(spec: str) -> ConfigDict:
  path, colon, argument = spec.partition(":")
  check_exists(path)
  module_spec = importlib.util.spec_from_file_location("negint_config", path)
  if module_spec is None or module_spec.loader is None:
    raise UserError(f"--config names {path}, which is not a Python file (its name ends in .py).")
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  return module.get_config(argument) if colon else module.get_config()


def check_command_line(words: list[str]) -> None:
  """Makes the config that --config names, and checks the flags for its fields.

  It does so before the flags are parsed, because ml_collections would report a mistake in words of
  its own, and hide a defect of the file in it.

  Args:
    words: of the command line.

  Raises:
    UserError: as of `load`.
  """
  for word, following in zip(words, [*words[1:], ""], strict=True):
    if match := re.fullmatch("--?config(?:=(.*))?", word):
      check_fields(load(following if match[1] is None else match[1]), words)


def check_fields(config: ConfigDict, words: Iterable[str]) -> None:
  """UserError if a flag such as "--config.train.steps=100" names a field that does not exist.

  The same where the field holds a number and the flag gives none. Other values are not checked.
  """
  for flag in fields_among(words):
    default = _field(config, flag)
    name, equals, value = flag.partition("=")
    if not equals or type(default) not in _NUMBERS:
      continue
    try:
      type(default)(value)
    except ValueError:
      raise UserError(
        f"{name} is {value!r}; it must be {_NUMBERS[type(default)]}, such as {name}={default}."
      ) from None


def _field(config: ConfigDict, flag: str) -> Any:  # Any: a value of any field
  """Returns the value of the field that a flag names; UserError if there is no such field."""
  name = flag.lstrip("-").partition("=")[0].partition(".")[2]
  here, fields = "config", config
  for part in name.split("."):
    if not isinstance(fields, ConfigDict) or part not in fields:
      names = list(fields) if isinstance(fields, ConfigDict) else []
      near = difflib.get_close_matches(part, names, n=1)
      raise UserError(
        f"--config.{name}: {here} has no field {part!r}; it has {', '.join(names) or 'none'}."
        + (f" Did you mean {near[0]}?" if near else "")
      )
    here, fields = f"{here}.{part}", fields[part]
  return fields


def check_exists(path: str) -> None:
  """UserError with the names of the configs that exist, if there is no such file."""
  if pathlib.Path(path).is_file():
    return
  shared = ("base.py", "tasks.py", "__init__.py")
  there = sorted(p.name for p in pathlib.Path("configs").glob("*.py") if p.name not in shared)
  raise UserError(
    f"--config names {path}, which is not a file (looked from {pathlib.Path.cwd()}). configs/ has "
    f"{', '.join(there) or 'none here: run from the folder of the repository'}."
  )


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the fields of nested dicts as ("train.steps", value)."""
  for key, value in tree.items():
    if isinstance(value, dict):
      yield from flatten(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value
