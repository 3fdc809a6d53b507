"""The command line of the export: `python -m negint.export --run=runs/<name> --out=<folder>`."""

import pathlib

from absl import flags

from negint import command_line
from negint.errors import UserError
from negint.export import folders
from negint.inference.load import load

_RUN = flags.DEFINE_string("run", "", "Folder of a finished run.")
_OUT = flags.DEFINE_string("out", "", "New folder for the exported model.")
_LANGUAGE = flags.DEFINE_string(
  "language", "", "The only language to export, such as ar. By default all languages are."
)


def main() -> None:
  """Writes the folders and prints how to load them."""
  out = pathlib.Path(_OUT.value)
  folders.check_new(out)  # before a large model is read
  model = load(_RUN.value)
  for folder in folders.write(model, out, _LANGUAGE.value):
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(f"in {folder}: {files}")
  print("README.md says how transformers loads them.")


def check_flags() -> None:
  """UserError where a folder is not named."""
  for flag in (_RUN, _OUT):
    if not flag.value:
      raise UserError(
        f"--{flag.name} is empty: python -m negint.export --run=runs/joint_pair-ar-en-sample-seed1 "
        "--out=exported"
      )


if __name__ == "__main__":
  command_line.run("negint.export", main, example="--out=exported", check_flags=check_flags)
