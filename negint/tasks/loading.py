"""One door to the labelled data: a task, a language and a split, from local files or from TFDS."""

from negint.errors import UserError
from negint.tasks import files, ner, nli, pos, qa, tfds_source

READERS = {"ner": ner, "pos": pos, "qa": qa, "nli": nli}
SPLIT_SEED = 0  # of the halves into which dev falls where no test set exists

# What keeps together when dev is split in two: a passage's questions, a premise's hypotheses.
_GROUPS = {
  "ner": lambda sentence: sentence.words,
  "pos": lambda sentence: sentence.words,
  "qa": lambda question: question.context,
  "nli": lambda pair: pair.premise,
}


def load(task, language, split, tasks_dir=None, tfds=None, tfds_dir=None):
  """Reads one split of a task's data in one language.

  Where there is no test set, dev is split in two by a fixed seed: 'dev' is then one half, 'test'
  the other, and the report has the entry 'dev split in two for lack of a test set'.

  Args:
    task: 'ner', 'pos', 'qa' or 'nli'.
    language: its code, for example 'ar'.
    split: 'train', 'dev' or 'test'.
    tasks_dir: folder of local files, see `files.find`.
    tfds: instead of tasks_dir, TFDS builders joined by '+', whose examples are concatenated;
      '{language}' stands for the code: 'wikiann/{language}', 'tydi_qa/goldp', 'xnli',
      'universal_dependencies/ar_padt+universal_dependencies/ar_pud'.
    tfds_dir: folder of prepared TFDS data, or None for the default of TFDS.

  Returns:
    (list of TaggedSentence, Question or Pair; report: {name of a repair or drop: its count}).

  Raises:
    UserError: nothing there, malformed data, or an argument that is not legal.
  """
  _check("task", task, files.TASKS)
  _check("split", split, files.SPLITS)
  if (tasks_dir is None) == (tfds is None):
    raise UserError(
      f"tasks_dir={tasks_dir!r} and tfds={tfds!r}: exactly one must be set. Give a folder with "
      f"<task>/<language>/<split> files, or the name of a TFDS builder."
    )
  if tasks_dir is not None:
    return _halved(task, split, *_local(task, language, split, tasks_dir))
  examples, report = [], {}
  for builder in tfds.replace("{language}", language).split("+"):
    part, part_report = _halved(task, split, *_remote(task, language, split, builder, tfds_dir))
    examples.extend(part)
    for name, times in part_report.items():
      files.count(report, name, times)
  return _some(examples, f"the TFDS builder(s) '{tfds}'", task, language, split), report


def check_local(task, language, split, tasks_dir):
  """Returns (path, whether it is the dev set in lack of a test set); UserError if there is none."""
  shared = split != "train" and not files.find(tasks_dir, task, language, "test")
  path = files.find(tasks_dir, task, language, "dev" if shared else split)
  if path is None:
    there = files.available(tasks_dir, task)
    legal = "; ".join(f"{name}: {', '.join(splits)}" for name, splits in there.items())
    extensions = " or .".join(files.EXTENSIONS[task])
    raise UserError(
      f"No {split} data for task '{task}' in language '{language}' under {tasks_dir}. It must be "
      f"{task}/{language}/{split}.{extensions}. There is: {legal or 'nothing for this task'}."
    )
  return path, shared


def _local(task, language, split, tasks_dir):
  """Returns (examples, report, whether they are the whole dev set in lack of a test set)."""
  path, shared = check_local(task, language, split, tasks_dir)
  examples, report = READERS[task].read_file(path)
  return _some(examples, path, task, language, split), report, shared


def _remote(task, language, split, builder, tfds_dir):
  names = tfds_source.splits(builder, tfds_dir)
  dev = next((n for n in (f"validation-{language}", "validation", "dev") if n in names), "dev")
  shared = split != "train" and "test" not in names
  name = "train" if split == "train" else dev if shared or split == "dev" else "test"
  return *READERS[task].read_tfds(builder, name, language, tfds_dir), shared


def _halved(task, split, examples, report, shared):
  if not shared:
    return examples, report
  files.count(report, "dev split in two for lack of a test set", len(examples))
  return files.halves(examples, _GROUPS[task], SPLIT_SEED)[split == "test"], report


def _some(examples, source, task, language, split):
  if not examples:
    raise UserError(
      f"{source} gives no {split} example for task '{task}' in language '{language}'. Every one "
      f"was dropped, or the source holds another language. Check the source."
    )
  return examples


def _check(name, value, legal):
  if value not in legal:
    raise UserError(f"{name}='{value}' is not known. It must be one of {', '.join(legal)}.")
