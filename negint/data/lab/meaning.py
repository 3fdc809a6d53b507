"""What the lab's documents say, before a language says it.

A document has a cast of named entities, facts about them, and clauses. Meanings name words by their
concepts (see `language`), so every language can say them; `wording` does.
"""

import dataclasses
import functools
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypedDict, TypeVar, Unpack

import numpy as np

from negint.data.lab.language import BLOCKS, GENDERS, START, WORD

_TOPICS = 10
_TOPIC_NOUNS, _TOPIC_VERBS, _TOPIC_ADJECTIVES = 30, 8, 8
# The nouns of a topic by class: agents, two kinds of things, settings.
_CLASSES = (range(8), range(8, 16), range(16, 24), range(24, 30))
_AGENT, _THINGS, _SETTING = 0, (1, 2), 3


class Relation(NamedTuple):
  """A kind of fact. In one document a subject has at most one object by it."""

  name: str
  subject: str  # kind of entity
  object: str  # kind of entity
  adposition: str | None  # before or after the object; None: a direct object


RELATIONS = (
  Relation("live", "PER", "LOC", "in"),
  Relation("born", "PER", "LOC", "from"),
  Relation("work", "PER", "ORG", "for"),
  Relation("study", "PER", "ORG", "at"),
  Relation("found", "PER", "ORG", None),
  Relation("lead", "PER", "ORG", None),
  Relation("arrive", "PER", "YEAR", "in"),
  Relation("marry", "PER", "PER", None),
  Relation("seated", "ORG", "LOC", "near"),
  Relation("open", "ORG", "YEAR", "in"),
)


class Entity(NamedTuple):
  """A person, a place, an organisation or a year."""

  kind: str  # PER, LOC, ORG or YEAR
  parts: tuple[int, ...]  # concepts in the base language's order; of a year, its number
  female: bool = False  # of a person


class Name(NamedTuple):
  """An entity as a sentence mentions it."""

  entity: Entity
  short: bool = False  # a person's family name alone


class NounPhrase(NamedTuple):
  """A noun with its determiner and perhaps an adjective."""

  noun: int  # its place in the block of nouns
  plural: bool
  determiner: int  # concept of an article, or of a numeral if the phrase is an indefinite plural
  adjective: int | None  # concept


class Predicate(NamedTuple):
  """What "is" says of a subject: very, and an adjective."""

  adjective: int  # concept
  agrees_with: int  # the subject's noun
  plural: bool


# What a clause says something about. An int is the concept of a function word; None stays unsaid.
Argument = Name | NounPhrase | Predicate | int | None


class Adjuncts(TypedDict, total=False):
  """Where, when and how: fields of `Clause`."""

  setting: NounPhrase
  setting_adposition: int
  adverb: int
  past: bool


class Clause(NamedTuple):
  """A meaning."""

  subject: Name | NounPhrase | int | None
  verb: int  # concept
  object: Argument
  adposition: int | None = None  # concept, of the object
  setting: NounPhrase | None = None  # where it happens
  setting_adposition: int | None = None  # concept
  adverb: int | None = None  # concept
  past: bool = False
  plural: bool = False  # number of the subject, which the verb shows


@dataclasses.dataclass(frozen=True)
class Fact:
  """A fact, and where its document states it."""

  relation: Relation
  subject: Entity
  object: Entity
  sentence: int = 0  # number of the sentence
  subject_span: tuple[int, int] | None = None  # tokens [start, end); None: only a pronoun
  object_span: tuple[int, int] = (0, 0)  # tokens [start, end), without the adposition


class _World(NamedTuple):
  """What goes together, in every language and every family."""

  gender: list[int]  # by noun
  qualities: list[list[int]]  # by noun: concepts of the adjectives that often stand with it
  things: list[int]  # by verb: the class of its object
  adpositions: list[int]  # by verb: concept of the adposition of its setting
  adverbs: list[int]  # by verb: concept of its most frequent adverb
  families: list[list[int]]  # by given name: concepts of the family names that occur with it


@functools.cache
def _world() -> _World:
  """Returns the one world of the lab."""
  rng = np.random.default_rng(20101703)
  verbs = BLOCKS["verb"]
  qualities = [
    START["adjective"]
    + noun // _TOPIC_NOUNS * _TOPIC_ADJECTIVES
    + rng.permutation(_TOPIC_ADJECTIVES)[:3]
    for noun in range(BLOCKS["noun"])
  ]
  return _World(
    gender=rng.integers(0, GENDERS, BLOCKS["noun"]).tolist(),
    qualities=[choice.tolist() for choice in qualities],
    things=[_THINGS[verb % 2] for verb in range(verbs)],
    adpositions=(WORD["in"] + rng.integers(0, 8, verbs)).tolist(),
    adverbs=(START["adverb"] + rng.integers(0, BLOCKS["adverb"], verbs)).tolist(),
    families=(START["family"] + rng.integers(0, BLOCKS["family"], (40, 4))).tolist(),
  )


