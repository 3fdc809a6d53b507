"""Predictions in the files that XTREME's `evaluate.py` reads, under the names it looks for.

`<folder>/<XTREME's task>/test-<language>.<tsv or json>`: tagging has one tag a line and a blank
line after each sentence, NLI one label a line, QA one JSON object {question id: text}.
XTREME's scorer compares sentence by sentence with its own label files, in their order.
"""

import json
import os
import tempfile

XTREME_NAMES = {"ner": "panx", "pos": "udpos", "qa": "tydiqa", "nli": "xnli"}


def path_of(folder, task, language):
  """Returns the path of one task's predictions for one language."""
  extension = "json" if task == "qa" else "tsv"
  return os.path.join(folder, XTREME_NAMES[task], f"test-{language}.{extension}")


def write(folder, task, language, predictions):
  """Writes the predictions of one test set; the file is there whole or not at all.

  Args:
    folder: parent of the tasks' folders; made if absent.
    task: 'ner', 'pos', 'qa' or 'nli'.
    language: code of the tested language.
    predictions: a list of lists of tags (ner, pos), a list of labels (nli), or {id: text} (qa).

  Returns:
    The path written.
  """
  if task == "qa":
    text = json.dumps(predictions, ensure_ascii=False, indent=1) + "\n"
  elif task == "nli":
    text = "".join(f"{label}\n" for label in predictions)
  else:
    text = "".join("".join(f"{tag}\n" for tag in tags) + "\n" for tags in predictions)
  path = path_of(folder, task, language)
  os.makedirs(os.path.dirname(path), exist_ok=True)
  _write_atomically(path, text)
  return path


def _write_atomically(path, text):
  # Renaming within one folder is atomic: a killed run leaves the old file or the new one.
  handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".tmp")
  try:
    with os.fdopen(handle, "w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise
