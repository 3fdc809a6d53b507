"""The command line: inputs of all kinds, their order, streams, and files that are whole or not there."""

import csv
import io
import json
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver
from toy import slow

import negint
from negint import predict
from negint.errors import UserError
from negint.tasks.table import TASKS

WORDS = ["kala", "mobo", "tir", "zufa", "dana"]
LINES = [" ".join(WORDS[i % 5] for i in range(n)) for n in (3, 25, 0, 1, 60, 8, 2)]


@pytest.fixture(autouse=True)
def parsed_flags():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(["predict"])


@pytest.fixture
def command(monkeypatch, capsysbinary):
  """(model, inputs as text, **flags) -> the lines on stdout."""

  def run(model, text="", **values):
    monkeypatch.setattr("negint.inference.load.load", lambda path, **chosen: model)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    values = {"run": "a run", "language": "xb", "input": "-", "output": "-", **values}
    with flagsaver.flagsaver(**values):
      predict.check_flags()
      predict.main()
    return capsysbinary.readouterr().out.decode().splitlines()

  return run


def test_masks_of_a_stream_are_filled_in_order(command, model, monkeypatch):
  monkeypatch.setattr(predict, "WINDOW", 3)
  texts = [f"{line} [MASK]" if line else line for line in LINES]
  records = [json.loads(line) for line in command(model, "\n".join(texts), top=2)]
  assert [record["text"] for record in records] == texts
  assert [len(record["masks"]) for record in records] == [int(bool(line)) for line in LINES]
  (expected,) = model.fill_mask([texts[1]], "xb", top=2)[0]
  found = records[1]["masks"][0]
  assert [each["token"] for each in found] == [each.token for each in expected]
  assert found[0]["probability"] == pytest.approx(expected[0].probability, rel=1e-4)
  assert command(model, "") == []
  with pytest.raises(UserError, match=r"stdin, line 2 has no \[MASK\]: 'kala'"):
    command(model, "[MASK]\nkala\n")


def test_texts_are_tagged_in_order_from_lines_and_json(command, by_hand, monkeypatch):
  monkeypatch.setattr(predict, "WINDOW", 3)
  model = by_hand("ner")
  records = [json.loads(line) for line in command(model, "\n".join(LINES) + "\r\n")]
  assert [record["text"] for record in records] == LINES
  expected = model.predict(LINES, "xb")
  assert [record["tags"] for record in records] == [list(each.tags) for each in expected]
  assert records[0]["entities"] == [vars(each) for each in expected[0].entities]
  given = [{"text": LINES[0]}, {"tokens": LINES[0].split()}]
  out = command(model, "\n".join(map(json.dumps, given)) + "\n{kala\n")
  records = [json.loads(line) for line in out]
  assert records[0]["tags"] == records[1]["tags"] == list(expected[0].tags)
  assert records[2]["words"] == ["{", "kala"]


def test_tags_are_written_as_conll(command, by_hand):
  model = by_hand("pos")
  lines = command(model, "kala mobo\n\ntir\n", format="conll")
  (first, _, last) = model.predict(["kala mobo", "", "tir"], "xb")
  assert lines == [
    f"kala\t{first.tags[0]}",
    f"mobo\t{first.tags[1]}",
    "",
    "",
    f"tir\t{last.tags[0]}",
    "",
  ]
  with pytest.raises(UserError, match="--format=conll is for tags of words .*not for task 'nli'"):
    command(by_hand("nli"), "", format="conll")


def test_two_texts_stand_in_columns_or_json(command, by_hand):
  model = by_hand("nli")
  text = (
    'kala\tmobo tir\n\n{"sentence1": "kala", "sentence2": "mobo tir"}\nkala\tmobo tir\tneutral\n'
  )
  records = [json.loads(line) for line in command(model, text)]
  assert len(records) == 3 and records[0] == records[2]
  assert records[0]["label"] == records[1]["label"]
  assert set(records[0]["probabilities"]) == set(model.labels)
  (record,) = map(json.loads, command(by_hand("qa"), f"kala ?\t{LINES[1]}\n"))
  assert LINES[1][record["begin"] : record["end"]] == record["answer"] != ""
  with pytest.raises(
    UserError, match="stdin, line 1 has 0 tabs: 'kala mobo'. Task 'nli' needs two"
  ):
    command(model, "kala mobo\n")
  with pytest.raises(UserError, match="stdin, line 2 has an empty hypothesis"):
    command(model, "kala\tmobo\nkala\t\n")


