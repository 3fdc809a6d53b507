"""Arrays made of examples, and what is read back from them: alignment, splitting, windows."""

import numpy as np
import pytest

from negint.data.tokenizer import train_tokenizer
from negint.errors import UserError
from negint.special_tokens import EOS, PAD, UNK, XLM, SpecialTokens
from negint.tasks import tagging
from negint.tasks.examples import Pair, Question, TaggedSentence
from negint.tasks.ner import NER
from negint.tasks.nli import NLI
from negint.tasks.qa import QA
from negint.tasks.task import Limits


class PieceTokenizer:
  """Pieces of up to three characters; like SentencePiece, a piece takes the space before it."""

  special = XLM

  def encode(self, text):
    return self.encode_with_offsets(text)[0]

  def encode_word(self, word):
    return self.encode(word)

  def encode_with_offsets(self, text):
    ids, offsets, position = [], [], 0
    for word in text.split():
      found = text.index(word, position)
      for start in range(0, len(word), 3):
        piece = word[start : start + 3]
        begin = position if start == 0 else found + start
        ids.append(100 + sum(ord(char) * 7**i for i, char in enumerate(piece)) % 9000)
        offsets.append((begin, found + start + len(piece)))
      position = found + len(word)
    return ids, offsets


TOKENIZER = PieceTokenizer()


def _features(task, examples, *limits, **more):
  return task.features(examples, TOKENIZER, task.labels, Limits(*limits, **more))


def _answers(start_scores, end_scores, arrays, questions, max_answer=30):
  scores = np.stack([start_scores, end_scores], axis=-1)
  return QA.decode(scores, arrays, questions, QA.labels, Limits(0, max_answer=max_answer))


def _sentence(words, tags=None):
  return TaggedSentence(tuple(words), tuple(tags or ["O"] * len(words)))


# Tagging


def test_labels_stand_on_first_subwords():
  sentence = _sentence(["Annan", "a", "Nairobi"], ["B-PER", "O", "B-LOC"])
  arrays, report = _features(NER, [sentence], 12)
  b_per, o, b_loc = (NER.labels.index(tag) for tag in sentence.tags)
  skip = tagging.IGNORE
  assert arrays["labels"].tolist() == [
    [skip, b_per, skip, o, b_loc, skip, skip, skip, skip, skip, skip, skip]
  ]
  assert arrays["lengths"].tolist() == [8]
  pieces = [p for word in sentence.words for p in TOKENIZER.encode(word)]
  assert arrays["tokens"].tolist() == [[EOS, *pieces, EOS, PAD, PAD, PAD, PAD]]
  assert arrays["tokens"].dtype == arrays["labels"].dtype == np.int32
  assert report == {}


def test_a_word_without_tokens_becomes_unk():
  arrays, _ = _features(NER, [_sentence(["\u00a0", "a"])], 5)
  assert arrays["tokens"][0].tolist() == [EOS, UNK, TOKENIZER.encode("a")[0], EOS, PAD]
  assert arrays["labels"][0].tolist() == [tagging.IGNORE, 0, 0, tagging.IGNORE, tagging.IGNORE]


def test_text_is_brought_to_nfc():
  arrays, _ = _features(NER, [_sentence(["e\u0301e\u0301"])], 5)
  assert arrays["tokens"][0, 1:3].tolist() == [*TOKENIZER.encode("éé"), EOS]


def test_white_space_is_what_pretraining_saw(trained):
  """A no-break space separates words as a space does, and is no unknown piece."""
  plain, other = "ne Nairobi ne", "ne\u00a0Nairobi\u2028ne"
  limits = Limits(40, 40, max_question=10)

  def rows(task, example):
    return task.features([example], trained, task.labels, limits)[0]["tokens"].tolist()

  def same(task, make):
    return rows(task, make(plain)) == rows(task, make(other))

  assert same(NER, lambda text: _sentence([text]))
  assert same(NLI, lambda text: Pair(text, "x", "neutral"))
  assert same(NLI, lambda text: Pair("x", text, "neutral"))
  assert same(QA, lambda text: Question("q", text, "x", (("ne", 0),)))
  assert same(QA, lambda text: Question("q", "x", text, (("x", 0),)))
  assert UNK not in rows(QA, Question("q", other, other, (("ne", 0),)))[0]
  assert trained.encode(other) != trained.encode(plain)  # the tokenizer does not do it


@pytest.fixture(scope="module")
def trained():
  """A SentencePiece tokenizer that saw plain spaces only."""
  lines = [f"ne Nairobi na café {i} x qu" for i in range(200)]
  return train_tokenizer(iter(lines), 60)


