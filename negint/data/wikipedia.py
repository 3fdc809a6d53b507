"""A Wikipedia XML dump (pages-articles) as plain text, article by article.

This process reads the pages and chooses the articles; a pool of processes parses their wikitext.
"""

import bz2
import collections
import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import pathlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from negint.errors import UserError

if TYPE_CHECKING:
  from mwparserfromhell.wikicode import Wikicode

_PAGES_PER_TASK = 64
_DROPPED_TAGS = frozenset(
  ["ref", "references", "table", "gallery", "math", "chem", "ce", "score", "timeline"]
  + ["imagemap", "graph", "hiero", "inputbox", "section", "templatedata", "categorytree"]
  + ["source", "syntaxhighlight", "pre", "style"]
)


def read_dump(
  path: pathlib.Path, skip: int, advance: Callable[[int], object]
) -> Iterator[list[str]]:
  """Yields the paragraphs of each article, in the order of the dump.

  Args:
    path: the dump, compressed by bzip2 if its name ends in .bz2.
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
    pending: collections.deque[concurrent.futures.Future[list[list[str]]]] = collections.deque()
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
  namespaces, pages, position = {"file", "image", "category"}, 0, 0
  try:
    with contextlib.ExitStack() as opened:
      raw = opened.enter_context(path.open("rb"))
      xml = opened.enter_context(bz2.open(raw)) if path.suffix == ".bz2" else raw
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
          advance(raw.tell() - position)
          position = raw.tell()
  except (EOFError, OSError, ElementTree.ParseError, KeyError) as error:
    raise UserError(
      f"{path} is truncated, corrupt or not a MediaWiki dump ({error}); {pages} pages were read. "
      "Compare its checksum and download it again."
    ) from error


def _plain_texts(articles: list[tuple[str, frozenset[str]]]) -> list[list[str]]:
  """Returns the paragraphs of each article; a task of a worker."""
  return [plain_text(*article) for article in articles]


def plain_text(wikitext: str, namespaces: frozenset[str] = frozenset()) -> list[str]:
  """Returns the paragraphs of an article; an empty list if the parser cannot read its markup.

  Templates, tables, references, files, categories and headings are left out.

  Args:
    wikitext: the article's source.
    namespaces: lower-case names whose links ([[Category:...]]) are left out.
  """
  import mwparserfromhell  # only dumps need it

  try:
    text = _strip(mwparserfromhell.parse(wikitext), namespaces)
  except (mwparserfromhell.parser.ParserError, RecursionError):
    return []
  text = re.sub(r"__[A-Z]+__", "", text)  # behaviour switches such as __NOTOC__
  text = re.sub(r" ?\([^\w\n]*\)", "", text)  # brackets that held only a template
  lines = (line.strip() for line in text.split("\n"))
  return [line for line in lines if line and not line.startswith(("|", "{|"))]


def _strip(code: "Wikicode", namespaces: frozenset[str]) -> str:
  """Returns the text of parsed wikitext. Unlike strip_code, leaves out tables, files, headings."""
  from mwparserfromhell import nodes

  parts = []
  for node in code.nodes:
    if isinstance(node, nodes.Tag):
      tag = str(node.tag).strip().lower()
      if tag == "br":
        parts.append("\n")
      elif tag not in _DROPPED_TAGS and node.contents is not None:
        parts.append(_strip(node.contents, namespaces))
    elif isinstance(node, nodes.Wikilink):
      prefix, colon, _ = str(node.title).strip().lower().partition(":")
      # A dump does not list all aliases of the namespace of files, so extensions count too.
      if not (colon and prefix in namespaces) and not re.search(
        r":.+\.(jpe?g|png|svg|gif|webp|tiff?|og[gv]|pdf|webm)\s*$", str(node.title), re.IGNORECASE
      ):
        shown = node.title if node.text is None else node.text
        parts.append(_strip(shown, namespaces).removeprefix(":"))
    elif isinstance(node, nodes.ExternalLink):
      if node.title is not None:
        parts.append(_strip(node.title, namespaces))
    elif isinstance(node, nodes.Text | nodes.HTMLEntity):
      parts.append(node.__strip__(normalize=True) or "")
  return "".join(parts)
