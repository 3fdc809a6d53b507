"""Makes a corpus on disk from a source, in steps that survive an interruption.

Cleaned documents are staged in `<data_dir>/corpus/.<language>.staging`, in part files that say how
much of the source has been read. A preparation that starts again resumes after the last part.
`sources` reads, `cleaning` cleans, and `corpus` writes the corpus.
"""

import dataclasses
import itertools
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator

from absl import logging

from negint.data.cleaning import DROP_REASONS, UNREADABLE, Cleaner, Filters, dropped_lines
from negint.data.corpus import (
  META_SHARE,
  SPLITS,
  Corpus,
  TooFewDocuments,
  corpus_directory,
  open_corpus,
  progress_bar,
  write_corpus,
)
from negint.data.sources import Source
from negint.errors import UserError
from negint.run.files import read_json, read_json_lines, write_json, write_json_lines
from negint.run.lock import exclusive

PART_DOCUMENTS = 5000  # source documents per part, which an interruption can lose
PART_CHARACTERS = 20_000_000  # per part, which is held in memory


def prepare(
  source: Source,
  language: str,
  data_dir: os.PathLike | str,
  filters: Filters = Filters(),  # noqa: B008, frozen
  progress: bool = True,
  say: Callable[[str], object] = logging.info,
  wait: bool = False,
  meta_share: float = META_SHARE,
) -> Corpus:
  """Returns the corpus of a language, and makes it first if it does not exist.

  Args:
    source: where the documents come from.
    language: its code; names the folder and sets the language filter.
    data_dir: the root of all prepared data.
    filters: which lines are kept.
    progress: whether to show progress bars on stderr.
    say: receives sentences for the user, such as where it resumes or which filter is off.
    wait: whether to wait while another process prepares the same corpus.
    meta_share: share of the documents for the split meta; at least as many as valid has.

  Raises:
    UserError: the folder has data of another source or other filters, another process prepares the
      same corpus (without `wait`), the source cannot be read or has too little text, or the disk
      refuses.
  """
  if not 0 <= meta_share <= 0.5:
    raise UserError(f"meta_share={meta_share} must be a share of the documents between 0 and 0.5.")
  directory = corpus_directory(data_dir, language)
  staging = _Staging(directory.parent.parent / f".{language}.staging")
  made_from = {
    "source": source.identity,
    "filters": dataclasses.asdict(filters),
    "split": {"meta_share": meta_share},
  }
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
      counts, found = _stage(source, language, filters, staging, progress, say)
      provenance = {**made_from, "language": language, "counts": counts, "found": found}
      try:
        corpus = write_corpus(
          staging,
          language=language,
          data_dir=data_dir,
          provenance=provenance,
          meta_share=meta_share,
          progress=progress,
        )
      except TooFewDocuments as error:
        staging.remove()  # resuming cannot help, and other text or filters must not be refused
        raise UserError(f"{error} {_remedy(counts, found, source)}") from None
      staging.remove()
      return corpus
  except OSError as error:
    raise UserError(
      f"Preparing '{language}' in {data_dir} stopped: {error}. No incomplete corpus was left; "
      "remove the cause and start the same command again, which resumes."
    ) from error


def summary(corpus: Corpus, data_dir: str) -> str:
  """Returns a table of what was read, dropped and written, and the command that comes next."""
  counts = corpus.provenance["counts"]
  rows = [("lines read", counts["lines_read"])]
  rows += [(f"  dropped, {reason.replace('_', ' ')}", counts[reason]) for reason in DROP_REASONS]
  if counts[UNREADABLE]:
    rows.append(("articles not readable", counts[UNREADABLE]))
  table = [f"{label:<26}{count:>12,}" for label, count in rows]
  if found := corpus.provenance["found"]:
    commonest = sorted(found.items(), key=lambda item: -item[1])[:5]
    languages = ", ".join(f"{code} {count:,}" for code, count in commonest)
    table[rows.index(("  dropped, other language", counts["other_language"]))] += f"  ({languages})"
  table.append(f"{'split':<10}{'documents':>14}{'lines':>14}{'characters':>16}")
  table += [
    f"{split:<10}{corpus.num_documents[split]:>14,}{corpus.num_lines[split]:>14,}"
    f"{corpus.num_characters[split]:>16,}"
    for split in SPLITS
  ]
  other = "ar" if corpus.language == "en" else corpus.language
  lacking = [code for code in ("en", other) if not corpus_directory(data_dir, code).exists()]
  first = f"prepare {lacking[0]} as well, then " if lacking else ""
  folder = "" if data_dir == "data" else f" --config.data.dir={data_dir}"
  table.append(f"Corpus: {corpus.directory}")
  table.append(
    f"Next:   {first}python -m negint.main --config=configs/joint_pair.py:{other}-en,base{folder}"
  )
  return "\n".join(table)


