"""Task data from TensorFlow Datasets by builder name, read as ArrayRecord without TensorFlow.

What the features mean belongs to the readers of the tasks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from negint.data.tfds_builders import find_builder, first_line, prepare_builder
from negint.errors import UserError

_OTHERWISE = "or use local files (tasks_dir)"


# Any: TFDS's own types; it is imported late and only where it is asked for.
def open_split(
  builder: str, split: str, data_dir: str | None, needs: Iterable[str]
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
  """Returns one split and its features; TFDS downloads and prepares the data on first use.

  Args:
    builder: name with its config, for example 'wikiann/ar'.
    split: name of the split in TFDS.
    data_dir: folder of prepared data, or None for the default of TFDS.
    needs: names of the features that the reader uses.

  Returns:
    (sequence of example dictionaries, dictionary of features).

  Raises:
    UserError: the builder is unknown, cannot be prepared here, or lacks the split or a feature.
  """
  found = _prepared(builder, data_dir)
  if split not in found.info.splits:
    raise UserError(
      f"The TFDS builder '{builder}' has no split '{split}'. It has "
      f"{', '.join(found.info.splits)}. Choose another builder or use local files (tasks_dir)."
    )
  features = found.info.features
  missing = [name for name in needs if name not in features]
  if missing:
    raise UserError(
      f"The TFDS builder '{builder}' lacks the feature '{missing[0]}' that this task reads. It has "
      f"{', '.join(features)}. Check that the builder belongs to the task."
    )
  try:
    return found.as_data_source(split=split), features
  except NotImplementedError as error:
    raise UserError(_not_random_access(builder, error)) from None


def splits(builder: str, data_dir: str | None) -> tuple[str, ...]:
  """Returns the names of the splits of a builder; raises as `open_split` does."""
  return tuple(_prepared(builder, data_dir).info.splits)


def label_names(feature: Any) -> list[str]:
  """Returns the names of a (sequence of) class label."""
  return list(getattr(feature, "feature", feature).names)


def text(value: str | bytes) -> str:
  """Returns a text feature, which TFDS gives as bytes, as a string."""
  return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _prepared(builder: str, data_dir: str | None) -> Any:
  found = find_builder(builder, data_dir, otherwise=_OTHERWISE, file_format="array_record")
  prepare_builder(found, builder, otherwise=_OTHERWISE)
  return found


def _not_random_access(builder: str, error: Exception) -> str:
  return (
    f"The prepared data of '{builder}' cannot be read without TensorFlow: {first_line(error)} "
    f"Prepare it again with file_format='array_record', for example in an empty folder."
  )
