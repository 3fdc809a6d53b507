"""Tokenised corpora on disk, memory-mapped: made once for a set of corpora and a tokenizer.

A cache is a folder `<data.dir>/tokens/<key>`. It has one flat stream of token ids per language and
split (`</s> sentence </s> sentence </s> ...`, as in XLM), the token counts of the training streams, and
the tokenizer. That is trained on the languages of the cache or on other ones; a ready one stays where it
is (`data.tokenizer_from`). The key is a digest of everything that the tokens depend on. A second run
with the same key starts at once and imports neither TFDS nor TensorFlow. cache.json records the size
and the checksum of each other file; a damaged cache is made anew from the corpora.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from negint import language_codes
from negint.data.corpus import SPLITS, Corpus
from negint.data.open_corpora import missing_corpora, open_corpora
from negint.data.sampling import sampling_probabilities
from negint.data.tokenizer import AnyTokenizer, load_tokenizer, train_tokenizer
from negint.errors import UserError
from negint.options import DataOptions
from negint.run.files import (
  damage_reported,
  find_damage,
  read_json,
  record_files,
  remove_leftovers,
  whole_folder,
  write_json,
)
from negint.run.lock import exclusive

RECORD = "cache.json"
LINES_AT_ONCE = 20_000  # lines that one call tokenises, on all cores

# Where the pieces of a cache come from: a tokenizer that is ready, corpora that train one without any
# subsample, or None: the corpora of the cache train it, the target's subsample alone.
Pieces = AnyTokenizer | list[Corpus] | None


@dataclasses.dataclass(frozen=True)
class TokenCache:
  """The token streams of a run's languages, and what belongs to them. V is the vocabulary's size."""

  key: str  # digest of the corpora and of the options that the tokens depend on
  tokenizer: AnyTokenizer  # shared by the languages
  streams: dict[str, list[np.ndarray]]  # split -> one stream per language, memory-mapped, [tokens]
  num_sentences: list[int]  # training sentences per language, n_i of the sampling temperature
  counts: np.ndarray  # of each token in each training stream, [languages, V]
  valid_characters: list[int]  # of each language's valid text; the end of a line counts as one

  def unigram_log_probabilities(self) -> np.ndarray:
    """Returns log-probabilities of unigram models with add-one smoothing, float32 [languages, V]."""
    smoothed = self.counts + 1.0
    return np.log(smoothed / smoothed.sum(axis=1, keepdims=True)).astype(np.float32)


def open_tokens(
  data: DataOptions,
  languages: tuple[str, ...],
  say: Callable[[str], object],
  ready: AnyTokenizer | None = None,
) -> TokenCache:
  """Returns the token cache of a run's languages; makes what does not exist.

  Args:
    data: of the run.
    languages: of the run.
    say: receives sentences for the user.
    ready: the tokenizer of the folder in `data.tokenizer_from`, if it names one.

  Raises:
    UserError: as of `open_corpora` and `open_cache`.
  """
  corpora = open_corpora(data, languages, say)
  return open_cache(corpora, data, say, _pieces(data, say, ready))


def _pieces(data: DataOptions, say: Callable[[str], object], ready: AnyTokenizer | None) -> Pieces:
  named = tokenizer_languages(data)
  return open_corpora(data, named, say) if named else ready


def existing_cache(
  data: DataOptions, languages: tuple[str, ...], ready: AnyTokenizer | None = None
) -> pathlib.Path | None:
  """Returns the folder of a run's token cache; None where it or a corpus is not there yet.

  The arguments are those of `open_tokens`.
  """
  if missing_corpora(data, (*languages, *tokenizer_languages(data))):
    return None

  def say(line: str) -> None:  # nothing is made
    del line

  corpora = open_corpora(data, languages, say)
  key = _key(corpora, data, _pieces(data, say, ready))
  folder = pathlib.Path(data.dir) / "tokens" / key
  return folder if folder.is_dir() else None


def tokenizer_languages(data: DataOptions) -> tuple[str, ...]:
  """Returns the languages that `data.tokenizer_from` names; () where it names a folder or nothing."""
  try:
    return language_codes.split(data.tokenizer_from, len(data.tokenizer_from))
  except UserError:
    return ()


def needs_ready_tokenizer(data: DataOptions) -> bool:
  """Returns whether `data.tokenizer_from` names a folder."""
  return bool(data.tokenizer_from) and not tokenizer_languages(data)


def open_cache(
  corpora: list[Corpus],
  data: DataOptions,
  say: Callable[[str], object] = print,
  pieces: Pieces = None,
) -> TokenCache:
  """Returns the token cache of corpora; makes it if it does not exist or is damaged.

  Args:
    corpora: one per language. `data.subsample` applies to the first, the target language.
    data: the options that the tokens depend on, and the folder of all data.
    say: receives the sentence that says that a damaged cache is made anew.
    pieces: where they come from.

  Raises:
    UserError: a corpus is too small for the vocabulary or has fewer sentences than the subsample,
      the tokenizer has more pieces than `data.vocab_size`, or a cache has to be made and a corpus is
      damaged.
  """
  ready = None if isinstance(pieces, list) else pieces
  if ready is not None and ready.vocab_size > data.vocab_size:
    raise UserError(
      f"data.vocab_size is {data.vocab_size}, but the tokenizer of {data.tokenizer_from} has "
      f"{ready.vocab_size} pieces: use --config.data.vocab_size={ready.vocab_size}."
    )
  folder = pathlib.Path(data.dir) / "tokens" / _key(corpora, data, pieces)
  if not folder.is_dir() or damage(folder):
    # Runs that start together wait for the first one instead of tokenising the same text.
    lock = folder.parent.parent / f".tokens-{folder.name}.lock"
    with exclusive(lock, "tokenising", wait=True):
      if folder.is_dir() and (what := damage(folder)):
        say(f"The token cache {folder} is damaged ({what}); it is made anew.")
        shutil.rmtree(folder)
      if not folder.is_dir():
        _build(folder, corpora, data, pieces)
  record = _read_record(folder)
  streams: dict[str, list[np.ndarray]] = {
    split: [
      np.memmap(folder / f"{corpus.language}-{split}.tokens", record["dtype"], "r")
      for corpus in corpora
    ]
    for split in SPLITS
  }
  return TokenCache(
    folder.name,
    ready or load_tokenizer(folder / "tokenizer.model"),
    streams,
    record["num_sentences"],
    np.load(folder / "counts.npy"),
    [corpus.num_characters["valid"] + corpus.num_lines["valid"] for corpus in corpora],
  )


def damage(folder: pathlib.Path, *, whole: bool = False) -> str | None:
  """Returns what is wrong with the files of a token cache, or None.

  Args:
    folder: of the cache.
    whole: compare the contents of large files, too.
  """
  try:
    record = _read_record(folder)
  except (UserError, FileNotFoundError):
    return f"{folder / RECORD} cannot be read"
  return find_damage(folder, record["files"], whole=whole)


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  with damage_reported(folder / RECORD, f"the token cache {folder}"):
    record = read_json(folder / RECORD, f"the token cache {folder}")
    if not {"dtype", "num_sentences", "files"} <= record.keys():
      raise ValueError("it lacks entries")
  return record


def _key(corpora: Sequence[Corpus], data: DataOptions, pieces: Pieces = None) -> str:
  ingredients: list[Any] = [
    [corpus.fingerprint for corpus in corpora],
    data.vocab_size,
    data.sampling_exponent,
    data.subsample,
    data.tokenizer_sentences,
  ]
  if isinstance(pieces, list):
    ingredients.append([corpus.fingerprint for corpus in pieces])
  elif pieces is not None:
    ingredients.append(hashlib.sha256(pieces.model).hexdigest())
  return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:16]


def _build(folder: pathlib.Path, corpora: list[Corpus], data: DataOptions, pieces: Pieces) -> None:
  """Trains the tokenizer unless it is ready, and writes the folder; only for the lock's holder."""
  remove_leftovers(folder)
  for corpus in corpora:
    corpus.check(whole=True)  # all of the text is about to be read
  with whole_folder(folder) as unfinished:
    num_sentences = [
      num_training_sentences(corpus, data.subsample if number == 0 else 0)
      for number, corpus in enumerate(corpora)
    ]
    if pieces is None or isinstance(pieces, list):
      text = (
        _tokenizer_text(corpora, num_sentences, data)
        if pieces is None
        else _tokenizer_text(pieces, [corpus.num_lines["train"] for corpus in pieces], data)
      )
      trained = train_tokenizer(text, data.vocab_size)
      trained.save(unfinished / "tokenizer.model")
      tokenizer: AnyTokenizer = trained
    else:
      tokenizer = pieces
    dtype = np.uint16 if data.vocab_size <= 1 << 16 else np.uint32
    counts = np.zeros((len(corpora), data.vocab_size), np.int64)
    characters = sum(sum(corpus.num_characters.values()) for corpus in corpora)
    with tqdm(total=characters, unit="char", unit_scale=True, desc="tokenising") as bar:
      for number, corpus in enumerate(corpora):
        for split in SPLITS:
          limit = num_sentences[number] if split == "train" else None
          path = unfinished / f"{corpus.language}-{split}.tokens"
          with path.open("wb") as file:
            for tokens in _tokenise(corpus, split, limit, tokenizer, bar.update):
              file.write(tokens.astype(dtype).tobytes())
              if split == "train":
                counts[number] += np.bincount(tokens, minlength=data.vocab_size)
    np.save(unfinished / "counts.npy", counts)
    record = {
      "dtype": np.dtype(dtype).name,
      "num_sentences": num_sentences,
      "files": record_files(unfinished),
    }
    write_json(unfinished / RECORD, record)


