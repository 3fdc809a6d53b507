"""Where a run's scalars go: `metrics.jsonl` (the record) and TensorBoard events (to look at)."""

import json
import pathlib
from collections.abc import Callable

from negint.run.files import write_text


class MetricsWriter:
  """Appends to `<workdir>/metrics.jsonl` and `<workdir>/tensorboard`.

  Args:
    workdir: the run's folder.
    first_step: updates that the run starts from. Later records, written by a run that was killed
      after its last checkpoint, are dropped.
    quiet: reads what is on record, and writes nothing.
    say: receives the sentence that says which records a damaged file has lost.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    first_step: int,
    *,
    quiet: bool = False,
    say: Callable[[str], object] = print,
  ):
    path = workdir / "metrics.jsonl"
    records = read_metrics(path) if path.exists() else []
    lines = path.read_bytes().count(b"\n") if path.exists() else 0
    if lines > len(records):  # the last line of a killed run has no line feed
      say(f"{path} is damaged; its lines from number {len(records) + 1} on are left out.")
    self._at_start = [record for record in records if record["step"] <= first_step]
    self._quiet = quiet
    if quiet:
      return
    from tensorboardX import SummaryWriter

    if path.exists():
      write_text(path, "".join(json.dumps(record) + "\n" for record in self._at_start))
    self._file = path.open("a", encoding="utf-8")
    self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step + 1)

  def has(self, step: int, prefix: str) -> bool:
    """Whether a scalar of that step was on record when the run started."""
    return any(
      record["step"] == step and any(name.startswith(prefix) for name in record)
      for record in self._at_start
    )

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Writes one line of metrics.jsonl: `step` and the scalars."""
    if self._quiet:
      return
    self._file.write(json.dumps({"step": step, **scalars}) + "\n")
    self._file.flush()
    for name, value in scalars.items():
      self._events.add_scalar(name, value, step)

  def close(self) -> None:
    """Closes both files."""
    if not self._quiet:
      self._file.close()
      self._events.close()


def read_metrics(path: pathlib.Path) -> list[dict]:
  """Returns the records of a metrics.jsonl up to the first damaged line.

  A crash can cut the last line short.
  """
  records = []
  for line in path.read_bytes().splitlines():
    try:
      record = json.loads(line)
    except ValueError:  # not JSON, or not even UTF-8
      break
    if not isinstance(record, dict) or "step" not in record:
      break
    records.append(record)
  return records
