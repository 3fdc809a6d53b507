"""The lab's languages are related as the dial says, and its labels are right by construction."""

import collections
import dataclasses
import itertools
import math

import numpy as np
import pytest

from negint.data.lab import language as lab_language
from negint.data.lab import wording
from negint.errors import UserError
from negint.tasks import lab_examples
from negint.tasks.examples import PAIR_LABELS

DIALS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
BASE = lab_language.make_language("xa", 1.0, seed=1)


def _words(language, documents=40, seed=0):
  return {
    word
    for index in range(documents)
    for sentence in wording.make_document(language, seed, index).sentences
    for word in sentence.tokens
  }


def _all_documents(language, first=0, count=30, seed=0):
  return [wording.make_document(language, seed, index) for index in range(first, first + count)]


@pytest.mark.parametrize("name", lab_language.LANGUAGES)
def test_same_seed_gives_the_same_language_and_text_and_another_seed_does_not(name):
  lab_language._family.cache_clear()
  first = lab_language.make_language(name, 0.5, seed=1)
  lab_language._family.cache_clear()
  assert first == lab_language.make_language(name, 0.5, seed=1)
  other = lab_language.make_language(name, 0.5, seed=2)
  same = sum(a == b for a, b in zip(first.stems, other.stems, strict=True))
  assert same < 0.02 * lab_language.CONCEPTS
  assert wording.make_document(first, 3, 4) == wording.make_document(first, 3, 4)
  assert wording.make_document(first, 3, 4) != wording.make_document(first, 3, 5)
  assert wording.make_document(first, 3, 4) != wording.make_document(first, 4, 4)


@pytest.mark.parametrize("name", ["xb", "xc"])
def test_similarity_one_is_the_base_itself(name):
  assert _all_documents(lab_language.make_language(name, 1.0, seed=1)) == _all_documents(BASE)


@pytest.mark.parametrize("name", ["xb", "xc"])
def test_similarity_zero_shares_no_word_and_no_letter_with_the_base(name):
  words = _words(lab_language.make_language(name, 0.0, seed=1))
  base = _words(BASE)
  assert not words & base
  assert not set("".join(words)) & set("".join(base))
  assert _words(lab_language.make_language(name, 0.5, seed=1)) & base


@pytest.mark.parametrize("name", ["xb", "xc"])
def test_cognates_are_nested_and_their_share_is_near_the_dial(name):
  previous = set()
  for dial in DIALS:
    language = lab_language.make_language(name, dial, seed=1)
    cognates = {i for i, cognate in enumerate(language.cognate) if cognate}
    assert previous <= cognates
    assert len(cognates) / lab_language.CONCEPTS == pytest.approx(dial, abs=0.03)
    if dial >= lab_language.THRESHOLDS["script"]:
      same = {i for i in range(lab_language.CONCEPTS) if language.stems[i] == BASE.stems[i]}
      assert same == cognates
    previous = cognates


def test_cognates_in_another_script_are_the_base_words_letter_by_letter():
  near, far = (lab_language.make_language("xb", dial, seed=1) for dial in (0.25, 0.15))
  assert far.own_script and not near.own_script
  for concept in range(lab_language.CONCEPTS):
    if far.cognate[concept]:
      assert far.stems[concept] == BASE.stems[concept].translate(lab_language.SCRIPT)


@pytest.mark.parametrize("dial", DIALS)
def test_the_share_of_cognates_among_content_words_of_running_text_is_near_the_dial(dial):
  for seed in (1, 2):
    language = lab_language.make_language("xb", dial, seed)
    cognate = dict(zip(language.stems, language.cognate, strict=True))
    # Without suffixes, each word of the text is a stem.
    bare = dataclasses.replace(language, suffixes=("",) * len(language.suffixes))
    shared = {"NOUN": [], "VERB": [], "ADJ": [], "PROPN": []}
    for document in _all_documents(bare, count=200):
      for sentence in document.sentences:
        for token, tag in zip(sentence.tokens, sentence.tags, strict=True):
          if tag in shared:
            shared[tag].append(cognate[token])
    for tag, hits in shared.items():
      # If only chance made each word a cognate, the verbs would be off by up to 0.13.
      assert np.mean(hits) == pytest.approx(dial, abs=0.08), tag


@pytest.mark.parametrize("dial", [0.0, 0.3, 0.5, 0.8, 0.95])
def test_xc_is_closer_to_xb_than_either_to_the_base(dial):
  xb, xc = (lab_language.make_language(name, dial, seed=1) for name in ("xb", "xc"))
  shared = np.mean([a == b for a, b in zip(xb.stems, xc.stems, strict=True)])
  assert shared == pytest.approx(max(dial, lab_language.RELATIVE_SIMILARITY), abs=0.03)
  assert xb.cognate == xc.cognate
  assert (xb.verb_final, xb.suffixes) == (xc.verb_final, xc.suffixes)