def num_training_sentences(corpus: Corpus, subsample: int) -> int:
  """Returns how many training sentences to use: `subsample`, or all where it is 0."""
  available = corpus.num_lines["train"]
  if subsample > available:
    raise UserError(
      f"data.subsample is {subsample}, but the training split of '{corpus.language}' has "
      f"{available} sentences; ask for at most that many."
    )
  return subsample or available


def _training_lines(corpus: Corpus, limit: int) -> Iterator[str]:
  """Yields the first `limit` training sentences; the documents on disk are in random order."""
  lines = itertools.chain.from_iterable(corpus.documents("train"))
  return itertools.islice(lines, limit)


def _tokenizer_text(
  corpora: Sequence[Corpus], num_sentences: list[int], data: DataOptions
) -> Iterator[str]:
  """Yields the text that the BPE learns from.

  Each language gets the share of sentences that pretraining samples; small corpora are repeated.
  """
  probabilities = sampling_probabilities(num_sentences, data.sampling_exponent)
  total = min(data.tokenizer_sentences, sum(num_sentences))
  for corpus, available, probability in zip(corpora, num_sentences, probabilities, strict=True):
    wanted = round(total * probability)
    while wanted > 0:
      taken = min(wanted, available)
      yield from _training_lines(corpus, taken)
      wanted -= taken


def _tokenise(
  corpus: Corpus,
  split: str,
  limit: int | None,
  tokenizer: AnyTokenizer,
  advance: Callable[[int], object],
) -> Iterator[np.ndarray]:
  """Yields the token stream of a split in parts; </s> starts it and follows every sentence.

  An imported tokenizer has a token of its own in the place of </s>, such as BERT's [SEP].
  """
  lines = itertools.islice(itertools.chain.from_iterable(corpus.documents(split)), limit)
  tokenizer = tokenizer.for_language(corpus.language)
  separator = tokenizer.special.end[-1]
  yield np.array([separator])
  while batch := list(itertools.islice(lines, LINES_AT_ONCE)):
    encoded = tokenizer.encode_many(batch)
    advance(sum(map(len, batch)))
    yield np.fromiter(
      itertools.chain.from_iterable(itertools.chain(ids, (separator,)) for ids in encoded), np.int64
    )
