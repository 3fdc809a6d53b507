"""The lab's labelled examples for NER, POS, QA and NLI.

Labels come from the meanings, never from the text. So all languages have the same tasks at the same
difficulty, and equal arguments give parallel examples in two languages. Each split has documents of
its own, which no pretraining corpus has.

All makers take the language, the seed of the world, the split and the number of examples.
"""

from negint.data.lab import wording
from negint.data.lab.language import LANGUAGES, WORD, LabLanguage
from negint.data.lab.meaning import (
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
from negint.errors import UserError
from negint.tasks.examples import PAIR_LABELS, SPLITS, Pair, Question, TaggedSentence

PASSAGE = 3  # sentences of a QA context: with its question it fits the lab's rows of 64 tokens
_QUESTION_WORD = {"PER": "who", "LOC": "where", "ORG": "what", "YEAR": "when"}


def _first_index(split: str) -> int:
  """Returns the number of the split's first document."""
  if split not in SPLITS:
    raise UserError(f"split is {split!r}; it must be one of {', '.join(SPLITS)}.")
  return (len(LANGUAGES) + SPLITS.index(split)) * wording.STREAM


def _sentences(language: LabLanguage, seed: int, split: str, count: int) -> list[wording.Sentence]:
  """Returns the first sentences of the split's documents."""
  index = _first_index(split)
  sentences: list[wording.Sentence] = []
  while len(sentences) < count:
    sentences.extend(wording.make_document(language, seed, index).sentences)
    index += 1
  return sentences[:count]


def ner(language: LabLanguage, seed: int, split: str, count: int) -> list[TaggedSentence]:
  """Returns sentences with IOB2 tags over PER, LOC and ORG."""
  return [
    TaggedSentence(sentence.tokens, sentence.entities)
    for sentence in _sentences(language, seed, split, count)
  ]


def pos(language: LabLanguage, seed: int, split: str, count: int) -> list[TaggedSentence]:
  """Returns sentences with universal parts of speech."""
  return [
    TaggedSentence(sentence.tokens, sentence.tags)
    for sentence in _sentences(language, seed, split, count)
  ]


def _question(language: LabLanguage, fact: Fact, about: str, synonym: bool) -> str:
  """Returns a question about the fact's subject or object, with one of the relation's two verbs."""
  relation = fact.relation
  if about == "subject":
    word = WORD["who" if relation.subject == "PER" else "what"]
    clause = fact_clause(relation, word, Name(fact.object), synonym)
  else:
    word = WORD[_QUESTION_WORD[relation.object]]
    clause = fact_clause(relation, Name(fact.subject), word, synonym)
    if relation.object in ("LOC", "YEAR"):  # `where` and `when` contain their adposition
      clause = clause._replace(adposition=None)
  return wording.ask(language, clause, about).text


def _passage(draw: Draw, sentences: int, wanted: int) -> slice:
  """Returns PASSAGE consecutive sentences of a document's, or all, with the wanted one among them."""
  size = min(PASSAGE, sentences)
  first = min(max(wanted - int(draw() * size), 0), sentences - size)
  return slice(first, first + size)


def qa(language: LabLanguage, seed: int, split: str, count: int) -> list[Question]:
  """Returns one question per document; the context is a passage of the document on one line.

  The answer is the subject or the object of one fact, as it stands in the context. The question has
  full names where the context may have a short name or a pronoun. It may use another verb.
  """
  first, questions = _first_index(split), []
  for index in range(first, first + count):
    document = wording.make_document(language, seed, index)
    draw = make_draw(seed, index, salt=1)
    fact = pick(draw, document.facts)
    about, (start, end) = "object", fact.object_span
    if fact.subject_span and draw() < 0.3:
      about, (start, end) = "subject", fact.subject_span
    passage = _passage(draw, len(document.sentences), fact.sentence)
    earlier = document.sentences[passage.start : fact.sentence]
    before = [token for sentence in earlier for token in sentence.tokens]
    tokens = document.sentences[fact.sentence].tokens
    before.extend(tokens[:start])
    offset = sum(len(token) + 1 for token in before)
    questions.append(
      Question(
        id=f"lab-{split}-{index - first}",
        context=" ".join(sentence.text for sentence in document.sentences[passage]),
        question=_question(language, fact, about, synonym=draw() < 0.5),
        answers=((" ".join(tokens[start:end]), offset),),
      )
    )
  return questions


def _premise_fact(draw: Draw, cast: dict[str, list[Entity]], fact: Fact, label: str) -> Fact:
  """Returns the premise's fact, which makes the label right for the hypothesis `fact`."""
  relation, subject, object = fact.relation, fact.subject, fact.object
  if label == "entailment":
    return fact
  if label == "contradiction":
    return Fact(relation, subject, draw_object(draw, cast, relation, (subject, object)))
  # The same subject in another relation, half of the time to the same object where that fits.
  others = [r for r in RELATIONS if r.subject == relation.subject and r != relation]
  akin = [r for r in others if r.object == relation.object]
  if akin and draw() < 0.5:
    return Fact(pick(draw, akin), subject, object)
  other = pick(draw, others)
  return Fact(other, subject, draw_object(draw, cast, other, (subject, object)))


def nli(language: LabLanguage, seed: int, split: str, count: int) -> list[Pair]:
  """Returns pairs whose labels alternate; only the premise's fact has adjuncts.

  The hypothesis is drawn before the label, so that a model learns nothing from it alone. An
  entailed hypothesis is weaker than the premise, or says the same. A contradicted one gives the
  same subject another object, and in the lab a subject has one object per relation. A neutral one
  is about the same subject in another relation.
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
    label = PAIR_LABELS[(index - first) % len(PAIR_LABELS)]
    fact = _premise_fact(draw, cast, Fact(relation, subject, object), label)
    premise = teller.fact(fact)._replace(subject=Name(subject))  # in full, not by a pronoun
    pairs.append(
      Pair(
        premise=wording.say(language, [(None, premise)]).text,
        hypothesis=wording.say(language, [(None, hypothesis)]).text,
        label=label,
      )
    )
  return pairs
