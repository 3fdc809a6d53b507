"""The corpora that a run reads, one a language: the bundled sample, the lab, or prepared ones."""

import pathlib
from collections.abc import Callable

from negint.data.cleaning import Filters
from negint.data.corpus import Corpus, open_corpus
from negint.data.lab import wording
from negint.data.lab.language import LANGUAGES, make_language
from negint.data.prepare_corpus import prepare
from negint.data.sources import Source, parse_source
from negint.errors import UserError
from negint.options import DataOptions, LabOptions

SAMPLE_NOTICE = (
  "This run learns from the bundled sample, 1,000 sentences a language. For real text: "
  "python -m negint.prepare --source='text:my_text/*.txt' --language={language} for each language, "
  "then --config=configs/{system}.py:{language},base"
)
NO_FILTERS = Filters(
  normalise=False, deduplicate=False, min_characters=0, max_characters=0, language_filter=False
)


def open_corpora(
  data: DataOptions, languages: tuple[str, ...], say: Callable[[str], object]
) -> list[Corpus]:
  """A corpus for each language, in their order; the sample and the lab are made on first use.

  Raises:
    UserError: a prepared corpus is missing, or the sample has none of a language; the sentence
      names the commands that prepare one.
  """
  root = pathlib.Path(data.dir)
  if data.source == "prepared":
    return [open_corpus(root, language) for language in languages]
  if data.source == "sample":
    sources = [parse_source("sample", language) for language in languages]
    return [
      _prepared(source, language, root / "sample", Filters(), say)
      for source, language in zip(sources, languages, strict=True)
    ]
  strangers = set(languages) - set(LANGUAGES)
  if strangers:
    raise UserError(
      f"data.source='lab' speaks {', '.join(LANGUAGES)}, not {', '.join(sorted(strangers))}; "
      "use data.source='sample' or 'prepared' for real languages."
    )
  folder = root / "lab" / f"similarity-{data.lab.similarity:g}-seed-{data.lab.seed}"
  folder = folder / f"documents-{data.lab.documents}"
  return [
    _prepared(lab_source(data.lab, language), language, folder, NO_FILTERS, say)
    for language in languages
  ]


def _prepared(source: Source, language, folder, filters, say) -> Corpus:
  try:
    return open_corpus(folder, language)
  except UserError:
    # Several runs that begin together make it once.
    return prepare(source, language, folder, filters, say=say, wait=True)


def lab_source(options: LabOptions, language: str) -> Source:
  """The lab's documents of one language as a source of `prepare`."""
  spoken = make_language(language, options.similarity, options.seed)

  def read(skip, advance):
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
