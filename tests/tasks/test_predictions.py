"""What a run writes of a test set: predictions in XTREME's form, and numbers per example."""

import json
import os

import pytest

from negint.tasks import predictions
from negint.tasks.examples import Pair, Question, TaggedSentence
from negint.tasks.ner import NER
from negint.tasks.nli import NLI
from negint.tasks.qa import QA


def test_predictions_have_the_form_of_xtreme(tmp_path):
  tags = [["O", "B-PER"], ["O"]]
  path = predictions.write(tmp_path, NER, "sw", tags)
  assert path == tmp_path / "panx" / "test-sw.tsv"
  assert _read_as_xtreme(path) == tags
  path = predictions.write(tmp_path, NLI, "sw", ["neutral", "entailment"])
  assert path.read_text() == "neutral\nentailment\n"
  path = predictions.write(tmp_path, QA, "ar", {"q": "النيل"})
  assert path == tmp_path / "tydiqa" / "test-ar.json"
  assert json.loads(path.read_text(encoding="utf-8")) == {"q": "النيل"}
  assert sorted(os.listdir(tmp_path / "panx")) == ["test-sw.tsv"]


def _read_as_xtreme(path):
  """What XTREME's scorer makes of a tagging file: a blank line ends a sentence."""
  sentences, sentence = [], []
  for line in path.read_text(encoding="utf-8").splitlines():
    if line.strip():
      sentence.append(line.strip())
    else:
      sentences.append(sentence)
      sentence = []
  return sentences + ([sentence] if sentence else [])


def test_a_failed_write_leaves_the_old_predictions(tmp_path, monkeypatch):
  path = predictions.write(tmp_path, NLI, "sw", ["neutral"])

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="disk full"):
    predictions.write(tmp_path, NLI, "sw", ["entailment"] * 3)
  assert path.read_text() == "neutral\n"
  assert os.listdir(tmp_path / "xnli") == ["test-sw.tsv"]


def test_rows_of_examples_are_written_with_their_columns(tmp_path):
  predictions.write_per_example(tmp_path / "per_example", NLI, "sw", [[1], [0]])
  written = json.loads((tmp_path / "per_example" / "sw.json").read_text())
  assert written == {"columns": ["correct"], "rows": [[1], [0]]}


def test_majority_predictions_are_the_most_frequent_of_the_training_data():
  sentences = [TaggedSentence(("a", "b", "c"), ("O", "B-PER", "O")), TaggedSentence(("d",), ("O",))]
  assert NER.majority(sentences[:1], sentences) == [["O", "O", "O"], ["O"]]
  pairs = [Pair("a", "b", label) for label in ("neutral", "entailment", "entailment")]
  assert NLI.majority(pairs, pairs[:2]) == ["entailment"] * 2
  questions = [Question(str(i), "x y", "?", answers) for i, answers in enumerate(ANSWERS)]
  assert QA.majority(questions, questions[:2]) == {"0": "y", "1": "y"}


ANSWERS = ((("x", 0),), (("y", 2), ("x", 0)), (), (("y", 2),))
