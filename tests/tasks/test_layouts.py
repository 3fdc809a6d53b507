"""The layouts that the files of the field have: columns, tables, JSON, and where they lie."""

import bz2
import csv
import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest

from negint.errors import UserError
from negint.tasks import loading, ner, nli, pos, squad
from negint.tasks.examples import Pair, Question, TaggedSentence
from negint.tasks.loading import SourceOptions
from negint.tasks.table import TASKS
from negint.tasks.task import Reading

TWO = [
  TaggedSentence(("Karim", "left", "New", "Aden"), ("B-PER", "O", "B-LOC", "I-LOC")),
  TaggedSentence(("#", "Salma"), ("O", "B-PER")),
]
PAIRS = [Pair("a b", "c", "entailment"), Pair('He said "x', "d", "neutral")]


def _write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding="utf-8")
  return path


def _lines(line, numbers=False):
  """A file of TWO: `line` makes a line of (number, word, tag)."""
  return "\n".join(
    "".join(line(i, *pair) + "\n" for i, pair in enumerate(zip(s.words, s.tags, strict=True), 1))
    for s in TWO
  )


@pytest.mark.parametrize(
  "text",
  [
    _lines(lambda i, word, tag: f"{word}\t{tag}"),
    _lines(lambda i, word, tag: f"{word} NN I-NP {tag}"),  # CoNLL-2003
    "-DOCSTART- -X- -X- O\n\n" + _lines(lambda i, word, tag: f"{word} NN I-NP {tag}"),
    "-DOCSTART-\tO\n\n" + _lines(lambda i, word, tag: f"{word}\t{tag}"),
    "token\tner_tag\n" + _lines(lambda i, word, tag: f"{word}\t{tag}"),
    "Token\tNER\tPOS\n" + _lines(lambda i, word, tag: f"{word}\t{tag}\tNN"),
    "# sent_id = 1\n" + _lines(lambda i, word, tag: f"{word}\t{tag}"),
    "# newdoc\n" + _lines(lambda i, word, tag: f"{word}\t{tag}"),
    "# id 7\tdomain=en\n" + _lines(lambda i, word, tag: f"{word} _ _ {tag}"),  # MultiCoNER
    "#\thttp://a [2009]\n" + _lines(lambda i, word, tag: f"{i}\t{word}\t{tag}\tO"),  # GermEval
    "# sent_id = 1\n" + _lines(lambda i, word, tag: f"{i}\t{word}\t{tag}\t-\tme"),  # UNER
    _lines(lambda i, word, tag: f"{word}\t{tag}\t"),  # a tab at the end of each line
    _lines(lambda i, word, tag: f"en:{word}\t{tag}"),
    _lines(lambda i, word, tag: f"{'en' if i % 2 else 'zh-classical'}:{word}\t{tag}"),
  ],
)
def test_columns(tmp_path, text):
  examples, _ = ner.read_file(_write(tmp_path / "a.txt", text))
  assert examples == TWO


def _numbered(sentences, first=1):
  """Lines (number, word, tag) per sentence, which a test then makes irregular."""
  return [
    [[str(first + i), f"w{s}.{i}", "B-PER" if i == s % 3 else "O"] for i in range(4)]
    for s in range(sentences)
  ]


def _read_numbered(tmp_path, sentences, between="\n", tail=""):
  lines = ["".join("\t".join(row) + f"{tail}\n" for row in rows) for rows in sentences]
  return ner.read_file(_write(tmp_path / "a.tsv", between.join(lines)))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("tail", ["", "\t-\tme"])  # UNER's columns after the tag