@pytest.mark.parametrize(
  "context",
  [
    "\ufeffLe\u00a0 Cafe\u0301\u202f: 12\u00a0000 a\tb\x00c",
    "na\u00a0na  Nairobi\ud83d ne 000 ab a\u0308\u0323b",
  ],
)
def test_answers_are_cut_from_the_context_as_given(trained, context):
  words = context.split()
  for word in words[1:]:
    question = Question("q", context, "x", ((word, context.index(word)),))
    limits = Limits(99, 99, max_question=10)
    arrays, report = QA.features([question], trained, QA.labels, limits)
    assert report == {}
    spans = (_one_hot(arrays[name], 99) for name in ("starts", "ends"))
    scores = np.stack(list(spans), axis=-1)
    answer = QA.decode(scores, arrays, [question], QA.labels, limits)["q"]
    assert word in answer and answer in context


def test_long_sentences_split_at_word_boundaries():
  words = ["abcdef", "g", "hij", "klmnopq", "r"]  # 2, 1, 1, 3, 1 pieces
  sentences = [_sentence(["x"]), _sentence(words)]
  arrays, report = _features(NER, sentences, 6)
  assert arrays["sentence"].tolist() == [0, 1, 1]
  starts = [row[row >= 0].tolist() for row in arrays["word"]]
  assert starts == [[0], [0, 1, 2], [3, 4]]
  assert arrays["lengths"].tolist() == [3, 6, 6]
  kept = [t for row, n in zip(arrays["tokens"][1:], arrays["lengths"][1:], strict=True)
          for t in row[1 : n - 1]]  # fmt: skip
  assert kept == [piece for word in words for piece in TOKENIZER.encode(word)]
  assert report == {"sentences split over several rows": 1}


def test_a_word_longer_than_a_row_keeps_its_first_pieces():
  words = ["a", "bcdefghijklmnopqrs", "t"]
  arrays, report = _features(NER, [_sentence(words)], 5)
  assert report == {
    "words longer than a row cut": 1,
    "sentences split over several rows": 1,
  }
  assert arrays["tokens"][1].tolist() == [EOS, *TOKENIZER.encode(words[1])[:3], EOS]
  assert [row[row >= 0].tolist() for row in arrays["word"]] == [[0], [1], [2]]


def _random_sentences(number):
  random = np.random.default_rng(0)
  return [
    _sentence(
      ["".join(random.choice(list("abc \u00a0"), random.integers(1, 20))) for _ in range(length)],
      random.choice(NER.labels, length).tolist(),
    )
    for length in random.integers(1, 40, number)
  ]


@pytest.mark.parametrize("max_length", [4, 9, 64])
def test_merged_tags_are_those_of_every_word(max_length):
  sentences = _random_sentences(30)
  arrays, _ = _features(NER, sentences, max_length)
  # Garbage everywhere but at first subwords must not matter.
  ids = np.where(arrays["labels"] >= 0, arrays["labels"], 6)

  def decoded(ids):
    return NER.decode(np.eye(7)[ids], arrays, sentences, NER.labels, Limits(max_length))

  tags = decoded(ids)
  assert tags == [list(sentence.tags) for sentence in sentences]
  assert decoded(np.roll(ids, 1, axis=1)) != tags
  assert (arrays["tokens"][np.arange(len(ids)), arrays["lengths"] - 1] == EOS).all()


# Question answering

CONTEXT = "  ".join(f"w{i}x y{i}" for i in range(60)) + " the  Blue Nile, of  course."
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _question(answer, context=CONTEXT, identifier="q", question="where is it"):
  return Question(identifier, context, question, ((answer, context.index(answer)),))


def _one_hot(positions, length):
  return np.eye(length, dtype=np.float32)[positions]


@pytest.mark.parametrize("answer", ["w0x", "w7x y7", "y30", "the  Blue Nile,", "course."])
@pytest.mark.parametrize(("max_length", "stride"), [(24, 5), (24, 100), (40, 13), (400, 128)])
def test_an_answer_is_found_whichever_window_holds_it(answer, max_length, stride):
  questions = [_question(answer), _question("w0x", identifier="other")]
  arrays, report = _features(QA, questions, max_length, stride, max_question=10)
  rows = np.flatnonzero((arrays["question"] == 0) & (arrays["starts"] > 0))
  fitting = stride < max_length - 12  # neighbouring windows overlap, so a short answer fits one
  assert len(rows) or not fitting
  assert report.get("questions whose answer fits no window", 0) == (not len(rows))
  for row in rows:
    # Only this window sees the answer; every other row points at position 0.
    starts, ends = np.where(np.arange(len(arrays["question"])) == row, 1, 0) * np.stack(
      [arrays["starts"], arrays["ends"]]
    )
    texts = _answers(_one_hot(starts, max_length), _one_hot(ends, max_length), arrays, questions)
    assert texts["q"] == answer


