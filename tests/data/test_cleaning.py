"""Line filters count what they drop; markup leaves only prose."""

import unicodedata

import mwparserfromhell
import pytest

from negint.data.cleaning import (
  DROP_REASONS,
  Cleaner,
  Filters,
  SeenLines,
  normalise_line,
  unmark_wiki40b,
)
from negint.data.wikitext import plain_text
from negint.errors import UserError

OFF = Filters(
  normalise=False, deduplicate=False, min_characters=0, max_characters=0, language_filter=False
)
ENGLISH = "This sentence is written in the English language."
FRENCH = "Cette phrase est écrite en français, la langue de Molière."


def _clean(lines, language="en", **switches):
  cleaner = Cleaner(Filters(**{**vars(OFF), **switches}), language)
  return cleaner.clean(lines), {k: v for k, v in cleaner.counts.items() if v}


def test_whitespace_is_stripped_and_collapsed_and_empty_lines_are_dropped():
  kept, counts = _clean(["  a \t b\u2028c\r\n", " \n"])
  assert kept == ["a b c"]
  assert counts == {"lines_read": 2, "empty": 1}


def test_normalise_composes_and_without_it_text_stays_decomposed():
  decomposed = unicodedata.normalize("NFD", "é")
  assert normalise_line(decomposed, nfc=True) == "é"
  assert normalise_line(decomposed, nfc=False) == decomposed != "é"


def test_duplicates_are_judged_after_normalisation():
  lines = ["caf\u00e9 noir", "cafe\u0301  noir", "tea"]
  assert _clean(lines, deduplicate=True, normalise=True) == (
    ["café noir", "tea"],
    {"lines_read": 3, "duplicate": 1},
  )
  assert len(_clean(lines, deduplicate=True, normalise=False)[0]) == 3


@pytest.mark.parametrize(
  ("switch", "reason", "kept"),
  [
    ({"min_characters": 3}, "too_short", ["abc", "abcd"]),
    ({"max_characters": 3}, "too_long", ["ab", "abc"]),
  ],
)
def test_length_limits_are_inclusive(switch, reason, kept):
  assert _clean(["ab", "abc", "abcd"], **switch) == (kept, {"lines_read": 3, reason: 1})


def test_language_filter_drops_the_other_language_only():
  kept, counts = _clean([ENGLISH, FRENCH, "42"], language_filter=True)
  assert kept == [ENGLISH, "42"]  # nothing reliable can be said of a number
  assert counts == {"lines_read": 3, "other_language": 1}
  assert _clean([ENGLISH, FRENCH], "fr", language_filter=True)[0] == [FRENCH]
  assert len(_clean([ENGLISH, FRENCH])[0]) == 2


def test_language_filter_says_when_it_is_off():
  cleaner = Cleaner(Filters(), "sw")
  assert cleaner.clean([FRENCH]) == [FRENCH]
  assert len(cleaner.notes) == 1 and "'sw'" in cleaner.notes[0]
  assert not Cleaner(Filters(), "ar").notes


def test_counts_add_up():
  cleaner = Cleaner(Filters(min_characters=3, max_characters=60), "en")
  kept = cleaner.clean([ENGLISH, ENGLISH, FRENCH, "", "a", "long " * 50])
  assert kept == [ENGLISH]
  assert all(cleaner.counts[reason] == 1 for reason in DROP_REASONS)
  assert cleaner.counts["lines_read"] == 6


@pytest.mark.parametrize("limits", [(-1, 0), (0, -1), (10, 9)])
def test_contradictory_limits_are_refused(limits):
  with pytest.raises(UserError, match="characters"):
    Filters(min_characters=limits[0], max_characters=limits[1])
  Filters(min_characters=10, max_characters=0)


def test_seen_lines_remembers_across_merges():
  seen = SeenLines(recent_limit=7)
  for number in range(0, 200, 2):
    seen.add(str(number))
  assert [number for number in range(200) if str(number) in seen] == list(range(0, 200, 2))


