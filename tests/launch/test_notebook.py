"""The notebook runs from top to bottom on a CPU, and shows what it says."""

import json
import pathlib
import re
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "launch" / "colab.ipynb"


def sources(cells):
  return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def outputs_of(cell):
  """(all texts, media types of what is displayed) of an executed cell."""
  texts, media = [], set()
  for output in cell.get("outputs", []):
    assert output["output_type"] != "error", output
    texts.append(output.get("text", ""))
    media |= set(output.get("data", {}))
    texts.append(output.get("data", {}).get("text/plain", ""))
  return "\n".join(texts), media


def test_notebook_is_stored_without_outputs():
  cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
  assert len(sources(cells)) > 15
  assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_notebook_has_one_line_for_each_thing_to_set():
  first, *others = sources(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"])
  assert re.findall(r"^(\w+) = ", first, re.M) == ["REPOSITORY", "STEPS", "RUNS"]
  assert not any(re.search(r"^STEPS = ", source, re.M) for source in others)


def test_notebook_says_on_colab_that_the_address_is_missing(monkeypatch):
  first, setup, *_ = sources(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"])
  colab = types.ModuleType("google.colab")
  colab.drive = types.SimpleNamespace(mount=lambda folder: None)
  monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
  monkeypatch.setitem(sys.modules, "google.colab", colab)
  setup = re.sub(r"^( *)!.*$", r"\1pass", setup, flags=re.M)  # nothing is cloned
  with pytest.raises(AssertionError, match="<you>/negint was not found: put your copy's address"):
    exec(f"{first}\n{setup}", {})


@pytest.mark.slow
def test_notebook_runs_to_its_end(tmp_path):
  nbformat = pytest.importorskip("nbformat")
  nbclient = pytest.importorskip("nbclient")
  pytest.importorskip("ipykernel")
  pytest.importorskip("pandas")
  book = nbformat.read(NOTEBOOK, as_version=4)
  settings = next(cell for cell in book.cells if cell.cell_type == "code")
  for name, value in {"STEPS": 60, "RUNS": str(tmp_path / "runs")}.items():
    settings.source, count = re.subn(
      rf"^{name} = .*$", f"{name} = {value!r}", settings.source, flags=re.M
    )
    assert count == 1
  client = nbclient.NotebookClient(
    book, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
  )
  client.execute()
  found = {cell.source: outputs_of(cell) for cell in book.cells if cell.cell_type == "code"}

  def output_of(words):
    (source,) = [source for source in found if words in source]
    return found[source]

  text = "\n".join(text for text, _ in found.values())
  assert "Traceback" not in text
  assert not re.search(r"^negint[.\w]*: ", text, re.M), text  # a sentence of an error
  assert "image/png" in output_of("def watch(")[1]
  assert "meta_adpt of ar, en" in output_of("fill_mask([text]")[0]
  assert "image/png" in output_of('"gradient_cosine/all/"')[1]
  assert "text/html" in output_of("pandas.DataFrame")[1]
  assert "image/svg+xml" in output_of("negint.report")[1]
  assert "learning_rate" in output_of("launch.sweep")[0]
  assert "model.safetensors" in output_of("negint.export")[0]
  assert "Candidate" in output_of('"fr"')[0]