def test_irregular_numbers_of_words_are_never_the_words(tmp_path, first, tail):
  regular, report = _read_numbered(tmp_path, _numbered(20, first), tail=tail)
  assert not report
  assert regular[0] == TaggedSentence(("w0.0", "w0.1", "w0.2", "w0.3"), ("B-PER", "O", "O", "O"))
  joined, report = _read_numbered(tmp_path, _numbered(20, first), between="", tail=tail)
  assert joined == regular
  assert report == {"sentences that begin without a blank line": 19}
  short = [*_numbered(19, first), [[str(first), "alone", "O"]], *_numbered(1, first)]
  examples, report = _read_numbered(tmp_path, short, between="", tail=tail)
  assert examples[:19] == regular[:19] and examples[19].words == ("alone",)
  assert report == {"sentences that begin without a blank line": 20}
  irregular = _numbered(20, first)
  irregular[0][3][0] = "9"  # a number is skipped
  irregular[3].insert(1, [f"{first}.1", "empty", "_"])
  irregular[3].insert(0, [f"{first}-{first + 1}", "both", "_"])
  examples, report = _read_numbered(tmp_path, irregular, tail=tail)
  assert examples == regular
  assert report == {
    "words whose number does not follow that of the word before": 1,
    "multiword tokens kept apart": 1,
    "empty nodes skipped": 1,
  }
  irregular = _numbered(60, first)
  irregular[5][0][0], irregular[5][2][0] = "7", "x"
  examples, report = _read_numbered(tmp_path, irregular, tail=tail)
  assert examples[:20] == regular
  assert report["words without a number"] == 1
  assert report["words whose number does not follow that of the word before"] == 3


@pytest.mark.parametrize(
  ("numbers", "line"),
  [
    ("1 1 1 1\n2 2 2 2\n3 3 3 3", 2),  # of the sentence
    ("1 1 1 1", 2),
    ("1 2 3 4\n5 6 7 8\n9 10 11 12", 6),  # of the word in the file
    ("7 8 9 10\n7 8 9 10", 1),
    ("1 2 3 4\n1 3 2 4", 8),
  ],
)
def test_a_column_of_other_numbers_is_refused_unless_it_is_named(tmp_path, numbers, line):
  rows = _numbered(len(numbers.split("\n")))
  for row, number in zip(sum(rows, []), numbers.split(), strict=True):
    row[0] = number
  with pytest.raises(UserError, match=rf"a.tsv, line {line}: the first column has numbers, but"):
    _read_numbered(tmp_path, rows)
  named = _read_numbered(tmp_path, [[["id", "word", "tag"]], *rows])[0]
  assert [each.words for each in named] == [tuple(word for _, word, _ in each) for each in rows]


def test_words_that_are_numbers_stay_words(tmp_path):
  text = "1 CD B-X\n3.5 CD O\nmen NN O\n2 CD O\n"
  assert ner.read_file(_write(tmp_path / "a.tsv", text))[0][0].words == ("1", "3.5", "men", "2")


def test_words_that_begin_with_a_hash_are_no_comments(tmp_path):
  text = "# newpar\nwin\tVERB\n#goal\tX\n#\tSYM\n"
  (sentence,), _ = pos.read_file(_write(tmp_path / "a.tsv", text))
  assert sentence.words == ("win", "#goal", "#")
  (sentence,), _ = pos.read_file(_write(tmp_path / "b.tsv", "# newpar\nwin X\n#goal X\n"))
  assert sentence.words == ("win", "#goal")


def test_exceptions_from_the_language_prefix_are_counted(tmp_path):
  words = [f"{'ar' if i % 2 else 'en'}:w{i}" for i in range(197)]
  others = ["bare", "http://a", "ru:once"]  # no language of this file
  text = "".join(f"{word}\tO\n" for word in words + others)
  examples, report = ner.read_file(_write(tmp_path / "a.tsv", text))
  assert examples[0].words == (*(f"w{i}" for i in range(197)), *others)
  assert report == {
    "language prefixes removed": 197,
    "words without the language prefix of the others": 3,
  }
  text = "".join(f"{word}\tO\n" for word in words + ["bare"] * 100)
  examples, report = ner.read_file(_write(tmp_path / "b.tsv", text))
  assert examples[0].words[0] == "en:w0"
  assert report == {"words that begin like 'xx:word', kept as they are": 197}