def test_plain_text_keeps_prose_only():
  wikitext = """{{Infobox|name=X|{{nested}}}}
[[File:a.jpg|thumb|A caption with a [[link]]]]
'''Cairo''' ({{lang|ar|x}}) is the [[capital city|capital]] of [[Egypt]].<ref>A source</ref>
<!-- a comment -->
{| class="wikitable"
! head
|-
| cell || other
|}
== History ==
It is old &amp; large.<br/>Founded in [https://x.org 969] by <i>Jawhar</i>.
* an item
[[صورة:ب.png|تصغير]][[Category:Cities]][[تصنيف:مدن]]
[[:Category:Cities]] are [[Star Wars: A Film]].
__NOTOC__
"""
  assert plain_text(wikitext, frozenset({"file", "category", "تصنيف"})) == [
    "Cairo is the capital of Egypt.",
    "It is old & large.",
    "Founded in 969 by Jawhar.",
    "an item",
    "Category:Cities are Star Wars: A Film.",
  ]


def test_plain_text_needs_the_names_of_namespaces():
  assert plain_text("[[تصنيف:مدن]]", frozenset()) == ["تصنيف:مدن"]
  assert plain_text("[[تصنيف:مدن]]", frozenset({"تصنيف"})) == []


@pytest.mark.parametrize(
  ("wikitext", "expected"),
  [
    ("Text.\n[[fr:Le Caire]]\n[[zh-min-nan:Kairo]] [[simple:Cairo]]\n", ["Text."]),
    ("[[:fr:Le Caire]] and [[Re:Zero]].", ["fr:Le Caire and Re:Zero."]),
    ('Here <mapframe zoom="9">{"type": [[1,2],[3]], "a": "{{b"}</mapframe>it is.', ["Here it is."]),
    ('At <maplink text="x">\n{"geometry": [1, 2]}\n</maplink>noon.', ["At noon."]),
    ('At <maplink id="Q1" />noon.', ["At noon."]),
    ("One.<includeonly>[[Category:X]] {{{1}}}</includeonly> Two.", ["One. Two."]),
    ("Seen.<noinclude> Shown.</noinclude>\n<includeonly>never closed", ["Seen. Shown."]),
    ("A fact.<ref>Never closed, p. 3\nNext line.", ["A fact.", "Next line."]),
    (
      "A.<ref>open {{cite|a=b}} B.\nC.<ref name=x>closed</ref> D.<ref name=x/> E.",
      ["A.", "C. D. E."],
    ),
    ("{{note|a<ref>open}} Stays.\n<references/>", ["Stays."]),
    ("A <!-- comment\nthat never ends", ["A"]),
    ("-{zh-hans:计算机; zh-hant:電腦}-很快。", ["计算机很快。"]),
    ("-{A|zh-cn:软件;zh-tw:軟體;}-好。-{H|zh-cn:甲;zh-tw:乙}-", ["软件好。"]),
    ("-{zh-hans|语}-言-{不变}-，-{zh-cn:&amp;a-{b}-; zh-tw:c}-", ["语言不变，&ab"]),
    ("-{sr-ec:река;sr-el:reka}- тече", ["река тече"]),
    (
      "3-{[2-(dimethylamino)ethyl]amino}-phenol, x-{{lang|de|y}}-z",
      ["3-{[2-(dimethylamino)ethyl]amino}-phenol, x--z"],
    ),
  ],
)
def test_markup_that_the_parser_would_leave_is_not_text(wikitext, expected):
  assert plain_text(wikitext, frozenset({"category"})) == expected


def test_markup_that_cannot_be_read_is_not_an_empty_article(monkeypatch):
  assert plain_text("") == []

  def fail(text):
    raise mwparserfromhell.parser.ParserError("made")

  monkeypatch.setattr(mwparserfromhell, "parse", fail)
  assert plain_text("Text.") is None


def test_wiki40b_markers_take_their_headings_with_them():
  text = (
    "\n_START_ARTICLE_\nTitle\n_START_SECTION_\nHeading\n_START_PARAGRAPH_\nOne._NEWLINE_Two."
    "\n_START_SECTION_\nOther\n_START_PARAGRAPH_\nThree."
  )
  assert unmark_wiki40b(text).split() == ["One.", "Two.", "Three."]
