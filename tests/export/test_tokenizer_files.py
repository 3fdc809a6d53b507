"""tokenizer.json: the library `tokenizers` gives the ids of our tokenizer, on every text."""

import json
import random

import pytest
from xlm_folder import LINES

from negint.data.sources import parse_source
from negint.data.text import normalise
from negint.data.tokenizer import train_tokenizer
from negint.export import tokenizer_files
from negint.inference import masked
from negint.special_tokens import EOS, MASK, PAD, UNK

tokenizers = pytest.importorskip("tokenizers")

SAMPLES = ("ar", "en", "ru", "hi", "te", "kn")  # each in another script
OTHERS = {
  "el": "το ποτάμι τρέχει προς τη θάλασσα και ο άνθρωπος τραγουδά",
  "he": "הנהר זורם אל הים הרחב והאיש שר",
  "ka": "მდინარე მიედინება ზღვისკენ და კაცი მღერის",
  "ko": "강은 넓은 바다로 흐르고 남자는 노래한다",
  "zh": "河 流 向 大海 ， 人 在 唱歌 。",
}
ODD = [
  "",
  " ",
  "\u2581",
  "a\u2581b \u2581 c \u2581",
  "\u2581river",
  " \u2581\u2581 river",
  "  two  spaces\tand a tab\r\n",
  "\u00a0no\u00a0break\u3000wide\u2028line\u0085next\x1cfile",
  "zero\u200bwidth\u200d joiner \ufeffmark \u00ad",
  "bell\x07 null\x00 escape\x1b delete\x7f\x9f",
  "e\u0301 a\u0315\u0300 \u0301alone \u1100\u1161\u11a8 \u212b \ufb01 \u0958",
  "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7 \u2603\u2603 x\u2603",
  "\U0001d518\U0001d52b\U0001d521 \ufffd\ufffd \ue000",
  "........... aaaaaaaaaaaa hahahaha ----- ==",
  "</s> <pad> [MASK] <unk> <special1> <s>",
]


@pytest.fixture(scope="module")
def sentences():
  found = {}
  for language in SAMPLES:
    documents = parse_source("sample", language).documents()
    found[language] = [line for document in documents for line in document][:150]
  draw = random.Random(2)
  for language, line in OTHERS.items():
    words = line.split()
    found[language] = [" ".join(draw.choices(words, k=draw.randint(1, 20))) for _ in range(50)]
  return found


@pytest.fixture(scope="module")
def tokenizer(sentences):
  lines = [normalise(line) for those in sentences.values() for line in those]
  return train_tokenizer(iter(lines), 1500)


@pytest.fixture(scope="module")
def fast(tokenizer):
  return read(tokenizer)


def read(tokenizer):
  found = tokenizers.Tokenizer.from_str(json.dumps(tokenizer_files.from_sentencepiece(tokenizer)))
  found.encode_special_tokens = True  # text that spells a special token is text
  return found


def differing(tokenizer, fast, texts):
  """The texts whose ids differ."""
  ours = tokenizer.encode_many([normalise(text) for text in texts])
  theirs = fast.encode_batch(texts, add_special_tokens=False)
  return [t for t, a, b in zip(texts, ours, theirs, strict=True) if a != b.ids]


def test_sentences_in_eleven_scripts_have_our_ids(tokenizer, fast, sentences):
  texts = [line for those in sentences.values() for line in those]
  assert len(texts) > 1000 and differing(tokenizer, fast, texts) == []


def test_odd_texts_have_our_ids(tokenizer, fast):
  assert differing(tokenizer, fast, [*ODD, *LINES]) == []


def test_random_texts_have_our_ids(tokenizer, fast, sentences):
  draw = random.Random(0)
  letters = sorted({c for those in sentences.values() for line in those for c in line})
  texts = []
  for _ in range(4000):
    alphabet = [
      *draw.sample(letters, draw.choice([1, 2, 3, 6])),
      " ",
      draw.choice("\u2581 .\u2603"),
    ]
    texts.append("".join(draw.choices(alphabet, k=draw.randint(1, 50))))
  assert differing(tokenizer, fast, texts) == []


def test_repetitions_have_our_ids_where_many_cuts_make_one_piece():
  """Pieces such as 'aba' can form in two ways, and the order of the merges decides which comes first."""
  draw = random.Random(1)
  for weights in ((1, 1), (5, 1), (1, 3)):
    lines = ["".join(draw.choices("ab", weights, k=draw.randint(1, 30))) for _ in range(300)]
    ours = train_tokenizer(iter(lines), 120)
    assert (
      differing(ours, read(ours), lines + [letter * n for letter in "ab" for n in range(40)]) == []
    )


def test_another_order_of_merges_would_be_seen(tokenizer, sentences):
  wrong = tokenizer_files.from_sentencepiece(tokenizer)
  wrong["model"]["merges"].reverse()
  wrong = tokenizers.Tokenizer.from_str(json.dumps(wrong))
  assert len(differing(tokenizer, wrong, sentences["en"])) > 50


@pytest.mark.parametrize("number", range(6))
def test_each_step_of_the_normaliser_is_needed(tokenizer, sentences, number):
  wrong = tokenizer_files.from_sentencepiece(tokenizer)
  del wrong["normalizer"]["normalizers"][number]
  wrong = tokenizers.Tokenizer.from_str(json.dumps(wrong))
  wrong.encode_special_tokens = True
  assert differing(tokenizer, wrong, [*ODD, *sentences["en"][:20]]) != []


def test_rows_have_the_form_of_our_features(fast):
  single, pair = fast.encode("the sea"), fast.encode("the sea", "the man")
  text, other = (fast.encode(t, add_special_tokens=False).ids for t in ("the sea", "the man"))
  assert single.ids == [EOS, *text, EOS]
  assert pair.ids == [EOS, *text, EOS, *other, EOS] and set(pair.type_ids) == {0}


def test_special_tokens_have_our_ids_and_a_mask_may_stand_in_a_text(tokenizer, fast):
  config = tokenizer_files.files(tokenizer, 64)["tokenizer_config.json"]
  for role, token in dict(cls=EOS, sep=EOS, pad=PAD, unk=UNK, mask=MASK).items():
    assert fast.token_to_id(config[f"{role}_token"]) == token
  fast = tokenizers.Tokenizer.from_str(fast.to_str())
  the, runs = map(tokenizer.encode, ("the", "runs"))

  def ids(text):
    return fast.encode(text, add_special_tokens=False).ids

  assert ids("the [MASK] runs") == [*the, MASK, *runs]
  assert ids(" [MASK]  [MASK] runs ") == [MASK, MASK, *runs]
  behind, stop = ids("the [MASK]."), fast.token_to_id(".")
  assert behind == [*the, MASK, stop]  # without a space it is no new word
  assert behind == masked.mask_ids("the [MASK].", tokenizer)


def test_tokens_become_text_again(tokenizer, fast, sentences):
  for text in sentences["en"][:20]:
    normal = " ".join(normalise(text).split())
    if UNK not in (ids := tokenizer.encode(normal)):
      assert fast.decode(ids) == normal == tokenizer.decode(ids)


def test_no_character_above_the_searched_ones_is_replaced_or_removed():
  text = "".join(map(chr, range(tokenizer_files._CHANGED_BELOW, 0x110000)))
  assert normalise(text, nfc=False) == text
