"""Command line: `python -m negint.predict --run=<workdir> --language=ar --input=<file>`.

A fine-tuned run predicts its task, and a pretraining run (or a Hugging Face checkpoint) fills the
[MASK]s of each line. Owns the flags, the reading of inputs and the writing of outputs; the work is
`negint.inference`.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from absl import flags

from negint import command_line
from negint.data.opener import kind_of, open_text
from negint.data.text import replace_surrogates
from negint.errors import Interrupted, UserError
from negint.options import AUTO, DTYPES
from negint.run.files import whole_file
from negint.run.progress import progress_bar

EXAMPLE = "python -m negint.predict --run=runs/<run> --language=ar --input=text.txt"
FORMATS = ("jsonl", "conll")
WINDOW = 2048  # inputs that are read, put into batches by length, and written together
_STREAMED = ("txt", "jsonl")  # layouts of a task that are read line by line

_RUN = flags.DEFINE_string(
  "run", None, "Folder of a finished pretraining or fine-tuning run, or of a Hugging Face model."
)
_LANGUAGE = flags.DEFINE_string("language", None, "Code of the inputs' language, such as ar.")
_INPUT = flags.DEFINE_string(
  "input",
  "-",
  "File of inputs, or - for stdin. Each line is a text, JSON, or two texts with a tab between them "
  "(qa: question, context; nli: premise, hypothesis). A file in a layout of the task, such as .conllu, "
  ".tsv, .csv or .json, or a .txt file of words with IOB tags, is read as that; it needs no labels, and is "
  "kept in memory.",
)
_OUTPUT = flags.DEFINE_string("output", "-", "File of outputs, or - for stdout.")
_FORMAT = flags.DEFINE_enum(
  "format",
  "jsonl",
  FORMATS,
  "jsonl: an object per line; conll (ner, pos): a word and its tag per line.",
)
_TOP = flags.DEFINE_integer("top", 5, "Pretraining runs: candidates per [MASK].")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "Rows of a batch at most.")
_SEED = flags.DEFINE_integer(
  "seed", None, "Of a fine-tuning run with several seeds, the one to use; by default the first."
)
_DTYPE = flags.DEFINE_enum(
  "dtype",
  AUTO,
  (AUTO, *DTYPES),
  "Of matrix products; auto: the fastest of this device, but never less exact than in the training of a "
  "run. float32 gives the exact numbers of an imported model.",
)

# Any: values of JSON, examples and outputs of any task.


class Input(NamedTuple):
  """One input, and where it stands."""

  value: Any  # a text, an object of JSON, two texts, or an example of the task
  place: str  # for messages


Answer = Callable[[Sequence[Input]], list[str]]  # inputs -> what is written of each


def main() -> None:
  """Predicts for all inputs, in their order."""
  run, language, source = _RUN.value, _LANGUAGE.value, _INPUT.value
  assert run and language  # check_flags has seen to it
  if source != "-" and not pathlib.Path(source).is_file():
    raise UserError(f"--input={source} is not a file (looked from {pathlib.Path.cwd()}); name one.")
  from negint.inference.load import load  # JAX after the flags: a typing mistake need not wait
  from negint.run import compiled

  folder = pathlib.Path(run).absolute()
  programs = folder.parent / ".jax_cache"  # where the run has kept its own
  if programs.is_dir():
    compiled.keep_in(programs)
  model = load(run, seed=_SEED.value, dtype=_DTYPE.value)
  model.check_language(language)
  task = model.task_record()
  if _FORMAT.value == "conll" and not (task and task.tags_words):
    kind = f"task '{task.name}'" if task else "filling masks"
    raise UserError(
      f"--format=conll is for tags of words (ner, pos), not for {kind}; leave it out."
    )
  answer: Answer
  if task is None:
    answer = functools.partial(filled, model, language)
  else:
    answer = functools.partial(predicted, model, task, language)
  with contextlib.ExitStack() as stack:
    inputs = stack.enter_context(opened(source, task, language))
    write = stack.enter_context(writer(_OUTPUT.value))
    try:
      for window in windows(inputs, 1 if source == "-" and sys.stdin.isatty() else WINDOW):
        write("".join(answer(window)))
    except KeyboardInterrupt:
      kept = "" if _OUTPUT.value == "-" else f"; {_OUTPUT.value} was not written"
      raise Interrupted(f"interrupted{kept}.") from None


def filled(model: Any, language: str, window: Sequence[Input]) -> list[str]:
  """Returns a line of JSON for each text: `text` and `masks`, the candidates of each [MASK].

  A blank text has no masks.

  Raises:
    UserError: another text has none.
  """
  from negint.inference.masked import MASK

  texts = [text_of(each) for each in window]
  for text, each in zip(texts, window, strict=True):
    if text.strip() and MASK not in text:
      raise UserError(
        f"{each.place} has no {MASK}: {text[:60]!r}. A pretraining run fills masks; write {MASK} for "
        "each hidden token, or name a fine-tuning run with --run."
      )
  masked = [text for text in texts if text.strip()]
  found = iter(model.fill_mask(masked, language, _TOP.value, batch_size=_BATCH_SIZE.value))
  records = []
  for text in texts:
    masks = next(found) if text.strip() else []
    records.append({"text": text, "masks": [[c._asdict() for c in mask] for mask in masks]})
  return [as_line(record) for record in records]


def text_of(given: Input) -> str:
  """Returns the text of an input; UserError if it is JSON without a `text`."""
  value = given.value
  if isinstance(value, dict):
    value = value.get("text")
  if not isinstance(value, str):
    raise UserError(f"{given.place}: JSON without a string 'text', which filling masks needs.")
  return value


def predicted(model: Any, task: Any, language: str, window: Sequence[Input]) -> list[str]:
  """Returns what is written of each input of a task; UserError if one is none of the task's."""
  examples = [
    task.given(each.value, each.place) if isinstance(each.value, str | dict | list) else each.value
    for each in window
  ]
  outputs = model.predict_examples(examples, language, batch_size=_BATCH_SIZE.value)
  if _FORMAT.value == "conll":
    from negint.tasks.tagging import as_conll

    return [as_conll(output) for output in outputs]
  return [as_line(dataclasses.asdict(output)) for output in outputs]