def test_columns_in_csv(tmp_path):
  text = 'Sentence #,Word,POS,Tag\nSentence: 1,"a, b",NN,B-PER\n,c,NN,O\nSentence: 2,d,NN,O\n'
  examples, _ = ner.read_file(_write(tmp_path / "a.csv", text))
  assert examples == [TaggedSentence(("a, b", "c"), ("B-PER", "O")), TaggedSentence(("d",), ("O",))]
  examples, _ = pos.read_file(tmp_path / "a.csv")
  assert [e.tags for e in examples] == [("NN", "NN"), ("NN",)]


def test_a_header_of_another_width_is_named(tmp_path):
  path = _write(tmp_path / "a.tsv", "id\ttoken\ttag\na\tO\nb\tO\n")
  with pytest.raises(UserError, match=r"a.tsv, line 1: 3 column\(s\).*The header must name"):
    ner.read_file(path)


def test_csv_without_header_has_a_blank_line_after_each_sentence(tmp_path):
  text = 'Karim,B-PER\nleft,O\n"a,b",O\n\n,\nSalma,B-PER\n'
  examples, _ = ner.read_file(_write(tmp_path / "a.csv", text))
  assert [e.words for e in examples] == [("Karim", "left", "a,b"), ("Salma",)]


def test_quotation_marks_are_words_unless_the_whole_file_is_quoted(tmp_path):
  text = '"\tO\nhi\tO\n"\tO\n""\tO\n\n"a\tO\n'
  examples, report = ner.read_file(_write(tmp_path / "a.tsv", text))
  assert [e.words for e in examples] == [('"', "hi", '"', '""'), ('"a',)]
  assert report == {}
  examples, report = ner.read_file(_write(tmp_path / "b.tsv", '""""\tO\nhi\tO\n\n"""a"\tO\n'))
  assert [e.words for e in examples] == [('"', "hi"), ('"a',)]
  assert report == {"lines with csv quotes, which are undone": 2}


def test_the_column_of_the_tags_can_be_named(tmp_path):
  path = _write(tmp_path / "a.txt", _lines(lambda i, word, tag: f"{word} {tag} NN"))
  with pytest.raises(UserError, match=r"a.txt, line 1: unknown tag 'NN'"):
    ner.read_file(path)
  assert ner.read_file(path, Reading(tag_column="2"))[0] == TWO
  named = _write(tmp_path / "b.txt", "word tag pos\n" + path.read_text())
  assert pos.read_file(named, Reading(tag_column="pos"))[0][0].tags == ("NN",) * 4
  for chosen, words in (("7", "3 columns and no header"), ("tag", "Give a number from 1 to 3")):
    with pytest.raises(UserError, match=words):
      ner.read_file(path, Reading(tag_column=chosen))


def test_own_tags_of_conllu(tmp_path):
  rows = "# text = x\n" + "\n".join(
    f"{i}\t{form}\t_\tNOUN\t{xpos}\t_\t0\t_\t_\t_" for i, form, xpos in ((1, "a", "NN1"), (2, "b", "JJ"))
  )  # fmt: skip
  for ending in ("conllu", "conll", "tsv"):
    path = _write(tmp_path / f"a.{ending}", rows)
    assert pos.read_file(path)[0][0].tags == ("NOUN", "NOUN")
    assert pos.read_file(path, Reading(tag_column="xpos"))[0][0].tags == ("NN1", "JJ")
    assert pos.read_file(path, Reading(tag_column="5"))[0][0].tags == ("NN1", "JJ")
  with pytest.raises(UserError, match="data.tag_column is 'x'; CoNLL-U has the columns id, form"):
    pos.read_file(tmp_path / "a.conllu", Reading(tag_column="x"))


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_tagged_words_in_json(tmp_path, ending):
  def write(field, tags_of):
    rows = [{"id": "0", "tokens": list(s.words), field: tags_of(s)} for s in TWO]
    text = json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows))
    return _write(tmp_path / f"a.{ending}", text)

  assert ner.read_file(write("ner_tags", lambda s: list(s.tags)))[0] == TWO
  assert ner.read_file(write("mine", lambda s: list(s.tags)), Reading(tag_column="mine"))[0] == TWO
  numbers = write("tags", lambda s: [ner.LABELS.index(tag) for tag in s.tags])
  assert ner.read_file(numbers, Reading(names=ner.LABELS))[0] == TWO
  with pytest.raises(
    UserError, match=r"a.json.*the label 1 is a number, and data.labels names none"
  ):
    ner.read_file(numbers)
  with pytest.raises(UserError, match="it has the fields id, tokens, mine"):
    ner.read_file(write("mine", lambda s: list(s.tags)))