def noun_gender(noun: int) -> int:
  """Returns which of the GENDERS a noun has, in every language."""
  return _world().gender[noun]


Draw = Callable[[], float]  # gives the next of a stream of uniform numbers in [0, 1)
_T = TypeVar("_T")


def make_draw(seed: int, index: int, salt: int = 0) -> Draw:
  """Returns the stream of random numbers of one document.

  Args:
    seed: of the meanings.
    index: number of the document.
    salt: separates the streams that share a seed and an index.
  """
  # All numbers at once, because drawing them one by one takes most of a document's time.
  rng = np.random.default_rng([seed, index, salt])
  return iter(rng.random(1024).tolist()).__next__


@functools.cache
def _zipf(size: int) -> list[float]:
  """Returns where the cumulative probability of each rank but the last ends."""
  weights = 1 / np.arange(1, size + 1) ** 0.75
  return (np.cumsum(weights) / weights.sum()).tolist()[:-1]


def draw_rank(draw: Draw, size: int) -> int:
  """Returns a rank in [0, size) by Zipf's law with exponent 0.75, flat enough for some surprise."""
  return bisect_right(_zipf(size), draw())


def pick(draw: Draw, options: Sequence[_T]) -> _T:
  """Returns one of a sequence, each with the same probability."""
  return options[int(draw() * len(options))]


def make_cast(draw: Draw) -> dict[str, list[Entity]]:
  """Returns three entities of each kind; no two of a kind share their distinguishing part."""
  world = _world()
  cast: dict[str, dict[int, Entity]] = {"PER": {}, "LOC": {}, "ORG": {}}
  while len(cast["PER"]) < 3:
    given = draw_rank(draw, 40)
    family = (
      pick(draw, world.families[given]) if draw() < 0.8 else START["family"] + draw_rank(draw, 40)
    )
    cast["PER"][family] = Entity("PER", (START["given"] + given, family), given % 2 == 1)
  # A quarter of the places and half of the organisations have a family's name. Otherwise a list of
  # names would be enough to tell the kinds apart.
  while len(cast["LOC"]) < 3:
    place = START["family" if draw() < 0.25 else "place"] + draw_rank(draw, 40)
    epithet = (START["epithet"] + place % 8,) if place % 3 else ()
    cast["LOC"][place] = Entity("LOC", (*epithet, place))
  while len(cast["ORG"]) < 3:
    root = START["family" if draw() < 0.5 else "place"] + draw_rank(draw, 40)
    cast["ORG"][root] = Entity("ORG", (root, START["guild"] + (root + draw_rank(draw, 3)) % 10))
  return {kind: list(entities.values()) for kind, entities in cast.items()}


def draw_object(
  draw: Draw, cast: dict[str, list[Entity]], relation: Relation, avoid: tuple[Entity, ...]
) -> Entity:
  """Returns an object for a relation: of the cast, or one of 80 years, but none of `avoid`."""
  while True:
    chosen = (
      Entity("YEAR", (1930 + int(80 * draw()),))
      if relation.object == "YEAR"
      else pick(draw, cast[relation.object])
    )
    if chosen not in avoid:
      return chosen


def fact_clause(
  relation: Relation,
  subject: Name | int,
  object: Name | int,
  synonym: bool,
  **adjuncts: Unpack[Adjuncts],
) -> Clause:
  """Returns the clause that states a fact.

  Args:
    relation: the kind of fact.
    subject: a name, or the concept of a pronoun or question word.
    object: likewise.
    synonym: whether to use the second of the relation's two verbs.
    **adjuncts: where, when and how.
  """
  verb = START["fact"] + 2 * RELATIONS.index(relation) + synonym
  adposition = WORD[relation.adposition] if relation.adposition else None
  return Clause(subject, verb, object, adposition, **adjuncts)


def draw_facts(draw: Draw, cast: dict[str, list[Entity]]) -> list[Fact]:
  """Returns three to five facts, the first about the first person.

  Of a relation and a subject there is one object, and of a relation and an object one subject.
  """
  facts: list[Fact] = []
  taken: set[tuple[Relation, Entity, str]] = set()
  wanted = 3 + int(draw() * 3)
  while len(facts) < wanted:
    relation = RELATIONS[int(draw() * (len(RELATIONS) if facts else 8))]
    subject = cast[relation.subject][draw_rank(draw, 3) if facts else 0]
    object = draw_object(draw, cast, relation, (subject,))
    keys = {(relation, subject, "subject"), (relation, object, "object")}
    if not keys & taken:
      taken |= keys
      facts.append(Fact(relation, subject, object))
  return facts


