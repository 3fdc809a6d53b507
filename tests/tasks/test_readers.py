"""Readers of task data: what is read, what is repaired and counted, what is refused and named."""

import json

import pytest

from negint.data.tfds_builders import find_builder
from negint.errors import UserError
from negint.tasks import loading, ner, nli, pos, qa, squad
from negint.tasks.examples import NOWHERE, SPLITS, Pair, Question, TaggedSentence
from negint.tasks.loading import SourceOptions
from negint.tasks.table import TASKS
from negint.tasks.task import Reading


def _write(path, text, encoding="utf-8"):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
  return str(path)


def _load(name, language, split, *, selects=True, **source):
  """A split of a task's data, without a lab."""
  task = TASKS[name]
  return loading.load(task, SourceOptions(**source), None, language, split, selects=selects)


def _conllu(*rows):
  """CoNLL-U text of rows (id, form, upos, head)."""
  return "\n".join(f"{i}\t{form}\t_\t{upos}\t_\t_\t{head}\t_\t_\t_" for i, form, upos, head in rows)


def _squad(context="Paris is in France.", answers=(("France", 12),), **entry):
  answers = [{"text": text, "answer_start": start} for text, start in answers]
  entry = {"id": "q1", "question": "Where is Paris?", "answers": answers, **entry}
  return {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": [entry]}]}]}


# Two columns: NER


@pytest.mark.parametrize("separator", ["\t", " ", "  "])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_two_columns_are_read(tmp_path, separator, newline, mark):
  lines = ["Kofi", "Annan", "spoke", "", "", "", "Nairobi"]
  tags = ["B-PER", "I-PER", "O", "", "", "", "B-LOC"]
  rows = [w + (separator + t if w else "") for w, t in zip(lines, tags, strict=True)]
  examples, report = ner.read_file(_write(tmp_path / "a.tsv", mark + newline.join(rows)))
  assert examples == [
    TaggedSentence(("Kofi", "Annan", "spoke"), ("B-PER", "I-PER", "O")),
    TaggedSentence(("Nairobi",), ("B-LOC",)),
  ]
  assert report == {}


def test_ill_formed_iob_is_repaired_and_counted(tmp_path):
  text = "a\tI-PER\nb\tI-PER\nc\tI-LOC\nd\tO\ne\tI-ORG\n\nf\tI-ORG\n"
  examples, report = ner.read_file(_write(tmp_path / "a.tsv", text))
  assert [e.tags for e in examples] == [("B-PER", "I-PER", "B-LOC", "O", "B-ORG"), ("B-ORG",)]
  assert report == {"IOB1 tags brought to IOB2": 4}
  text = "a\tB-PER\nb\tI-PER\n\nc\tI-LOC\nd\tO\n"
  examples, report = ner.read_file(_write(tmp_path / "b.tsv", text))
  assert [e.tags for e in examples] == [("B-PER", "I-PER"), ("B-LOC", "O")]
  assert report == {"ill-formed IOB tags repaired": 1}
  assert ner.repair_iob(["B-PER", "I-PER", "O"]) == (["B-PER", "I-PER", "O"], 0)


def test_language_prefixes_of_wikiann_are_removed_only_if_all_words_have_them(tmp_path):
  examples, report = ner.read_file(_write(tmp_path / "a.tsv", "sw:Kofi\tB-PER\nsw::\tO\n"))
  assert examples[0].words == ("Kofi", ":")
  assert report == {"language prefixes removed": 2}
  examples, report = ner.read_file(_write(tmp_path / "b.tsv", "re:Kofi\tB-PER\nyes\tO\n"))
  assert examples[0].words == ("re:Kofi", "yes")
  assert report == {}


def test_unusual_white_space_is_part_of_a_word(tmp_path):
  text = "a\u2028b\tO\n\u00a0\tO\nNew York\tB-LOC\n"
  examples, _ = ner.read_file(_write(tmp_path / "a.tsv", text))
  assert examples[0].words == ("a\u2028b", "\u00a0", "New York")


def test_words_without_text_are_dropped_and_counted(tmp_path):
  examples, report = ner.read_file(_write(tmp_path / "a.tsv", "\tB-PER\nb\tI-PER\n"))
  assert examples == [TaggedSentence(("b",), ("B-PER",))]
  assert report == {"words without text dropped": 1, "IOB1 tags brought to IOB2": 1}


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("a\tO\nb\tB-PER\nc\tMISC\n", r"line 3: unknown tag 'MISC' of the word 'c'.*IOB1, IOB2"),
    ("a\tO\n\nb\n", r"line 3: 1 column\(s\) in 'b'"),
    ("a\tO\nb\tO\nc\tO\tx\n", r"line 3: 3 column\(s\) in 'c O x', where 2 are expected"),
    ("a O\nb O\na b O\n", r"line 3: 3 column"),
    ("a\tO\nb\t\n", r"line 2: the word 'b' has no tag"),
    ("a\n\nb\n", r"line 1: 1 column.*have no tags.*XTREME"),
    (b"a\tO\nb\tO\n\xe9t\xe9\tO\n", r"is not UTF-8: line 3, byte 1 of the line is 0xe9"),
    (b"\xef\xbb\xbfa\tO\n\xff\tO\n", r"is not UTF-8: line 2, byte 1 of the line is 0xff"),
    ("", "is empty"),
    (" \n\n", "is empty"),
  ],
)
def test_malformed_two_columns_name_file_line_and_rule(tmp_path, text, message):
  path = _write(tmp_path / "bad.tsv", text)
  with pytest.raises(UserError, match=f"(?s)bad.tsv.*{message}"):
    ner.read_file(path)


