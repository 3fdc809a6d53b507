"""Where a run's scalars go: `metrics.jsonl` (the record) and TensorBoard events (to look at)."""

import json
import pathlib

from negint.run.files import write_text


class MetricsWriter:
  """Appends to `<workdir>/metrics.jsonl` and `<workdir>/tensorboard`.

  Args:
    workdir: the run's folder.
    first_step: updates that the run starts from. Later records, written by a run that was killed
      after its last checkpoint, are dropped.
    quiet: reads what is on record, and writes nothing.
  """

  def __init__(self, workdir: pathlib.Path, first_step: int, *, quiet: bool = False):
    path = workdir / "metrics.jsonl"
    self._at_start = _records_until(path, first_step)
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
  """Returns the records of a metrics.jsonl; a last line cut short by a crash is left out."""
  records = []
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      records.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return records


def _records_until(path: pathlib.Path, step: int) -> list[dict]:
  return [r for r in read_metrics(path) if r["step"] <= step] if path.exists() else []
