"""Each kind of source yields the documents that its files hold, or says what is wrong with them."""

import bz2
import gzip
import lzma
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from negint.data import wikipedia
from negint.data.sources import SAMPLE_LANGUAGES, parse_source
from negint.data.text_files import RUN_LENGTH
from negint.errors import UserError

PAGE = "<page><title>T</title><ns>{ns}</ns>{extra}<revision><text>{text}</text></revision></page>"


def _read(source, **options):
  return [[line.strip() for line in lines] for lines in source.documents(**options)]


def _error(spec, language="en", **options):
  with pytest.raises(UserError) as caught:
    list(parse_source(spec, language, **options).documents())
  return str(caught.value)


@pytest.mark.parametrize("language", SAMPLE_LANGUAGES)
def test_sample_has_a_thousand_one_sentence_documents(language):
  source = parse_source("sample", language)
  documents = list(source.documents())
  assert len(documents) == source.total == 1000
  assert all(len(lines) == 1 and lines[0].strip() for lines in documents)


def test_sample_names_the_ways_out_for_other_languages():
  message = _error("sample", "sw")
  for part in ("'sw'", *SAMPLE_LANGUAGES, "--source=text:", "wikipedia_dump:", "tfds:"):
    assert part in message


@pytest.mark.parametrize("spec", ["", "smaple", "text:", "tfds", "sample:ar", "wikipedia_dump:"])
def test_illegal_specs_are_refused_with_the_legal_ones(spec):
  assert "Legal: sample, text:" in _error(spec)


def test_blank_lines_separate_documents(tmp_path):
  (tmp_path / "a.txt").write_text("\n\none\ntwo\n\n \nthree\n\n", encoding="utf-8")
  (tmp_path / "b.txt").write_text("\ufefffour\n\nfive", encoding="utf-8")
  assert _read(parse_source(f"text:{tmp_path}/*.txt", "en")) == [
    ["one", "two"],
    ["three"],
    ["four"],
    ["five"],
  ]


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_a_file_without_inner_blank_lines_is_cut_into_runs(tmp_path, end):
  lines = [f"line {number}" for number in range(2 * RUN_LENGTH + 3)]
  (tmp_path / "a.txt").write_text("\n".join(lines) + end, encoding="utf-8")
  documents = _read(parse_source(f"text:{tmp_path}/a.txt", "en"))
  assert [len(document) for document in documents] == [RUN_LENGTH, RUN_LENGTH, 3]
  assert sum(documents, []) == lines


def test_skip_and_progress_cover_the_whole_source(tmp_path):
  (tmp_path / "a.txt").write_text("één\n\ntwo\n\nthree\n", encoding="utf-8")
  source = parse_source(f"text:{tmp_path}/a.txt", "en")
  done = []
  assert _read(source, skip=2, advance=done.append) == [["three"]]
  assert sum(done) == source.total == (tmp_path / "a.txt").stat().st_size


def test_identity_follows_the_files(tmp_path):
  path = tmp_path / "a.txt"
  path.write_text("one\n", encoding="utf-8")
  first = parse_source(f"text:{path}", "en").identity
  assert parse_source(f"text:{path}", "en").identity == first
  path.write_text("one\ntwo\n", encoding="utf-8")
  assert parse_source(f"text:{path}", "en").identity != first


def test_text_that_is_not_utf8_is_located(tmp_path):
  (tmp_path / "latin.txt").write_bytes("first\ncaf\xe9 noir\n".encode("latin-1"))
  message = _error(f"text:{tmp_path}/latin.txt")
  assert "latin.txt" in message and "line 2, byte 4" in message and "0xe9" in message