def test_a_missing_file_is_a_user_error(tmp_path):
  with pytest.raises(UserError, match="Cannot read .*absent.tsv"):
    ner.read_file(str(tmp_path / "absent.tsv"))


# CoNLL-U


def test_conllu_fuses_ranges_and_skips_comments_and_empty_nodes(tmp_path):
  text = "# text = du pain, don't\n" + _conllu(
    ("1-2", "du", "_", "_"), (1, "de", "ADP", 3), (2, "le", "DET", 3), (3, "pain", "NOUN", 0),
    ("3.1", "ghost", "VERB", "_"), ("4-5", "don't", "_", "_"), (4, "do", "AUX", 3),
    (5, "n't", "PART", 4),
  )  # fmt: skip
  examples, report = pos.read_file(_write(tmp_path / "a.conllu", text + "\n\n"))
  # du: both words hang on 'pain', so the precedence decides; don't: 'do' is nearer the root.
  assert examples == [TaggedSentence(("du", "pain", "don't"), ("ADP", "NOUN", "AUX"))]
  assert report == {"multiword tokens fused": 2, "empty nodes skipped": 1}


def test_the_word_nearest_the_root_gives_its_tag_to_the_fused_token(tmp_path):
  rows = [
    ("1-2", "wafi", "_", "_"),
    (1, "wa", "CCONJ", 2),
    (2, "fi", "ADP", 3),
    (3, "x", "NOUN", 0),
  ]
  examples, _ = pos.read_file(_write(tmp_path / "a.conllu", _conllu(*rows)))
  assert examples[0].tags == ("ADP", "NOUN")
  rows[1], rows[2] = (1, "wa", "CCONJ", 3), (2, "fi", "ADP", 1)
  examples, _ = pos.read_file(_write(tmp_path / "b.conllu", _conllu(*rows)))
  assert examples[0].tags == ("CCONJ", "NOUN")


def test_a_cycle_of_heads_ends(tmp_path):
  rows = [("1-2", "ab", "_", "_"), (1, "a", "DET", 2), (2, "b", "NOUN", 1)]
  examples, _ = pos.read_file(_write(tmp_path / "a.conllu", _conllu(*rows)))
  assert examples[0] == TaggedSentence(("ab",), ("NOUN",))


def test_words_lose_zero_width_non_joiners_and_spaces(tmp_path):
  rows = [(1, "می\u200cروم", "VERB", 0), (2, "10 000", "NUM", 1), (3, "\u200c", "X", 1)]
  examples, report = pos.read_file(_write(tmp_path / "a.conllu", _conllu(*rows)))
  assert examples == [TaggedSentence(("میروم", "10000"), ("VERB", "NUM"))]
  assert report == {"words with U+200C or spaces joined": 3, "words without text dropped": 1}