@pytest.mark.parametrize("name", ["a.json", "a.parquet"])
@pytest.mark.parametrize("no_head", ["None", "_", None])
def test_tokens_without_a_head_are_no_words(tmp_path, name, no_head):
  row = {
    "tokens": ["du", "de", "le", "pain", "mange"],
    "upos": ["_", "ADP", "DET", "NOUN", "VERB"],
    "head": [no_head, "4", "4", "0", no_head],
  }
  expected = [TaggedSentence(("de", "le", "pain"), ("ADP", "DET", "NOUN"))]

  def read(row, labelled=True):
    path = tmp_path / name
    _write_table(path, [row]) if name == "a.parquet" else _write(path, json.dumps([row]))
    return pos.read_file(path, Reading(labelled=labelled))

  assert read(row) == (expected, {"multiword tokens kept apart": 1, "empty nodes skipped": 1})
  assert read(row, labelled=False)[0][0].words == expected[0].words
  for heads in ([no_head] * 5, ["2", "0", "2", "2", "2"]):  # no tree; all are words
    assert read({**row, "head": heads})[0][0].words == ("de", "le", "pain", "mange")
  assert read({**row, "head": [no_head]})[0][0].words == ("de", "le", "pain", "mange")


@pytest.mark.parametrize(
  "text",
  [
    "language\tgold_label\tx\tsentence1\tsentence2\tmatch\n"
    "ar\tentailment\t\ta b\tc\tTrue\nen\tneutral\t\tz\tz\tTrue\nar\tneutral\t\tHe said \"x\td\tTrue\n",
    "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"  # SICK
    "1\ta b\tc\t4.5\tENTAILMENT\n2\tHe said \"x\td\t3.6\tNEUTRAL\n",
    "premise\thypothesis\tlabel\na b\tc\tentailment\npremise\thypothesis\tlabel\nHe said \"x\td\tneutral\n",
  ],
)  # fmt: skip
def test_pairs_by_the_names_of_columns(tmp_path, text):
  assert nli.read_file(_write(tmp_path / "a.tsv", text), Reading("ar"))[0] == PAIRS


def test_a_language_that_the_file_lacks_is_named(tmp_path):
  path = _write(tmp_path / "a.tsv", "language\tpremise\thypothesis\tlabel\nen\ta\tb\tneutral\n")
  with pytest.raises(UserError, match="a.tsv has no pair in language 'sw'. It has en"):
    nli.read_file(path, Reading("sw"))


@pytest.mark.parametrize("written", ["pt-BR", "pt_br", "pt-br"])
def test_a_column_writes_the_language_with_a_hyphen_or_capitals(tmp_path, written):
  text = f"language\tpremise\thypothesis\tlabel\n{written}\ta\tb\tneutral\npt\tc\td\tneutral\n"
  examples, report = nli.read_file(_write(tmp_path / "a.tsv", text), Reading("pt_br"))
  assert examples == [Pair("a", "b", "neutral")] and sum(report.values()) == 1


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_pairs_as_a_csv_writer_quotes_them(tmp_path, name, quoting):
  with open(tmp_path / name, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file, delimiter="," if name == "a.csv" else "\t", quoting=quoting)
    writer.writerows([["premise", "hypothesis", "label"]] * (name == "a.csv"))
    writer.writerows([[pair.premise, pair.hypothesis, pair.label] for pair in PAIRS])
  assert nli.read_file(tmp_path / name)[0] == PAIRS


