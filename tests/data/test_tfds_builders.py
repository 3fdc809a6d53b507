"""TFDS builders are found by name, also those that TFDS does not list, or it is said why not."""

import functools
import http.server
import importlib
import importlib.util
import socket
import sys
import threading
import time

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import downloader

from negint.data import tfds_builders
from negint.data.sources import parse_source
from negint.data.tfds_builders import check_reachable, find_builder, first_line, prepare_builder
from negint.errors import UserError


def _find(name, folder):
  return find_builder(name, str(folder), otherwise="or use FILES", file_format="array_record")


@pytest.mark.parametrize(
  "name", ["universal_dependencies/ar_padt", "wikiann/ar", "xnli", "tydi_qa/goldp", "wiki40b/ar"]
)
def test_builders_of_both_styles_are_found(name, tmp_path):
  """All but the first register only after the import of their module."""
  found = _find(name, tmp_path)
  assert found.info.full_name.startswith(name) and not found.info.splits


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("no_such_builder", "no builder 'no_such_builder', neither .* nor prepared in {folder}"),
    ("wikiann/zzz", "no builder 'wikiann/zzz' that it can load: .*zzz not found"),
  ],
)
def test_an_unknown_name_is_refused(name, words, tmp_path):
  with pytest.raises(UserError, match=words.format(folder=tmp_path) + ".*, or use FILES"):
    _find(name, tmp_path)


def test_a_package_that_the_builder_needs_is_named(tmp_path, monkeypatch):
  def fail(module):
    assert module == "tensorflow_datasets.text.made_up"
    raise ModuleNotFoundError("No module named 'absent'", name="absent")

  monkeypatch.setattr(importlib, "import_module", fail)
  with pytest.raises(UserError, match="'made_up' needs the package absent.*or use FILES"):
    _find("made_up", tmp_path)


def test_tfds_itself_may_be_missing(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
  with pytest.raises(UserError, match="pip install tensorflow-datasets, or use FILES"):
    _find("xnli", tmp_path)


def test_first_line_of_an_error():
  assert first_line(ValueError("one.\ntwo")) == "one."
  assert first_line(ValueError()) == "ValueError."


def _downloading_builder(url, folder):
  """A builder whose text is what lies at a URL."""
  with tfds.core.registered.skip_registration():

    class Toy(tfds.core.GeneratorBasedBuilder):
      """Toy."""

      VERSION = tfds.core.Version("1.0.0")
      code_path = None

      def _info(self):
        features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
        return tfds.core.DatasetInfo(builder=self, features=features)

      def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(dl_manager.download(url))}

      def _generate_examples(self, path):
        yield from enumerate({"text": line} for line in path.read_text().split())

  return Toy(data_dir=folder, file_format="array_record")


@pytest.fixture
def no_proxy(monkeypatch):
  monkeypatch.setattr(tfds_builders.urllib.request, "getproxies", dict)


def test_a_builder_is_downloaded_and_prepared_once(tmp_path, no_proxy):
  (tmp_path / "words.txt").write_text("one two")
  served = []

  class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
      served.append(args)

  handler = functools.partial(Handler, directory=str(tmp_path))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/words.txt"
    for _ in range(2):
      builder = _downloading_builder(url, tmp_path / "tfds")
      prepare_builder(builder, "toy", otherwise="or use FILES")
    server.shutdown()
  assert len(served) == 1
  assert sorted(row["text"] for row in builder.as_data_source("train")) == [b"one", b"two"]


def test_without_network_one_sentence_comes_soon(tmp_path, no_proxy, capfd):
  with socket.socket() as taken:  # a port where nobody listens
    taken.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{taken.getsockname()[1]}/words.txt"
    start = time.monotonic()
    with pytest.raises(UserError, match="127.0.0.1 does not answer.*Check the network, or copy"):
      prepare_builder(_downloading_builder(url, tmp_path), "toy", otherwise="or use FILES")
  assert time.monotonic() - start < 10
  assert capfd.readouterr() == ("", "")
  assert downloader.MAX_RETRIES == 10 and downloader._open_with_requests.__name__ != "impatient"


def test_a_look_up_that_hangs_is_left(monkeypatch, no_proxy):
  ended = threading.Event()

  def hang(*args, **options):
    ended.wait(30)
    raise OSError

  monkeypatch.setattr(tfds_builders, "_CONNECT_SECONDS", 0.05)
  monkeypatch.setattr(socket, "create_connection", hang)
  with pytest.raises(ConnectionError, match="example.org does not answer .no answer"):
    check_reachable("https://example.org/a")
  ended.set()


def test_a_proxy_answers_for_others(monkeypatch):
  monkeypatch.setattr(tfds_builders.urllib.request, "getproxies", lambda: {"https": "http://p"})
  monkeypatch.setattr(socket, "create_connection", lambda *args, **options: pytest.fail("asked"))
  check_reachable("https://example.org/a")


@pytest.mark.parametrize(
  ("name", "absent", "words"),
  [
    ("wikipedia/20230601.sw", {"apache_beam", "mwxml"}, r"pip install apache-beam mwxml\)"),
    ("wikipedia/20230601.sw", {"mwxml"}, r"pip install mwxml\)"),
    (
      "wiki40b/ar",
      {"apache_beam", "tensorflow"},
      r"pip install 'apache-beam\[gcp\]' tensorflow\)",
    ),
    ("wikiann/sw", {"tensorflow"}, r"pip install tensorflow\)"),
    ("universal_dependencies/fr_gsd", {"conllu"}, r"pip install conllu\)"),
  ],
)
def test_all_packages_that_a_builder_needs_are_named_at_once(
  tmp_path, monkeypatch, name, absent, words
):
  """Before any download: TFDS imports some of them only after it."""
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else name)
  monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", lambda self: pytest.fail())
  with pytest.raises(
    UserError, match=f"is not prepared.*{words}.*or copy .*array_record.*or use FILES"
  ):
    prepare_builder(_find(name, tmp_path), name, otherwise="or use FILES")


def test_a_text_source_prepares_its_builder_where_the_packages_are_there(tmp_path, monkeypatch):
  asked = []

  def prepare(self, **options):
    asked.append((self.info.full_name, self.info.file_format.value))
    raise OSError("no disk")

  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  monkeypatch.setattr(tfds_builders, "_download_config", lambda builder: None)
  monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", prepare)
  with pytest.raises(
    UserError, match="could not prepare 'wikipedia/20230601.sw': OSError: no disk"
  ):
    parse_source("tfds:wikipedia/20230601.sw", "sw", tfds_data_dir=str(tmp_path))
  assert asked == [("wikipedia/20230601.sw/1.0.0", "array_record")]


def test_what_beam_reads_from_google_is_asked_first(tmp_path, monkeypatch):
  def refuse(url):
    raise ConnectionError(f"{url} does not answer")

  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  monkeypatch.setattr(tfds_builders, "check_reachable", refuse)
  with pytest.raises(UserError, match="storage.googleapis.com does not answer.*Check the network"):
    prepare_builder(_find("wiki40b/ar", tmp_path), "wiki40b/ar", otherwise="or use FILES")