def test_sentences_of_underscores_are_dropped_and_counted(tmp_path):
  hidden = _conllu((1, "_", "NOUN", 0), (2, "_", "_", 1), (3, ".", "PUNCT", 1))
  partly = _conllu((1, "_", "SYM", 0), (2, "b", "NOUN", 1), (3, ".", "PUNCT", 1))
  examples, report = pos.read_file(_write(tmp_path / "a.conllu", hidden + "\n\n" + partly))
  assert [e.words for e in examples] == [("_", "b", ".")]
  assert report == {"sentences without forms dropped": 1}


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (_conllu((1, "a", "_", 0)), r"line 1: the word 'a' has no tag.*upos or xpos"),
    ("# c\n1\ta\tNOUN\n", r"line 2: 3 columns.*10 columns"),
    (_conllu((1, "a", "X", 0), ("x", "b", "X", 0)), r"line 2: the ID 'x'"),
    (_conllu((1, "a", "X", 0), (3, "b", "X", 0)), r"line 2: word 3 follows word 1"),
    (
      _conllu(("1-3", "ab", "_", "_"), (1, "a", "X", 0), (2, "b", "X", 0)),
      r"line 1: the range 1-3",
    ),
  ],
)
def test_malformed_conllu_names_file_line_and_rule(tmp_path, text, message):
  path = _write(tmp_path / "bad.conllu", text)
  with pytest.raises(UserError, match=f"(?s)bad.conllu.*{message}"):
    pos.read_file(path)


def test_pos_reads_two_columns(tmp_path):
  examples, _ = pos.read_file(_write(tmp_path / "a.tsv", "le\tDET\npain\tNOUN\n"))
  assert examples == [TaggedSentence(("le", "pain"), ("DET", "NOUN"))]


# SQuAD JSON


def test_a_question_as_given_keeps_its_id():
  record = {"id": 7, "question": "who?", "context": "Ann."}
  assert TASKS["qa"].given(record, "line 1") == Question("7", "Ann.", "who?", ())
  assert TASKS["qa"].given(("who?", "Ann."), "line 1") == Question("", "Ann.", "who?", ())


def test_squad_is_read(tmp_path):
  examples, report = squad.read_file(_write(tmp_path / "a.json", "\ufeff" + json.dumps(_squad())))
  question = Question("q1", "Paris is in France.", "Where is Paris?", (("France", 12),))
  assert (examples, report) == ([question], {})


def test_answers_off_their_offset_move_to_the_nearest_occurrence(tmp_path):
  raw = _squad("ab cd ab cd ab", [("ab", 7), ("ab", -1), (" cd\n", 3), ("cd ab  cd", 0)])
  examples, report = squad.read_file(_write(tmp_path / "a.json", json.dumps(raw)))
  assert examples[0].answers == (("ab", 6), ("ab", 0), ("cd", 3), ("cd ab cd", 3))
  assert report == {"answers realigned": 4}


def test_answers_that_are_nowhere_stay_for_the_score_and_not_for_training(tmp_path):
  raw = _squad(answers=[("Spain", 12), ("France", 12)])
  raw["data"].append(_squad(answers=[("Spain", 0), ("", 0)], id="q2")["data"][0])
  raw["data"].append(_squad(answers=[], id="q3")["data"][0])
  examples, report = squad.read_file(_write(tmp_path / "a.json", json.dumps(raw)))
  assert [(e.id, e.answers) for e in examples] == [
    ("q1", (("Spain", NOWHERE), ("France", 12))),
    ("q2", (("Spain", NOWHERE),)),
  ]
  assert report == {
    "answers not in their context": 2,
    "questions without a gold answer left out": 1,
  }
  predicted = {"q1": "Spain", "q2": "Spain"}
  assert qa.QA.per_example(examples, predicted) == [[1.0, 1.0]] * 2  # the scorer needs no offset
  training = squad.for_training(examples, report)
  assert [(e.id, e.answers) for e in training] == [("q1", (("France", 12),))]
  assert report["questions without an answer in their context left out of training"] == 1


