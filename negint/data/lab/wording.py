"""How the lab's languages word meanings: sentences, questions and whole documents.

Owns the word order, inflection and labels of sentences, and which document has which number: a
meaning (`lab_meaning`) told in two languages (`lab_language`) makes parallel documents. `lab_tasks`
turns the result into labelled data.
"""

import dataclasses
from collections.abc import Iterator

from negint.data.lab.language import GENDERS, LANGUAGES, SCRIPT, START, TAG, WORD, LabLanguage
from negint.data.lab.meaning import (
  Clause,
  Entity,
  Fact,
  Name,
  Predicate,
  Teller,
  draw_facts,
  make_cast,
  make_draw,
  noun_gender,
)
from negint.errors import UserError

STREAM = 10**9  # Document indices per purpose: a corpus for each language, then the task splits.


@dataclasses.dataclass(frozen=True)
class Sentence:
  """Words with their universal parts of speech and IOB2 entity tags over PER, LOC, ORG."""

  tokens: tuple[str, ...]
  tags: tuple[str, ...]
  entities: tuple[str, ...]

  @property
  def text(self) -> str:
    return " ".join(self.tokens)


@dataclasses.dataclass(frozen=True)
class Document:
  sentences: tuple[Sentence, ...]
  facts: tuple[Fact, ...]


def name_words(language: LabLanguage, entity: Entity) -> list[str]:
  """The words of an entity's full name; a year is a numeral in the language's script."""
  if entity.kind == "YEAR":
    year = str(entity.parts[0])
    return [year.translate(SCRIPT) if language.own_script else year]
  # Epithets and kinds of organisation stand where adjectives stand; personal names do not turn.
  turned = language.adjective_after and entity.kind != "PER"
  return [language.stems[part] for part in (entity.parts[::-1] if turned else entity.parts)]


def _say_argument(language: LabLanguage, argument, out: list[tuple[str, str, str]]) -> None:
  """Appends (token, tag, entity) for each word of an argument."""
  stems, suffixes = language.stems, language.suffixes
  if argument is None:
    return
  if isinstance(argument, int):
    out.append((stems[argument], TAG.get(argument, "ADV"), "O"))
  elif isinstance(argument, Name):
    words, kind = name_words(language, argument.entity), argument.entity.kind
    if kind == "YEAR":
      out.append((words[0], "NUM", "O"))
    else:
      words = words[-1:] if argument.short else words
      out.extend((word, "PROPN", ("I-" if i else "B-") + kind) for i, word in enumerate(words))
  elif isinstance(argument, Predicate):
    ending = suffixes[2 * noun_gender(argument.agrees_with) + argument.plural]
    out.append((stems[WORD["very"]], "ADV", "O"))
    out.append((stems[argument.adjective] + ending, "ADJ", "O"))
  else:
    ending = suffixes[2 * noun_gender(argument.noun) + argument.plural]
    tag = TAG[argument.determiner]
    out.append((stems[argument.determiner] + (ending if tag == "DET" else ""), tag, "O"))
    words = [(stems[START["noun"] + argument.noun] + ending, "NOUN", "O")]
    if argument.adjective is not None:
      words.insert(language.adjective_after, (stems[argument.adjective] + ending, "ADJ", "O"))
    out.extend(words)


def _say_adpositional(language: LabLanguage, adposition: int | None, argument, out) -> None:
  if adposition is None:
    _say_argument(language, argument, out)
  elif language.postpositions:
    _say_argument(language, argument, out)
    _say_argument(language, adposition, out)
  else:
    _say_argument(language, adposition, out)
    _say_argument(language, argument, out)


def _say_clause(
  language: LabLanguage, clause: Clause, out: list[tuple[str, str, str]], front: str | None = None
) -> dict[str, tuple[int, int]]:
  """Appends a clause in the language's word order; returns the token span of each part."""
  order = (
    ["subject", "adverb", "setting", "object", "verb"]
    if language.verb_final
    else ["subject", "verb", "object", "setting", "adverb"]
  )
  if front:
    order.sort(key=lambda part: part != front)
  spans = {}
  for part in order:
    start = len(out)
    if part == "object":
      _say_adpositional(language, clause.adposition, clause.object, out)
    elif part == "setting":
      _say_adpositional(language, clause.setting_adposition, clause.setting, out)
    elif part != "verb" or clause.verb in TAG:  # The copula does not inflect.
      _say_argument(language, getattr(clause, part), out)
    else:
      ending = language.suffixes[2 * GENDERS + 2 * clause.past + clause.plural]
      out.append((language.stems[clause.verb] + ending, "VERB", "O"))
    spans[part] = (start, len(out))
  return spans


def _finish(language: LabLanguage, words: list[tuple[str, str, str]], mark: str) -> Sentence:
  words.append((mark.translate(SCRIPT) if language.own_script else mark, "PUNCT", "O"))
  return Sentence(*zip(*words, strict=True))


def say(language: LabLanguage, clauses: list[tuple[int | None, Clause]]) -> Sentence:
  """A statement: clauses, each after its connective."""
  words = []
  for connective, clause in clauses:
    _say_argument(language, connective, words)
    _say_clause(language, clause, words)
  return _finish(language, words, ".")


def ask(language: LabLanguage, clause: Clause, front: str) -> Sentence:
  """A question: the part called front holds the question word and opens the sentence."""
  words = []
  _say_clause(language, clause, words, front)
  return _finish(language, words, "?")


def _bare(clause: Clause, language: LabLanguage, span: tuple[int, int]) -> tuple[int, int]:
  """The span of an object without its adposition."""
  before = clause.adposition is not None and not language.postpositions
  after = clause.adposition is not None and language.postpositions
  return span[0] + before, span[1] - after


def make_document(language: LabLanguage, seed: int, index: int) -> Document:
  """Document number index of the library that seed gives, told in the language.

  The meaning depends on seed and index only, so documents of two languages are parallel.
  """
  if seed < 0 or index < 0:
    raise UserError(f"seed {seed} and index {index} of a lab document must both be 0 or more")
  draw = make_draw(seed, index)
  cast = make_cast(draw)
  facts = draw_facts(draw, cast)
  teller = Teller(draw)
  total = 6 + int(draw() * 7)
  sentences, told = [], []
  while len(sentences) < total:
    waiting = len(facts) - len(told)
    # The first sentence introduces somebody; later facts come early or late, but all come.
    state = waiting and (not sentences or waiting >= total - len(sentences) or draw() < 0.5)
    if state:
      fact = facts[len(told)]
      clause, words = teller.fact(fact), []
      spans = _say_clause(language, clause, words)
      told.append(
        dataclasses.replace(
          fact,
          sentence=len(sentences),
          object_span=_bare(clause, language, spans["object"]),
          subject_span=spans["subject"] if isinstance(clause.subject, Name) else None,
        )
      )
      sentences.append(_finish(language, words, "."))
    else:
      sentences.append(say(language, teller.event(cast)))
  return Document(tuple(sentences), tuple(told))


def corpus_documents(language: LabLanguage, seed: int, count: int) -> Iterator[list[str]]:
  """Documents to pre-train on, as lines of one sentence; no two languages tell the same ones."""
  first = LANGUAGES.index(language.name) * STREAM
  for index in range(first, first + count):
    yield [sentence.text for sentence in make_document(language, seed, index).sentences]
