"""The lab's artificial languages: their words, and how related they are to each other.

Every language has one word per concept. The dial `similarity` sets how far the lexicon, script and
typology of a language differ from those of the base language. `meaning` decides what is said, and
`wording` says it in a language. Everything is a pure function of seeds.
"""

import dataclasses
import functools
import itertools

import numpy as np

from negint.errors import UserError

LANGUAGES = ("xa", "xb", "xc")
RELATIVE_SIMILARITY = 0.8  # of xc to xb, unless both are closer than that to xa

# A typological feature differs from the base's if the similarity is below its threshold.
THRESHOLDS = {"script": 0.2, "adposition": 0.4, "adjective": 0.5, "order": 0.6, "suffixes": 0.8}

_FUNCTION_TAGS = {
  "DET": ("the", "a"),
  "NUM": ("two", "three", "four"),
  "CCONJ": ("and", "but"),
  "SCONJ": ("because", "while"),
  "PRON": ("he", "she", "it", "who", "where", "what", "when"),
  "AUX": ("is",),
  "ADV": ("very",),
  "ADP": ("in", "at", "for", "with", "from", "under", "near", "by"),
}
_FUNCTION = [word for words in _FUNCTION_TAGS.values() for word in words]
BLOCKS = {
  "function": len(_FUNCTION),
  "adverb": 20,
  "given": 40,
  "family": 40,
  "place": 40,
  "guild": 10,
  "epithet": 8,
  "noun": 300,
  "verb": 80,
  "fact": 20,
  "adjective": 80,
}
START = dict(zip(BLOCKS, itertools.accumulate(BLOCKS.values(), initial=0), strict=False))
CONCEPTS = sum(BLOCKS.values())
WORD = {word: i for i, word in enumerate(_FUNCTION)}
TAG = {WORD[word]: tag for tag, words in _FUNCTION_TAGS.items() for word in words}
GENDERS = 3

# (consonants, vowels) of each language. Languages share letters, but no words.
_PHONES = {
  "xa": ("ptkmnslrbd", "aeiou"),
  "xb": ("gvzhfcmrkt", "aiouy"),
  "xc": ("bdjwzgnlsq", "aeouy"),
}
SCRIPT = str.maketrans(
  "abcdefghijklmnopqrstuvwxyz0123456789.?", "абцдефгхижклмнопярстувшыюз०१२३४५६७८९।؟"
)


@dataclasses.dataclass(frozen=True)
class LabLanguage:
  """The words and the typology of one language."""

  name: str  # one of LANGUAGES
  similarity: float  # to the base language, in [0, 1]
  seed: int  # of the family's lexicons
  stems: tuple[str, ...]  # by concept
  cognate: tuple[bool, ...]  # by concept: whether the stem is the base's, in either script
  suffixes: tuple[str, ...]  # of nouns by gender and number (6), then of verbs by tense, number (4)
  own_script: bool = False  # written in SCRIPT's letters
  postpositions: bool = False  # adpositions follow their noun
  adjective_after: bool = False  # adjectives follow their noun
  verb_final: bool = False  # the verb ends the clause


def _coin(rng: np.random.Generator, phones: tuple[str, str], taken: set[str]) -> list[str]:
  """Returns one new stem per concept, of one to three syllables, and adds them to `taken`."""
  consonants, vowels = (list(letters) for letters in phones)
  syllables = [
    c + v + coda for c in consonants for v in vowels for coda in ("", rng.choice(consonants))
  ]
  syllables = rng.permutation(syllables)[:70].tolist()
  stems = []
  for concept in range(CONCEPTS):
    short = concept < BLOCKS["function"]
    while True:
      size = rng.integers(1, 3) if short else rng.choice([1, 2, 3], p=[0.1, 0.75, 0.15])
      stem = "".join(rng.choice(syllables, size))
      if stem not in taken:
        break
    taken.add(stem)
    stems.append(stem)
  return stems


def _coin_suffixes(rng: np.random.Generator, phones: tuple[str, str], taken: set[str]) -> list[str]:
  """Returns the ten suffixes of a language, and adds them to `taken`."""
  endings = [v + c for v in phones[1] for c in ["", *phones[0]] if v + c not in taken]
  suffixes = rng.permutation(endings)[: 2 * GENDERS + 4].tolist()
  taken.update(suffixes)
  return suffixes


def _thresholds(rng: np.random.Generator) -> np.ndarray:
  """Returns u_w in [0, 1) for each concept w, [CONCEPTS]. A word is a cognate if u_w < similarity.

  The u_w of every ten neighbours of a block are spread evenly. Neighbours have similar frequency, so
  the share of cognates among the content words of running text is also close to the dial. Function
  words are too few and too frequent for that.
  """
  blocks = []
  for size in BLOCKS.values():
    tens = np.concatenate([rng.permutation(10) for _ in range(-(-size // 10))])[:size]
    blocks.append((tens + rng.random(size)) / 10)
  return np.concatenate(blocks)


@functools.cache
def _family(seed: int) -> tuple[dict[str, list[str]], dict[str, list[str]], np.ndarray]:
  """Returns (stems, suffixes, u): by language, those of unrelated languages; u_w of each concept."""
  rng = np.random.default_rng([seed, 0])
  u = _thresholds(rng)
  stems, suffixes = {}, {}
  taken: set[str] = set()
  taken_suffixes: set[str] = set()
  for name in LANGUAGES:
    suffixes[name] = _coin_suffixes(rng, _PHONES[name], taken_suffixes)
    stems[name] = _coin(rng, _PHONES[name], taken)
  return stems, suffixes, u


def make_language(name: str, similarity: float, seed: int) -> LabLanguage:
  """Returns a language of the family that `seed` gives.

  Args:
    name: "xa" (the base), "xb", or "xc", a relative of xb that is as close to xa as xb is.
    similarity: to xa, in [0, 1]: the share of cognates, and the dial of the typology. 1 is xa
      itself, and 0 shares no word. It does not change xa.
    seed: of the family's lexicons. Only languages of one seed can be compared.

  Raises:
    UserError: an argument is outside its range.
  """
  if name not in LANGUAGES:
    raise UserError(f"language {name!r} is unknown to the lab; choose one of {LANGUAGES}")
  if not 0 <= similarity <= 1:
    raise UserError(f"similarity is {similarity}; it must be between 0 (nothing shared) and 1")
  if seed < 0:
    raise UserError(f"the seed of a lab language is {seed}; it must be 0 or more")
  similarity = 1.0 if name == "xa" else float(similarity)
  stems, suffixes, u = _family(seed)

  def source(concept: int) -> str:
    """Returns the language that the stem of a concept comes from."""
    # A word that one relative shares with xa, the other relative also shares.
    if u[concept] < similarity:
      return "xa"
    return "xb" if name == "xb" or u[concept] < RELATIVE_SIMILARITY else "xc"

  differs = {feature: similarity < below for feature, below in THRESHOLDS.items()}
  words = [stems[source(concept)][concept] for concept in range(CONCEPTS)]
  endings = suffixes["xb" if differs["suffixes"] else "xa"]
  if differs["script"]:
    words = [word.translate(SCRIPT) for word in words]
    endings = [ending.translate(SCRIPT) for ending in endings]
  return LabLanguage(
    name=name,
    similarity=similarity,
    seed=seed,
    stems=tuple(words),
    suffixes=tuple(endings),
    cognate=tuple((u < similarity).tolist()),
    own_script=differs["script"],
    postpositions=differs["adposition"],
    adjective_after=differs["adjective"],
    verb_final=differs["order"],
  )
