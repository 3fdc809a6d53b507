"""The form of text that models see: one per text, with the origin of each character."""

import random
import sys
import unicodedata

import pytest

from negint.data.text import normalise, normalise_with_offsets, replace_surrogates


@pytest.mark.parametrize(
  ("given", "seen"),
  [
    ("a\u00a0b\tc\nd\u2028e\u3000f\u202fg", "a b c d e f g"),
    ("cafe\u0301", "café"),
    ("\ufeffa\x00b\x07", "ab"),
    ("a \ud83d b", "a \ufffd b"),
    ("😀 na\u00efve", "😀 na\u00efve"),
    ("", ""),
  ],
)
def test_one_form_per_text(given, seen):
  assert normalise(given) == seen
  assert normalise(seen) == seen
  assert normalise_with_offsets(given).text == seen


def test_every_white_space_character_is_one_space():
  spaces = [c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace()]
  assert len(spaces) > 20
  assert normalise("".join(spaces)) == " " * len(spaces)


def test_nfc_can_be_left_out():
  assert normalise("e\u0301\u00a0\x00", nfc=False) == "e\u0301 "


@pytest.mark.parametrize(
  ("given", "answer", "origin"),
  [
    ("x\u00a0\u00a0y z", "z", "z"),  # the length stays
    ("\ufeffne\u0301e z", "z", "z"),  # it changes before the answer
    ("\ufeffne\u0301e z", "née", "ne\u0301e"),  # and inside it
    ("a\x00b z", "ab", "a\x00b"),
    ("\u1112\u1161\u11ab z", "한", "\u1112\u1161\u11ab"),
    ("\u09c7\u09be z", "\u09cb", "\u09c7\u09be"),
    ("क़ z", "z", "z"),  # NFC makes it longer
  ],
)
def test_answers_are_cut_from_the_text_as_given(given, answer, origin):
  normal = normalise_with_offsets(given)
  begin = normal.text.index(answer)
  first, last = normal.origin(begin, begin + len(answer))
  assert given[first:last] == origin


def test_origins_hold_for_random_text():
  letters = random.Random(0)
  alphabet = "ae\u0301\u0323 \u00a0\t\ufeff\x00q\u0344\u1112\u1161\u11ab\u09c7\u09be\ud800क़😀"
  for _ in range(300):
    given = "".join(letters.choices(alphabet, k=letters.randrange(12)))
    normal = normalise_with_offsets(given)
    assert normal.text == normalise(given)
    assert unicodedata.is_normalized("NFC", normal.text)
    assert len(normal.begins) == len(normal.ends) == len(normal.text)
    assert list(normal.begins) == sorted(normal.begins)
    for i, character in enumerate(normal.text):
      begin, end = normal.origin(i, i + 1)
      assert character in normalise(given[begin:end])


def test_an_empty_span_has_a_place():
  normal = normalise_with_offsets("e\u0301a")
  assert [normal.origin(i, i) for i in range(3)] == [(0, 0), (2, 2), (3, 3)]
  assert normalise_with_offsets("").origin(0, 0) == (0, 0)


def test_surrogates_are_counted():
  assert replace_surrogates("a\ud83d\udc00b") == ("a\ufffd\ufffdb", 2)
