"""Text files of the kinds that people have give the documents that their authors meant."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from negint.data.text_files import RUN_LENGTH, TextFiles
from negint.errors import UserError


def _documents(path, document=None, said=None):
  files = TextFiles([str(path)], document)
  documents = [[line.strip() for line in lines] for lines in files.documents(lambda n: None)]
  if said is not None:
    said += files.notes()
  return documents


def _write(tmp_path, text, name="a.txt"):
  path = tmp_path / name
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  return path


def _refusal(path, document=None):
  with pytest.raises(UserError) as caught:
    _documents(path, document)
  return str(caught.value)


PLAIN = "one\ntwo\n\nthree\n"


@pytest.mark.parametrize(
  ("document", "expected"),
  [
    (None, [["one", "two"], ["three"]]),
    ("blank", [["one", "two"], ["three"]]),
    ("line", [["one"], ["two"], ["three"]]),
    ("file", [["one", "two", "three"]]),
    ("2", [["one", "two"], ["three"]]),
    ("3", [["one", "two", "three"]]),
  ],
)
def test_the_user_says_what_a_document_is(tmp_path, document, expected):
  said = []
  assert _documents(_write(tmp_path, PLAIN), document, said) == expected
  assert not said


@pytest.mark.parametrize("document", ["", "0", "-1", "lines", "2.5"])
def test_other_documents_are_refused(tmp_path, document):
  assert "line, blank, file, or a number" in _refusal(_write(tmp_path, PLAIN), document)


def test_a_whole_file_is_one_document_however_long(tmp_path):
  path = _write(tmp_path, "".join(f"{n}\n\n" for n in range(3000)))
  assert [len(lines) for lines in _documents(path, "file")] == [3000]
  assert [len(lines) for lines in _documents(path, "blank")] == [1] * 3000


def test_cutting_without_knowing_where_is_said_with_the_number(tmp_path):
  said = []
  path = _write(tmp_path, "".join(f"line {n}\n" for n in range(3 * RUN_LENGTH + 1)))
  assert len(_documents(path, said=said)) == 4
  assert len(said) == 1 and "(4 in all)" in said[0] and "--document=line" in said[0]
  said = []
  assert len(_documents(_write(tmp_path, "a\n" * RUN_LENGTH), said=said)) == 1
  assert not said  # the file is one document


def _runs(lengths):
  """Text of runs of lines with a blank line between two."""
  return "\n".join("".join(f"run {i} line {n}\n" for n in range(k)) for i, k in enumerate(lengths))


def test_stray_blank_lines_do_not_make_documents_of_hundreds_of_lines(tmp_path):
  said = []
  path = _write(tmp_path, _runs([700, 700, 700, 700, 200]))
  documents = _documents(path, said=said)
  assert [len(each) for each in documents] == [RUN_LENGTH] * 60
  assert len(said) == 1 and "hardly any blank lines" in said[0] and "(60 in all)" in said[0]
  assert all(len({line.split()[1] for line in each}) == 1 for each in documents)  # of one run
  said = []
  assert [len(each) for each in _documents(path, "blank", said)] == [700] * 4 + [200]
  assert not said
  assert [len(each) for each in _documents(_write(tmp_path, _runs([201, 199])))] == [201, 199]
  assert len(_documents(_write(tmp_path, _runs([202, 199])))) == 5 + 4


def test_documents_that_reach_the_limit_are_said(tmp_path):
  text = _runs([2500, 1000, 1001, *[3] * 50])
  for document in (None, "blank"):
    said = []
    lengths = [len(each) for each in _documents(_write(tmp_path, text), document, said)]
    assert lengths == [1000, 1000, 500, 1000, 1000, 1, *[3] * 50]
    assert len(said) == 1 and said[0].startswith("2 document(s) have more than 1,000 lines")
  said = []
  _documents(_write(tmp_path, text), "1000", said)
  _documents(_write(tmp_path, _runs([1000, *[3] * 50])), None, said)
  assert not said


def test_line_ends_of_old_macs_end_lines(tmp_path):
  assert _documents(_write(tmp_path, "one\rtwo\r\rthree")) == [["one", "two"], ["three"]]


WIKI = """<doc id="7" url="https://x.org?curid=7" title="Tom &amp; &quot;Jo&quot;">
Tom & "Jo"

He said 1 &lt; 2.
Tom & "Jo"

</doc>
<doc id="8" url="https://x.org?curid=8" title="Empty">
Empty

</doc>
<doc id="9" url="https://x.org?curid=9" title="Other">
First line, no title.

