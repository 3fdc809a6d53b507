"""TFDS builders are found by name, also those that TFDS does not list, or it is said why not."""

import importlib
import sys

import pytest

from negint.data.tfds_builders import find_builder, first_line
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
