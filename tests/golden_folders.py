"""Where the golden files are: in tests/golden, and in the folder that NEGINT_GOLDEN names."""

import json
import os
import pathlib

FOLDERS = [pathlib.Path(__file__).parent / "golden"]
if os.environ.get("NEGINT_GOLDEN"):
  FOLDERS.append(pathlib.Path(os.environ["NEGINT_GOLDEN"]))


def checkpoints(*model_types):
  """Hugging Face folders of these families that have expected values with them."""
  found = sorted(path.parent for folder in FOLDERS for path in folder.rglob("expected.npz"))
  return [folder for folder in found if model_type(folder) in model_types]


def model_type(folder):
  return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