class Teller:
  """Composes the clauses of one document and remembers what has been mentioned."""

  def __init__(self, draw: Draw):
    self.draw, self.world = draw, _world()
    self.topics = (draw_rank(draw, _TOPICS), int(draw() * _TOPICS))
    self.past = draw() < 0.5
    self.favourites: dict[tuple[int, int], int] = {}  # (topic, class) -> the document's noun
    self.looks: dict[int, int] = {}  # noun -> the document's adjective for it
    self.mentioned: set[Entity | int] = set()  # entities and nouns
    self.last_subject: Entity | None = None

  def noun_phrase(self, topic: int, kind: int) -> NounPhrase:
    """Returns a phrase with a noun of a topic and class; definite if the noun is known."""
    draw, nouns = self.draw, _CLASSES[kind]
    noun = topic * _TOPIC_NOUNS + nouns[draw_rank(draw, len(nouns))]
    if draw() < 0.4:
      noun = self.favourites.setdefault((topic, kind), noun)
    look = self.world.qualities[noun][draw_rank(draw, 3)]
    if draw() < 0.5:
      look = self.looks.setdefault(noun, look)
    if draw() < 0.15:
      look = START["adjective"] + draw_rank(draw, BLOCKS["adjective"])
    plural = draw() < 0.2
    known = noun in self.mentioned or draw() < 0.15
    self.mentioned.add(noun)
    determiner = WORD["the"] if known else WORD["two"] + noun % 3 if plural else WORD["a"]
    return NounPhrase(noun, plural, determiner, look if draw() < 0.5 else None)

  def refer(self, entity: Entity) -> Name | int:
    """Returns an entity as a subject: a pronoun, a short name or the full name."""
    repeated, known = entity == self.last_subject, entity in self.mentioned
    self.last_subject = entity
    self.mentioned.add(entity)
    if entity.kind != "PER" or not known:
      return Name(entity)
    if repeated and self.draw() < 0.6:
      return WORD["she"] if entity.female else WORD["he"]
    return Name(entity, short=self.draw() < 0.5)

  def adjuncts(self, verb: int, topic: int, chance: float) -> Adjuncts:
    """Returns where, when and how; each verb prefers one adposition and one adverb.

    Args:
      verb: its number, on which the preferences depend.
      topic: of the setting.
      chance: the probability that there is a setting.
    """
    draw = self.draw
    said: Adjuncts = {"past": self.past}
    if draw() < chance:
      own = draw() < 0.8
      said["setting_adposition"] = (
        self.world.adpositions[verb] if own else WORD["in"] + int(draw() * 8)
      )
      said["setting"] = self.noun_phrase(topic, _SETTING)
    if draw() < 0.25:
      said["adverb"] = (
        self.world.adverbs[verb] if draw() < 0.6 else START["adverb"] + draw_rank(draw, 20)
      )
    return said

  def fact(self, fact: Fact) -> Clause:
    """Returns a clause that states a fact."""
    synonym = self.draw() < 0.35
    relation = RELATIONS.index(fact.relation)
    self.mentioned.add(fact.object)
    return fact_clause(
      fact.relation,
      self.refer(fact.subject),
      Name(fact.object),
      synonym,
      **self.adjuncts(relation, self.topics[0], 0.6),
    )

  def event(self, cast: dict[str, list[Entity]]) -> list[tuple[int | None, Clause]]:
    """Returns a sentence about a topic: one or two clauses, each after its connective."""
    draw, world = self.draw, self.world
    topic = self.topics[draw() > 0.9]
    verb = topic * _TOPIC_VERBS + draw_rank(draw, _TOPIC_VERBS)
    subject: Name | NounPhrase | int
    if draw() < 0.5:
      subject = self.refer(cast["PER"][draw_rank(draw, 3)])
    else:
      subject = self.noun_phrase(topic, _AGENT)
      self.last_subject = None
      if draw() < 0.2:
        predicate = Predicate(
          world.qualities[subject.noun][draw_rank(draw, 3)], subject.noun, subject.plural
        )
        clause = Clause(
          subject._replace(adjective=None),
          WORD["is"],
          predicate,
          plural=subject.plural,
          **self.adjuncts(verb, topic, 0.6),
        )
        return [(None, clause)]
    plural = isinstance(subject, NounPhrase) and subject.plural
    thing = world.things[verb] if draw() < 0.9 else pick(draw, _THINGS)
    clause = Clause(
      subject,
      START["verb"] + verb,
      self.noun_phrase(topic, thing),
      plural=plural,
      **self.adjuncts(verb, topic, 0.55),
    )
    clauses: list[tuple[int | None, Clause]] = [(None, clause)]
    if draw() < 0.25:
      # If the second verb takes the same kind of things as the first, its object can be "it".
      same = draw() < 0.5
      other = (
        topic * _TOPIC_VERBS + (verb + 4) % _TOPIC_VERBS
        if same
        else topic * _TOPIC_VERBS + draw_rank(draw, _TOPIC_VERBS)
      )
      what: NounPhrase | int = WORD["it"] if same else self.noun_phrase(topic, world.things[other])
      connective = WORD["and"] if draw() < 0.7 else WORD["but"]
      clauses.append(
        (connective, Clause(None, START["verb"] + other, what, past=self.past, plural=plural))
      )
    return clauses
