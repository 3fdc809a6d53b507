"""What the tasks on two texts share: a pair of texts as a user gives it."""

from collections.abc import Mapping, Sequence
from typing import Any

from negint.errors import UserError
from negint.tasks.json_files import first_field


# Any: whatever a user gives.
def two_texts(value: Any, names: Sequence[tuple[str, ...]], place: str) -> tuple[str, str]:
  """Returns the two texts of a pair as given.

  Args:
    value: two texts, or an object of JSON.
    names: the names of each text's field; the first that is there is read.
    place: of the value, for messages.

  Raises:
    UserError: it is neither, or a text is empty.
  """
  first, second = (each[0] for each in names)
  if isinstance(value, Mapping):
    record = {str(name).lower(): text for name, text in value.items()}
    value = [record.get(first_field(record, each) or "") for each in names]
  texts = [] if isinstance(value, str) or not isinstance(value, Sequence) else list(value)
  if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
    raise UserError(
      f"{place} is {str(value)[:60]!r}; it must be two texts, {first} and {second}: a pair "
      f"({first}, {second}), JSON with these fields, or a line with a tab between the two."
    )
  for name, text in zip((first, second), texts, strict=True):
    if not text.strip():
      raise UserError(f"{place} has an empty {name}; give it a text, or leave the pair out.")
  return texts[0], texts[1]
