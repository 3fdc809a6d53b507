"""Says meanings in a language of the lab: sentences, questions and whole documents.

A sentence gets its word order, inflection and labels here. A meaning that is told in two languages
makes parallel documents. `negint.tasks.lab_examples` makes labelled data from the result.
"""

import dataclasses
from collections.abc import Iterator

from negint.data.lab.language import GENDERS, LANGUAGES, SCRIPT, START, TAG, WORD, LabLanguage
from negint.data.lab.meaning import (
  Argument,
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

STREAM = 10**9  # document indices per purpose: the corpus of each language, then the task splits

TaggedWord = tuple[str, str, str]  # (token, universal part of speech, IOB2 tag of its entity)


@dataclasses.dataclass(frozen=True)
class Sentence:
  """A sentence, word by word."""

  tokens: tuple[str, ...]  # words and the final mark
  tags: tuple[str, ...]  # their universal parts of speech
  entities: tuple[str, ...]  # their IOB2 tags over PER, LOC, ORG

  @property
  def text(self) -> str:
    """The tokens with spaces between them."""
    return " ".join(self.tokens)


@dataclasses.dataclass(frozen=True)
class Document:
  """A document and the facts that it states."""

  sentences: tuple[Sentence, ...]
  facts: tuple[Fact, ...]  # in the order of their sentences


def name_words(language: LabLanguage, entity: Entity) -> list[str]:
  """Returns the words of an entity's full name; of a year, its number in the language's script."""
  if entity.kind == "YEAR":
    year = str(entity.parts[0])
    return [year.translate(SCRIPT) if language.own_script else year]
  # Epithets and kinds of organisation stand where adjectives stand; personal names keep their order.
  turned = language.adjective_after and entity.kind != "PER"
  return [language.stems[part] for part in (entity.parts[::-1] if turned else entity.parts)]


def _say_argument(language: LabLanguage, argument: Argument, out: list[TaggedWord]) -> None:
  """Appends the words of an argument."""
  stems, suffixes = language.stems, language.suffixes
  if argument is None:
    return
  if isinstance(argument, int):
    out.append((stems[argument], TAG.get(argument, "ADV"), "O"))
  elif isinstance(argument, Name):
    names, kind = name_words(language, argument.entity), argument.entity.kind
    if kind == "YEAR":
      out.append((names[0], "NUM", "O"))
    else:
      names = names[-1:] if argument.short else names
      out.extend((name, "PROPN", ("I-" if i else "B-") + kind) for i, name in enumerate(names))
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


def _say_adpositional(
  language: LabLanguage, adposition: int | None, argument: Argument, out: list[TaggedWord]
) -> None:
  """Appends the words of an argument and of its adposition, if it has one."""
  if adposition is None:
    _say_argument(language, argument, out)
  elif language.postpositions:
    _say_argument(language, argument, out)
    _say_argument(language, adposition, out)
  else:
    _say_argument(language, adposition, out)
    _say_argument(language, argument, out)


def _say_clause(
  language: LabLanguage, clause: Clause, out: list[TaggedWord], front: str | None = None
) -> dict[str, tuple[int, int]]:
  """Appends a clause in the language's word order, or with the part `front` first.

  Returns:
    The span of tokens [start, end) of each part.
  """
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
    elif part != "verb" or clause.verb in TAG:  # the copula does not inflect
      _say_argument(language, getattr(clause, part), out)
    else:
      ending = language.suffixes[2 * GENDERS + 2 * clause.past + clause.plural]
      out.append((language.stems[clause.verb] + ending, "VERB", "O"))
    spans[part] = (start, len(out))
  return spans


def _finish(language: LabLanguage, words: list[TaggedWord], mark: str) -> Sentence:
  """Returns the sentence of words, with a final mark."""
  words.append((mark.translate(SCRIPT) if language.own_script else mark, "PUNCT", "O"))
  return Sentence(*zip(*words, strict=True))


def say(language: LabLanguage, clauses: list[tuple[int | None, Clause]]) -> Sentence:
  """Returns a statement of clauses, each after its connective (a function word) if it has one."""
  words: list[TaggedWord] = []
  for connective, clause in clauses:
    _say_argument(language, connective, words)
    _say_clause(language, clause, words)
  return _finish(language, words, ".")


def ask(language: LabLanguage, clause: Clause, front: str) -> Sentence:
  """Returns a question. The part `front` of the clause is a question word and comes first."""
  words: list[TaggedWord] = []
  _say_clause(language, clause, words, front)
  return _finish(language, words, "?")


def _bare(clause: Clause, language: LabLanguage, span: tuple[int, int]) -> tuple[int, int]:
  """Returns the span of an object without its adposition."""
  before = clause.adposition is not None and not language.postpositions
  after = clause.adposition is not None and language.postpositions
  return span[0] + before, span[1] - after


def make_document(language: LabLanguage, seed: int, index: int) -> Document:
  """Returns a document in a language.

  Its meaning depends only on seed and index, so documents of two languages are parallel.

  Args:
    language: the language to tell it in.
    seed: of the meanings.
    index: number of the document among those of the seed.

  Raises:
    UserError: seed or index is negative.
  """
  if seed < 0 or index < 0:
    raise UserError(f"seed {seed} and index {index} of a lab document must both be 0 or more")
  draw = make_draw(seed, index)
  cast = make_cast(draw)
  facts = draw_facts(draw, cast)
  teller = Teller(draw)
  total = 6 + int(draw() * 7)
  sentences: list[Sentence] = []
  told: list[Fact] = []
  while len(sentences) < total:
    waiting = len(facts) - len(told)
    # The first sentence introduces somebody. Later facts come anywhere, but all of them come.
    state = waiting and (not sentences or waiting >= total - len(sentences) or draw() < 0.5)
    if state:
      fact = facts[len(told)]
      clause = teller.fact(fact)
      words: list[TaggedWord] = []
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
  """Yields the documents of a language's corpus, each a list of sentences.

  No two languages have the same documents, so corpora are not parallel.

  Args:
    language: the language to tell them in.
    seed: of the meanings.
    count: how many documents.
  """
  first = LANGUAGES.index(language.name) * STREAM
  for index in range(first, first + count):
    yield [sentence.text for sentence in make_document(language, seed, index).sentences]