def test_questions_without_any_answer_are_named(tmp_path):
  raw = _squad(answers=[("", 0)])
  raw["data"].append(_squad(answers=[], id="q3")["data"][0])
  with pytest.raises(UserError, match=r"a.json: the answers of all 2 questions are empty.*XTREME"):
    squad.read_file(_write(tmp_path / "a.json", json.dumps(raw)))


@pytest.mark.parametrize(
  ("count", "unit"),
  [
    (lambda before: len(before), None),
    (lambda before: len(before.encode("utf-16-le")) // 2, "UTF-16 units"),
    (lambda before: len(before.encode()), "UTF-8 bytes"),
  ],
)
def test_offsets_in_other_units_are_recognised_for_the_file(tmp_path, count, unit):
  context = "\U0001f600 né Selwa \U0001f600 Selwa, Selwa "
  raw = {"data": []}
  places = [5, 13, 20]
  assert all(context.startswith("Selwa", place) for place in places)
  for i, place in enumerate(places * 10):
    answers = [("Selwa", count(context[:place]))]
    raw["data"] += _squad(context, answers, id=str(i))["data"]
  examples, report = squad.read_file(_write(tmp_path / "a.json", json.dumps(raw)))
  assert [e.answers[0][1] for e in examples] == places * 10
  assert report == ({f"answer offsets read as {unit}": 30} if unit else {})
  # One answer that is off does not change the unit of the file.
  raw["data"] += _squad(context, [("Selwa", 2)], id="off")["data"]
  examples, report = squad.read_file(_write(tmp_path / "b.json", json.dumps(raw)))
  assert [e.answers[0][1] for e in examples] == [*places * 10, 5]
  assert report["answers realigned"] == 1


def test_lone_surrogates_are_replaced_where_offsets_stay(tmp_path):
  text = json.dumps(_squad("The \ud83d Selwa \ud83d\ude00.", [("Selwa", 6)]))
  examples, report = squad.read_file(_write(tmp_path / "a.json", text))
  assert examples[0].context == "The \ufffd Selwa \U0001f600."
  assert examples[0].answers == (("Selwa", 6),)
  assert report == {"lone surrogates replaced by U+FFFD": 1}


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("lists", [True, False])
def test_questions_in_hugging_faces_layout(tmp_path, ending, lists):
  answers = {"text": ["France"], "answer_start": [12]} if lists else [
    {"text": "France", "answer_start": 12}
  ]  # fmt: skip
  rows = [
    {"id": name, "context": "Paris is in France.", "question": "Where?", "answers": answers}
    for name in "ab"
  ]
  text = "\n".join(map(json.dumps, rows)) if ending == "jsonl" else json.dumps(rows)
  examples, report = squad.read_file(_write(tmp_path / f"a.{ending}", text))
  assert [(e.id, e.answers) for e in examples] == [(n, (("France", 12),)) for n in "ab"]
  assert report == {}
  if ending == "json":
    wrapped, _ = squad.read_file(_write(tmp_path / "b.json", json.dumps({"data": rows})))
    assert wrapped == examples


def test_unanswerable_questions_of_squad_2_are_left_out(tmp_path):
  raw = _squad()
  raw["data"] += _squad(answers=[], id="q2", is_impossible=True, plausible_answers=[])["data"]
  examples, report = squad.read_file(_write(tmp_path / "a.json", json.dumps(raw)))
  assert [e.id for e in examples] == ["q1"]
  assert report == {"questions without a gold answer left out": 1}


def test_tydis_file_of_all_languages_gives_one(tmp_path):
  raw = _squad(id="russian-1")
  raw["data"] += _squad(id="arabic-1")["data"]
  path = _write(tmp_path / "a.json", json.dumps(raw))
  examples, report = squad.read_file(path, Reading("ru"))
  assert [e.id for e in examples] == ["russian-1"]
  assert report == {"questions in other languages left out": 1}


def test_flattened_answers_of_one_question_are_joined_again(tmp_path):
  raw = _squad()
  raw["data"] += _squad(answers=[("Paris", 0)])["data"]
  examples, _ = squad.read_file(_write(tmp_path / "a.json", json.dumps(raw)))
  assert [e.answers for e in examples] == [(("France", 12), ("Paris", 0))]


def _without(*keys):
  """SQuAD data without the key at the end of a way of keys."""
  root = value = _squad()
  for key in keys[:-1]:
    value = value[key]
  del value[keys[-1]]
  return root


_ENTRY = ("data", 0, "paragraphs", 0, "qas", 0)


@pytest.mark.parametrize(
  ("raw", "message"),
  [
    (_without("data"), r"data is missing or is not a list"),
    (_without("data", 0, "paragraphs"), r"data\[0\]\.paragraphs is missing"),
    (
      _without("data", 0, "paragraphs", 0, "context"),
      r"data\[0\]\.paragraphs\[0\]\.context is missing",
    ),
    (_without(*_ENTRY, "id"), r"data\[0\]\.paragraphs\[0\]\.qas\[0\]\.id is missing"),
    (_without(*_ENTRY, "answers", 0, "answer_start"), r"answers\[0\]\.answer_start is missing"),
    (_squad(answers=[("France", "12")]), r"answer_start is missing or is not a whole number"),
    ([1, 2], r"data is missing"),
    ({"data": _squad()["data"] + _squad(question="Another?")["data"]}, r"'q1' is also the id"),
  ],
)
def test_malformed_squad_names_the_json_path(tmp_path, raw, message):
  path = _write(tmp_path / "bad.json", json.dumps(raw))
  with pytest.raises(UserError, match=f"bad.json.*{message}"):
    squad.read_file(path)


def test_broken_json_names_the_line(tmp_path):
  with pytest.raises(UserError, match=r"bad.json, line 2: not JSON"):
    squad.read_file(_write(tmp_path / "bad.json", '{"data":\n oops}'))


# XNLI


def test_pairs_are_read(tmp_path):
  text = 'premise\thypo\tlabel\na "b\tc\tcontradictory\n\nd\te\tNeutral\nf\tg\t-\n\th\tentailment\n'
  examples, report = nli.read_file(_write(tmp_path / "a.tsv", text))
  assert examples == [Pair('a "b', "c", "contradiction"), Pair("d", "e", "neutral")]
  assert report == {
    "pairs without a gold label dropped": 1,
    "pairs with an empty sentence dropped": 1,
  }


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("a\tb\tneutral\na\tb\n", r"line 2: 2 column"),
    ("a\tb\n", r"line 1: 2 column.*XTREME's scripts remove the labels"),
    (b"a\tb\tneutral\n\xff\tb\tneutral\n", r"line 2, byte 1 of the line is 0xff"),
  ],
)
def test_malformed_pairs_name_file_line_and_rule(tmp_path, text, message):
  path = _write(tmp_path / "bad.tsv", text)
  with pytest.raises(UserError, match=f"bad.tsv.*{message}"):
    nli.read_file(path)


