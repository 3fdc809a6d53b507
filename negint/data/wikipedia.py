"""A Wikipedia XML dump (pages-articles) as plain text, article by article.

Owns the reading of pages from the dump, the choice of those that are articles, the pool of
processes that parses their wikitext, and what is left of the markup. That a dump is a source is
the business of `sources`.
"""

import bz2
import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import pathlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

from negint.errors import UserError

_PAGES_A_TASK = 64
_DROPPED_TAGS = frozenset(
  "ref references table gallery math chem ce score timeline imagemap graph hiero inputbox section "
  "templatedata categorytree source syntaxhighlight pre style".split()
)


def read_dump(
  path: pathlib.Path, skip: int, advance: Callable[[int], object]
) -> Iterator[list[str]]:
  """Plain text of the articles after the first `skip`, in the order of the dump.

  A few tasks are in flight at a time. `advance(n)` is called as n bytes of the file are consumed.

  Raises:
    UserError: the dump is truncated, corrupt or none.
  """
  articles = itertools.islice(_articles(path, advance), skip, None)
  workers = min(16, os.cpu_count() or 1)
  # Not fork: the caller may have threads (JAX, tqdm).
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(workers, context, _begin_work) as pool:
    pending = collections.deque()
    try:
      while batch := list(itertools.islice(articles, _PAGES_A_TASK)):
        pending.append(pool.submit(_plain_texts, batch))
        if len(pending) > 2 * workers:
          yield from pending.popleft().result()
      while pending:
        yield from pending.popleft().result()
    finally:
      pool.shutdown(wait=False, cancel_futures=True)


def _begin_work():
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
  parent = multiprocessing.parent_process()
  threading.Thread(target=_leave_with, args=[parent], daemon=True).start()


def _leave_with(parent):
  """Ends a worker whose parent was killed: it would wait for the next task for ever."""
  parent.join()
  os._exit(1)


def _articles(
  path: pathlib.Path, advance: Callable[[int], object]
) -> Iterator[tuple[str, frozenset[str]]]:
  """(wikitext, names of the dump's namespaces) of each page in namespace 0 that is no redirect."""
  namespaces, pages, position = {"file", "image", "category"}, 0, 0
  try:
    with path.open("rb") as raw:
      xml = bz2.open(raw) if path.suffix == ".bz2" else raw
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
          root.clear()  # or the tree of the whole dump stays in memory
          advance(raw.tell() - position)
          position = raw.tell()
  except (EOFError, OSError, ElementTree.ParseError, KeyError) as error:
    raise UserError(
      f"{path} is truncated, corrupt or not a MediaWiki dump ({error}); {pages} pages were read. "
      "Compare its checksum and download it again."
    ) from error


def _plain_texts(articles):
  return [plain_text(*article) for article in articles]


def plain_text(wikitext: str, namespaces: frozenset[str] = frozenset()) -> list[str]:
  """The paragraphs of an article: no templates, tables, references, files, categories, headings.

  Args:
    wikitext: the article's source.
    namespaces: lower-case names whose links ([[Category:...]]) are dropped.

  Returns:
    A list of lines, empty when the markup defeats the parser.
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


def _strip(code, namespaces: frozenset[str]) -> str:
  """The text of parsed wikitext; unlike strip_code, drops tables, files and headings as well."""
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
      # Files also go by aliases that a dump does not list, so their extension counts too.
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
