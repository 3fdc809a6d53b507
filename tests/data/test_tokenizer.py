"""The BPE: XLM's special ids, text there and back in several scripts, characters behind tokens."""

import pytest

from negint import special_tokens
from negint.data.tokenizer import load_tokenizer, train_tokenizer
from negint.errors import UserError

LINES = [
  "the river runs to the wide sea",
  "النهر يجري إلى البحر الواسع",
  "నది సముద్రంలోకి ప్రవహిస్తుంది",
  "река течёт к широкому морю",
  "नदी चौड़े समुद्र में बहती है",
  "la rivière coule vers la mer",
]


@pytest.fixture(scope="module")
def tokenizer():
  return train_tokenizer(iter(LINES * 30), 220)


def test_special_ids_are_xlms(tokenizer):
  assert (
    special_tokens.BOS,
    special_tokens.EOS,
    special_tokens.PAD,
    special_tokens.UNK,
    special_tokens.MASK,
  ) == (0, 1, 2, 3, 5)
  assert [tokenizer.piece(i) for i in range(special_tokens.NUM_SPECIALS)] == [
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    *(f"<special{i}>" for i in range(10)),
  ]
  assert tokenizer.piece(special_tokens.MASK) == "<special1>"
  assert tokenizer.vocab_size == 220


def test_text_never_becomes_a_special_token(tokenizer):
  for text in (*LINES, "<s> </s> <special1> <pad>", "</s>"):
    ids = set(tokenizer.encode(text)) - {special_tokens.UNK}
    assert not ids & set(range(special_tokens.NUM_SPECIALS))


@pytest.mark.parametrize("line", LINES)
def test_text_comes_back_in_every_script(tokenizer, line):
  ids = tokenizer.encode(line)
  assert special_tokens.UNK not in ids and len(ids) < len(line)
  assert tokenizer.decode(ids) == line


@pytest.mark.parametrize("line", [*LINES, "a 😀 river", "mer 𝔘 море", "  two  spaces ", "e\u0301"])
def test_offsets_slice_the_text(tokenizer, line):
  ids, spans = tokenizer.encode_with_offsets(line)
  assert ids == tokenizer.encode(line) and len(ids) == len(spans)
  assert all(0 <= begin <= end <= len(line) for begin, end in spans)
  assert all(before[1] <= after[0] for before, after in zip(spans, spans[1:], strict=False))
  for token, (begin, end) in zip(ids, spans, strict=True):
    if token != special_tokens.UNK:
      assert line[begin:end].strip() == tokenizer.piece(token).replace("▁", " ").strip()
  covered = "".join(line[begin:end] for begin, end in spans)
  assert covered.replace(" ", "") == line.replace(" ", "")


def test_many_lines_at_once_are_the_lines_one_by_one(tokenizer):
  assert tokenizer.encode_many(LINES) == [tokenizer.encode(line) for line in LINES]
  assert tokenizer.encode_many([]) == [] and tokenizer.encode("") == []


def test_unseen_characters_become_unknown(tokenizer):
  assert special_tokens.UNK in tokenizer.encode("日本")


def test_the_same_text_gives_the_same_pieces_and_a_file_gives_them_back(tokenizer, tmp_path):
  again = train_tokenizer(iter(LINES * 30), 220)
  assert again.encode_many(LINES) == tokenizer.encode_many(LINES)
  tokenizer.save(tmp_path / "tokenizer.model")
  loaded = load_tokenizer(tmp_path / "tokenizer.model")
  assert loaded.encode_many(LINES) == tokenizer.encode_many(LINES)
  assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]


@pytest.mark.parametrize(("lines", "vocab_size"), [(LINES, 50_000), (LINES, 40), ([], 220)])
def test_an_impossible_vocabulary_is_refused(lines, vocab_size):
  with pytest.raises(UserError, match=f"vocab_size is {vocab_size},.*--config.data.vocab_size"):
    train_tokenizer(iter(lines), vocab_size)


def test_an_error_of_the_corpus_is_not_blamed_on_the_vocabulary():
  def broken():
    yield from LINES
    raise OSError("the disk is gone")

  with pytest.raises(OSError, match="the disk is gone"):
    train_tokenizer(broken(), 220)