def test_quotes_stay_where_one_line_is_not_quoted_so(tmp_path):
  text = '"a ""b"""\tc\tneutral\n"d" e\tf\tneutral\n'
  examples, report = nli.read_file(_write(tmp_path / "a.tsv", text))
  assert [pair.premise for pair in examples] == ['"a ""b"""', '"d" e']
  assert report == {}


def test_lines_may_lack_their_last_columns_but_none_that_is_read(tmp_path):
  header = "gold_label\tsentence1\tsentence2\tlabel1\tlabel2\n"
  path = _write(tmp_path / "a.txt", header + 'entailment\ta b\tc\nneutral\tHe said "x\td\tx\n')
  assert nli.read_file(path)[0] == PAIRS
  for line, number in (("neutral\ta", 2), ("neutral\ta\tb\tc\td\te", 6)):
    path = _write(tmp_path / "b.txt", f"{header}neutral\ta\tb\n{line}\n")
    with pytest.raises(UserError, match=rf"b.txt, line 3: {number} column\(s\).*5 are expected"):
      nli.read_file(path)


def test_two_way_labels_and_missing_ones(tmp_path):
  path = _write(tmp_path / "a.tsv", "a\tb\tnot_entailment\na\tc\tentailment\na\td\thidden\n")
  examples, report = nli.read_file(path)
  assert [pair.label for pair in examples] == ["not_entailment", "entailment"]
  assert report == {"pairs without a gold label dropped": 1}
  path = _write(tmp_path / "b.tsv", "a\tb\t-\na\tc\t-\n")
  with pytest.raises(UserError, match=r"b.tsv: none of its 2 pairs has a gold label"):
    nli.read_file(path)


def test_numbered_labels_of_files_of_columns_need_names(tmp_path):
  path = _write(tmp_path / "nli" / "en" / "test.tsv", 'a b\tc\t0\nHe said "x\td\t1\n')
  with pytest.raises(
    UserError, match="test.tsv, line 1: the label 0 is a number, and data.labels n"
  ):
    nli.read_file(path)

  def labels_by(choice):
    source = SourceOptions(tasks_dir=str(tmp_path), labels=choice)
    return [pair.label for pair in loading.load(TASKS["nli"], source, None, "en", "test")[0]]

  assert labels_by("Entailment,Contradictory") == ["entailment", "contradiction"]
  assert labels_by("0=no,1=Yes") == ["no", "yes"]
  assert labels_by("0,1") == ["0", "1"]
  info = {"features": {"label": {"names": ["neutral", "Entailment"]}}}
  _write(path.parent / "dataset_info.json", json.dumps(info))
  assert labels_by("") == ["neutral", "entailment"]


def test_names_of_numbers_stand_beside_the_file(tmp_path):
  names = ["entailment", "not_entailment"]
  info = {"features": {"label": {"names": names}, "tags": {"feature": {"names": ["O", "B-X"]}}}}
  _write(tmp_path / "dataset_info.json", json.dumps(info))
  row = {"premise": "a", "hypothesis": "b", "label": 1, "tokens": ["a", "b"], "tags": [0, 1]}
  path = _write(tmp_path / "a.jsonl", json.dumps(row))
  assert nli.read_file(path)[0] == [Pair("a", "b", "not_entailment")]
  assert ner.read_file(path)[0] == [TaggedSentence(("a", "b"), ("O", "B-X"))]


