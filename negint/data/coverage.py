"""How well a tokenizer fits a language: its unknown pieces, and its pieces per word."""

from typing import NamedTuple

import numpy as np

from negint.data.corpus import Corpus
from negint.special_tokens import SpecialTokens


class Coverage(NamedTuple):
  """What a tokenizer makes of the `valid` text of a language."""

  unknown_pieces: float  # share of the pieces that are [UNK], 0..1
  pieces_per_word: float  # a word is what stands between spaces


def coverage(corpus: Corpus, stream: np.ndarray, special: SpecialTokens) -> Coverage:
  """Returns the coverage of a language.

  Args:
    corpus: of the language.
    stream: token ids of its `valid` text, [tokens].
    special: the special tokens of its tokenizer.
  """
  words = sum(len(line.split()) for document in corpus.documents("valid") for line in document)
  pieces = int(np.count_nonzero(stream != special.end[-1]))
  return Coverage(int(np.count_nonzero(stream == special.unk)) / pieces, pieces / words)
