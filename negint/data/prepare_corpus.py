"""From a source to a corpus on disk, in steps that survive an interruption.

Owns the staging folder `<data_dir>/corpus/.<language>.staging`: cleaned documents in part files,
each written aside and renamed, each saying how much of the source is behind it. A preparation
started again goes on after the last part. Reading, cleaning and writing themselves are `sources`,
`cleaning` and `corpus`.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from absl import logging

from negint.data.cleaning import Cleaner, Filters
from negint.data.corpus import Corpus, corpus_directory, open_corpus, progress_bar, write_corpus
from negint.data.sources import Source
from negint.errors import UserError
from negint.run.lock import exclusive

PART_DOCUMENTS = 5000  # source documents a part: what an interruption can lose ...
PART_CHARACTERS = 20_000_000  # ... and what is held in memory


def prepare(
  source: Source,
  language: str,
  data_dir: os.PathLike | str,
  filters: Filters = Filters(),  # noqa: B008, frozen
  progress: bool = True,
  say: Callable[[str], object] = logging.info,
  wait: bool = False,
) -> Corpus:
  """The corpus of `language`, made from `source` unless it was made from it before.

  Args:
    source: where the documents come from.
    language: code; names the folder and sets the language filter.
    data_dir: the root of all prepared data.
    filters: which lines are kept.
    progress: show progress bars on stderr.
    say: receives sentences for the user (goes on from where, which filter is off, ...).
    wait: whether to wait while another process prepares the same corpus.

  Raises:
    UserError: another source or other filters are there already, another process prepares the same
      corpus (without `wait`), the source is unreadable, its text too little, or the disk refuses.
  """
  directory = corpus_directory(data_dir, language)
  staging = _Staging(directory.parent.parent / f".{language}.staging")
  made_from = {"source": source.identity, "filters": dataclasses.asdict(filters)}
  try:
    with exclusive(
      directory.parent.parent / f".{language}.lock",
      f"preparing the corpus of '{language}'",
      wait=wait,
    ):
      if directory.exists():
        corpus = open_corpus(data_dir, language)
        _refuse_other(corpus.provenance, made_from, directory)
        say(f"The corpus of '{language}' is already prepared at {directory}.")
        return corpus
      staging.begin(made_from)
      counts = _stage(source, language, filters, staging, progress, say)
      provenance = {**made_from, "language": language, "counts": counts}
      corpus = write_corpus(
        staging, language=language, data_dir=data_dir, provenance=provenance, progress=progress
      )
      staging.remove()
      return corpus
  except OSError as error:
    raise UserError(
      f"Preparing '{language}' in {data_dir} stopped: {error}. No incomplete corpus was left; "
      "remove the cause and start the same command again: it goes on."
    ) from error


def _stage(source, language, filters, staging, progress, say) -> dict[str, int]:
  """Cleans what the staging lacks, part by part; returns the counts of the cleaning."""
  cleaner = Cleaner(filters, language)
  for note in cleaner.notes:
    say(note)
  state = staging.state()
  if state["consumed"]:
    cleaner.counts.update(state["counts"])
    for lines in staging:
      for line in lines:
        cleaner.remember(line)
    say(f"Going on with an interrupted preparation: {state['consumed']} documents were done.")
  if not state["finished"]:
    with progress_bar(
      progress, total=source.total, desc="reading", unit=source.unit, unit_scale=True
    ) as bar:
      _stage_rest(source, cleaner, staging, state["consumed"], bar.update)
  return dict(cleaner.counts)


def _stage_rest(source, cleaner, staging, consumed, advance) -> None:
  """Cleans the documents of `source` after the first `consumed` and stages them."""
  part, characters, first = [], 0, consumed
  for document in source.documents(skip=consumed, advance=advance):
    lines = cleaner.clean(document)
    consumed += 1
    if lines:
      part.append(lines)
      characters += sum(map(len, lines))
    if consumed - first == PART_DOCUMENTS or characters > PART_CHARACTERS:
      staging.append(part, {"consumed": consumed, "counts": cleaner.counts, "finished": False})
      part, characters, first = [], 0, consumed
  staging.append(part, {"consumed": consumed, "counts": cleaner.counts, "finished": True})


class _Staging:
  """Cleaned documents in numbered part files; iterating yields them in order, as often as wanted.

  A part is JSON lines: a header (documents consumed so far, counts so far, whether the source is
  finished), then a document a line.
  """

  def __init__(self, directory: pathlib.Path):
    self._directory = directory

  def begin(self, made_from: dict) -> None:
    """Creates the staging, or checks that the one there is of the same source and filters."""
    plan = self._directory / "plan.json"
    if plan.exists():
      _refuse_other(json.loads(plan.read_text(encoding="utf-8")), made_from, self._directory)
    else:
      self._directory.mkdir(parents=True, exist_ok=True)
      _write_whole(plan, [made_from])

  def state(self) -> dict:
    """The header of the last part."""
    parts = self._parts()
    if not parts:
      return {"consumed": 0, "counts": {}, "finished": False}
    with parts[-1].open(encoding="utf-8") as file:
      return json.loads(file.readline())

  def append(self, documents: list[list[str]], header: dict) -> None:
    """Adds a part: entirely there or not at all."""
    name = f"part-{len(self._parts()):06d}.jsonl"
    _write_whole(self._directory / name, [header, *documents])

  def remove(self) -> None:
    """Deletes everything that was staged."""
    shutil.rmtree(self._directory)

  def __iter__(self) -> Iterator[list[str]]:
    for part in self._parts():
      with part.open(encoding="utf-8") as file:
        next(file)  # the header
        yield from map(json.loads, file)

  def _parts(self) -> list[pathlib.Path]:
    return sorted(self._directory.glob("part-*.jsonl"))


def _write_whole(path: pathlib.Path, values: list) -> None:
  """Writes `values` as JSON lines aside and renames, so that a file that is there is whole."""
  temporary = path.with_suffix(".tmp")
  try:
    with temporary.open("w", encoding="utf-8") as file:
      file.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def _refuse_other(there: dict, wanted: dict, directory: pathlib.Path) -> None:
  """UserError that shows what differs between the data in `directory` and what is asked for."""
  differing = [
    f"{field}.{key} is {old.get(key)!r} there and {new.get(key)!r} here"
    for field, new in wanted.items()
    for old in [there.get(field, {})]
    for key in sorted({*old, *new})
    if old.get(key) != new.get(key)
  ]
  if differing:
    raise UserError(
      f"{directory} holds data prepared otherwise: {'; '.join(differing)}. Choose another "
      "--data_dir, or delete that folder to prepare it anew."
    )