def test_translations_of_xnli_in_json(tmp_path):
  row = {
    "premise": {"en": "a", "sw": "b"}, "label": "neutral",
    "hypothesis": {"language": ["en", "sw"], "translation": ["c", "d"]},
  }  # fmt: skip
  path = _write(tmp_path / "a.json", json.dumps([row]))
  assert nli.read_file(path, Reading("sw"))[0] == [Pair("b", "d", "neutral")]
  with pytest.raises(UserError, match=r"a.json, \[0\] has no language 'fr'. It has en, sw"):
    nli.read_file(path, Reading("fr"))


@pytest.mark.parametrize(
  "place", ["ner/ar/test.parquet.7z", "panx/ar/test-00000-of-00001.7z", "panx/test-ar.7z"]
)
def test_an_archive_is_named(tmp_path, place):
  path = _write(tmp_path / place, "7z\xbc\xaf\x27\x1c")
  path.write_bytes(b"7z\xbc\xaf\x27\x1c")
  with pytest.raises(UserError, match=r"7z is a 7z archive, .*First run: 7z x /"):
    loading.load(TASKS["ner"], SourceOptions(tasks_dir=str(tmp_path)), None, "ar", "test")
  path.write_text("x")
  with pytest.raises(UserError, match="No test data for task 'ner'"):
    loading.load(TASKS["ner"], SourceOptions(tasks_dir=str(tmp_path)), None, "ar", "test")


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_pairs_in_json(tmp_path, ending):
  def write(first, second, label, values):
    rows = [
      {first: pair.premise, second: pair.hypothesis, label: value}
      for pair, value in zip(PAIRS, values, strict=True)
    ]
    text = json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows))
    return _write(tmp_path / f"a.{ending}", text)

  named = ("entailment", "neutral")
  assert nli.read_file(write("sentence1", "sentence2", "gold_label", named))[0] == PAIRS
  numbers = write("premise", "hypothesis", "label", (0, 1))
  assert nli.read_file(numbers, Reading(names=nli.LABELS))[0] == PAIRS
  with pytest.raises(UserError, match="the label 0 is a number"):
    nli.read_file(numbers)
  table = _write(tmp_path / "b.tsv", 'a b\tc\t0\nHe said "x\td\t1\na\tb\t-1\n')
  assert nli.read_file(table, Reading(names=nli.LABELS))[0] == PAIRS
  examples, report = nli.read_file(write("premise", "hypothesis", "label", (-1, "neutral")))
  assert (len(examples), report) == (1, {"pairs without a gold label dropped": 1})
  with pytest.raises(UserError, match=r"it has the fields premise, text, label and none of hypo"):
    nli.read_file(write("premise", "text", "label", named))


# Tables


def _write_table(path, rows, features=None):
  """Writes parquet, a stream or a file of Arrow, as the package datasets does."""
  path.parent.mkdir(parents=True, exist_ok=True)
  table = pyarrow.Table.from_pylist(rows)
  said = json.dumps({"info": {"features": features}}) if features else "{}"
  table = table.replace_schema_metadata({"huggingface": said})
  if path.suffix == ".parquet":
    pyarrow.parquet.write_table(table, path, row_group_size=3)
  else:
    kind = pyarrow.ipc.new_stream if path.stem.startswith("data") else pyarrow.ipc.new_file
    with kind(str(path), table.schema) as writer:
      writer.write_table(table, max_chunksize=3)
  return path


TABLES = ["a.parquet", "data.arrow", "file.arrow"]
NUMBERED_TAGS = {"feature": {"names": ["O", "B-PER", "B-LOC", "I-LOC"], "_type": "ClassLabel"}}


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_their_own_names_of_numbers(tmp_path, name):
  numbers = NUMBERED_TAGS["feature"]["names"]
  rows = [{"tokens": s.words, "ner_tags": [numbers.index(tag) for tag in s.tags]} for s in TWO * 4]
  path = _write_table(tmp_path / name, rows, {"ner_tags": NUMBERED_TAGS})
  assert ner.read_file(path) == (TWO * 4, {})
  plain = ner.read_file(path, Reading(labelled=False))[0]
  assert [each.words for each in plain] == [each.words for each in TWO * 4]
  unnamed = _write_table(tmp_path / f"other_{name}", rows)
  with pytest.raises(
    UserError, match=r"\[0\]: the label 1 is a number, and data.labels names none"
  ):
    ner.read_file(unnamed)
  info = {"features": {"ner_tags": NUMBERED_TAGS}}
  _write(tmp_path / "dataset_info.json", json.dumps(info))
  assert ner.read_file(unnamed)[0] == TWO * 4


