"""The labels of a run: from its training data, fixed, renamed; those that training lacks."""

import pytest

from negint.errors import UserError
from negint.tasks import labels
from negint.tasks.examples import Pair, TaggedSentence
from negint.tasks.labels import LabelChoice
from negint.tasks.ner import NER, to_iob2
from negint.tasks.nli import NLI
from negint.tasks.pos import POS
from negint.tasks.qa import QA
from negint.tasks.tagged_files import Word


def _tagged(*tags):
  return TaggedSentence(tuple(f"w{i}" for i in range(len(tags))), tags)


def _iob2(*sentences):
  """(tags in IOB2, report) of sentences of tags."""
  report = {}
  words = [[Word("w", tag, "f, line 1") for tag in tags.split()] for tags in sentences]
  return [" ".join(s.tags) for s in to_iob2(words, report)], report


@pytest.mark.parametrize(
  ("given", "expected", "report"),
  [
    (["B-PER I-PER O", "B-LOC B-LOC"], ["B-PER I-PER O", "B-LOC B-LOC"], {}),
    (
      ["I-PER I-PER O", "I-LOC B-LOC I-LOC I-ORG"],
      ["B-PER I-PER O", "B-LOC B-LOC I-LOC B-ORG"],
      {"IOB1 tags brought to IOB2": 3},
    ),
    (
      ["S-PER B-LOC E-LOC", "B-ORG I-ORG E-ORG O S-ORG"],
      ["B-PER B-LOC I-LOC", "B-ORG I-ORG I-ORG O B-ORG"],
      {"IOBES or BILOU tags brought to IOB2": 4},
    ),
    (
      ["U-PER B-LOC L-LOC"],
      ["B-PER B-LOC I-LOC"],
      {"IOBES or BILOU tags brought to IOB2": 2},
    ),
    (
      ["PER PER O LOC"],
      ["B-PER I-PER O B-LOC"],
      {"tags without B- and I- brought to IOB2": 2},
    ),
    (["B_DATE I_DATE O"], ["B-DATE I-DATE O"], {}),
    (["O O"], ["O O"], {}),
  ],
)
def test_schemes_are_brought_to_iob2(given, expected, report):
  assert _iob2(*given) == (expected, report)


def test_a_tag_outside_the_files_scheme_is_named():
  with pytest.raises(UserError, match="f, line 1: unknown tag 'PER' of the word 'w'"):
    _iob2("B-LOC O", "PER O")


def test_labels_are_those_of_the_training_data():
  def chosen(task, *examples, choice=""):
    return labels.choose(task, labels.parse(choice), examples)

  assert chosen(NER, _tagged("O", "I-MISC", "B-LOC"), _tagged("B-DATE")) == (
    *("O", "B-LOC", "I-LOC", "B-DATE", "I-DATE", "B-MISC", "I-MISC"),
  )
  assert chosen(NER, _tagged("O", "B-ORG", "B-PER")) == ("O", "B-PER", "I-PER", "B-ORG", "I-ORG")
  assert chosen(POS, _tagged("VBZ", "NN", "X", "ADJ")) == ("ADJ", "X", "NN", "VBZ")
  pairs = [Pair("a", "b", label) for label in ("not_entailment", "entailment")]
  assert chosen(NLI, *pairs) == ("entailment", "not_entailment")
  assert chosen(QA) == ("start", "end")
  fixed = chosen(NER, _tagged("B-LOC"), choice="LOC,PER")
  assert fixed == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
  assert chosen(NER, _tagged("B-LOC"), choice="O,B-PER,I-PER,B-LOC,I-LOC") == (
    *("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
  )


def test_capitals_in_the_choice_mean_nothing_to_pairs():
  pairs = [Pair("a", "b", label) for label in ("entailment", "no")]
  choice = labels.parse("Entailment,ENTAILMENT,Neutral,No=Neutral")
  renamed = labels.rename(NLI, choice, pairs)
  assert [pair.label for pair in renamed] == ["entailment", "neutral"]
  assert labels.choose(NLI, choice, renamed) == ("entailment", "neutral")
  with pytest.raises(UserError, match="'B-per'"):  # tags are other ones
    labels.choose(NER, labels.parse("PER"), [_tagged("B-per")])


def test_labels_are_renamed():
  choice = labels.parse("PER, LOC, GPE=LOC, DATE = O")
  assert choice == LabelChoice(("PER", "LOC"), {"GPE": "LOC", "DATE": "O"})
  (sentence,) = labels.rename(NER, choice, [_tagged("B-GPE", "I-GPE", "B-DATE", "I-DATE", "B-PER")])
  assert sentence.tags == ("B-LOC", "I-LOC", "O", "O", "B-PER")
  (pair,) = labels.rename(NLI, labels.parse("no=yes"), [Pair("a", "b", "no")])
  assert pair.label == "yes"
  (sentence,) = labels.rename(POS, labels.parse("NN=NOUN"), [_tagged("NN", "B-NN")])
  assert sentence.tags == ("NOUN", "B-NN")


@pytest.mark.parametrize(
  ("task", "choice", "examples", "message"),
  [
    (NER, "PER", [_tagged("O", "B-LOC")], r"'B-LOC' \(1 times\).*O, B-PER, I-PER.*B-LOC=NEW"),
    (NER, "=PER", [_tagged("O")], "'=PER'.*OLD=NEW"),
    (NER, "PER,PER", [_tagged("O")], "'PER' twice"),
    (QA, "PER", [], "task 'qa' has no labels"),
    (POS, "", [_tagged(*map(str, range(3000)))], "3,000 labels.*data.tag_column"),
  ],
)
def test_choices_that_do_not_fit_are_refused(task, choice, examples, message):
  with pytest.raises(UserError, match=message):
    labels.choose(task, labels.parse(choice), examples)


def test_labels_that_training_lacks_are_counted_and_wrong():
  known = ("O", "B-PER", "I-PER")
  examples, report = [_tagged("O", "B-DATE", "I-DATE", "B-DATE")], {}
  labels.count_unknown(NER, known, examples, report)
  assert report == {"labels that training does not have (B-DATE, I-DATE), scored as wrong": 3}
  predicted = [["O", "B-PER", "O", "O"]]
  assert NER.scores(NER.per_example(examples, predicted))["recall"] == 0
  report = {}
  labels.count_unknown(NER, known, [_tagged("O", "B-PER")], report)
  assert report == {}