# Splits


def _ner_files(tmp_path, **numbers):
  for name, number in numbers.items():
    text = "".join(f"{name}{i}\tO\n\n" for i in range(number))
    _write(tmp_path / "ner" / "sw" / f"{name}.tsv", text)
  return str(tmp_path)


def test_dev_is_split_in_two_where_no_test_exists(tmp_path):
  folder = _ner_files(tmp_path, dev=11)
  (dev, dev_report), (test, test_report) = (
    _load("ner", "sw", split, tasks_dir=folder) for split in ("dev", "test")
  )
  words = [[e.words for e in examples] for examples in (dev, test)]
  assert sorted(map(len, words)) == [5, 6]
  assert len({*words[0], *words[1]}) == 11
  assert dev_report == test_report == {"dev split in two for lack of a test set": 11}
  again, _ = _load("ner", "sw", "test", tasks_dir=folder)
  assert again == test
  whole, report = _load("ner", "sw", "test", tasks_dir=folder, selects=False)  # zero-shot
  assert sorted(e.words for e in whole) == sorted([*words[0], *words[1]])
  assert report == {"tested on dev for lack of a test set": 11}
  assert loading.available(folder, TASKS["ner"]) == {"sw": ("dev",)}


def test_dev_stays_whole_where_a_test_set_exists(tmp_path):
  folder = _ner_files(tmp_path, dev=3, test=2, train=1)
  sizes = [len(_load("ner", "sw", s, tasks_dir=folder)[0]) for s in SPLITS]
  assert sizes == [1, 3, 2]
  assert loading.available(folder, TASKS["ner"]) == {"sw": ("train", "dev", "test")}
  assert loading.available(folder, TASKS["qa"]) == {}