def as_line(record: dict[str, Any]) -> str:
  """Returns a record as a line of JSON; half a surrogate pair becomes U+FFFD."""
  return replace_surrogates(json.dumps(record, ensure_ascii=False))[0] + "\n"


def windows(inputs: Iterable[Input], size: int) -> Iterator[list[Input]]:
  """Yields the inputs in lists of `size`; the last one may be shorter."""
  iterator = iter(inputs)
  while window := list(itertools.islice(iterator, size)):
    yield window


@contextlib.contextmanager
def opened(source: str, task: Any, language: str) -> Iterator[Iterator[Input]]:
  """Gives the inputs of a file, or of stdin for "-", and draws a bar of what has been read."""
  from negint.tasks.tagged_files import has_iob_tags
  from negint.tasks.task import Reading

  if source == "-":
    hidden = sys.stdin.isatty()
    if hidden:
      print("Type one input per line; Ctrl-D ends them.", file=sys.stderr)
    stdin = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline="\n")
    with progress_bar(unit="line", desc="predicted", disable=hidden) as bar:
      yield of_lines(counted(stdin, bar.update), "stdin", task)
    return
  path = pathlib.Path(source)
  layouts = set(task.extensions) if task else set()
  has_layout = kind_of(path) in layouts - set(_STREAMED)
  if has_layout or (kind_of(path) == "txt" and "txt" in layouts and has_iob_tags(path)):
    examples, report = task.read_file(path, Reading(language, labelled=False))
    for what, times in report.items():
      print(f"{path}: {what}: {times}", file=sys.stderr)
    with progress_bar(total=len(examples), unit="example", desc="predicted") as bar:
      yield (Input(example, str(path)) for example in counted(examples, bar.update))
    return
  size = path.stat().st_size
  with (
    progress_bar(total=size, unit="B", unit_scale=True, desc="predicted") as bar,
    open_text(path, bar.update, newline="\n") as file,
  ):
    yield of_lines(file, str(path), task)


def counted(values: Iterable[Any], update: Callable[[], object]) -> Iterator[Any]:
  """Yields the values and calls `update` after each of them."""
  for value in values:
    yield value
    update()


def of_lines(lines: Iterable[str], source: str, task: Any) -> Iterator[Input]:
  """Yields the inputs in lines of text: texts, JSON, or two texts with a tab between them.

  A blank line is an empty text; between pairs of texts it is left out.

  Raises:
    UserError: bytes are not UTF-8, or a line of a task on two texts has not got two.
  """
  pairs = task is not None and not task.tags_words
  number = 0
  try:
    for number, line in enumerate(lines, start=1):
      line = line.rstrip("\n").removesuffix("\r")
      place = f"{source}, line {number}"
      if (record := json_object(line)) is not None:
        yield Input(record, place)
      elif not pairs:
        yield Input(line, place)
      elif line.strip():
        yield Input(columns(line, place, task), place)
  except UnicodeDecodeError as error:
    raise UserError(
      f"{source} is not UTF-8 after line {number} ({error.reason}); convert it with iconv."
    ) from error


def json_object(line: str) -> dict[str, Any] | None:
  """Returns the object of JSON in a line; None if it holds none, as a text that begins with {."""
  if not line.startswith("{"):
    return None
  try:
    record = json.loads(line)
  except ValueError:
    return None
  return record if isinstance(record, dict) else None


def columns(line: str, place: str, task: Any) -> list[str]:
  """Returns the two texts of a line; a third column, such as a label, is not read."""
  parts = line.split("\t")
  if len(parts) not in (2, 3):
    raise UserError(
      f"{place} has {len(parts) - 1} tabs: {line[:60]!r}. Task '{task.name}' needs two texts per line "
      "with a tab between them, or JSON with named fields (qa: question, context; nli: premise, "
      "hypothesis)."
    )
  return parts[:2]


@contextlib.contextmanager
def writer(target: str) -> Iterator[Callable[[str], object]]:
  """Gives a function that writes text: to a file, which appears when the block ends; "-": to stdout."""
  if target != "-":
    with whole_file(pathlib.Path(target)) as file:
      yield file.write
    return
  stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", newline="\n", write_through=True)
  try:
    yield functools.partial(written, stdout)
  except BrokenPipeError:  # the reader, such as head, has had enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  finally:
    stdout.detach()


def written(stream: IO[str], text: str) -> None:
  """Writes a text so that a reader gets it now."""
  stream.write(text)
  stream.flush()


def check_flags() -> None:
  """UserError where a flag is missing or has a value that is never legal."""
  for flag, what in ((_RUN, "the folder of a run"), (_LANGUAGE, "the inputs' language")):
    if not flag.value:
      raise UserError(f"--{flag.name} is missing, {what}; for example {EXAMPLE}.")
  for size in (_TOP, _BATCH_SIZE):
    if size.value < 1:
      raise UserError(f"--{size.name}={size.value} must be at least 1.")


if __name__ == "__main__":
  command_line.run("negint.predict", main, example="--language=ar", check_flags=check_flags)
