"""The tokenizer of Hugging Face XLM folders: its ids, the characters behind them, what is refused."""

import json
import pathlib
import random
import sys

import pytest
from xlm_folder import LINES, edit_object, learn_bpe, merge, write_object, write_tokenizer

from negint.errors import UserError
from negint.pretrained import xlm_tokenizer
from negint.special_tokens import MASK, NUM_SPECIALS, PAD, UNK

GOLDEN = sorted((pathlib.Path(__file__).parents[1] / "golden").glob("xlm_tokenizer*"))
PUNCTUATED = [
  'He said "the sea", and “the man” sang… 5 % of 1,000.50 — no?',
  "It's the man's: l'homme qu'on a vu « ici » 10\u00a0000 !",
  "النهر، يجري؟ (إلى البحر).",
  "నది, సముద్రం। चौड़े - समुद्र।",
  "река\u00adтечёт\u200bк морю... ‘so’ ``it'' is",
  "one\ntwo\tthree\r\nfour",
  "e\u0301te\u0301 İS ΣΑΣ ﷺ 한국어 日本 😀 𝔘",
]


@pytest.fixture(scope="module", params=[False, True], ids=["cased", "lowercased"])
def tokenizer(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp("tokenizer")
  lines = [xlm_tokenizer.plain(line) for line in LINES] if request.param else LINES
  write_tokenizer(folder, lines, lowercase=request.param)
  return xlm_tokenizer.load(folder)


def spelled(tokenizer, text, lowercase):
  """(piece without its word-end, the text's characters behind it) of each known token."""
  ids, spans = tokenizer.encode_with_offsets(text)
  return [
    (
      tokenizer.piece(token).removesuffix("</w>"),
      xlm_tokenizer.plain(text[begin:end]) if lowercase else text[begin:end],
    )
    for token, (begin, end) in zip(ids, spans, strict=True)
    if token != UNK
  ]


def test_pieces_are_merged_as_they_were_learnt(tmp_path):
  write_tokenizer(tmp_path)
  tokenizer = xlm_tokenizer.load(tmp_path)
  merges, _ = learn_bpe(LINES, 60)
  for line in LINES:
    expected = []
    for word in line.split():
      symbols = [*word[:-1], word[-1] + "</w>"]
      for pair in merges:
        symbols = merge(symbols, pair)
      expected += symbols
    assert [tokenizer.piece(i) for i in tokenizer.encode(line)] == expected


@pytest.mark.parametrize("folder", GOLDEN, ids=lambda path: path.name)
def test_ids_are_those_of_transformers(folder):
  """expected.json: `XLMTokenizer._tokenize(text, lang)` of transformers 5.23, sacremoses 0.2."""
  tokenizer = xlm_tokenizer.load(folder)
  cases = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
  assert len({case["language"] for case in cases}) > 10
  for case in cases:
    assert tokenizer.for_language(case["language"]).encode(case["text"]) == case["ids"], case
  # Negative control: the rules of one language for all would fail.
  assert any(tokenizer.encode(case["text"]) != case["ids"] for case in cases)


@pytest.mark.parametrize(
  ("language", "text", "words"),
  [
    ("en", "It's 5 % of 1,000.50.", "It 's 5 % of 1,000.50 ."),
    ("en", 'He said "well", Mr. Smith e.g. that…', 'He said " well , " Mr. Smith e.g. that ...'),
    ("fr", "L'homme qu'on a vu : « oui »", "L' homme qu' on a vu : \" oui \""),
    ("ar", "(نهر، بحر؟)", "( نهر ، بحر ؟ )"),
    ("zz", "b's a-b", "b ' s a-b"),
  ],
)
def test_words_are_those_of_the_language(language, text, words, tmp_path):
  write_tokenizer(tmp_path)
  tokenizer = xlm_tokenizer.load(tmp_path).for_language(language)
  assert [word for word, _ in tokenizer._traced_words(text)] == words.split()


@pytest.mark.parametrize("line", [*LINES, *PUNCTUATED])
def test_offsets_map_back_to_the_text(tokenizer, line):
  ids, spans = tokenizer.encode_with_offsets(line)
  assert ids == tokenizer.encode(line) and len(ids) == len(spans)
  assert all(0 <= begin < end <= len(line) for begin, end in spans)
  assert spans == sorted(spans)
  covered = set().union(*(range(begin, end) for begin, end in spans))
  lost = [char for i, char in enumerate(line) if i not in covered and not char.isspace()]
  assert all(xlm_tokenizer.plain(char) == "" or char in "\u00ad\u200b" for char in lost)


@pytest.mark.parametrize("line", LINES)
def test_known_pieces_are_spelled_by_the_characters_behind_them(tokenizer, line):
  pairs = spelled(tokenizer, line, tokenizer._lowercase)
  assert len(pairs) >= 3
  assert all(piece == text for piece, text in pairs)


def test_a_runs_file_gives_the_same_tokenizer(tokenizer):
  again = xlm_tokenizer.from_model(tokenizer.model)
  assert again.model == tokenizer.model
  lines = [*LINES, *PUNCTUATED]
  assert again.encode_many(lines) == [tokenizer.encode(line) for line in lines]
  assert xlm_tokenizer.from_model(b'{"special": {}, "tokenizer": ""}') is None


def test_rewritten_characters_are_traced(tmp_path):
  write_tokenizer(tmp_path)
  tokenizer = xlm_tokenizer.load(tmp_path)

  def behind(text):
    return [
      (word, text[spans[0][0] : spans[-1][1]]) for word, spans in tokenizer._traced_words(text)
    ]

  assert behind("a… b") == [("a", "a"), ("...", "…"), ("b", "b")]
  assert behind("5 % “a”") == [("5", "5"), ("%", "%"), ('"', "“"), ("a", "a"), ('"', "”")]
  assert behind('"a", b') == [('"', '"'), ("a", "a"), (",", '",'), ('"', '",'), ("b", "b")]


def test_any_characters_give_spans_inside_the_text(tokenizer):
  rng = random.Random(0)
  for _ in range(300):
    text = "".join(
      chr(rng.choice([rng.randrange(0x20, 0x7F), rng.randrange(sys.maxunicode + 1), 0x301, 0x20]))
      for _ in range(20)
    )
    ids, spans = tokenizer.encode_with_offsets(text)
    assert len(ids) == len(spans) and spans == sorted(spans)
    assert all(0 <= begin < end <= len(text) for begin, end in spans)


def test_lower_casing_drops_accents_and_keeps_their_places(tmp_path):
  syllables = xlm_tokenizer.plain("가나")  # each is one character, and two without its marks
  write_tokenizer(tmp_path, ["ete", "ilik", syllables[:2]], num_merges=9, lowercase=True)
  tokenizer = xlm_tokenizer.load(tmp_path)
  ids, spans = tokenizer.encode_with_offsets("ÉTẾ İlik 가")
  assert len(syllables) == 4
  assert [tokenizer.piece(i) for i in ids] == ["ete</w>", "ilik</w>", syllables[:2] + "</w>"]
  assert spans == [(0, 3), (4, 8), (9, 10)]
  assert tokenizer.decode(ids) == "ete ilik " + syllables[:2]


def test_text_never_becomes_a_special_token(tokenizer):
  ids = tokenizer.encode("<s> </s> <special1> <pad>")
  assert not (set(ids) - {UNK}) & set(range(NUM_SPECIALS))
  assert tokenizer.piece(MASK) == "<special1>" and tokenizer.piece(PAD) == "<pad>"


def test_a_text_with_mosess_own_placeholders_keeps_its_words(tokenizer):
  words = [word for word, _ in tokenizer._traced_words("a DOTMULTI DOTDOTMULTI b")]
  assert words == ["a", "DOTMULTI", "DOTDOTMULTI", "b"]


@pytest.mark.parametrize("text", ["", " \n", "\u200b"])
def test_nothing_to_read_gives_no_tokens(tokenizer, text):
  assert tokenizer.encode_with_offsets(text) == ([], [])


def test_a_language_that_xlm_segments_otherwise_is_refused(tokenizer):
  with pytest.raises(UserError, match="'zh'.*ja, th"):
    tokenizer.for_language("zh")


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_a_missing_file_is_named(name, tmp_path):
  write_tokenizer(tmp_path)
  (tmp_path / name).unlink()
  with pytest.raises(UserError, match=f"has no {name}"):
    xlm_tokenizer.load(tmp_path)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"<pad>": 1, "</s>": 2}, "'</s>' has the id 2; it must have XLM's, 1"),
    ({"<special1>": None}, "'<special1>' has the id None"),
  ],
)
def test_other_special_ids_are_refused(changes, words, tmp_path):
  write_tokenizer(tmp_path)
  edit_object(tmp_path / "vocab.json", **changes)
  with pytest.raises(UserError, match=words):
    xlm_tokenizer.load(tmp_path)