def test_a_folder_stands_for_all_its_files(tmp_path):
  for name in ("AA/wiki_00", "AA/wiki_01", "AB/wiki_00"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(f'<doc id="1" url="" title="T">\nT\n{name}\n</doc>\n')
  expected = [["AA/wiki_00"], ["AA/wiki_01"], ["AB/wiki_00"]]
  assert _read(parse_source(f"text:{tmp_path}", "en")) == expected


def test_a_pattern_without_files_is_refused(tmp_path):
  assert str(tmp_path) in _error(f"text:{tmp_path}/*.txt")


def _dump(path, pages, close="</mediawiki>"):
  xml = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><siteinfo><namespaces>'
    '<namespace key="0"/><namespace key="14">تصنيف</namespace></namespaces></siteinfo>'
    + "".join(pages)
    + close
  )
  data = xml.encode()
  pack = {".bz2": bz2.compress, ".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
  path.write_bytes(pack(data))
  return parse_source(f"wikipedia_dump:{path}", "ar")


def _page(text, ns=0, extra=""):
  return PAGE.format(text=text, ns=ns, extra=extra)


@pytest.mark.parametrize("name", ["d.xml.bz2", "d.xml", "d.xml.gz", "d.xml.xz"])
def test_dump_yields_articles_in_order(tmp_path, name):
  markup = "'''Article''' {}.\n\n{{{{x}}}}More. [[تصنيف:أ]]"
  articles = [_page(markup.format(number)) for number in range(150)]
  others = [_page("Talk.", ns=1), _page("#R [[A]]", extra='<redirect title="A"/>')]
  source = _dump(tmp_path / name, others + articles[:70] + others + articles[70:])
  assert _read(source) == [[f"Article {number}.", "More."] for number in range(150)]
  done = []
  assert _read(source, skip=149, advance=done.append) == [["Article 149.", "More."]]
  assert sum(done) == source.total


def test_a_truncated_dump_says_how_far_it_was_read(tmp_path):
  source = _dump(tmp_path / "d.xml", [_page("One."), _page("Two.")], close="<page><ns>")
  with pytest.raises(UserError, match="d.xml is truncated.*2 pages were read"):
    list(source.documents())
  path = tmp_path / "d.xml.bz2"
  _dump(path, [_page(f"Page {number}.") for number in range(100)])
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(UserError, match="d.xml.bz2 is truncated.*pages were read"):
    list(parse_source(f"wikipedia_dump:{path}", "ar").documents())
  path = tmp_path / "d.xml.gz"
  _dump(path, [_page(f"Page {number}.") for number in range(100)])
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(UserError, match="d.xml.gz is truncated.*pages were read"):
    list(parse_source(f"wikipedia_dump:{path}", "ar").documents())
  path.write_bytes(b"7z\xbc\xaf\x27\x1c")
  with pytest.raises(UserError, match="a 7z archive.*First run: 7z x"):
    list(parse_source(f"wikipedia_dump:{path}", "ar").documents())
  path.write_bytes(b"not bzip2")
  with pytest.raises(UserError, match="0 pages were read"):
    list(parse_source(f"wikipedia_dump:{path}", "ar").documents())


def test_workers_leave_with_a_parent_that_is_killed(tmp_path):
  _dump(tmp_path / "d.xml", [_page(f"Page {number}.") for number in range(300)])
  code = f"""
import sys, time
from negint.data.sources import parse_source
documents = iter(parse_source("wikipedia_dump:{tmp_path}/d.xml", "ar").documents())
print(next(documents), flush=True)
time.sleep(600)
"""
  root = pathlib.Path(__file__).parents[2]
  process = subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE)
  assert b"Page 0." in process.stdout.readline()
  process.kill()
  process.communicate(timeout=30)  # the workers hold the pipe's other end


def test_an_article_that_cannot_be_read_is_none(tmp_path, monkeypatch):
  monkeypatch.setattr(wikipedia, "plain_text", lambda text, namespaces: None)
  assert wikipedia._plain_texts([("a", frozenset())]) == [None]


def test_document_is_for_text(tmp_path):
  assert "--document=line is for --source=text:" in _error("sample", document="line")


def test_a_missing_dump_is_refused(tmp_path):
  assert "no.xml.bz2" in _error(f"wikipedia_dump:{tmp_path}/no.xml.bz2")


def _prepare_builder(directory, features, examples):
  """Writes a builder 'toy' as another machine would: this process has no code for it."""
  with tfds.core.registered.skip_registration():

    class Toy(tfds.core.GeneratorBasedBuilder):
      """Toy."""

      VERSION = tfds.core.Version("1.0.0")

      def _info(self):
        features_dict = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=features_dict)

      def _split_generators(self, dl_manager):
        return {name: self._generate_examples(rows) for name, rows in examples.items()}

      def _generate_examples(self, rows):
        yield from enumerate(rows)

  Toy(data_dir=directory, file_format="array_record").download_and_prepare()


def test_tfds_reads_all_splits_of_a_builder_known_by_its_files_only(tmp_path):
  rows = {
    "train": [{"title": "x", "text": f"Line {number}.\n\nMore."} for number in range(700)],
    "test": [{"title": "x", "text": "\n_START_ARTICLE_\nT\n_START_PARAGRAPH_\nA._NEWLINE_B."}],
  }
  _prepare_builder(tmp_path, {"title": tfds.features.Text(), "text": tfds.features.Text()}, rows)
  source = parse_source("tfds:toy", "en", tfds_data_dir=str(tmp_path))
  documents = [[line for line in lines if line] for lines in _read(source)]
  expected = [[f"Line {number}.", "More."] for number in range(700)] + [["A.", "B."]]
  assert sorted(documents) == sorted(expected)
  assert source.total == 701
  done = []
  rest = _read(source, skip=600, advance=done.append)
  assert rest == _read(source)[600:] and sum(done) == 701
  assert "tensorflow" not in sys.modules


def test_tfds_without_a_text_feature_is_refused(tmp_path):
  _prepare_builder(tmp_path, {"label": tfds.features.Scalar(np.int32)}, {"train": [{"label": 1}]})
  assert "['label']" in _error("tfds:toy", tfds_data_dir=str(tmp_path))


@pytest.mark.parametrize(
  ("name", "part"),
  [
    ("no_such_builder", "no builder 'no_such_builder'"),
    ("wiki40b/ar", "is not prepared"),  # TFDS lists it only after the import of its module
    ("wikipedia/20230601.ar", "array_record"),
    ("wiki40b/xx", "no builder 'wiki40b/xx'"),
  ],
)
def test_tfds_says_why_a_builder_cannot_be_read(tmp_path, name, part):
  assert part in _error(f"tfds:{name}", tfds_data_dir=str(tmp_path))


def test_importing_sources_is_light():
  code = (
    "import sys, negint.prepare; "
    'print(sorted({"tensorflow_datasets", "jax", "eld", "mwparserfromhell"} & {*sys.modules}))'
  )
  root = pathlib.Path(__file__).parents[2]
  result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
  assert result.stdout.strip() == "[]", result.stderr