@pytest.mark.parametrize("name", TABLES)
def test_a_table_gives_what_the_same_json_gives(tmp_path, name):
  def both(read, rows):
    path = _write_table(tmp_path / name, rows)
    lines = _write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    found, expected = read(path)[0], read(lines)[0]
    assert found == expected
    return found

  pairs = [{"premise": p.premise, "hypothesis": p.hypothesis, "label": p.label} for p in PAIRS]
  assert both(nli.read_file, pairs) == PAIRS
  words = [{"tokens": ["x", "y"], "upos": ["NOUN", "VERB"]}]
  assert both(pos.read_file, words) == [TaggedSentence(("x", "y"), ("NOUN", "VERB"))]
  answers = {"text": ["b"], "answer_start": [2]}
  question = {"id": "1", "context": "a b", "question": "c", "answers": answers}
  assert both(squad.read_file, [question]) == [Question("1", "a b", "c", (("b", 2),))]


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_is_named(tmp_path, name):
  path = _write_table(tmp_path / name, [{"tokens": ["a"] * 99, "ner_tags": ["O"] * 99}] * 9)
  path.write_bytes(path.read_bytes()[:-30])
  with pytest.raises(UserError, match=f"{name} is cut off or damaged .*download it again"):
    ner.read_file(path)


def test_a_pointer_of_git_lfs_with_a_tables_name_is_named(tmp_path):
  path = _write(tmp_path / "a.parquet", "version https://git-lfs.github.com/spec/v1\noid x\n")
  with pytest.raises(UserError, match=r"a.parquet is a pointer of Git LFS.*git lfs pull"):
    ner.read_file(path)


@pytest.mark.parametrize(
  "places",
  [
    ["ner/ar/test-00000-of-00002.parquet", "ner/ar/test-00001-of-00002.parquet"],  # the Hub
    ["panx/ar/test.parquet"],
    ["ner/ar/test/0000.parquet", "ner/ar/test/0001.parquet"],  # the Hub's own conversion
    ["ner/ar/test/data-00000-of-00002.arrow", "ner/ar/test/data-00001-of-00002.arrow"],  # to disk
  ],
)
def test_the_parts_of_a_split_are_read_one_after_the_other(tmp_path, places):
  for part, place in enumerate(places):
    _write_table(tmp_path / place, [{"tokens": [f"w{part}"], "ner_tags": ["O"]}])
    _write((tmp_path / place).parent / "state.json", "{}")  # of the package datasets
  source = SourceOptions(tasks_dir=str(tmp_path))
  examples, _ = loading.load(TASKS["ner"], source, None, "ar", "test")
  assert [each.words for each in examples] == [(f"w{part}",) for part in range(len(places))]
  assert loading.available(str(tmp_path), TASKS["ner"]) == {"ar": ("test",)}


# Where files lie

FILES = {
  "ner/ar/train.tsv": ("ner", "train"),
  "ner/ar/validation.conll": ("ner", "dev"),
  "panx/test-ar.tsv": ("ner", "test"),
  "pos/ar/valid.jsonl": ("pos", "dev"),
  "udpos/train-ar.tsv": ("pos", "train"),
  "tydiqa/tydiqa-goldp-v1.1-train/tydiqa.goldp.ar.train.json": ("qa", "train"),
  "tydiqa/tydiqa-goldp-v1.1-dev/tydiqa-goldp-dev-arabic.json": ("qa", "dev"),
  "xnli/dev-ar.tsv": ("nli", "dev"),
  "nli/XNLI-1.0/xnli.test.tsv": ("nli", "test"),
  "ner/ar/test": ("ner", "test"),
}