@pytest.mark.parametrize("stride", [4, 100])
def test_windows_cover_the_context_and_offsets_round_trip(stride):
  questions = [_question("Blue"), _question("b", context="a b"), _question("x", context="x" * 50)]
  arrays, _ = _features(QA, questions, 20, stride, max_question=10)
  for index, question in enumerate(questions):
    ids, offsets = TOKENIZER.encode_with_offsets(question.context)
    seen = {}
    for row in np.flatnonzero(arrays["question"] == index):
      inside = arrays["begin"][row] >= 0
      spans = zip(arrays["begin"][row][inside], arrays["end"][row][inside], strict=True)
      seen.update(zip(spans, arrays["tokens"][row][inside].tolist(), strict=True))
      assert arrays["tokens"][row][arrays["lengths"][row] - 1] == EOS
    assert seen == dict(zip(offsets, ids, strict=True))


def test_a_window_without_the_answer_points_at_position_0():
  arrays, _ = _features(QA, [_question("Blue")], 24, stride=8, max_question=10)
  holds = arrays["starts"] > 0
  assert holds.any() and not holds.all()
  assert (arrays["ends"][~holds] == 0).all() and (arrays["ends"][holds] > 0).all()
  for row in np.flatnonzero(holds):
    begin, end = (
      arrays["begin"][row, arrays["starts"][row]],
      arrays["end"][row, arrays["ends"][row]],
    )
    assert CONTEXT[begin:end].strip() == "Blue"


def test_spans_are_searched_in_order_within_the_context_and_the_longest_length():
  question = _question("b", context="a b c d e f")
  arrays, _ = _features(QA, [question], 16, stride=8, max_question=10)
  first = int(arrays["starts"][0]) - 1  # of 'a'
  starts, ends = np.zeros((2, 1, 16), np.float32)
  starts[0, 0], ends[0, 0] = 99, 99  # position 0 and the question are no answers
  starts[0, first], ends[0, first + 5] = 6, 10  # 'a' to 'f'
  starts[0, first + 3], ends[0, first + 1] = 3, 7  # 'd' to 'b' is backwards

  def answer(longest):
    return _answers(starts, ends, arrays, [question], longest)["q"]

  assert answer(6) == "a b c d e f"  # 6 + 10
  starts[0, first + 3] = 2
  assert answer(5) == "a b"  # 6 + 7 before 'd' to 'f', 2 + 10
  assert answer(1) == "f"  # 10
  starts[0, first], ends[0, first + 5] = 0, 0
  assert answer(6) in ("b", "a b")  # 0 + 7 and not 2 + 7


def test_the_best_window_wins_per_question():
  questions = [_question("Blue", identifier="one"), _question("y3", identifier="two")]
  arrays, _ = _features(QA, questions, 24, stride=8, max_question=10)
  starts, ends = np.zeros((2, *arrays["tokens"].shape), np.float32)
  rows = np.flatnonzero(arrays["question"] == 1)
  for strength, row in enumerate(rows):
    column = int(np.flatnonzero(arrays["begin"][row] >= 0)[0])
    starts[row, column] = ends[row, column] = 1 + strength
  best = rows[-1]
  expected = CONTEXT[
    slice(*(arrays[k][best][arrays["begin"][best] >= 0][0] for k in ("begin", "end")))
  ]
  texts = _answers(starts, ends, arrays, questions)
  assert texts["two"] == expected.strip()
  assert set(texts) == {"one", "two"}


def test_gold_spans_score_full_marks_and_moved_ones_do_not():
  names = ["Blue Nile,", "w3x y3", "course."]
  questions = [_question(name, identifier=name) for name in names]
  arrays, _ = _features(QA, questions, 30, stride=9, max_question=10)

  def score(move):
    spans = [np.where(arrays[k] > 0, arrays[k] + move, 0) for k in ("starts", "ends")]
    logits = (_one_hot(span, 30) for span in spans)
    answers = _answers(*logits, arrays, questions)
    return QA.scores(QA.per_example(questions, answers))["exact_match"]

  assert score(0) == 100.0
  assert score(-1) < 50.0


def test_long_questions_are_cut_and_an_empty_context_gives_no_answer():
  long = _question("b", context="a b", question=LETTERS * 3)
  empty = Question("e", " ", "why", ())
  arrays, report = _features(QA, [long, empty], 20, stride=5, max_question=10)
  assert report == {"questions cut": 1}
  assert arrays["tokens"][0, 11] == EOS
  zeros = np.zeros((2, 20), np.float32)
  assert _answers(zeros, zeros, arrays, [long, empty])["e"] == ""


# Pairs


def test_pairs_share_the_separator():
  pair = Pair("abcd", "e", "contradiction")
  arrays, report = _features(NLI, [pair], 8)
  premise, hypothesis = TOKENIZER.encode("abcd"), TOKENIZER.encode("e")
  assert arrays["tokens"].tolist() == [[EOS, *premise, EOS, *hypothesis, EOS, PAD, PAD]]
  assert (arrays["lengths"].tolist(), arrays["labels"].tolist(), report) == ([6], [2], {})