def test_a_group_stays_on_one_side():
  examples = [(group, i) for i in range(5) for group in "abcdefghijklmnopqrst"]
  dev, test = loading.halves(examples, lambda example: example[0])
  assert not {g for g, _ in dev} & {g for g, _ in test}
  assert abs(len(dev) - len(test)) <= 5
  assert dev == [e for e in examples if e in dev]  # in file order
  other, _ = loading.halves(examples, lambda example: example[0], seed=1)
  assert other != dev


def test_a_folder_of_labelled_data_that_does_not_exist_is_named(tmp_path):
  with pytest.raises(UserError, match=r"tasks_dir is '.*nope', which is no folder \(looked from"):
    _load("ner", "sw", "train", tasks_dir=str(tmp_path / "nope"))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("ner", "sw", "train"), r"No train data.*'sw'.*ner/sw/train.tsv \(or .conll, .*sw: dev"),
    (("qa", "sw", "dev"), r"nothing for this task"),
    (("ner", "sw", "valid"), r"split is 'valid'.*train, dev, test"),
  ],
)
def test_what_is_not_there_is_named(tmp_path, arguments, message):
  folder = _ner_files(tmp_path, dev=4)
  with pytest.raises(UserError, match=message):
    _load(*arguments, tasks_dir=folder)


# TensorFlow Datasets


# Rows as the builders store them; the features are those of the real builders.
_WORDS = ["du", "de", "le", "ghost", "pain"]
_FIVE = dict.fromkeys(("lemmas", "xpos", "feats", "deprel", "deps", "misc"), ["_"] * 5)
_TREE = {
  **_FIVE, "idx": "1", "text": "du pain", "tokens": _WORDS, "head": ["None", "3", "3", "None", "0"],
  "upos": ["_", "ADP", "DET", "VERB", "NOUN"],
}  # fmt: skip
_QUESTIONS = [
  {
    "id": f"{name}-{i}", "title": "t", "context": f"Paris is in France{i}.", "question": "Where?",
    "answers": {"text": ["France"], "answer_start": [0]},
  }
  for i in range(3) for name in ("arabic", "english")
]  # fmt: skip
_LANGUAGES = [
  "ar",
  "bg",
  "de",
  "el",
  "en",
  "es",
  "fr",
  "hi",
  "ru",
  "sw",
  "th",
  "tr",
  "ur",
  "vi",
  "zh",
]
_TRANSLATIONS = {
  "premise": {name: f"a {name}" for name in _LANGUAGES}, "hypothesis": {"en": "b en", "ar": "b ar"},
  "label": "contradiction",
}  # fmt: skip
_ROWS = {
  "wikiann/ar": {
    split: [{"tokens": ["م", "b"], "tags": ["I-PER", "I-PER"], "langs": ["ar"] * 2, "spans": []}]
    for split in ("train", "validation", "test")
  },
  "universal_dependencies/fr_gsd": {"train": [_TREE], "test": [_TREE] * 2},
  "tydi_qa/goldp": {"train": _QUESTIONS, "validation": _QUESTIONS},
  "xnli": {"validation": [_TRANSLATIONS], "test": [_TRANSLATIONS]},
}


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
  """Small prepared data under the names, versions and features of the real builders."""
  folder = str(tmp_path_factory.mktemp("tfds"))
  for name, rows in _ROWS.items():
    _prepare(folder, name, rows)
  return folder