def _stage(
  source: Source,
  language: str,
  filters: Filters,
  staging: "_Staging",
  progress: bool,
  say: Callable[[str], object],
) -> tuple[dict[str, int], dict[str, int]]:
  """Cleans and stages the documents that are not staged yet; returns `Cleaner.counts`, `found`."""
  cleaner = Cleaner(filters, language)
  for note in cleaner.notes:
    say(note)
  state = staging.state()
  if state["consumed"]:
    cleaner.counts.update(state["counts"])
    cleaner.found.update(state["found"])
    for lines in staging:
      for line in lines:
        cleaner.remember(line)
    say(f"Resuming an interrupted preparation: {state['consumed']} documents are done.")
  if not state["finished"]:
    with progress_bar(
      progress, total=source.total, desc="reading", unit=source.unit, unit_scale=True
    ) as bar:
      _stage_rest(source, cleaner, staging, state["consumed"], bar.update)
    for note in source.notes():
      say(note)
  return dict(cleaner.counts), dict(cleaner.found)


def _remedy(counts: dict[str, int], found: dict[str, int], source: Source) -> str:
  """Returns what was dropped of a text that is too little, and what to do."""
  lines, parts = counts["lines_read"], dropped_lines(counts, found)
  if not lines:
    parts.append("No line was read")
  if sum(counts[reason] for reason in DROP_REASONS) <= lines / 2:
    parts.append("Give more text (200 documents are enough)")
    if lines and str(source.identity.get("spec")).startswith("text:"):
      parts[-1] += ", or take each line as a document: --document=line"
  return ". ".join(parts) + "."


def _stage_rest(
  source: Source,
  cleaner: Cleaner,
  staging: "_Staging",
  consumed: int,
  advance: Callable[[int], object],
) -> None:
  """Cleans the documents of `source` after the first `consumed` and stages them."""
  part: list[list[str]] = []
  characters, first = 0, consumed

  def header(finished: bool) -> dict:
    counted = {"counts": cleaner.counts, "found": cleaner.found}
    return {"consumed": consumed, **counted, "finished": finished}

  for document in _read(source, consumed, advance, staging):
    lines = cleaner.clean(document)
    consumed += 1
    if lines:
      part.append(lines)
      characters += sum(map(len, lines))
    if consumed - first == PART_DOCUMENTS or characters > PART_CHARACTERS:
      staging.append(part, header(finished=False))
      part, characters, first = [], 0, consumed
  staging.append(part, header(finished=True))


def _read(
  source: Source, skip: int, advance: Callable[[int], object], staging: "_Staging"
) -> Iterator[list[str] | None]:
  """Yields the documents of a source; deletes what is staged where the source cannot be read.

  The user then gives other files, and the next try must not be refused for that.
  """
  try:
    yield from source.documents(skip=skip, advance=advance)
  except UserError:
    staging.remove()
    raise


class _Staging:
  """Cleaned documents in numbered part files, which can be iterated any number of times.

  A part is a file of JSON lines: a header (documents read so far, counts so far, whether the source
  is finished), then one document per line.
  """

  def __init__(self, directory: pathlib.Path):
    self._directory = directory
    self._part_of = (
      f"an interrupted preparation; delete {directory} and start the same command again"
    )

  def begin(self, made_from: dict) -> None:
    """Makes the folder, or checks that the one there has the same source and filters."""
    plan = self._directory / "plan.json"
    if plan.exists():
      _refuse_other(read_json(plan, self._part_of), made_from, self._directory)
    else:
      write_json(plan, made_from)

  def state(self) -> dict:
    """Returns the header of the last part."""
    parts = self._parts()
    if not parts:
      return {"consumed": 0, "counts": {}, "found": {}, "finished": False}
    return next(read_json_lines(parts[-1], self._part_of))

  def append(self, documents: list[list[str]], header: dict) -> None:
    """Adds a part."""
    name = f"part-{len(self._parts()):06d}.jsonl"
    write_json_lines(self._directory / name, [header, *documents])

  def remove(self) -> None:
    """Deletes everything that was staged."""
    shutil.rmtree(self._directory)

  def __iter__(self) -> Iterator[list[str]]:
    for part in self._parts():
      yield from itertools.islice(read_json_lines(part, self._part_of), 1, None)

  def _parts(self) -> list[pathlib.Path]:
    return sorted(self._directory.glob("part-*.jsonl"))


def _refuse_other(there: dict, wanted: dict, directory: pathlib.Path) -> None:
  """Checks that the data in `directory` was prepared from what is asked for.

  Raises:
    UserError: something differs.
  """
  differing = [
    f"{field}.{key} is {old.get(key)!r} there and {new.get(key)!r} here"
    for field, new in wanted.items()
    for old in [there.get(field, {})]
    for key in sorted({*old, *new})
    if old.get(key) != new.get(key)
  ]
  if differing:
    raise UserError(
      f"{directory} has data that was prepared otherwise: {'; '.join(differing)}. Choose another "
      "--data_dir, or delete that folder to prepare it again."
    )
