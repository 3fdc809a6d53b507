"""The four downstream tasks of the lab: NER, POS, question answering and entailment.

Labels come from the meanings, never from the text, so every language has the same tasks at the
same difficulty, and the examples of two languages with equal arguments are parallel. Splits use
document indices that neither each other nor the pre-training corpora use.
"""

from negint.data import lab
from negint.data.lab_language import LANGUAGES, WORD, LabLanguage
from negint.data.lab_meaning import (
  RELATIONS,
  Draw,
  Entity,
  Fact,
  Name,
  Teller,
  draw_object,
  fact_clause,
  make_cast,
  make_draw,
  pick,
)
from negint.data.tasks.examples import Pair, Question, TaggedSentence
from negint.data.tasks.nli import LABELS
from negint.errors import UserError

SPLITS = ("train", "dev", "test")

_QUESTION_WORD = {"PER": "who", "LOC": "where", "ORG": "what", "YEAR": "when"}
_ONE_TO_ONE = ("found", "lead")  # An object has one subject, too.


def _first_index(split: str) -> int:
  if split not in SPLITS:
    raise UserError(f"split {split!r} is unknown to the lab; choose one of {SPLITS}")
  return (len(LANGUAGES) + SPLITS.index(split)) * lab.STREAM


def _sentences(language: LabLanguage, seed: int, split: str, count: int) -> list[lab.Sentence]:
  """The first count sentences of the split's documents."""
  index, sentences = _first_index(split), []
  while len(sentences) < count:
    sentences.extend(lab.make_document(language, seed, index).sentences)
    index += 1
  return sentences[:count]


def ner(language: LabLanguage, seed: int, split: str, count: int) -> list[TaggedSentence]:
  """Sentences with IOB2 tags over PER, LOC and ORG."""
  return [
    TaggedSentence(sentence.tokens, sentence.entities)
    for sentence in _sentences(language, seed, split, count)
  ]


def pos(language: LabLanguage, seed: int, split: str, count: int) -> list[TaggedSentence]:
  """Sentences with universal parts of speech."""
  return [
    TaggedSentence(sentence.tokens, sentence.tags)
    for sentence in _sentences(language, seed, split, count)
  ]


def _question(language: LabLanguage, fact: Fact, about: str, synonym: bool) -> str:
  """Asks for the fact's subject or object, with either of the relation's two verbs."""
  relation = fact.relation
  if about == "subject":
    word = "who" if relation.subject == "PER" else "what"
    clause = fact_clause(relation, WORD[word], Name(fact.object), synonym)
  else:
    word = WORD[_QUESTION_WORD[relation.object]]
    clause = fact_clause(relation, Name(fact.subject), word, synonym)
    if relation.object in ("LOC", "YEAR"):  # `where` and `when` contain their adposition.
      clause = clause._replace(adposition=None)
  return lab.ask(language, clause, about).text


def qa(language: LabLanguage, seed: int, split: str, count: int) -> list[Question]:
  """One question on each of count documents; the document is the context, one line.

  The answer is the subject or the object of one fact, as it stands in the context. The question
  gives full names where the context may have a short name or a pronoun, and may use another verb.
  """
  first, questions = _first_index(split), []
  for index in range(first, first + count):
    document = lab.make_document(language, seed, index)
    draw = make_draw(seed, index, salt=1)
    fact = pick(draw, document.facts)
    about = "subject" if fact.subject_span and draw() < 0.3 else "object"
    start, end = fact.subject_span if about == "subject" else fact.object_span
    before = [
      token for sentence in document.sentences[: fact.sentence] for token in sentence.tokens
    ]
    tokens = document.sentences[fact.sentence].tokens
    before.extend(tokens[:start])
    offset = sum(len(token) + 1 for token in before)
    questions.append(
      Question(
        id=f"lab-{split}-{index - first}",
        context=" ".join(sentence.text for sentence in document.sentences),
        question=_question(language, fact, about, synonym=draw() < 0.5),
        answers=((" ".join(tokens[start:end]), offset),),
      )
    )
  return questions


def _premise_facts(
  draw: Draw,
  cast: dict[str, list[Entity]],
  fact: Fact,
  label: str,
) -> list[Fact]:
  """The fact that decides on the hypothesis, and another that does not, in either order.

  In a third of the pairs the other fact holds what a comparison of words would look for: the same
  relation and, in a contradiction, the object of the hypothesis, but of another subject.
  """
  relation, subject, object = fact.relation, fact.subject, fact.object
  elsewhere = draw_object(draw, cast, relation, (subject, object))
  if label == "entailment":
    decisive = fact
  elif label == "contradiction":
    decisive = Fact(relation, subject, elsewhere)
  else:
    # The same subject in another relation, half of the time to the same object where that fits.
    others = [r for r in RELATIONS if r.subject == relation.subject and r != relation]
    akin = [r for r in others if r.object == relation.object]
    if akin and draw() < 0.5:
      decisive = Fact(pick(draw, akin), subject, object)
    else:
      other = pick(draw, others)
      decisive = Fact(other, subject, draw_object(draw, cast, other, (subject, object)))
  bystander = pick(draw, [e for e in cast[relation.subject] if e not in (subject, object)])
  # Nobody marries two people, so that relation has no such other fact.
  if relation.object != "PER" and draw() < 1 / 3:
    shown = object if label == "contradiction" else elsewhere
    if relation.name in _ONE_TO_ONE:
      shown = draw_object(draw, cast, relation, (object, decisive.object))
    distractor = Fact(relation, bystander, shown)
  else:
    other = pick(draw, [r for r in RELATIONS if r.subject == relation.subject and r != relation])
    distractor = Fact(other, bystander, draw_object(draw, cast, other, (bystander, subject)))
  facts = [decisive, distractor]
  return facts if draw() < 0.5 else facts[::-1]


def nli(language: LabLanguage, seed: int, split: str, count: int) -> list[Pair]:
  """Pairs whose labels alternate; the premise states two facts, the hypothesis one.

  The hypothesis is drawn before and apart from the label, so nothing can be learned from it
  alone. An entailed one is a weaker statement or a paraphrase of one sentence of the premise; a
  contradicted one gives the same subject another object (relations of the lab are functional); a
  neutral one is about the same subject but another relation.
  """
  first, pairs = _first_index(split), []
  for index in range(first, first + count):
    draw = make_draw(seed, index, salt=2)
    cast = make_cast(draw)
    teller = Teller(draw)
    relation = pick(draw, RELATIONS)
    subject = pick(draw, cast[relation.subject])
    object = draw_object(draw, cast, relation, (subject,))
    hypothesis = fact_clause(
      relation,
      Name(subject),
      Name(object),
      synonym=draw() < 0.5,
      past=teller.past,
    )
    label = LABELS[(index - first) % len(LABELS)]
    facts = _premise_facts(draw, cast, Fact(relation, subject, object), label)
    # Subjects are named in full: both facts could be about people whom a pronoun confuses.
    premise = [teller.fact(fact)._replace(subject=Name(fact.subject)) for fact in facts]
    pairs.append(
      Pair(
        premise=" ".join(lab.say(language, [(None, clause)]).text for clause in premise),
        hypothesis=lab.say(language, [(None, hypothesis)]).text,
        label=label,
      )
    )
  return pairs
