"""What the lab's documents say, before any language words it.

Owns the world (what goes with what), the draws, the cast of named entities, the facts and the
clauses that a document is composed of. Meanings refer to words by concept (`lab_language`), so
every language can tell them; how it does is the business of `lab`.
"""

import dataclasses
import functools
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from negint.data.lab.language import BLOCKS, GENDERS, START, WORD

_TOPICS = 10
_TOPIC_NOUNS, _TOPIC_VERBS, _TOPIC_ADJECTIVES = 30, 8, 8
# Within a topic: agents, two classes of things, settings.
_CLASSES = (range(8), range(8, 16), range(16, 24), range(24, 30))
_AGENT, _THINGS, _SETTING = 0, (1, 2), 3


class Relation(NamedTuple):
  """A kind of fact. Functional: in a document a subject has at most one object by it."""

  name: str
  subject: str  # Kind of entity.
  object: str
  adposition: str | None  # None: a direct object.


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
  """Somebody, somewhere, an organisation, or a year (then `parts` holds the number)."""

  kind: str  # PER, LOC, ORG or YEAR.
  parts: tuple[int, ...]  # Concepts, in the base language's order.
  female: bool = False


class Name(NamedTuple):
  """An entity as mentioned; short is a person's family name alone."""

  entity: Entity
  short: bool = False


class NounPhrase(NamedTuple):
  noun: int
  plural: bool
  determiner: int  # A function word: an article, or a numeral in an indefinite plural.
  adjective: int | None


class Predicate(NamedTuple):
  adjective: int
  agrees_with: int  # The noun.
  plural: bool


class Clause(NamedTuple):
  """A meaning; arguments are Name, NounPhrase, Predicate, a function word, or None (unsaid)."""

  subject: Name | NounPhrase | int | None
  verb: int
  object: Name | NounPhrase | Predicate | int | None
  adposition: int | None = None  # Of the object.
  setting: NounPhrase | None = None
  setting_adposition: int | None = None
  adverb: int | None = None
  past: bool = False
  plural: bool = False  # Number of the subject, which the verb shows.


@dataclasses.dataclass(frozen=True)
class Fact:
  """A fact, and where its document says it: sentence number and token spans [start, end)."""

  relation: Relation
  subject: Entity
  object: Entity
  sentence: int = 0
  subject_span: tuple[int, int] | None = None  # None where only a pronoun stands for it.
  object_span: tuple[int, int] = (0, 0)


class _World(NamedTuple):
  """What goes with what, in every language and every family."""

  gender: list[int]  # By noun.
  qualities: list[list[int]]  # By noun: adjectives that it attracts.
  things: list[int]  # By verb: the class of its object.
  adpositions: list[int]  # By verb, of its setting.
  adverbs: list[int]
  families: list[list[int]]  # By given name: the families that use it.


@functools.cache
def _world() -> _World:
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
  """Which of the GENDERS a noun has, in every language."""
  return _world().gender[noun]


Draw = Callable[[], float]  # The next of a stream of uniform numbers in [0, 1).


def make_draw(seed: int, index: int, salt: int = 0) -> Draw:
  """A stream for one document; one bulk draw, because scalar draws would take most of the time."""
  rng = np.random.default_rng([seed, index, salt])
  return iter(rng.random(1024).tolist()).__next__


@functools.cache
def _zipf(size: int) -> list[float]:
  weights = 1 / np.arange(1, size + 1) ** 0.75
  return (np.cumsum(weights) / weights.sum()).tolist()[:-1]


def draw_rank(draw: Draw, size: int) -> int:
  """A rank in [0, size), by Zipf's law with exponent 0.75, flat enough to leave some surprise."""
  return bisect_right(_zipf(size), draw())


def pick(draw: Draw, options):
  """One of a sequence, uniformly."""
  return options[int(draw() * len(options))]


def make_cast(draw: Draw) -> dict[str, list[Entity]]:
  """Three entities of each kind, no two of a kind with the same distinguishing part."""
  world = _world()
  cast = {"PER": {}, "LOC": {}, "ORG": {}}
  while len(cast["PER"]) < 3:
    given = draw_rank(draw, 40)
    family = (
      pick(draw, world.families[given]) if draw() < 0.8 else START["family"] + draw_rank(draw, 40)
    )
    cast["PER"][family] = Entity("PER", (START["given"] + given, family), given % 2 == 1)
  # A quarter of the places and half of the organisations bear a family's name, so that a
  # list of names is not enough to tell the kinds apart.
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
  """An object for the relation out of the cast (years: out of 80), none of those to avoid."""
  while True:
    chosen = (
      Entity("YEAR", (1930 + int(80 * draw()),))
      if relation.object == "YEAR"
      else pick(draw, cast[relation.object])
    )
    if chosen not in avoid:
      return chosen


def fact_clause(relation: Relation, subject, object, synonym: bool, **adjuncts) -> Clause:
  """The clause that states a fact, with the first or the second of the relation's two verbs."""
  verb = START["fact"] + 2 * RELATIONS.index(relation) + synonym
  return Clause(subject, verb, object, WORD.get(relation.adposition), **adjuncts)


def draw_facts(draw: Draw, cast: dict[str, list[Entity]]) -> list[Fact]:
  """Three to five facts, the first about the first person; neither end of one is ambiguous."""
  facts, taken = [], set()
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
  """Composes the clauses of one document; holds what has been mentioned so far."""

  def __init__(self, draw: Draw):
    self.draw, self.world = draw, _world()
    self.topics = (draw_rank(draw, _TOPICS), int(draw() * _TOPICS))
    self.past = draw() < 0.5
    self.favourites = {}  # A document keeps to a noun of each class, and to a look of each noun.
    self.looks = {}
    self.mentioned = set()
    self.last_subject = None

  def noun_phrase(self, topic: int, kind: int) -> NounPhrase:
    """A noun of the topic's class, definite once it is known."""
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

  def refer(self, entity: Entity):
    """The entity as a subject: a pronoun, a short name or the full one."""
    repeated, known = entity == self.last_subject, entity in self.mentioned
    self.last_subject = entity
    self.mentioned.add(entity)
    if entity.kind != "PER" or not known:
      return Name(entity)
    if repeated and self.draw() < 0.6:
      return WORD["she"] if entity.female else WORD["he"]
    return Name(entity, short=self.draw() < 0.5)

  def adjuncts(self, verb: int, topic: int, chance: float) -> dict:
    """Where and how; a verb has its own adposition and its own adverb."""
    draw, said = self.draw, {"past": self.past}
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
    """A clause that states the fact."""
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
    """A sentence on the topic: one or two clauses, each after its connective."""
    draw, world = self.draw, self.world
    topic = self.topics[draw() > 0.9]
    verb = topic * _TOPIC_VERBS + draw_rank(draw, _TOPIC_VERBS)
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
    clauses = [(None, clause)]
    if draw() < 0.25:
      # The second verb is drawn among those that take the same things, and the thing becomes `it`.
      same = draw() < 0.5
      other = (
        topic * _TOPIC_VERBS + (verb + 4) % _TOPIC_VERBS
        if same
        else topic * _TOPIC_VERBS + draw_rank(draw, _TOPIC_VERBS)
      )
      what = WORD["it"] if same else self.noun_phrase(topic, world.things[other])
      connective = WORD["and"] if draw() < 0.7 else WORD["but"]
      clauses.append(
        (connective, Clause(None, START["verb"] + other, what, past=self.past, plural=plural))
      )
    return clauses