@pytest.mark.parametrize(
  ("premise", "hypothesis", "kept"),
  [(10, 2, (5, 2)), (2, 10, (2, 5)), (9, 8, (4, 3)), (4, 3, (4, 3))],
)
def test_pairs_lose_the_end_of_the_longer_side(premise, hypothesis, kept):
  pair = Pair(" ".join(LETTERS[:premise]), " ".join(LETTERS[10 : 10 + hypothesis]), "neutral")
  arrays, report = _features(NLI, [pair] * 2, 10)
  first, second = (
    TOKENIZER.encode(t)[:n] for t, n in zip((pair.premise, pair.hypothesis), kept, strict=True)
  )
  row = [EOS, *first, EOS, *second, EOS]
  # Twice the same pair: cutting must not touch what is remembered of a text.
  assert arrays["tokens"].tolist() == [row + [PAD] * (10 - len(row))] * 2
  assert report == ({"pairs cut": 2} if premise + hypothesis > 7 else {})


@pytest.mark.parametrize(
  "make",
  [
    lambda: _features(NER, [_sentence(["a"])], 2),
    lambda: _features(QA, [_question("w0x")], 67, 128),
    lambda: _features(QA, [_question("w0x")], 384, 0),
    lambda: _features(NLI, [Pair("a", "b", "neutral")], 4),
  ],
)
def test_lengths_without_room_are_refused(make):
  with pytest.raises(UserError, match=r"data\.max_length is|data\.stride is 0"):
    make()


# Rows of other families


class BertTokenizer(PieceTokenizer):
  special = SpecialTokens((1,), (2,), (2,), pad=0, unk=3, mask=4, second_type=1)


class RobertaTokenizer(PieceTokenizer):
  special = SpecialTokens((5,), (6, 6), (6,), pad=1, unk=3, mask=4)

  def encode_word(self, word):
    return self.encode(f"x{word}")


PAIR = Pair("abc", "abd abe", "neutral")
ABC, ABD, ABE = (TOKENIZER.encode(text)[0] for text in ("abc", "abd", "abe"))


def test_a_pair_has_the_form_of_its_tokenizer_and_types_where_it_has_types():
  arrays, _ = NLI.features([PAIR], BertTokenizer(), NLI.labels, Limits(8))
  assert arrays["tokens"].tolist() == [[1, ABC, 2, ABD, ABE, 2, 0, 0]]
  assert arrays["types"].tolist() == [[0, 0, 0, 1, 1, 1, 0, 0]]
  arrays, _ = NLI.features([PAIR], RobertaTokenizer(), NLI.labels, Limits(8))
  assert arrays["tokens"].tolist() == [[5, ABC, 6, 6, ABD, ABE, 6, 1]] and "types" not in arrays
  arrays, report = NLI.features([PAIR], RobertaTokenizer(), NLI.labels, Limits(6))
  assert arrays["tokens"].tolist() == [[5, ABC, 6, 6, ABD, 6]] and report == {"pairs cut": 1}


def test_windows_of_a_context_have_the_type_of_the_second_text():
  question = Question("q", "abd abe abc abd", "abc", (("abe", 4),))
  limits = Limits(7, stride=2, max_question=2)
  arrays, _ = QA.features([question], BertTokenizer(), QA.labels, limits)
  assert arrays["tokens"][0].tolist() == [1, ABC, 2, ABD, ABE, ABC, 2]
  assert arrays["types"][0].tolist() == [0, 0, 0, 1, 1, 1, 1]
  assert (arrays["starts"][0], arrays["ends"][0]) == (4, 4)
  arrays, _ = QA.features([question], RobertaTokenizer(), QA.labels, limits)
  assert arrays["tokens"][0].tolist() == [5, ABC, 6, 6, ABD, ABE, 6]
  assert (arrays["starts"][0], arrays["ends"][0]) == (5, 5)
  assert arrays["begin"][0].tolist() == [-1, -1, -1, -1, 0, 3, -1]


def test_words_of_a_sentence_are_encoded_as_words():
  arrays, _ = NER.features([_sentence(["ab", ""])], RobertaTokenizer(), NER.labels, Limits(6))
  xab, x = TOKENIZER.encode("xab")[0], TOKENIZER.encode("x")[0]
  assert arrays["tokens"].tolist() == [[5, xab, x, 6, 1, 1]] and "types" not in arrays
  arrays, _ = NER.features([_sentence(["ab", ""])], BertTokenizer(), NER.labels, Limits(6))
  assert arrays["tokens"].tolist() == [[1, TOKENIZER.encode("ab")[0], 3, 2, 0, 0]]
