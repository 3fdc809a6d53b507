"""A Hugging Face XLM checkpoint as tests need it: tiny, random, with a BPE learnt on a few lines."""

import collections
import json

import jax
import numpy as np
from toy import toy_model

from negint.method.phi import init_theta_and_phi
from negint.pretrained import xlm_weights
from negint.special_tokens import SPECIALS

LINES = [
  "the river runs to the wide sea , and the man sings",
  "l homme regarde la mer et la rivière",
  "النهر يجري إلى البحر الواسع",
  "నది సముద్రంలోకి ప్రవహిస్తుంది",
  "река течёт к широкому морю",
  "नदी चौड़े समुद्र में बहती है",
]


def merge(symbols, pair):
  """Symbols with every occurrence of the pair joined."""
  out = []
  for symbol in symbols:
    if out and (out[-1], symbol) == pair:
      out[-1] += symbol
    else:
      out.append(symbol)
  return out


def learn_bpe(lines, num_merges):
  """(merges in order, pieces in which the lines end, the most frequent first)."""
  counts = collections.Counter(word for line in lines for word in line.split())
  words = {word: [*word[:-1], word[-1] + "</w>"] for word in counts}
  merges = []
  for _ in range(num_merges):
    pairs = collections.Counter()
    for word, symbols in words.items():
      for pair in zip(symbols, symbols[1:], strict=False):
        pairs[pair] += counts[word]
    if not pairs:
      break
    merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
    words = {word: merge(symbols, merges[-1]) for word, symbols in words.items()}
  pieces = collections.Counter()
  for word, symbols in words.items():
    pieces.update({symbol: symbols.count(symbol) * counts[word] for symbol in symbols})
  return merges, [piece for piece, _ in pieces.most_common()]


def write_tokenizer(folder, lines=LINES, vocab_size=None, num_merges=60, lowercase=False):
  """Writes vocab.json, merges.txt and tokenizer_config.json; returns the number of pieces."""
  merges, pieces = learn_bpe(lines, num_merges)
  pieces = ["<s>", "</s>", "<pad>", "<unk>", *SPECIALS, *pieces][:vocab_size]
  text = "".join(f"{left} {right} 7\n" for left, right in merges)
  (folder / "merges.txt").write_text(text, encoding="utf-8")
  write_object(folder / "vocab.json", {piece: i for i, piece in enumerate(pieces)})
  write_object(folder / "tokenizer_config.json", {"do_lowercase_and_remove_accent": lowercase})
  return len(pieces)


def write_object(path, value):
  path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def edit_object(path, **changes):
  """Changes entries of a JSON object on disk; None takes one away."""
  value = {**json.loads(path.read_text(encoding="utf-8")), **changes}
  write_object(path, {name: entry for name, entry in value.items() if entry is not None})


def write_checkpoint(folder, languages=("ar", "en"), lines=LINES, **changes):
  """Writes a random XLM with its tokenizer; returns (its options, its theta)."""
  folder.parent.mkdir(parents=True, exist_ok=True)
  spare = folder.with_name("tokenizer-of-" + folder.name)
  spare.mkdir()
  vocab_size = write_tokenizer(spare, lines)
  shape = dict(
    vocab_size=vocab_size,
    num_languages=len(languages),
    num_layers=1,
    adapter_dim=0,
    max_length=48,
    language_embedding=len(languages) > 1,
  )
  options = toy_model(**{**shape, **changes})
  theta, phi = jax.device_get(init_theta_and_phi(options, jax.random.key(3)))
  rng = np.random.default_rng(0)
  theta = jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape).astype(x.dtype), theta)
  xlm_weights.write_hugging_face(folder, options, theta, phi, languages)
  for path in spare.iterdir():
    path.rename(folder / path.name)
  spare.rmdir()
  return options, theta