@pytest.mark.parametrize("text", ['{"<s>": 0', "[1]"])
def test_a_damaged_vocabulary_is_refused(text, tmp_path):
  write_tokenizer(tmp_path)
  (tmp_path / "vocab.json").write_text(text)
  with pytest.raises(UserError, match="vocab.json .*download it again"):
    xlm_tokenizer.load(tmp_path)


def test_a_cased_vocabulary_is_not_lower_cased_silently(tmp_path):
  """Lower-casing is the default of transformers, which a copy without the config would inherit."""
  write_tokenizer(tmp_path, ["The River runs"])
  assert xlm_tokenizer.load(tmp_path).encode("River") != xlm_tokenizer.load(tmp_path).encode(
    "river"
  )
  (tmp_path / "tokenizer_config.json").unlink()
  with pytest.raises(UserError, match='capital letters.*"do_lowercase_and_remove_accent": false'):
    xlm_tokenizer.load(tmp_path)
  write_tokenizer(tmp_path, ["the river runs"])
  (tmp_path / "tokenizer_config.json").unlink()
  lowering = xlm_tokenizer.load(tmp_path)
  assert lowering.encode("River") == lowering.encode("river")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
  write_tokenizer(tmp_path)
  monkeypatch.setitem(sys.modules, "sacremoses", None)
  with pytest.raises(UserError, match="pip install sacremoses"):
    xlm_tokenizer.load(tmp_path)


def test_a_vocabulary_may_lack_what_merges_make_on_the_way(tmp_path):
  """As in XLM's: 'th' is merged further, and alone it is unknown."""
  ids = {"<s>": 0, "</s>": 1, "<pad>": 2, "<unk>": 3, "<special1>": 5, "the</w>": 14}
  write_object(tmp_path / "vocab.json", ids)
  (tmp_path / "merges.txt").write_text("t h 9\nth e</w> 8\n")
  tokenizer = xlm_tokenizer.load(tmp_path)
  assert tokenizer.encode("the th") == [14, UNK, UNK]
