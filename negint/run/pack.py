"""Finished runs as one small file: what they were and what they found, without their weights.

A pack is a compressed tar archive with each run's config, result, scores of each test example and
curves, byte for byte and under the run's own folder. Equal runs give equal packs.
"""

import contextlib
import io
import json
import lzma
import pathlib
import tarfile
import tempfile
from collections.abc import Iterator, Sequence

from negint.errors import UserError
from negint.run.files import whole_file
from negint.run.workdir import run_folders

KEPT = ("config.json", "result.json", "data.json", "metrics.jsonl", "seed*/per_example/*.json")


def pack(folders: Sequence[pathlib.Path], file: pathlib.Path) -> int:
  """Writes the finished runs below folders into a pack; returns how many there are.

  Args:
    folders: of runs. A run that several of them have is taken from the first.
    file: the pack; it is replaced.

  Raises:
    UserError: there is no finished run.
  """
  runs: dict[str, pathlib.Path] = {}  # by their place below their folder
  for folder in folders:
    for run in run_folders(folder):
      if (run / "config.json").is_file() and (run / "result.json").is_file():
        runs.setdefault(run.relative_to(folder).as_posix(), run)
  if not runs:
    names = ", ".join(map(str, folders))
    raise UserError(f"{names} holds no finished run to pack; finish one, or name another folder.")
  members = {
    f"{name}/{path.relative_to(run).as_posix()}": path
    for name, run in runs.items()
    for pattern in KEPT
    for path in run.glob(pattern)
  }
  # Files of one kind stand together, because they compress better than those of one run.
  ordered = sorted(members.items(), key=lambda member: (member[1].name, member[0]))
  with (
    whole_file(file, "wb") as raw,
    tarfile.open(fileobj=raw, mode="w:xz", preset=9, format=tarfile.GNU_FORMAT) as archive,
  ):
    for name, path in ordered:
      contents = path.read_bytes()
      entry = tarfile.TarInfo(name)  # no time and no owner: equal runs give equal bytes
      entry.size = len(contents)
      archive.addfile(entry, io.BytesIO(contents))
  return len(runs)


@contextlib.contextmanager
def unpacked(file: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a folder with the runs of a pack, which is deleted at the end of the block.

  Raises:
    UserError: the file is no pack, or is damaged.
  """
  with tempfile.TemporaryDirectory(prefix="negint-") as folder:
    with _opened(file) as archive:
      archive.extractall(folder, filter="data")
    yield pathlib.Path(folder)


def packed_configs(file: pathlib.Path) -> dict[str, dict]:
  """Returns {place of the run: its config} of a pack.

  Raises:
    UserError: the file is no pack, or is damaged.
  """
  configs = {}
  with _opened(file) as archive:
    for member in archive:
      folder, _, name = member.name.rpartition("/")
      contents = archive.extractfile(member) if name == "config.json" else None
      if contents is not None:
        configs[folder] = json.load(contents)
  return configs


@contextlib.contextmanager
def _opened(file: pathlib.Path) -> Iterator[tarfile.TarFile]:
  if not file.is_file():
    raise UserError(f"{file} is not a file; name a pack that `launch.study --pack` wrote.")
  try:
    with tarfile.open(file, "r:xz") as archive:
      yield archive
  except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as error:
    raise UserError(
      f"{file} is no pack of runs, or is damaged ({error}); copy it again, or name another."
    ) from error