def test_each_typological_feature_differs_below_its_own_threshold():
  fields = {
    "script": "own_script",
    "adposition": "postpositions",
    "adjective": "adjective_after",
    "order": "verb_final",
    "suffixes": "suffixes",
  }
  for feature, threshold in lab_language.THRESHOLDS.items():
    below, at = (
      lab_language.make_language("xb", dial, seed=1) for dial in (threshold - 0.01, threshold)
    )
    assert getattr(below, fields[feature]) != getattr(BASE, fields[feature])
    if feature == "suffixes" or threshold > lab_language.THRESHOLDS["script"]:
      assert getattr(at, fields[feature]) != getattr(below, fields[feature])


@pytest.mark.parametrize(
  "name, similarity, seed, message",
  [
    ("xz", 0.5, 0, "'xz'"),
    ("xb", 1.5, 0, "1.5"),
    ("xb", -0.1, 0, "between 0"),
    ("xb", 0.5, -1, "-1"),
  ],
)
def test_bad_arguments_are_named(name, similarity, seed, message):
  with pytest.raises(UserError, match=message):
    lab_language.make_language(name, similarity, seed)


def test_unknown_split_names_the_legal_ones():
  with pytest.raises(UserError, match="train"):
    lab_examples.pos(BASE, 0, "valid", 3)


@pytest.mark.parametrize("dial", [0.1, 0.55, 1.0])
def test_tags_and_entities_are_well_formed(dial):
  kinds = set()
  for document in _all_documents(lab_language.make_language("xb", dial, seed=1), count=60):
    assert 6 <= len(document.sentences) <= 12
    for sentence in document.sentences:
      assert len(sentence.tokens) == len(sentence.tags) == len(sentence.entities)
      assert all(token and " " not in token for token in sentence.tokens)
      assert sentence.tags[-1] == "PUNCT" and "PUNCT" not in sentence.tags[:-1]
      for before, tag, pos in zip(
        ("O", *sentence.entities), sentence.entities, sentence.tags, strict=False
      ):
        if tag.startswith("I-"):
          assert before in ("B" + tag[1:], tag)
        assert (tag == "O") == (pos != "PROPN")
        kinds.add(tag)
  assert kinds >= {"O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"}


def test_documents_are_parallel_across_languages():
  for other in ("xb", "xc"):
    language = lab_language.make_language(other, 0.3, seed=1)
    for ours, theirs in zip(_all_documents(BASE), _all_documents(language), strict=True):
      assert [(f.relation, f.subject, f.object) for f in ours.facts] == [
        (f.relation, f.subject, f.object) for f in theirs.facts
      ]
      for a, b in zip(ours.sentences, theirs.sentences, strict=True):
        assert collections.Counter(a.tags) == collections.Counter(b.tags)
        assert collections.Counter(a.entities) == collections.Counter(b.entities)


def test_a_fact_is_where_its_document_says_it():
  for dial in (0.1, 1.0):
    language = lab_language.make_language("xb", dial, seed=1)
    for document in _all_documents(language, count=60):
      assert 3 <= len(document.facts) <= 5
      for fact in document.facts:
        tokens = document.sentences[fact.sentence].tokens
        assert list(tokens[slice(*fact.object_span)]) == wording.name_words(language, fact.object)
        if fact.subject_span:
          said = list(tokens[slice(*fact.subject_span)])
          full = wording.name_words(language, fact.subject)
          assert said in (full, full[-1:])


def test_corpora_of_two_languages_tell_different_documents():
  # At similarity 1 the languages are identical, so equal text would mean equal meaning.
  twin = lab_language.make_language("xb", 1.0, seed=1)
  ours, theirs = (
    {line for document in wording.corpus_documents(language, 0, 50) for line in document}
    for language in (BASE, twin)
  )
  assert not ours & theirs
  again = {line for document in wording.corpus_documents(BASE, 0, 50) for line in document}
  assert ours == again


def test_splits_and_corpora_share_no_document():
  firsts = [lab_examples._first_index(split) for split in lab_examples.SPLITS]
  firsts += [i * wording.STREAM for i in range(len(lab_language.LANGUAGES))]
  assert len(set(firsts)) == len(firsts)
  assert all(abs(a - b) >= wording.STREAM for a, b in itertools.combinations(firsts, 2))
  sets = [
    {example.words for example in lab_examples.ner(BASE, 0, split, 300)}
    for split in lab_examples.SPLITS
  ]
  assert all(len(a & b) < 3 for a, b in itertools.combinations(sets, 2))


