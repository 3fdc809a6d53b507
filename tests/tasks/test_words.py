"""Texts without labels: where their words are, and which tokens a chosen answer has."""

import unicodedata

import numpy as np
import pytest

from negint.errors import UserError
from negint.tasks import qa, tagging
from negint.tasks.examples import Question
from negint.tasks.task import Limits
from negint.tasks.words import split_words


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("She lives in Cairo.", ["She", "lives", "in", "Cairo", "."]),
    ("don't l\u2019homme zero-shot (x)", ["don't", "l\u2019homme", "zero-shot", "(", "x", ")"]),
    ("3.5 and 1,000: 7", ["3.5", "and", "1,000", ":", "7"]),
    ("-x- 'y' a--b", ["-", "x", "-", "'", "y", "'", "a", "-", "-", "b"]),
    ("ولد في القاهرة، عام", ["ولد", "في", "القاهرة", "،", "عام"]),
    ("नदी हिन्दी।", ["नदी", "हिन्दी", "।"]),
    ("\u0645\u06cc\u200c\u0631\u0648\u0645", ["\u0645\u06cc\u200c\u0631\u0648\u0645"]),
    ("a\u00a0b\u2028c\u200f.", ["a", "b", "c", "."]),
    ("\ufeff \u0000", []),
    ("", []),
  ],
)  # fmt: skip
def test_words_of_a_text(text, words):
  assert [text[begin:end] for begin, end in split_words(text)] == words


def test_words_hold_every_visible_character_once():
  rng = np.random.default_rng(0)
  for _ in range(300):
    text = "".join(map(chr, rng.choice([*range(1, 0x250), *range(0x600, 0x980), 0x1F600], 30)))
    spans = split_words(text)
    assert all(e1 <= b2 for (_, e1), (b2, _) in zip(spans, spans[1:], strict=False))
    inside = {i for begin, end in spans for i in range(begin, end)}
    for i, character in enumerate(text):
      unseen = character.isspace() or unicodedata.category(character) in ("Cc", "Cf")
      assert unseen or i in inside, (text, i)


@pytest.mark.parametrize("value", ["kala  mobo ", ["kala", "mobo"], {"tokens": ["kala", "mobo"]}])
def test_a_sentence_is_a_text_or_a_list_of_words(value):
  sentence = tagging.given(value, "here")
  assert sentence.words == ("kala", "mobo") and len(sentence.tags) == 2
  assert [sentence.text[b:e] for b, e in sentence.spans] == ["kala", "mobo"]


@pytest.mark.parametrize("value", [3, ["kala", 3], ["kala", " "], {"other": "kala"}, None])
def test_other_values_are_refused_with_their_place(value):
  with pytest.raises(UserError, match="^line 3"):
    tagging.given(value, "line 3")


def test_an_answer_has_the_score_of_its_span_over_all_windows():
  """Two windows of one question; the score is a softmax over the starts times one over the ends."""
  question = Question("q", " kala  mobo tir", "who", ())
  begin = np.array([[-1, 0, 5], [-1, 5, 11]])
  end = np.array([[-1, 5, 11], [-1, 11, 15]])
  arrays = {"begin": begin, "end": end, "question": np.array([0, 0], np.int32)}
  rng = np.random.default_rng(1)
  scores = rng.normal(size=(2, 3, 2)).astype(np.float32)
  scores[1, 1, 0] = scores[1, 1, 1] = 3  # the second window's first token
  (answer,) = qa.outputs(scores, arrays, [question], (), Limits(3))
  assert (answer.answer, answer.begin, answer.end) == ("mobo", 7, 11)
  inside = scores[:, 1:].reshape(-1, 2).astype(np.float64)
  shares = np.exp(inside) / np.exp(inside).sum(0)
  assert answer.score == pytest.approx(shares[2, 0] * shares[2, 1], rel=1e-5)
  assert qa.decode(scores, arrays, [question], (), Limits(3)) == {"q": "mobo"}


def test_a_context_without_tokens_has_no_answer():
  arrays = {"begin": np.full((1, 3), -1), "end": np.full((1, 3), -1), "question": np.array([0])}
  scores = np.zeros((1, 3, 2), np.float32)
  (answer,) = qa.outputs(scores, arrays, [Question("q", "", "who", ())], (), Limits(3))
  assert (answer.answer, answer.begin, answer.end, answer.score) == ("", 0, 0, 0.0)
