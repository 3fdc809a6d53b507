"""Command line: `python -m negint.prepare --source=sample --language=ar` makes a corpus on disk.

Owns the flags; the work is `data.prepare_corpus`.
"""

import pathlib
import sys

from absl import flags

from negint import command_line
from negint.data import verify
from negint.data.cleaning import Filters
from negint.data.corpus import META_SHARE
from negint.data.prepare_corpus import prepare, summary
from negint.data.sources import LEGAL_SPECS, parse_source
from negint.data.text_files import LEGAL_DOCUMENTS, RUN_LENGTH
from negint.errors import Interrupted, UserError
from negint.language_codes import canonical

EXAMPLE = "python -m negint.prepare --source=sample --language=ar"

_SOURCE = flags.DEFINE_string("source", None, f"Where the text comes from: {LEGAL_SPECS}.")
_LANGUAGE = flags.DEFINE_string("language", None, "Code of the language, such as ar.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of all prepared data.")
_TFDS_DATA_DIR = flags.DEFINE_string(
  "tfds_data_dir", None, "Folder of TFDS's prepared builders; TFDS's own default if not given."
)
_DOCUMENT = flags.DEFINE_string(
  "document",
  None,
  f"What one document of a text file is: {LEGAL_DOCUMENTS}. If not given, blank lines separate "
  f"documents, and a file with hardly any is also cut every {RUN_LENGTH} lines.",
)
_META_SHARE = flags.DEFINE_float(
  "meta_share",
  META_SHARE,
  "Share of the documents for the split meta, which trains phi; at least as many as valid has.",
)
_VERIFY = flags.DEFINE_bool(
  "verify", False, "Compare all files of --data_dir with their checksums, and prepare nothing."
)
_NORMALISE = flags.DEFINE_bool("normalise", Filters.normalise, "Bring text to Unicode NFC.")
_DEDUPLICATE = flags.DEFINE_bool(
  "deduplicate", Filters.deduplicate, "Drop a line that occurred before."
)
_MIN_CHARACTERS = flags.DEFINE_integer(
  "min_characters", Filters.min_characters, "Drop shorter lines; 0 keeps all."
)
_MAX_CHARACTERS = flags.DEFINE_integer(
  "max_characters", Filters.max_characters, "Drop longer lines; 0 keeps all."
)
_LANGUAGE_FILTER = flags.DEFINE_bool(
  "language_filter", Filters.language_filter, "Drop lines that are reliably in another language."
)


def main() -> int | None:
  """Prepares what the flags say; with --verify, returns the exit code."""
  if _VERIFY.value:
    return verify.report(pathlib.Path(_DATA_DIR.value))
  spec, language, data_dir = _SOURCE.value, _LANGUAGE.value, _DATA_DIR.value
  assert spec and language  # check_flags has seen to it
  filters = Filters(
    normalise=_NORMALISE.value,
    deduplicate=_DEDUPLICATE.value,
    min_characters=_MIN_CHARACTERS.value,
    max_characters=_MAX_CHARACTERS.value,
    language_filter=_LANGUAGE_FILTER.value,
  )
  language = canonical(language)
  source = parse_source(
    spec, language, tfds_data_dir=_TFDS_DATA_DIR.value, document=_DOCUMENT.value
  )
  try:
    corpus = prepare(source, language, data_dir, filters, say=_say, meta_share=_META_SHARE.value)
  except KeyboardInterrupt:
    raise Interrupted("interrupted; start the same command again to resume.") from None
  print(summary(corpus, data_dir))
  return None


def check_flags() -> None:
  """UserError where a flag is missing."""
  if _VERIFY.value:
    return
  for flag in (_SOURCE, _LANGUAGE):
    if not flag.value:
      raise UserError(f"--{flag.name} is missing; for example {EXAMPLE}")


def _say(sentence: str) -> None:
  print(sentence, file=sys.stderr)


if __name__ == "__main__":
  command_line.run("negint.prepare", main, example="--language=ar", check_flags=check_flags)
