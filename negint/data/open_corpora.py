"""Opens the corpora that a run reads, one per language: the sample, the lab, or prepared ones."""

import pathlib
from collections.abc import Callable, Iterator

from negint.data.cleaning import Filters
from negint.data.corpus import Corpus, corpus_directory, open_corpus
from negint.data.lab import wording
from negint.data.lab.language import LANGUAGES, make_language
from negint.data.opener import Advance
from negint.data.prepare_corpus import prepare
from negint.data.sources import Source, parse_source
from negint.errors import UserError
from negint.options import DataOptions, LabOptions

SAMPLE_NOTICE = (
  "This run learns from the bundled sample, 1,000 sentences per language. For real text: "
  "python -m negint.prepare --source='text:my_text/*.txt' --language={language} for each language, "
  "then --config=configs/{system}.py:{languages},base"
)
NO_FILTERS = Filters(
  normalise=False, deduplicate=False, min_characters=0, max_characters=0, language_filter=False
)


def open_corpora(
  data: DataOptions, languages: tuple[str, ...], say: Callable[[str], object]
) -> list[Corpus]:
  """Returns one corpus per language, in their order; makes those of sample and lab on first use.

  Args:
    data: where the text comes from and where the data is.
    languages: their codes.
    say: receives sentences for the user.

  Raises:
    UserError: a prepared corpus is missing, or the sample or the lab does not have a language.
  """
  folder = corpora_folder(data)
  if data.source == "prepared":
    return [open_corpus(folder, language) for language in languages]
  if data.source == "sample":
    sources = [parse_source("sample", language) for language in languages]
    return [
      _prepared(source, language, folder, Filters(), say)
      for source, language in zip(sources, languages, strict=True)
    ]
  strangers = set(languages) - set(LANGUAGES)
  if strangers:
    raise UserError(
      f"data.source='lab' speaks {', '.join(LANGUAGES)}, not {', '.join(sorted(strangers))}; "
      "use data.source='sample' or 'prepared' for real languages."
    )
  return [
    _prepared(lab_source(data.lab, language), language, folder, NO_FILTERS, say)
    for language in languages
  ]


def corpora_folder(data: DataOptions) -> pathlib.Path:
  """Returns the folder that holds, or will hold, the corpora of a run."""
  root = pathlib.Path(data.dir)
  if data.source == "prepared":
    return root
  if data.source == "sample":
    return root / "sample"
  folder = root / "lab" / f"similarity-{data.lab.similarity:g}-seed-{data.lab.seed}"
  return folder / f"documents-{data.lab.documents}"


def missing_corpora(data: DataOptions, languages: tuple[str, ...]) -> list[str]:
  """Returns the languages whose corpora are not there yet."""
  folder = corpora_folder(data)
  return [code for code in languages if not corpus_directory(folder, code).exists()]


def _prepared(
  source: Source,
  language: str,
  folder: pathlib.Path,
  filters: Filters,
  say: Callable[[str], object],
) -> Corpus:
  """Returns the corpus in a folder, and makes it from a source first if it does not exist."""
  if corpus_directory(folder, language).exists():
    return open_corpus(folder, language)
  # Runs that start together wait for the one that makes it.
  return prepare(source, language, folder, filters, say=say, wait=True)


def lab_source(options: LabOptions, language: str) -> Source:
  """Returns the lab's documents of one language as a source that `prepare` reads."""
  spoken = make_language(language, options.similarity, options.seed)

  def read(skip: int, advance: Advance) -> Iterator[list[str]]:
    for number, document in enumerate(
      wording.corpus_documents(spoken, options.seed, options.documents)
    ):
      advance(1)
      if number >= skip:
        yield document

  return Source(
    identity={
      "spec": "lab",
      "language": language,
      "similarity": options.similarity,
      "seed": options.seed,
      "documents": options.documents,
    },
    total=options.documents,
    unit="doc",
    read=read,
  )
