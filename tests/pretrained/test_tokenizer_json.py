"""The tokenizer of a tokenizer.json: its ids, rows, characters behind tokens, and what is refused."""

import json
import shutil
import sys

import numpy as np
import pytest
from golden_folders import FOLDERS, checkpoints
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from xlm_folder import LINES, edit_object

from negint.data.tokenizer import load_tokenizer
from negint.errors import UserError
from negint.pretrained import tokenizer_json
from negint.special_tokens import SpecialTokens

GOLDEN = checkpoints("bert", "roberta", "xlm-roberta", "camembert")
BERT, ROBERTA = (FOLDERS[0] / name for name in ("tiny_bert", "tiny_xlm_roberta"))


@pytest.fixture(params=[BERT, ROBERTA], ids=["bert", "roberta"])
def folder(request, tmp_path):
  return shutil.copytree(request.param, tmp_path / request.param.name)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_ids_are_those_of_transformers(golden):
  tokenizer, expected = tokenizer_json.load(golden), np.load(golden / "expected.npz")
  special = tokenizer.special
  texts = [str(text) for text in expected["texts"]]
  for text, row, length in zip(texts, expected["tokens"], expected["lengths"], strict=True):
    ids = [*special.begin, *tokenizer.encode(text), *special.end]
    assert ids[:length] == row[:length].tolist()
    assert len(ids) == length or length == len(row)
    assert set(row[length:]) <= {special.pad}
  assert tokenizer.encode_many(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize(
  ("name", "special"),
  [
    ("tiny_bert", SpecialTokens((2,), (3,), (3,), pad=0, unk=1, mask=4, second_type=1)),
    ("tiny_xlm_roberta", SpecialTokens((0,), (2, 2), (2,), pad=1, unk=3, mask=4)),
  ],
)
def test_rows_have_the_form_of_the_post_processor(name, special):
  found = tokenizer_json.load(FOLDERS[0] / name)
  assert found.special == special
  spelled = ["[MASK]", "[SEP]"] if name == "tiny_bert" else ["<mask>", "</s>"]
  assert [found.piece(token) for token in (special.mask, special.end[0])] == spelled


def test_text_never_becomes_a_special_token(folder):
  tokenizer = tokenizer_json.load(folder)
  special = tokenizer.special
  text = " ".join(tokenizer.piece(token) for token in special.ids)
  assert not set(tokenizer.encode(text)) & (set(special.ids) - {special.unk})
  ids = [special.begin[0], special.mask]
  assert "".join(map(tokenizer.piece, ids)) == tokenizer.decode(ids).replace(" ", "")


@pytest.mark.parametrize("text", [*LINES, "e\u0301te\u0301 😀 “a”… b", "  a  b ", ""])
def test_offsets_map_back_to_the_text(text, folder):
  tokenizer = tokenizer_json.load(folder)
  ids, spans = tokenizer.encode_with_offsets(text)
  assert ids == tokenizer.encode(text) and len(ids) == len(spans)
  assert all(0 <= begin <= end <= len(text) for begin, end in spans)
  assert spans == sorted(spans)
  for token, (begin, end) in zip(ids, spans, strict=True):
    piece = tokenizer.piece(token).removeprefix("##").removeprefix("▁")
    if token != tokenizer.special.unk and text.isascii():
      assert text[begin:end].strip() == piece


def test_rows_are_neither_cut_nor_padded(folder):
  """Files of sentence encoders ask for both."""
  text = "a b c d e f"
  before = tokenizer_json.load(folder)
  padding = {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None}
  edit_object(
    folder / "tokenizer.json",
    truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    padding={**padding, "pad_id": 0, "pad_type_id": 0, "pad_token": before.piece(0)},
  )
  after = tokenizer_json.load(folder)
  assert after.encode(text) == before.encode(text) and len(after.encode("a")) < 4
  assert after.special == before.special


def byte_level(folder, add_prefix_space=False):
  """Writes a tokenizer such as RoBERTa's, in which a space belongs to the word behind it."""
  pieces = Tokenizer(models.BPE())
  pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
  special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  pieces.train_from_iterator(
    LINES, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
  )
  pieces.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
  folder.mkdir()
  pieces.save(str(folder / "tokenizer.json"))
  return tokenizer_json.load(folder)


@pytest.mark.parametrize("line", LINES)
def test_words_have_the_ids_that_they_have_in_a_sentence(line, tmp_path):
  tokenizers = [tokenizer_json.load(BERT), tokenizer_json.load(ROBERTA)]
  for tokenizer in [*tokenizers, byte_level(tmp_path / "spaces", add_prefix_space=True)]:
    words = [token for word in line.split() for token in tokenizer.encode_word(word)]
    assert words == tokenizer.encode(line)
  tokenizer = byte_level(tmp_path / "none")
  words = [token for word in line.split() for token in tokenizer.encode_word(word)]
  assert words == tokenizer.encode(" " + line) != tokenizer.encode(line)


def test_a_tokenizer_of_a_run_is_the_one_that_was_saved(folder, tmp_path):
  tokenizer = tokenizer_json.load(folder)
  tokenizer.save(tmp_path / "tokenizer.model")
  again = load_tokenizer(tmp_path / "tokenizer.model")
  assert (again.special, again.vocab_size) == (tokenizer.special, tokenizer.vocab_size)
  assert again.model == tokenizer.model == (tmp_path / "tokenizer.model").read_bytes()
  assert [again.encode(line) for line in LINES] == [tokenizer.encode(line) for line in LINES]


def test_special_tokens_may_have_names_of_their_own(folder):
  before = tokenizer_json.load(folder)
  (folder / "tokenizer_config.json").unlink()
  assert tokenizer_json.load(folder).special == before.special  # known by their usual spelling
  spelled = before.piece(before.special.mask)
  text = (folder / "tokenizer.json").read_text(encoding="utf-8")
  (folder / "tokenizer.json").write_text(text.replace(spelled, "<hidden>"), encoding="utf-8")
  with pytest.raises(UserError, match=r"has no \[MASK\] or <mask>; name its own .* 'mask_token'"):
    tokenizer_json.load(folder)
  for name in ("<hidden>", {"content": "<hidden>", "lstrip": True}):
    (folder / "tokenizer_config.json").write_text(json.dumps({"mask_token": name}))
    assert tokenizer_json.load(folder).special == before.special


def test_a_tokenizer_without_special_tokens_around_texts_is_refused(folder):
  edit_object(folder / "tokenizer.json", post_processor=None)
  with pytest.raises(UserError, match="special tokens must stand before, between and after"):
    tokenizer_json.load(folder)


def test_a_missing_file_is_named(folder):
  (folder / "tokenizer.json").unlink()
  with pytest.raises(UserError, match="has no tokenizer.json; .*save_pretrained"):
    tokenizer_json.load(folder)


@pytest.mark.parametrize("contents", [b'{"version": "1.0"', b"{}", b"\xff"])
def test_a_damaged_file_is_named(contents, folder):
  (folder / "tokenizer.json").write_bytes(contents)
  with pytest.raises(UserError, match="tokenizer.json is damaged .*download it again"):
    tokenizer_json.load(folder)


def test_a_missing_package_is_named(folder, monkeypatch):
  monkeypatch.setitem(sys.modules, "tokenizers", None)
  with pytest.raises(UserError, match="pip install tokenizers"):
    tokenizer_json.load(folder)


def with_a_vocabulary(folder, **config):
  """Replaces BERT's tokenizer.json by the files of an older checkpoint."""
  contents = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
  pieces = contents["model"]["vocab"]
  lines = "".join(f"{piece}\n" for piece in sorted(pieces, key=pieces.get))
  (folder / "vocab.txt").write_text(lines, encoding="utf-8")
  (folder / "tokenizer.json").unlink()
  (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def bert(tmp_path):
  return shutil.copytree(BERT, tmp_path / "bert")


def test_a_vocabulary_of_an_older_bert_gives_the_same_ids(bert):
  expected = np.load(bert / "expected.npz")
  texts = [*LINES, "日本 e\u0301te\u0301", *map(str, expected["texts"])]
  before = tokenizer_json.load(bert)
  with_a_vocabulary(bert, do_lower_case=False)
  after = tokenizer_json.load(bert)
  assert after.special == before.special
  assert [after.encode(text) for text in texts] == [before.encode(text) for text in texts]
  with_accents = tokenizer_json.load(bert).encode("Ete\u0301")
  (bert / "tokenizer_config.json").unlink()  # transformers lower-cases then, and drops accents
  lowering = tokenizer_json.load(bert)
  assert lowering.encode("Ete\u0301") == lowering.encode("ete") != with_accents


def test_a_cased_vocabulary_is_not_lower_cased_silently(bert):
  with_a_vocabulary(bert)
  with (bert / "vocab.txt").open("a", encoding="utf-8") as file:
    file.write("##The\n")
  with pytest.raises(UserError, match="capital letters .'##The'.*\"do_lower_case\": false"):
    tokenizer_json.load(bert)


def test_a_vocabulary_without_special_tokens_is_damaged(bert):
  with_a_vocabulary(bert)
  (bert / "vocab.txt").write_text("a\nb\n")
  with pytest.raises(UserError, match=r"vocab.txt is damaged \(it has no \[CLS\]"):
    tokenizer_json.load(bert)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "config.json"])
