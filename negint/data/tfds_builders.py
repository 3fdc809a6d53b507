"""TensorFlow Datasets by the names of their builders, without TensorFlow."""

import importlib
import re
from typing import TYPE_CHECKING

from negint.errors import UserError

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# TFDS lists a builder of the old style only after the import of its module.
_OLD_STYLE_PACKAGES = ("text", "question_answering")


def find_builder(
  name: str, data_dir: str | None, *, otherwise: str, file_format: str | None = None
) -> "tfds.core.DatasetBuilder":
  """Returns the TFDS builder of a name; its data may be prepared or not.

  Args:
    name: the builder, with its config if it has several: 'wiki40b/ar'.
    data_dir: the folder of prepared builders; None for TFDS's own default.
    otherwise: what the user can do without TFDS, as the end of a sentence: "or use ...".
    file_format: the format to prepare it in; None for the format that lies on disk.

  Raises:
    UserError: there is no such builder or config, or a package that it needs is not installed.
  """
  try:
    import tensorflow_datasets as tfds  # half a second, and few commands need it
  except ImportError as error:
    raise UserError(
      f"'{name}' needs the package tensorflow-datasets, which cannot be imported ({error}): "
      f"pip install tensorflow-datasets, {otherwise}."
    ) from error

  chosen = {"file_format": file_format} if file_format else {}

  def find() -> tfds.core.DatasetBuilder:
    return tfds.builder(name, data_dir=data_dir, **chosen)

  try:
    try:
      return find()
    except tfds.core.DatasetNotFoundError:
      _import_old_style(re.split("[/:]", name)[0])
      return find()
  except tfds.core.DatasetNotFoundError:
    raise UserError(
      f"TFDS has no builder '{name}', neither in its catalogue nor prepared in "
      f"{data_dir or tfds.core.constants.DATA_DIR}. Choose one from "
      f"https://www.tensorflow.org/datasets/catalog, {otherwise}."
    ) from None
  except ImportError as error:
    raise UserError(
      f"The TFDS builder '{name}' needs the package {error.name}, which cannot be imported. Install "
      "it, or prepare the builder as array_record on a machine that has the package and copy the "
      f"files here, {otherwise}."
    ) from error
  except ValueError as error:
    raise UserError(
      f"TFDS has no builder '{name}' that it can load: {first_line(error)} Check the name and the "
      f"config after the slash, {otherwise}."
    ) from error


def first_line(error: Exception) -> str:
  """Returns the beginning of an error's text as a sentence; TFDS's errors can fill a page."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:300].rstrip(".") + "."


def _import_old_style(base: str) -> None:
  """Imports the module of the builder `base` where TFDS keeps one."""
  for package in _OLD_STYLE_PACKAGES:
    for module in (f"{package}.{base}", f"{package}.{base}.{base}"):
      _import_if_there(f"tensorflow_datasets.{module}")


def _import_if_there(module: str) -> None:
  """Imports `module` if it exists.

  Raises:
    ImportError: the module exists and imports something that does not.
  """
  try:
    importlib.import_module(module)
  except ModuleNotFoundError as error:
    if not module.startswith(error.name or module + "."):
      raise
