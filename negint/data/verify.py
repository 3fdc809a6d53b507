"""Compares all corpora and token caches of a data folder with what was recorded when they were written."""

import pathlib
from collections.abc import Iterator

from negint.data import corpus, token_cache
from negint.errors import EXIT_USER_ERROR, UserError


def verify(data_dir: pathlib.Path) -> Iterator[tuple[pathlib.Path, str | None]]:
  """Yields each folder of a corpus or token cache, and what is wrong with it (None: nothing).

  It reads every file whole. Corpora come first: token caches are made from them.

  Args:
    data_dir: folder of all prepared data; those of the sample and the lab lie in it.
  """
  for record in sorted(data_dir.rglob(f"{corpus.VERSION}/{corpus.METADATA}")):
    language, root = record.parents[1].name, record.parents[3]
    try:
      corpus.open_corpus(root, language).check(whole=True)
      yield record.parent, None
    except UserError as error:
      yield record.parent, str(error)
  for folder in sorted(data_dir.rglob("tokens/*")):
    if folder.is_dir() and not folder.name.startswith("."):
      what = token_cache.damage(folder, whole=True)
      yield (
        folder,
        f"{what}. The next run that reads this token cache makes it anew." if what else None,
      )


def report(data_dir: pathlib.Path) -> int:
  """Prints what is whole and what is damaged in a data folder; returns the exit code.

  Raises:
    UserError: there is nothing to compare.
  """
  found = list(verify(data_dir))
  if not found:
    raise UserError(f"{data_dir} has neither a corpus nor a token cache; name another --data_dir.")
  for folder, damage in found:
    print(f"{folder}: {damage or 'whole'}")
  damaged = sum(damage is not None for _, damage in found)
  print(f"{len(found) - damaged} of {len(found)} are whole.")
  return EXIT_USER_ERROR if damaged else 0