def _prepare(folder, full_name, rows):
  import tensorflow_datasets as tfds

  real = find_builder(full_name, folder, otherwise="", file_format="array_record")
  with tfds.core.registered.skip_registration():

    class Small(tfds.core.GeneratorBasedBuilder):
      """Stands in for the real builder, without its downloads."""

      name = real.name
      VERSION = real.version
      BUILDER_CONFIGS = [real.builder_config] if real.builder_config else []
      code_path = None

      def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=real.info.features)

      def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in rows}

      def _generate_examples(self, split):
        yield from enumerate(rows[split])

  config = real.builder_config.name if real.builder_config else None
  Small(config=config, data_dir=folder, file_format="array_record").download_and_prepare()


def test_wikiann_of_tfds(tfds_dir):
  examples, report = _load("ner", "ar", "dev", tfds="wikiann/{language}", tfds_dir=tfds_dir)
  assert examples == [TaggedSentence(("م", "b"), ("B-PER", "I-PER"))]
  assert report == {"IOB1 tags brought to IOB2": 1}


def test_universal_dependencies_of_tfds_keeps_multiword_tokens_apart(tfds_dir):
  name = "universal_dependencies/fr_gsd"
  examples, report = _load("pos", "fr", "train", tfds=name, tfds_dir=tfds_dir)
  assert examples == [TaggedSentence(("de", "le", "pain"), ("ADP", "DET", "NOUN"))]
  assert report == {"multiword tokens kept apart": 1, "empty nodes skipped": 1}
  examples, report = _load("pos", "fr", "test", tfds=f"{name}+{name}", tfds_dir=tfds_dir)
  assert len(examples) == report["empty nodes skipped"] == 4


def test_tydi_of_tfds_keeps_the_language_and_halves_dev(tfds_dir):
  def load(split):
    return _load("qa", "ar", split, tfds="tydi_qa/goldp", tfds_dir=tfds_dir)

  examples, report = load("train")
  assert sorted(e.id for e in examples) == ["arabic-0", "arabic-1", "arabic-2"]
  assert {e.answers for e in examples} == {(("France", 12),)}
  assert report == {"answers realigned": 3}
  (dev, dev_report), (test, _) = load("dev"), load("test")
  assert {e.id for e in dev} ^ {e.id for e in test} == {e.id for e in examples}
  assert dev_report["dev split in two for lack of a test set"] == 3
  whole, _ = _load("qa", "ar", "test", selects=False, tfds="tydi_qa/goldp", tfds_dir=tfds_dir)
  assert {e.id for e in whole} == {e.id for e in examples}
  with pytest.raises(UserError, match="no train example for task 'qa' in language 'sw'"):
    _load("qa", "sw", "train", tfds="tydi_qa/goldp", tfds_dir=tfds_dir)


def test_xnli_of_tfds_picks_the_language(tfds_dir):
  examples, report = _load("nli", "ar", "test", tfds="xnli", tfds_dir=tfds_dir)
  assert (examples, report) == ([Pair("a ar", "b ar", "contradiction")], {})


@pytest.mark.parametrize(
  ("task", "language", "split", "builder", "message"),
  [
    ("nli", "en", "train", "xnli", "no split 'train'.*validation"),
    ("nli", "sw", "test", "xnli", "no language 'sw'.*ar, en"),
    ("ner", "ar", "dev", "tydi_qa/goldp", "lacks the feature 'tokens'"),
    ("ner", "ar", "dev", "no_such_builder", "no builder 'no_such_builder'"),
    ("ner", "ar", "dev", "wikiann/zzz", "no builder 'wikiann/zzz'"),
  ],
)
def test_what_tfds_lacks_is_named(tfds_dir, task, language, split, builder, message):
  with pytest.raises(UserError, match=f"(?s){message}"):
    _load(task, language, split, tfds=builder, tfds_dir=tfds_dir)


@pytest.mark.parametrize(
  ("error", "message"),
  [
    (ModuleNotFoundError("No module", name="tensorflow"), "needs the package 'tensorflow'"),
    (OSError("no network"), "could not prepare.*OSError: no network"),
  ],
)
def test_data_that_cannot_be_prepared_says_what_to_do(tmp_path, monkeypatch, error, message):
  import tensorflow_datasets as tfds

  def fail(*_, **__):
    raise error

  monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
  with pytest.raises(UserError, match=f"{message}.*tasks_dir"):
    _load("nli", "en", "dev", tfds="xnli", tfds_dir=str(tmp_path))
