"""Scores of cases worked by hand; tests/test_golden.py compares them with those of other programs."""

import pytest

from negint.tasks import scoring
from negint.tasks.examples import Pair, Question, TaggedSentence
from negint.tasks.nli import NLI
from negint.tasks.pos import POS
from negint.tasks.qa import QA


def entity_scores(gold, predicted, strict=False):
  return scoring.micro_average(scoring.chunk_counts(gold, predicted, strict))


def pos_scores(gold, predicted):
  sentences = [TaggedSentence((), tuple(tags)) for tags in gold]
  return POS.scores(POS.per_example(sentences, predicted))


def qa_scores(references, predictions):
  questions = [
    Question(name, "", "", tuple((text, 0) for text in answers))
    for name, answers in references.items()
  ]
  return QA.scores(QA.per_example(questions, predictions))


def test_an_inside_tag_after_outside_is_an_entity_only_to_the_lenient_scorer():
  gold, predicted = [["B-PER", "I-PER", "O"]], [["I-PER", "I-PER", "O"]]
  assert entity_scores(gold, predicted)["f1"] == 100.0
  assert entity_scores(gold, predicted, strict=True)["f1"] == 0.0


def test_a_change_of_type_ends_an_entity():
  gold = [["B-PER", "I-LOC"]]
  assert entity_scores(gold, [["B-PER", "B-LOC"]])["f1"] == 100.0
  strict = entity_scores(gold, [["B-PER", "B-LOC"]], strict=True)
  assert (strict["precision"], strict["recall"]) == (50.0, 100.0)


def test_entities_do_not_run_across_sentences():
  one, two = [["B-PER", "I-PER"]], [["B-PER"], ["I-PER"]]
  assert entity_scores(one, one)["f1"] == 100.0
  half = entity_scores([["B-PER"], ["B-PER"]], two)
  assert half["f1"] == 100.0  # two entities on both sides
  half = entity_scores([["B-PER"], ["B-PER"]], two, strict=True)
  assert (half["precision"], half["recall"]) == (100.0, 50.0)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
  ("gold", "predicted"),
  [([], []), ([["O", "O"]], [["O", "O"]]), ([["O"]], [["B-PER"]]), ([["B-PER"]], [["O"]])],
)
def test_nothing_to_find_or_nothing_found_scores_zero(gold, predicted, strict):
  expected = {"precision": 0.0, "recall": 0.0, "f1": 0.0}
  assert entity_scores(gold, predicted, strict=strict) == expected


@pytest.mark.parametrize("strict", [False, True])
def test_chunks_are_counted_in_their_sentences(strict):
  gold = [["B-PER", "I-PER", "O"], ["O"], ["B-LOC", "O", "B-LOC"]]
  predicted = [["B-PER", "I-PER", "B-LOC"], ["O"], ["B-LOC", "O", "B-PER"]]
  assert scoring.chunk_counts(gold, predicted, strict) == [[1, 2, 1], [0, 0, 0], [1, 2, 2]]
  assert scoring.micro_average([[1, 2, 1], [1, 2, 2]]) == {
    "precision": 50.0,
    "recall": pytest.approx(200 / 3),
    "f1": 400 / 7,
  }


def test_a_chunk_that_starts_in_an_older_sentence_counts_where_it_ends():
  # To seqeval the last X of a sentence and the first of the next are one chunk, see _lenient_chunks.
  gold = [["NOUN", "X"], ["X", "NOUN"]]
  assert scoring.chunk_counts(gold, gold) == [[1, 1, 1], [2, 2, 2]]
  assert scoring.chunk_counts(gold, [["NOUN", "X"], ["NOUN", "NOUN"]]) == [[1, 1, 1], [0, 1, 2]]


def test_one_wrong_tag_costs_chunk_f1_more_than_accuracy():
  gold, predicted = [["DET", "NOUN", "NOUN", "PUNCT"]], [["DET", "NOUN", "VERB", "PUNCT"]]
  scores = pos_scores(gold, predicted)
  assert scores["accuracy"] == 75.0
  assert scores["f1"] == pytest.approx(400 / 7)


def test_raw_tags_are_read_as_seqeval_reads_them():
  # Values of seqeval 1.2.2: X at the start of a later sentence, CCONJ before SCONJ.
  gold = [["X", "PUNCT", "SCONJ", "VERB"], ["X", "SCONJ"], ["PROPN", "X", "SYM"]]
  predicted = [["X", "PUNCT", "CCONJ", "SCONJ"], ["SCONJ", "SCONJ"], ["PART", "X", "SYM"]]
  assert pos_scores(gold, predicted)["f1"] == pytest.approx(58.82352941176471)


def test_pos_scores_of_nothing_are_zero():
  assert pos_scores([], []) == {"accuracy": 0.0, "f1": 0.0}


def test_different_lengths_are_an_error():
  with pytest.raises(ValueError, match="2 gold sentences but 1"):
    entity_scores([["O"], ["O"]], [["O"]])
  with pytest.raises(ValueError, match="sentence 1 has 2 gold tags but 1"):
    pos_scores([["X"], ["X", "X"]], [["X"], ["X"]])
  with pytest.raises(ValueError, match="sentence 0 has 1 gold tags but 2"):
    scoring.tag_counts([["X"]], [["X", "X"]])
  with pytest.raises(ValueError):
    NLI.per_example([Pair("a", "b", "neutral")], [])


def test_answers_are_compared_without_case_articles_and_ascii_punctuation():
  exact = {"exact_match": 100.0, "f1": 100.0}
  for gold in ("The  Nile!", "a Nile", "an NILE."):
    assert qa_scores({"q": [gold]}, {"q": "nile"}) == exact
  # Arabic punctuation stays, as in the script of SQuAD v1.1.
  assert qa_scores({"q": ["النيل،"]}, {"q": "النيل"})["exact_match"] == 0.0


def test_the_best_gold_answer_counts_and_words_count_as_often_as_they_occur():
  scores = qa_scores({"q": ["x", "new york city"]}, {"q": "york york"})
  assert scores["exact_match"] == 0.0
  assert scores["f1"] == pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))


def test_an_unanswered_question_scores_zero():
  scores = qa_scores({"q": ["yes"], "r": ["yes"]}, {"q": "yes"})
  assert scores == {"exact_match": 50.0, "f1": 50.0}


def test_accuracy_is_the_share_of_equal_labels():
  pairs = [Pair("p", "h", label) for label in ("neutral", "entailment", "neutral", "neutral")]
  predicted = ["neutral", "entailment", "contradiction", "neutral"]
  assert NLI.scores(NLI.per_example(pairs, predicted)) == {"accuracy": 75.0}


def test_a_questions_scores_are_in_0_to_1():
  assert scoring.answer_scores(["the Nile", "river"], "Nile") == (1.0, 1.0)
  assert scoring.answer_scores(["blue Nile"], "Nile") == (pytest.approx(2 / 3), 0.0)
  assert scoring.answer_scores(["x"], None) == scoring.answer_scores([], "x") == (0.0, 0.0)
