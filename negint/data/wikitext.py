"""The prose of an article from its wikitext."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from mwparserfromhell.wikicode import Wikicode

_DROPPED_TAGS = frozenset(
  ["ref", "references", "table", "gallery", "math", "chem", "ce", "score", "timeline"]
  + ["imagemap", "graph", "hiero", "inputbox", "section", "templatedata", "categorytree"]
  + ["source", "syntaxhighlight", "pre", "style", "indicator", "templatestyles"]
)
# [[fr:Caire]] links to the same article in another Wikipedia, and is not text.
_WIKIPEDIA_CODES = """
  aa ab ace ady af ak als am an ang ar arc ary arz as ast atj av avk awa ay az azb ba ban bar
  bat-smg bcl be be-tarask be-x-old bg bh bi bjn bm bn bo bpy br bs bug bxr ca cbk-zam cdo ce ceb ch
  cho chr chy ckb co cr crh cs csb cu cv cy da de din diq dsb dty dv dz ee el eml en eo es et eu ext
  fa ff fi fiu-vro fj fo fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gu gv ha hak haw
  he hi hif ho hr hsb ht hu hy hyw hz ia id ie ig ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab
  kbd kbp kg ki kj kk kl km kn ko koi kr krc ks ksh ku kv kw ky la lad lb lbe lez lfn lg li lij lld
  lmo ln lo lrc lt ltg lv mai map-bms mdf mg mh mhr mi min mk ml mn mnw mo mr mrj ms mt mus mwl my
  myv mzn na nah nap nds nds-nl ne new ng nl nn no nov nqo nrm nso nv ny oc olo om or os pa pag pam
  pap pcd pdc pfl pi pih pl pms pnb pnt ps pt qu rm rmy rn ro roa-rup roa-tara ru rue rw sa sah sat
  sc scn sco sd se sg sh shi shn shy si simple sk sl sm smn sn so sq sr srn ss st stq su sv sw szl
  szy ta tcy te tet tg th ti tk tl tn to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi
  vls vo wa war wo wuu xal xh xmf yi yo yue za zea zh zh-classical zh-min-nan zh-yue zu
"""
_WIKIPEDIAS = frozenset(_WIKIPEDIA_CODES.split())
_FILE = re.compile(r":.+\.(jpe?g|png|svg|gif|webp|tiff?|og[gv]|pdf|webm)\s*$", re.IGNORECASE)

# What goes before parsing: the parser would leave some of it as text, or read what is inside it.
_NOT_TEXT = tuple(
  re.compile(pattern, re.DOTALL | re.IGNORECASE)
  for pattern in (
    r"<!--.*?(-->|\Z)",
    r"<includeonly\b[^<>]*/>",
    r"<includeonly\b[^<>]*>.*?(</includeonly\s*>|\Z)",
    r"<(mapframe|maplink)\b[^<>]*/>",
    r"<(mapframe|maplink)\b[^<>]*>.*?</\1\s*>",
    r"<ref\b[^<>]*/>",
    r"<ref\b[^<>]*>((?!<ref\b).)*?</ref\s*>",
    # Nobody can tell where a reference without an end stops. Its line goes with it.
    r"<(ref|mapframe|maplink)\b(\{\{[^{}\n]*\}\}|(?!\}\})[^\n])*|</(ref|mapframe|maplink)\s*>",
  )
)
# Innermost -{...}-: words for the variants of a language, as in Chinese and Serbian. Not -{{.
_VARIANTS = re.compile(r"-\{(?!\{)((?:(?!-\{(?!\{)|\}-).)*)\}-", re.DOTALL)
_VARIANT_RULE = re.compile(r"(?:^|;)\s*(?:[^;:|]*=>\s*)?([a-z]{2,3}(?:-[a-z]+)*)\s*:(?!//)")
_VARIANT_FLAGS = re.compile(r"\s*([ADEHNRST+-]|[a-z]{2,3}(-[a-z]+)*)(\s*;\s*[A-Za-z+-]+)*\s*")
_HIDDEN_FLAGS = frozenset("DHT-")  # these make a rule or the title, and show nothing


def plain_text(wikitext: str, namespaces: frozenset[str] = frozenset()) -> list[str] | None:
  """Returns the paragraphs of an article, or None if the parser cannot read its markup.

  Templates, tables, references, maps, files, categories, headings and links to the same article in
  other languages are left out.

  Args:
    wikitext: the article's source.
    namespaces: lower-case names whose links ([[Category:...]]) are left out.
  """
  import mwparserfromhell  # only dumps need it

  for pattern in _NOT_TEXT:
    wikitext = pattern.sub("", wikitext)
  try:
    text = _strip(mwparserfromhell.parse(_one_variant(wikitext)), namespaces)
  except (mwparserfromhell.parser.ParserError, RecursionError):
    return None
  text = re.sub(r"__[A-Z]+__", "", text)  # behaviour switches such as __NOTOC__
  text = re.sub(r" ?\([^\w\n]*\)", "", text)  # brackets that held only a template
  lines = (line.strip() for line in text.split("\n"))
  # Tables and templates whose ends are missing stay in the text.
  return [line for line in lines if line and not line.startswith(("|", "{|", "{{", "}}"))]


def _one_variant(wikitext: str) -> str:
  """Returns wikitext with the first variant in the place of each -{...}-."""
  before = None
  while before != wikitext:
    before, wikitext = wikitext, _VARIANTS.sub(_first_variant, wikitext)
  return wikitext


def _first_variant(found: re.Match[str]) -> str:
  """Returns what is shown of one match of _VARIANTS: -{zh-cn:A; zh-tw:B}- shows A."""
  markup = found[1]
  flags, bar, rest = markup.partition("|")
  if bar and _VARIANT_FLAGS.fullmatch(flags):
    if _HIDDEN_FLAGS & {flag.strip() for flag in flags.split(";")}:
      return ""
    markup = rest
  rules = list(_VARIANT_RULE.finditer(markup))
  if not rules:
    # English names of chemicals have braces, too: 3-{[2-(...)]amino}-. They always hold brackets.
    return found[0] if re.search(r"[\[(]", markup) and not bar else markup
  end = rules[1].start() if len(rules) > 1 else len(markup)
  return markup[rules[0].end() : end].strip().removesuffix(";")


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
      if _is_shown(str(node.title), namespaces):
        shown = node.title if node.text is None else node.text
        parts.append(_strip(shown, namespaces).removeprefix(":"))
    elif isinstance(node, nodes.ExternalLink):
      if node.title is not None:
        parts.append(_strip(node.title, namespaces))
    elif isinstance(node, nodes.Text | nodes.HTMLEntity):
      parts.append(node.__strip__(normalize=True) or "")
  return "".join(parts)


def _is_shown(title: str, namespaces: frozenset[str]) -> bool:
  """Whether a link to `title` stands in the text: not to a file, a category, another Wikipedia."""
  prefix, colon, _ = title.strip().lower().partition(":")
  prefix = prefix.strip()
  if colon and (prefix in namespaces or prefix in _WIKIPEDIAS):
    return False
  # A dump does not list all aliases of the namespace of files, so extensions count too.
  return not _FILE.search(title)