@pytest.mark.parametrize("place", FILES)
def test_files_are_found_where_people_put_them(tmp_path, place):
  task, split = FILES[place]
  path = _write(tmp_path / place, "x")
  assert loading.paths_of(str(tmp_path), TASKS[task], "ar", split) == [str(path)]
  other = "train" if split != "train" else "dev"
  assert loading.paths_of(str(tmp_path), TASKS[task], "ar", other) == []
  if "xnli.test" not in place:
    assert loading.paths_of(str(tmp_path), TASKS[task], "fr", split) == []


def test_treebanks_under_their_own_names_are_read_one_after_the_other(tmp_path):
  folder = tmp_path / "my [data]" / "pos" / "fr"  # brackets are no pattern
  for name, word in (("fr_gsd", "un"), ("fr_sequoia", "deux")):
    for split in ("train", "dev", "test"):
      row = "\t".join(["1", f"{word}-{split}", "_", "NUM", *"____0", "_"][:8] + ["_", "_"])
      _write(folder / f"{name}-ud-{split}.conllu", row + "\n\n")
  source = SourceOptions(tasks_dir=str(tmp_path / "my [data]"))
  for split in ("train", "dev", "test"):
    examples, _ = loading.load(TASKS["pos"], source, None, "fr", split)
    assert [each.words for each in examples] == [(f"un-{split}",), (f"deux-{split}",)]
  found = loading.available(source.tasks_dir, TASKS["pos"])
  assert found == {"fr": ("train", "dev", "test")}
  parts = [f"fr_parts-ud-train-{part}.conllu" for part in ("b", "a-2", "a-1")]
  for name in (*parts, "fr_gsd-ud-training.conllu", "fr_gsd-ud-train.txt"):  # the last two: neither
    _write(folder / name, (folder / "fr_gsd-ud-train.conllu").read_text())
  packed = folder / "fr_zip-ud-train.conllu.gz"
  for name in (packed, folder / f"{parts[0]}.gz"):  # the same part twice is read once
    name.write_bytes(gzip.compress((folder / parts[0]).read_bytes()))
  paths = loading.paths_of(source.tasks_dir, TASKS["pos"], "fr", "train")
  whole = ["fr_gsd-ud-train.conllu", *sorted(parts), "fr_sequoia-ud-train.conllu", packed.name]
  assert [path.rpartition("/")[2] for path in paths] == whole
  _write(folder / "train.tsv", "trois\tNUM\n")
  (example,), _ = loading.load(TASKS["pos"], source, None, "fr", "train")
  assert example.words == ("trois",), "a file of the split's name comes first"


def test_a_hyphen_in_a_folders_language_is_read_as_an_underscore(tmp_path):
  for code in ("sr_Latn", "pt-br", "README"):
    _write(tmp_path / "ner" / code / "test.tsv", "x\tO\n")
  there = loading.available(str(tmp_path), TASKS["ner"])
  assert there == {"pt_br": ("test",), "sr_Latn": ("test",)}
  for code in there:
    source = SourceOptions(tasks_dir=str(tmp_path))
    assert len(loading.load(TASKS["ner"], source, None, code, "test")[0]) == 1


@pytest.mark.parametrize(
  ("ending", "compress"), [("gz", gzip.compress), ("xz", lzma.compress), ("bz2", bz2.compress)]
)
def test_compressed_files_are_read(tmp_path, ending, compress):
  path = _write(tmp_path / "ner" / "ar" / f"test.tsv.{ending}", "")
  path.write_bytes(compress(_lines(lambda i, word, tag: f"{word}\t{tag}").encode()))
  examples, _ = loading.load(
    TASKS["ner"], SourceOptions(tasks_dir=str(tmp_path)), None, "ar", "test"
  )
  assert examples == TWO
  assert loading.available(str(tmp_path), TASKS["ner"]) == {"ar": ("test",)}