Second paragraph.
</doc>
"""


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_wikiextractor_output_gives_articles_without_tags_and_titles(tmp_path, pack):
  said = []
  path = _write(tmp_path, pack(WIKI.encode()), "wiki_00")
  assert _documents(path, said=said) == [
    ["He said 1 < 2.", 'Tom & "Jo"'],
    [],
    ["First line, no title.", "Second paragraph."],
  ]
  assert not said


def test_a_dump_among_text_files_is_read_as_a_dump(tmp_path):
  text = "''Prose''.{{x}}"
  page = f"<page><title>T</title><ns>0</ns><revision><text>{text}</text></revision></page>"
  for first in ("", '<?xml version="1.0"?>\n'):
    dump = f"{first}<mediawiki>\n{page}</mediawiki>"
    assert _documents(_write(tmp_path, gzip.compress(dump.encode()))) == [["Prose."]]


def test_json_lines_give_their_text(tmp_path):
  rows = [
    {"id": "1", "revid": "2", "url": "u", "title": "T", "text": "a &lt; b\nc"},
    {"text": "keeps &amp;\r\nd", "meta": {"text": "no"}},
    {"text": None},
    {"text": ""},
    {"content": "of OSCAR"},
  ]
  expected = [["a < b", "c"], ["keeps &amp;", "d"], [], [""], ["of OSCAR"]]
  lines = "\n".join(json.dumps(row) for row in rows)
  assert _documents(_write(tmp_path, "\n" + lines + "\n\n")) == expected
  assert _documents(_write(tmp_path, json.dumps(rows))) == expected
  assert _documents(_write(tmp_path, json.dumps(rows, indent=1))) == expected


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_tables_give_the_text_of_their_rows(tmp_path, ending):
  texts = ["a\nb", None, "", "\n".join(map(str, range(1500)))] * 700
  table = pyarrow.table({"id": range(len(texts)), "text": texts, "url": ["u"] * len(texts)})

  def write(table):
    if ending == "parquet":
      pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=900)
    else:
      with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=900)
    return tmp_path / f"a.{ending}"

  path, done = write(table), []
  documents = list(TextFiles([str(path)]).documents(done.append))
  long = [str(n) for n in range(1500)]
  assert documents == [["a", "b"], [], [""], long[:1000], long[1000:]] * 700
  assert sum(done) == path.stat().st_size and len(done) > 1
  assert "a table" in _refusal(path, "line")
  assert "no column 'text', only id, body" in _refusal(
    write(pyarrow.table({"id": [1], "body": ["x"]}))
  )
  assert "row 1: the field 'text' is a int" in _refusal(write(pyarrow.table({"text": [1]})))


@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())])
def test_csv_and_tsv_give_their_column_of_text(tmp_path, pack):
  ending = "" if pack is str.encode else ".gz"
  text = 'id,text,label\n1,"A ""text"", of\ntwo lines",0\n2,plain,1\n3\n'
  path = _write(tmp_path, pack(text), f"a.csv{ending}")
  assert _documents(path) == [['A "text", of', "two lines"], ["plain"]]
  path = _write(
    tmp_path, pack('label\tcontent\n0\tThe "first, of two\n1\tsecond\n'), f"a.tsv{ending}"
  )
  assert _documents(path) == [['The "first, of two'], ["second"]]
  assert "a table" in _refusal(path, "line")
  path = _write(tmp_path, pack("1\tfra\tUn chat.\n2\tfra\tDeux.\n"), f"b.tsv{ending}")  # Tatoeba's
  assert "names no column 'text', but 1, fra, Un chat." in _refusal(path)
  for name in ("a.txt", "a.csv.txt"):  # the name says that it is text
    other = _write(tmp_path, pack("id,text\n1,a\n"), f"{name}{ending}")
    assert _documents(other) == [["id,text", "1,a"]]


def test_an_array_of_texts_gives_them(tmp_path):
  texts = ["one", "two\nlines"]
  for indent in (None, 1):
    path = _write(tmp_path, json.dumps(texts, indent=indent))
    assert _documents(path) == [["one"], ["two", "lines"]]


@pytest.mark.parametrize(
  "text", ["<!DOCTYPE html>\n<p>x</p>", "<html><p>x", '<?xml version="1.0"?>\n<tmx>', "<tmx>"]
)
def test_markup_is_not_learned_as_text(tmp_path, text):
  assert "is XML or HTML" in _refusal(_write(tmp_path, text))


def test_a_long_document_is_cut_and_an_empty_one_is_not_lost(tmp_path):
  row = {"text": "\n".join(map(str, range(1500)))}
  said = []
  documents = _documents(_write(tmp_path, json.dumps(row) + "\n" + '{"text": ""}'), None, said)
  assert [len(lines) for lines in documents] == [1000, 500, 1]
  assert len(said) == 1 and said[0].startswith("1 document(s) have more than 1,000 lines")


@pytest.mark.parametrize(
  ("text", "part"),
  [
    ('{"id": 1, "body": "x"}', "no field 'text', only id, body"),
    ('{"text": "x"}\n{"text": ', "line 2 is not JSON"),
    ('{"text": "x"}\n[1]', "line 2: a list"),
    ('{"text": 5}', "'text' is a int"),
    ('[{"text": "x"},', "is not JSON"),
    ('{\n  "text": "x"\n}', "one object per line: jq -c"),
  ],
)
def test_json_that_gives_no_text_is_refused(tmp_path, text, part):
  assert part in _refusal(_write(tmp_path, text))


def test_document_is_for_plain_text(tmp_path):
  assert "Leave --document out" in _refusal(_write(tmp_path, WIKI), "line")


@pytest.mark.parametrize("text", ["[1] is a note.\n", "{curly} braces\n", "<doc> is a word\n"])
def test_text_that_begins_like_a_format_is_text(tmp_path, text):
  assert _documents(_write(tmp_path, text)) == [[text.strip()]]


def test_numbered_sentences_lose_their_numbers_and_stand_alone(tmp_path):
  """The Leipzig Corpora's files."""
  text = "7\tUn homme marche.\n8\t1984 fut une année.\n9\tElle lit\tun livre.\nsans numéro\n"
  expected = [
    ["Un homme marche."],
    ["1984 fut une année."],
    ["Elle lit\tun livre."],
    ["sans numéro"],
  ]
  said = []
  assert _documents(_write(tmp_path, text), None, said) == expected and not said
  assert "numbered sentences" in _refusal(tmp_path / "a.txt", "line")
  columns = "1\tfra\tUn chat.\n2\tfra\tDeux chats.\n"
  assert _documents(_write(tmp_path, columns)) == [columns.strip().split("\n")]
  other = "1984\tun roman\n1950\tun autre\n"  # numbers that do not count
  assert _documents(_write(tmp_path, other)) == [["1984\tun roman", "1950\tun autre"]]
