"""The parts of a report before it is written (sections, tables, gaps), and its number formats."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from negint.report.statistics import EXAMPLES, PRETRAINING, TUNING, Estimate, Pooled

EMPTY = "–"
TASK_NAMES = {"ner": "NER", "pos": "POS", "qa": "QA", "nli": "NLI"}
MEASURE_NAMES = TASK_NAMES | {"perplexity": "bits"}
SCORE_NAMES = {"f1": "F1", "exact_match": "EM", "accuracy": "accuracy"}
SETTING_NAMES = {"within": "within-language", "zero_shot": "zero-shot", "english": "on English"}


@dataclass
class Table:
  """A table of texts."""

  title: str  # may be empty
  header: list[str]  # the names of the columns
  rows: list[list[str]]  # a row of one cell is a heading that spans the table


@dataclass
class Section:
  """A part of the report under one heading."""

  name: str  # of tables/<name>.csv
  heading: str  # of the section
  note: str = ""  # what its numbers mean
  tables: list[Table] = field(default_factory=list)  # as shown
  data_header: tuple[str, ...] = ()  # of the CSV file; empty: the CSV file has the tables
  data: list[tuple] = field(default_factory=list)  # rows of the CSV file, numbers not rounded


@dataclass(frozen=True)
class Missing:
  """A part of the report for which there is no run."""

  part: str  # of the report
  what: str  # is missing, or what it needs


def bracketed(ours: str, published: list[float | None]) -> str:
  """Returns our text with the paper's numbers in brackets, if the paper has all of them."""
  if any(value is None for value in published):
    return ours
  return f"{ours} [{'/'.join(f'{value:.1f}' for value in published)}]"


def scores(pooled: list[Pooled | None]) -> str:
  """Returns "89.2 ± 0.3 (3)", or "74.2 ± 0.3 / 62.5 ± 0.4 (3)" for two scores of the same runs."""
  found = [each for each in pooled if each is not None]
  if len(found) < len(pooled):
    return EMPTY
  return f"{' / '.join(spread(each) for each in found)} ({found[0].count})"


def spread(pooled: Pooled, digits: int = 1) -> str:
  """Returns "89.2 ± 0.3", or "89.2" for a single value."""
  if pooled.deviation is None:
    return number(pooled.mean, digits)
  return f"{number(pooled.mean, digits)} ± {pooled.deviation:.{digits}f}"


def number(value: float | None, digits: int = 1, sign: str = "") -> str:
  """Returns a rounded number, never a negative zero; EMPTY for None.

  Args:
    value: the number.
    digits: after the point.
    sign: "+" writes the sign of positive numbers, too.
  """
  return EMPTY if value is None else f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def difference(found: Estimate | None, *, digits: int = 1, significant: bool = False) -> str:
  """Returns "+1.2 [+0.3, +2.1]* (3)": points, 95 % interval, number of seeds; EMPTY for None.

  Args:
    found: the difference.
    digits: after the point.
    significant: writes the star.
  """
  if found is None:
    return EMPTY
  text = number(found.value, digits, "+")
  if found.interval:
    low, high = (number(end, digits, "+") for end in (found.interval.low, found.interval.high))
    text += f" [{low}, {high}]{'*' * significant}"
  return f"{text} ({found.seeds})"


def score(found: Estimate | None, digits: int = 1) -> str:
  """Returns "54.2 [50.1, 58.3] (3)": a score, its 95 % interval, number of seeds; EMPTY for None."""
  if found is None:
    return EMPTY
  text = number(found.value, digits)
  if found.interval:
    text += f" [{number(found.interval.low, digits)}, {number(found.interval.high, digits)}]"
  return f"{text} ({found.seeds})"


def digits(task: str) -> int:
  """Returns how many digits of a task's differences are shown: points have one, bits three."""
  return 3 if task == "perplexity" else 1


def coverage(over: Iterable[str]) -> str:
  """Returns the sentence that says what a table's intervals cover.

  Args:
    over: `Estimate.over` of each interval.
  """
  kinds = set(over) - {""}
  if kinds == {EXAMPLES}:
    return "One seed: intervals cover test examples only, and say nothing about other seeds."
  sentences = {
    PRETRAINING: "Intervals cover pretraining seeds and test examples.",
    TUNING: "Intervals cover the fine-tuning seeds of one pretrained model, and test examples.",
    EXAMPLES: "A cell with (1) has one seed: its interval covers test examples only.",
  }
  if {PRETRAINING, TUNING} <= kinds:
    sentences[TUNING] = (
      "Where there is one pretrained model, they cover its fine-tuning seeds and test examples "
      "(`interval_covers` in the CSV file)."
    )
  return " ".join(sentence for kind, sentence in sentences.items() if kind in kinds)


def exact(value: object) -> str:
  """Returns a CSV field; numbers keep six digits, which do not depend on the order of sums."""
  if value is None:
    return ""
  return f"{round(value, 6) + 0.0:.6g}" if isinstance(value, float) else str(value)


def listed(names: Iterable[str]) -> str:
  """Returns "a, b, c"."""
  return ", ".join(names)