def test_a_vocabulary_of_another_tokenizer_is_refused(bert, place):
  """The Japanese BERTs cut text into words with MeCab, and PhoBERT has a BPE of its own."""
  with_a_vocabulary(bert, do_lower_case=False)
  for owner in ("BertJapaneseTokenizer", "PhobertTokenizer"):
    edit_object(bert / place, tokenizer_class=owner)
    with pytest.raises(
      UserError, match=f"vocab.txt belongs to {owner}, .*tokenizer.json is needed"
    ):
      tokenizer_json.load(bert)
  edit_object(bert / place, tokenizer_class="BertTokenizerFast")
  assert tokenizer_json.load(bert).encode("a")


@pytest.mark.parametrize(
  ("field", "value"),
  [("word_tokenizer_type", "mecab"), ("subword_tokenizer_type", "character")],
)
def test_other_steps_than_berts_are_refused(bert, field, value):
  with_a_vocabulary(bert, do_lower_case=False, word_tokenizer_type="basic", do_basic_tokenize=True)
  before = tokenizer_json.load(bert).encode("a b")
  edit_object(bert / "tokenizer_config.json", **{field: value})
  with pytest.raises(UserError, match=f"belongs to a tokenizer with {field}='{value}'"):
    tokenizer_json.load(bert)
  shutil.copy(BERT / "tokenizer.json", bert)  # says itself what it does
  assert tokenizer_json.load(bert).encode("a b") == before


def test_a_vocabulary_is_read_by_its_class_whatever_the_model(bert):
  """A RoBERTa may have a BERT's vocabulary; the "piece count" lines of other models are not one."""
  with_a_vocabulary(bert, do_lower_case=False, tokenizer_class="BertTokenizer")
  before = tokenizer_json.load(bert)
  edit_object(bert / "config.json", model_type="roberta")
  assert tokenizer_json.load(bert).special == before.special
  edit_object(bert / "tokenizer_config.json", tokenizer_class=None)
  (bert / "vocab.txt").write_text("và 12\ncủa 7\n", encoding="utf-8")
  with pytest.raises(UserError, match=r"has no tokenizer.json; .*save_pretrained"):
    tokenizer_json.load(bert)
