"""A Wikipedia XML dump (pages-articles) as plain text, article by article.

This process reads the pages and chooses the articles; a pool of processes parses their wikitext.
"""

import collections
import concurrent.futures
import itertools
import lzma
import multiprocessing
import os
import pathlib
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from xml.etree import ElementTree

from negint.data.opener import open_bytes
from negint.data.wikitext import plain_text
from negint.errors import UserError

_PAGES_PER_TASK = 64


def read_dump(
  path: pathlib.Path, skip: int, advance: Callable[[int], object]
) -> Iterator[list[str] | None]:
  """Yields the paragraphs of each article, in the order of the dump.

  None stands for an article whose markup the parser cannot read.

  Args:
    path: the dump, compressed or not.
    skip: how many articles to leave out.
    advance: called with n whenever n more bytes of the file have been read.

  Raises:
    UserError: the file is truncated, corrupt or not a dump.
  """
  articles = itertools.islice(_articles(path, advance), skip, None)
  workers = min(16, os.cpu_count() or 1)
  # The caller may have threads (JAX, tqdm), and a fork of a process with threads can hang.
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(workers, context, _begin_work) as pool:
    pending: collections.deque[concurrent.futures.Future[list[list[str] | None]]] = (
      collections.deque()
    )
    try:
      while batch := list(itertools.islice(articles, _PAGES_PER_TASK)):
        pending.append(pool.submit(_plain_texts, batch))
        if len(pending) > 2 * workers:  # enough to keep the workers busy; more would fill memory
          yield from pending.popleft().result()
      while pending:
        yield from pending.popleft().result()
    finally:
      pool.shutdown(wait=False, cancel_futures=True)


def _begin_work() -> None:
  """Prepares a worker process: the parent handles Ctrl-C, and the worker ends with the parent."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  threading.Thread(target=_leave_with, args=[parent], daemon=True).start()


def _leave_with(parent: BaseProcess) -> None:
  """Ends this worker when its parent ends; otherwise it would wait for the next task forever."""
  parent.join()
  os._exit(1)


def _articles(
  path: pathlib.Path, advance: Callable[[int], object]
) -> Iterator[tuple[str, frozenset[str]]]:
  """Yields (wikitext, names of the dump's namespaces) of each article.

  An article is a page in namespace 0 that is not a redirect.
  """
  namespaces, pages = {"file", "image", "category"}, 0
  try:
    with open_bytes(path, advance) as xml:
      root = None
      for event, element in ElementTree.iterparse(xml, events=("start", "end")):
        root = element if root is None else root
        tag = element.tag.rpartition("}")[2]
        if event == "end" and tag == "namespace" and element.text:
          namespaces.add(element.text.lower())
        elif event == "end" and tag == "page":
          pages += 1
          page = {child.tag.rpartition("}")[2]: child for child in element}
          text = page["revision"].findtext("{*}text") if "revision" in page else None
          if text and "redirect" not in page and page["ns"].text == "0":
            yield text, frozenset(namespaces)
          root.clear()  # otherwise the tree of the whole dump stays in memory
  except (EOFError, OSError, lzma.LZMAError, zlib.error, ElementTree.ParseError, KeyError) as error:
    raise UserError(
      f"{path} is truncated, corrupt or not a MediaWiki dump ({error}); {pages} pages were read. "
      "Compare its checksum and download it again."
    ) from error


def _plain_texts(articles: list[tuple[str, frozenset[str]]]) -> list[list[str] | None]:
  """Returns the paragraphs of each article, or None; a task of a worker."""
  return [plain_text(*article) for article in articles]
