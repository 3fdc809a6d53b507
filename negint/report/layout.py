"""What a report is made of, before it is written: sections, tables, figures, and number formats."""

from dataclasses import dataclass, field

from negint.report.statistics import Interval, Pooled

EMPTY = "–"
TASK_NAMES = {"ner": "NER", "pos": "POS", "qa": "QA", "nli": "NLI"}
SCORE_NAMES = {"f1": "F1", "exact_match": "EM", "accuracy": "accuracy"}
SETTING_NAMES = {"within": "within-language", "zero_shot": "zero-shot", "english": "on English"}


@dataclass
class Table:
  """A row of one cell is a heading that spans the table."""

  title: str
  header: list[str]
  rows: list[list[str]]


@dataclass
class Section:
  """A numbered result. `data` is the CSV file: its header and its rows, numbers in full."""

  name: str  # of tables/<name>.csv
  heading: str
  note: str = ""
  tables: list[Table] = field(default_factory=list)
  data_header: tuple[str, ...] = ()
  data: list[tuple] = field(default_factory=list)


@dataclass(frozen=True)
class Missing:
  """A part of the report that no run fills."""

  part: str
  what: str


def bracketed(ours: str, published: list[float | None]) -> str:
  """Ours, and the paper's numbers in brackets where it has all of them."""
  if any(value is None for value in published):
    return ours
  return f"{ours} [{'/'.join(f'{value:.1f}' for value in published)}]"


def scores(pooled: list[Pooled | None]) -> str:
  """ "89.2 ± 0.3 (3)", or "74.2 ± 0.3 / 62.5 ± 0.4 (3)" of two scores of the same runs."""
  if any(each is None for each in pooled):
    return EMPTY
  return f"{' / '.join(spread(each) for each in pooled)} ({pooled[0].count})"


def spread(pooled: Pooled, digits: int = 1) -> str:
  if pooled.deviation is None:
    return number(pooled.mean, digits)
  return f"{number(pooled.mean, digits)} ± {pooled.deviation:.{digits}f}"


def number(value: float | None, digits: int = 1, sign: str = "") -> str:
  """Rounded, without a negative zero; EMPTY of None."""
  return EMPTY if value is None else f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def difference(value: float, interval: Interval | None, seeds: int) -> str:
  """ "+1.2 [+0.3, +2.1] p=0.012 (3)": points, 95 % interval, two-sided p, pairs of seeds."""
  if interval is None:
    return f"{number(value, sign='+')} ({seeds})"
  p = "p<0.001" if interval.p < 0.001 else f"p={interval.p:.3f}"
  low, high = number(interval.low, sign="+"), number(interval.high, sign="+")
  return f"{number(value, sign='+')} [{low}, {high}] {p} ({seeds})"


def exact(value) -> str:
  """A CSV field; six digits hide the order in which a machine summed."""
  if value is None:
    return ""
  return f"{round(value, 6) + 0.0:.6g}" if isinstance(value, float) else str(value)


def listed(names) -> str:
  return ", ".join(names)