@pytest.mark.parametrize(
  "task", [lab_examples.ner, lab_examples.pos, lab_examples.qa, lab_examples.nli]
)
def test_tasks_are_determined_by_their_arguments(task):
  assert len(task(BASE, 0, "dev", 20)) == 20
  assert task(BASE, 0, "dev", 20) == task(BASE, 0, "dev", 30)[:20]
  assert task(BASE, 0, "dev", 20) != task(BASE, 1, "dev", 20)
  assert task(BASE, 0, "dev", 20) != task(BASE, 0, "test", 20)


@pytest.mark.parametrize("dial", [0.1, 0.45, 1.0])
def test_answers_stand_at_their_offsets_and_questions_do_not_contain_them(dial):
  language = lab_language.make_language("xb", dial, seed=1)
  questions = lab_examples.qa(language, 0, "test", 300)
  assert len({question.id for question in questions}) == len(questions)
  for question in questions:
    for text, offset in question.answers:
      assert text and question.context[offset : offset + len(text)] == text
      # A family name alone may also be part of an organisation's name; longer answers are unique.
      assert " " not in text or f" {text} " not in f" {question.question} "
    assert question.question.split()[-1] in "?؟"
    assert 1 <= sum(question.context.count(stop) for stop in ".।") <= lab_examples.PASSAGE
  # The answer is in every part of a passage, not always at its beginning.
  places = [question.answers[0][1] / len(question.context) for question in questions]
  assert min(places) < 0.1 and 0.3 < sum(places) / len(places) < 0.7 and max(places) > 0.8


def _bag_of_words_accuracy(train, test, text):
  """Naive Bayes, which finds single words that reveal the label."""
  counts = {label: collections.Counter() for label in PAIR_LABELS}
  for pair in train:
    counts[pair.label].update(text(pair))
  vocabulary = len(set().union(*counts.values()))

  def score(pair, label):
    total = sum(counts[label].values()) + vocabulary
    return sum(math.log((counts[label][word] + 1) / total) for word in text(pair))

  right = [
    max(PAIR_LABELS, key=lambda label, pair=pair: score(pair, label)) == pair.label for pair in test
  ]
  return sum(right) / len(right)


def test_entailment_is_balanced_and_not_given_away_by_the_hypothesis():
  train, test = (lab_examples.nli(BASE, 0, split, 3000) for split in ("train", "test"))
  assert set(collections.Counter(pair.label for pair in train).values()) == {1000}
  hypothesis_only = _bag_of_words_accuracy(train, test, lambda pair: pair.hypothesis.split())
  premise_only = _bag_of_words_accuracy(train, test, lambda pair: pair.premise.split())
  assert hypothesis_only == pytest.approx(1 / 3, abs=0.04)
  assert premise_only < 0.45

  def overlap(pair):
    premise = set(pair.premise.split())
    return [str(sum(word not in premise for word in pair.hypothesis.split()))]

  # Positive control: looking at both sides is better than chance, but does not solve the task.
  assert 0.4 < _bag_of_words_accuracy(train, test, overlap) < 0.8


def test_records_are_immutable():
  with pytest.raises(dataclasses.FrozenInstanceError):
    BASE.name = "xb"


def _perplexity(model, tokens):
  return math.exp(-sum(math.log(model(*token)) for token in tokens) / len(tokens))


def test_context_predicts_words_without_determining_them():
  sentences = [
    line.split() for document in wording.corpus_documents(BASE, 0, 500) for line in document
  ]
  tokens = [
    (left, word, right)
    for s in sentences
    for left, word, right in zip(["", *s], s, [*s[1:], ""], strict=False)
  ]
  train, test = tokens[:-5000], tokens[-5000:]
  words = collections.Counter(word for _, word, _ in train)
  tables = [collections.defaultdict(collections.Counter) for _ in range(3)]
  for left, word, right in train:
    for table, context in zip(tables, (right, left, (left, right)), strict=True):
      table[context][word] += 1

  def unigram(left, word, right):
    return (words[word] + 0.1) / (len(train) + 0.1 * len(words))

  def neighbours(left, word, right):
    probability = unigram(left, word, right)
    for table, context in zip(tables, (right, left, (left, right)), strict=True):
      if context in table:
        kinds, total = len(table[context]), sum(table[context].values())
        probability = (table[context][word] + kinds * probability) / (total + kinds)
    return probability

  assert 4 < _perplexity(neighbours, test) < 0.25 * _perplexity(unigram, test)
