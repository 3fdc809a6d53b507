"""transformers loads exported folders without this project, and computes our logits from our ids."""

import re
import warnings

import exported
import numpy as np
import pytest
from xlm_folder import LINES

from negint.data.text import normalise
from negint.export import card, folders

with warnings.catch_warnings():
  warnings.simplefilter("ignore")
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ODD = [
  "",
  "  a\u00a0 b\t",
  "e\u0301 \u200d\ufeff \U0001f468\u200d\U0001f469",
  "\u2581x\u2581",
  "....... aaaaa",
]


def loaded(folder):
  transformers.utils.logging.disable_progress_bar()
  found = transformers.AutoModelForMaskedLM.from_pretrained(folder)
  return found.eval()


def computed(model, language=None):
  """transformers' logits of `exported.rows()`; zero at padding."""
  tokens, lengths = exported.rows(model.config.pad_token_id)
  mask = np.arange(tokens.shape[1]) < lengths[:, None]
  inputs = dict(input_ids=torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
  if language is not None:
    inputs["langs"] = torch.full_like(inputs["input_ids"], model.config.lang2id[language])
  with torch.no_grad():
    return model(**inputs).logits.numpy() * mask[..., None]


@pytest.mark.parametrize("shape", exported.SHAPES)
@pytest.mark.parametrize("system", ["mono", "joint"])
def test_a_shared_encoder_has_our_logits(system, shape, tmp_path):
  model = exported.made(system, shape)
  folders.write(model, tmp_path / "out")
  found = loaded(tmp_path / "out")
  for code in model.languages:
    expected = exported.logits(model, code)
    np.testing.assert_allclose(computed(found, code), expected, atol=1e-4)
  first = exported.logits(model, model.languages[0])
  np.testing.assert_allclose(computed(found), first, atol=1e-4)  # without langs


@pytest.mark.parametrize("shape", exported.SHAPES)
@pytest.mark.parametrize("system", ["ffn", "attn"])
def test_each_language_has_a_folder_with_our_logits(system, shape, tmp_path):
  model = exported.made(system, shape)
  folders.write(model, tmp_path / "out")
  for code in model.languages:
    expected = exported.logits(model, code)
    np.testing.assert_allclose(computed(loaded(tmp_path / "out" / code)), expected, atol=1e-4)


@pytest.mark.parametrize("system", ["mono", "joint", "ffn"])
@pytest.mark.parametrize("family", exported.FAMILIES)
def test_models_that_were_started_from_bert_have_our_logits(family, system, tmp_path):
  model = exported.made(system, family)
  for folder in folders.write(model, tmp_path / "out"):
    found = loaded(folder)
    assert type(found).__name__.startswith("XLMRoberta" if "roberta" in family else "Bert")
    code = folder.name if system != "mono" else model.languages[0]
    np.testing.assert_allclose(computed(found), exported.logits(model, code), atol=1e-4)


def snippets(folder):
  """The pieces of Python in a card."""
  text = (folder / "README.md").read_text(encoding="utf-8")
  return [
    code.replace(card.FOLDER, str(folder))
    for code in re.findall(r"```python\n(.*?)```", text, re.S)
  ]


@pytest.mark.parametrize("shape", (*exported.SHAPES, "bert", "xlm-roberta"))
@pytest.mark.parametrize("system", ["adpt", "share_adpt"])
def test_the_cards_function_adds_the_adapters(system, shape, tmp_path):
  model = exported.made(system, shape)
  embedded = shape in exported.SHAPES  # the others have a folder for each language
  options = {} if embedded else dict(language_embedding=False)
  model = exported.made(system, shape, **options)
  assert folders.write(model, tmp_path / "out") == [tmp_path / "out"]
  adding = snippets(tmp_path / "out")[0]
  assert len([line for line in adding.splitlines() if line]) <= 30
  names = {}
  exec(adding, names)
  found = loaded(tmp_path / "out")
  without = computed(found)
  for code in model.languages:  # the second call replaces the adapters of the first
    names["add_adapters"](found, str(tmp_path / "out"), code)
    expected = exported.logits(model, code)
    np.testing.assert_allclose(computed(found, code if embedded else None), expected, atol=1e-4)
    assert np.abs(without - expected).max() > 0.1


@pytest.mark.parametrize("system", ["joint", "adpt", "ffn"])
def test_the_cards_example_runs(system, tmp_path, capsys):
  folders.write(exported.made(system), tmp_path / "out")
  folder = tmp_path / "out" / "ar" if system == "ffn" else tmp_path / "out"
  names = {}
  for code in snippets(folder):
    exec(code, names)
  assert names["logits"].shape[-1] == 220
  assert capsys.readouterr().out.count("'") == 10  # five pieces


def test_the_tokenizer_gives_our_ids(tmp_path):
  model = exported.made("joint")
  folders.write(model, tmp_path / "out")
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
  special = model.tokenizer.special
  for text in [*LINES, *ODD]:
    ids = model.tokenizer.encode(normalise(text))
    assert tokenizer(text)["input_ids"] == [*special.begin, *ids, *special.end]
    assert tokenizer(text).keys() == {"input_ids", "attention_mask"}
  first, second = (model.tokenizer.encode(line) for line in LINES[:2])
  row = [*special.begin, *first, *special.between, *second, *special.end]
  assert tokenizer(*LINES[:2])["input_ids"] == row
  text = "</s> <pad> <unk> [MASK]"
  ids = model.tokenizer.encode(text)
  assert tokenizer(text, split_special_tokens=True)["input_ids"][1:-1] == ids
  batch = tokenizer(LINES, padding=True, truncation=True, max_length=12, return_tensors="pt")
  assert batch["input_ids"].shape == (6, 12) and tokenizer.pad_token_id == special.pad
  assert tokenizer.mask_token_id == special.mask and tokenizer.model_max_length == 24


def test_a_pipeline_fills_masks(tmp_path):
  folders.write(exported.made("joint"), tmp_path / "out", "en")
  fill = transformers.pipeline("fill-mask", model=str(tmp_path / "out"))
  found = fill("the [MASK] runs to the sea")
  assert len(found) == 5 and found[0]["score"] >= found[-1]["score"]


CLASSES = {
  "ner": "AutoModelForTokenClassification",
  "pos": "AutoModelForTokenClassification",
  "qa": "AutoModelForQuestionAnswering",
  "nli": "AutoModelForSequenceClassification",
}


@pytest.mark.parametrize("route", ["target", "source", "mean"])
@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("system", ["joint", "ffn", "adpt"])
def test_a_finetuned_model_has_our_scores(system, task, route, tmp_path):
  model = exported.finetuned(system, task, tmp_path / "run", route=route)
  assert folders.write(model, tmp_path / "out") == [tmp_path / "out"]
  check_scores(model, task, tmp_path / "out")


@pytest.mark.parametrize("task", ["ner", "qa"])
@pytest.mark.parametrize("family", ["bert", "xlm-roberta"])
def test_a_finetuned_bert_has_our_scores(family, task, tmp_path):
  model = exported.finetuned("joint", task, tmp_path / "run", family)
  folders.write(model, tmp_path / "out")
  check_scores(model, task, tmp_path / "out")


def check_scores(model, task, folder):
  found = getattr(transformers, CLASSES[task]).from_pretrained(folder).eval()
  names = {}
  pieces = snippets(folder)
  if len(pieces) == 2:
    exec(pieces[0], names)
    names["add_adapters"](found, str(folder), "ar")
  tokens, lengths = exported.rows(model.pretrained.model.pad_id)
  mask = np.arange(tokens.shape[1]) < lengths[:, None]
  with torch.no_grad():
    out = found(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long())
  expected = exported.head_logits(model, "ar")
  if task == "qa":
    scores = np.stack([out.start_logits.numpy(), out.end_logits.numpy()], -1)
  else:
    scores = out.logits.numpy()
    assert [found.config.id2label[i] for i in range(len(model.labels))] == list(model.labels)
  if task != "nli":
    scores, expected = scores[mask], expected[mask]
  np.testing.assert_allclose(scores, expected, atol=1e-4)
  exec(pieces[-1], names)  # the card's example


@pytest.mark.parametrize("system", ["joint", "adpt"])
def test_the_cards_tags_are_those_that_we_predict(system, tmp_path):
  model = exported.finetuned(system, "pos", tmp_path / "run")
  folders.write(model, tmp_path / "out")
  names = {}
  *adding, code = snippets(tmp_path / "out")
  for piece in adding:
    exec(piece, names)
  for line in LINES[:4]:
    words = line.split()
    exec(code.replace('"the words of a sentence".split()', repr(words)), names)
    tags = [
      names["model"].config.id2label[names["tags"][names["places"].index(n)]]
      for n in range(len(words))
    ]
    assert tags == list(model.predict([words], "ar")[0].tags)
