"""Tokenised corpora on disk, memory-mapped: made once for a set of corpora and a tokenizer.

A cache is a folder `<data.dir>/tokens/<key>`: the tokenizer, one flat stream of token ids for each
language and split (`</s> sentence </s> sentence </s> ...`, as XLM's), and the token counts of the
training streams. The key is a fingerprint of all that went into it, so a second run starts at once,
and neither TFDS nor TensorFlow is imported once it exists.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from negint.data import tokenizer as tok
from negint.data.corpus import SPLITS, Corpus
from negint.data.sampling import sampling_probabilities
from negint.errors import UserError
from negint.options import DataOptions
from negint.run.lock import exclusive
from negint.special_tokens import EOS

LINES_AT_ONCE = 20_000  # lines tokenised by one call, on all cores


@dataclasses.dataclass(frozen=True)
class TokenCache:
  """What a run reads.

  Attributes:
    key: digest of the corpora and of what the tokens depend on.
    tokenizer: shared by the languages.
    streams: split -> one token stream a language, memory-mapped, [tokens].
    num_sentences: training sentences of each language, the n_i of the sampling temperature.
    counts: how often each token occurs in each training stream, [languages, V].
  """

  key: str
  tokenizer: tok.Tokenizer
  streams: dict[str, list[np.ndarray]]
  num_sentences: list[int]
  counts: np.ndarray

  def unigram_log_probabilities(self) -> np.ndarray:
    """Log-probabilities of each language's unigram model with add-one smoothing, [languages, V]."""
    smoothed = self.counts + 1.0
    return np.log(smoothed / smoothed.sum(axis=1, keepdims=True)).astype(np.float32)


def open_cache(corpora: list[Corpus], data: DataOptions) -> TokenCache:
  """The token cache of these corpora, made if it is not there; the target language comes first.

  Raises:
    UserError: a corpus is too small for the vocabulary, or has fewer sentences than the subsample.
  """
  folder = pathlib.Path(data.dir) / "tokens" / _key(corpora, data)
  if not folder.is_dir():
    # Several runs, or processes of one, that begin together make it once.
    lock = folder.parent.parent / f".tokens-{folder.name}.lock"
    with exclusive(lock, "tokenising", wait=True):
      if not folder.is_dir():
        _build(folder, corpora, data)
  record = json.loads((folder / "cache.json").read_text())
  tokenizer = tok.load(folder / "tokenizer.model")
  streams = {
    split: [
      np.memmap(folder / f"{corpus.language}-{split}.tokens", record["dtype"], "r")
      for corpus in corpora
    ]
    for split in SPLITS
  }
  return TokenCache(
    folder.name, tokenizer, streams, record["num_sentences"], np.load(folder / "counts.npy")
  )


def _key(corpora, data: DataOptions) -> str:
  ingredients = [
    [corpus.fingerprint for corpus in corpora],
    data.vocab_size,
    data.sampling_exponent,
    data.subsample,
    data.tokenizer_sentences,
  ]
  return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:16]


def _build(folder: pathlib.Path, corpora: list[Corpus], data: DataOptions):
  folder.parent.mkdir(parents=True, exist_ok=True)
  temporary = pathlib.Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
  try:
    num_sentences = [
      _num_training_sentences(corpus, data.subsample if number == 0 else 0)
      for number, corpus in enumerate(corpora)
    ]
    tokenizer = tok.train(_tokenizer_text(corpora, num_sentences, data), data.vocab_size)
    dtype = np.uint16 if data.vocab_size <= 1 << 16 else np.uint32
    counts = np.zeros((len(corpora), data.vocab_size), np.int64)
    characters = sum(sum(corpus.num_characters.values()) for corpus in corpora)
    with tqdm(total=characters, unit="char", unit_scale=True, desc="tokenising") as bar:
      for number, corpus in enumerate(corpora):
        for split in SPLITS:
          limit = num_sentences[number] if split == "train" else None
          path = temporary / f"{corpus.language}-{split}.tokens"
          with path.open("wb") as file:
            for tokens in _tokenise(corpus, split, limit, tokenizer, bar.update):
              file.write(tokens.astype(dtype).tobytes())
              if split == "train":
                counts[number] += np.bincount(tokens, minlength=data.vocab_size)
    np.save(temporary / "counts.npy", counts)
    tokenizer.save(temporary / "tokenizer.model")
    record = {"dtype": np.dtype(dtype).name, "num_sentences": num_sentences}
    (temporary / "cache.json").write_text(json.dumps(record))
    try:
      temporary.rename(folder)
    except OSError:
      if not folder.is_dir():  # else another run has just made the same cache
        raise
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _num_training_sentences(corpus: Corpus, subsample: int) -> int:
  available = corpus.num_lines["train"]
  if subsample > available:
    raise UserError(
      f"data.subsample is {subsample}, but the training split of '{corpus.language}' has "
      f"{available} sentences; ask for at most that many."
    )
  return subsample or available


def _training_lines(corpus: Corpus, limit: int) -> Iterator[str]:
  """The first `limit` training sentences; documents lie shuffled on disk."""
  lines = itertools.chain.from_iterable(corpus.documents("train"))
  return itertools.islice(lines, limit)


def _tokenizer_text(corpora, num_sentences, data: DataOptions) -> Iterator[str]:
  """Training text of the BPE: sentences in the shares that training will sample, small corpora
  repeated."""
  probabilities = sampling_probabilities(num_sentences, data.sampling_exponent)
  total = min(data.tokenizer_sentences, sum(num_sentences))
  for corpus, available, probability in zip(corpora, num_sentences, probabilities, strict=True):
    wanted = round(total * probability)
    while wanted > 0:
      taken = min(wanted, available)
      yield from _training_lines(corpus, taken)
      wanted -= taken


def _tokenise(corpus, split, limit, tokenizer, advance) -> Iterator[np.ndarray]:
  """The token stream of a split in pieces; it begins and every sentence ends with </s>."""
  lines = itertools.chain.from_iterable(corpus.documents(split))
  lines = itertools.islice(lines, limit)
  yield np.array([EOS])
  while batch := list(itertools.islice(lines, LINES_AT_ONCE)):
    encoded = tokenizer.encode_many(batch)
    advance(sum(map(len, batch)))
    yield np.fromiter(
      itertools.chain.from_iterable(itertools.chain(ids, (EOS,)) for ids in encoded), np.int64
    )