@pytest.mark.parametrize(
  ("task", "name", "text"),
  [
    ("ner", "a.tsv", "kala\tB-PER\nmobo\tO\n\ntir\tO\n"),
    ("ner", "a.conll", "kala\nmobo\n\ntir\n"),
    ("ner", "a.txt", "-DOCSTART- -X- O O\n\nkala NN I-NP B-PER\nmobo VB O O\n\ntir NN O O\n"),
    ("ner", "a.json", '[{"tokens": ["kala", "mobo"]}, {"tokens": ["tir"], "ner_tags": [0]}]'),
    ("pos", "a.conllu", "\n".join(
      "\t".join(["1" if w == "tir" else str(i), w, *"_" * 8]) + "\n" * (w != "kala")
      for i, w in ((1, "kala"), (2, "mobo"), (1, "tir"))
    )),
    ("pos", "a.tsv", "kala\nmobo\n\ntir\n"),
  ],
)  # fmt: skip
def test_files_of_the_task_need_no_labels(command, by_hand, tmp_path, task, name, text):
  model = by_hand(task)
  (tmp_path / name).write_text(text)
  records = [json.loads(line) for line in command(model, input=str(tmp_path / name))]
  expected = model.predict([["kala", "mobo"], ["tir"]], "xb")
  assert [record["words"] for record in records] == [["kala", "mobo"], ["tir"]]
  assert [record["tags"] for record in records] == [list(each.tags) for each in expected]


def test_files_of_pairs_need_no_labels(command, by_hand, tmp_path):
  qas = [{"id": "q1", "question": "kala ?", "answers": []}, {"id": "q2", "question": "tir ?"}]
  squad = {"data": [{"paragraphs": [{"context": LINES[1], "qas": qas}]}]}
  (tmp_path / "a.json").write_text(json.dumps(squad))
  records = [json.loads(x) for x in command(by_hand("qa"), input=str(tmp_path / "a.json"))]
  assert [record["id"] for record in records] == ["q1", "q2"]
  layouts = {
    "a.tsv": [["kala", "mobo"], ["tir", "zufa"]],
    "b.tsv": [["sentence2", "index", "sentence1"], ["mobo", "1", "kala"], ["zufa", "2", "tir"]],
    "c.csv": [["premise", "hypothesis", "label"], ["kala", "mobo", "-"], ["tir", "zufa", ""]],
  }
  for name, rows in layouts.items():
    with (tmp_path / name).open("w", newline="") as file:
      csv.writer(file, delimiter="," if name == "c.csv" else "\t").writerows(rows)
    records = [json.loads(x) for x in command(by_hand("nli"), input=str(tmp_path / name))]
    pairs = [(record["premise"], record["hypothesis"]) for record in records]
    assert pairs == [("kala", "mobo"), ("tir", "zufa")], name


def test_an_output_file_is_whole_or_not_there(command, by_hand, tmp_path, monkeypatch):
  monkeypatch.setattr(predict, "WINDOW", 2)
  out, model = tmp_path / "out" / "tags.jsonl", by_hand("ner")
  (tmp_path / "in.txt").write_text("kala\nmobo\ntir\n")
  assert command(model, input=str(tmp_path / "in.txt"), output=str(out)) == []
  before = out.read_text()
  assert len(before.splitlines()) == 3
  with pytest.raises(UserError, match="line 4 is .*tagging takes"):
    command(model, 'kala\nmobo\ntir\n{"a": 1}\n', output=str(out))
  assert out.read_text() == before and [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_window_is_written_before_the_next_but_one_is_read(by_hand, monkeypatch):
  """So memory does not grow with the input."""
  read = []

  def endless():
    for number in range(10**9):
      read.append(number)
      yield predict.Input("kala", f"line {number}")

  model = by_hand("ner")
  with flagsaver.flagsaver(format="jsonl", batch_size=8):
    for count, window in enumerate(predict.windows(endless(), 4), start=1):
      assert len(predict.predicted(model, TASKS["ner"], "xb", window)) == 4
      assert len(read) == 4 * count
      if count == 3:
        break


def test_half_a_surrogate_pair_is_replaced(command, by_hand):
  (record,) = map(json.loads, command(by_hand("ner"), '{"text": "kala \\ud83d mobo"}\n'))
  assert record["words"] == ["kala", "\ufffd", "mobo"]


@pytest.mark.parametrize(
  ("values", "words"),
  [
    (dict(run=None), "--run is missing"),
    (dict(language=""), "--language is missing"),
    (dict(top=0), "--top=0 must be at least 1"),
    (dict(language="de"), "'de' is not a language"),
    (dict(input="no.txt"), "--input=no.txt is not a file"),
    (dict(format="conll"), "not for filling masks"),
  ],
)
def test_mistakes_are_one_sentence(command, model, values, words):
  with pytest.raises(UserError, match=words):
    command(model, "[MASK]", **values)


@pytest.mark.parametrize("lines", [slow(30_000)])
def test_the_command_streams_and_ends_when_its_reader_does(ner_run, tmp_path, lines):
  (tmp_path / "in.txt").write_text(f"{LINES[0]}\n{LINES[5]}\n" * (lines // 2))
  words = [sys.executable, "-m", "negint.predict", f"--run={ner_run}", "--language=xb"]
  command = " ".join([*words, f"--input={tmp_path}/in.txt"])
  done = subprocess.run(
    f"{command} | head -2", shell=True, capture_output=True, text=True, timeout=600, check=True
  )
  assert "Traceback" not in done.stderr
  texts = [json.loads(line)["text"] for line in done.stdout.splitlines()]
  assert texts == [LINES[0], LINES[5]]
  assert negint.load(ner_run).predict(texts, "xb")[0].tags
