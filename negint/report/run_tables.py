"""Tables about the runs themselves: data, compute, gradients, pruning, provenance."""

import collections
from collections.abc import Iterable

from negint.method import similarity
from negint.report import layout, published
from negint.report.cells import (
  ENGLISH,
  PAPER_LANGUAGES,
  SCALES,
  Row,
  row_order,
  row_settings,
  system_of,
)
from negint.report.layout import EMPTY, TASK_NAMES, Missing, Section, Table
from negint.report.records import Origin, Run, Study
from negint.report.statistics import pool
from negint.report.variants import split_by_place

Corpus = tuple[str, str, str]  # (scale, language, a subsample's size as a suffix)
Sizes = dict[Corpus, dict[str, set[int]]]  # {corpus: {what is counted: the counts of all runs}}


def pair_label(origin: Origin) -> str:
  """Returns a model's languages, subsample and similarity: "xb-xa @0.5", "fr_l (100,000)-en"."""
  size = f"_l ({origin.subsample:,})" if origin.subsample else ""
  name = "-".join((origin.languages[0] + size, *origin.languages[1:]))
  return name if origin.similarity is None else f"{name} @{origin.similarity:g}"


def scale_order(scale: str) -> tuple[int, str]:
  """Returns a sort key: scales in the order of SCALES, then the others."""
  return SCALES.index(scale) if scale in SCALES else len(SCALES), scale


def origin_order(origin: Origin) -> tuple:
  """Returns a sort key: by scale, system, languages, subsample, similarity and seed."""
  similarity = -1.0 if origin.similarity is None else origin.similarity
  where = origin.languages, origin.subsample, similarity, origin.seed or 0
  return scale_order(origin.scale), row_order(Row(origin.system)), *where


def data_section(study: Study) -> Section:
  """Returns Table 1: the text and the examples of every language."""
  note = (
    "In brackets the paper's corpus, millions of sentences. Tasks: examples train / dev / test."
  )
  section = Section("table1", "Table 1: data", note)
  sizes: Sizes = collections.defaultdict(lambda: collections.defaultdict(set))
  for run in study.pretraining:
    subsample = run.origin.subsample
    for language, count in run.result["training_sentences"].items():
      size = f"_l ({subsample:,})" if subsample and language == run.origin.languages[0] else ""
      entry = sizes[run.origin.scale, language, size]
      entry["sentences"].add(count)
      entry["tokens"] |= {run.result.get("training_tokens", {}).get(language)} - {None}
  for run in study.tuning:
    count_examples(run, sizes)
  header = ["language", "sentences", "tokens", *TASK_NAMES.values()]
  for scale in sorted({key[0] for key in sizes}, key=scale_order):
    table = Table(f"Table 1, scale {scale}", header, [])
    for key in sorted((k for k in sizes if k[0] == scale), key=language_order):
      table.rows.append([key[1] + key[2], *data_cells(key, sizes[key])])
    section.tables.append(table)
  return section


def language_order(key: Corpus) -> tuple[int, str, str]:
  """Returns a sort key: languages in the order of the paper, then the others."""
  _, language, size = key
  known = PAPER_LANGUAGES
  return known.index(language) if language in known else len(known), language, size


def count_examples(run: Run, sizes: Sizes) -> None:
  """Adds the examples of a fine-tuning run.

  Train and dev examples are those of its source language, test examples those of each tested one.
  """
  scale, task = run.origin.scale, run.task
  for part, count in run.result.get("examples", {}).items():
    part, _, language = part.partition("/")
    language = language or run.result["source_language"]
    sizes[scale, language, ""][f"{task}/{part}"].add(count)


def data_cells(key: Corpus, entry: dict[str, set[int]]) -> list[str]:
  """Returns the cells of a row of Table 1 after the language."""
  scale, language, size = key

  def counts(name: str) -> str:
    return " or ".join(f"{value:,}" for value in sorted(entry[name])) or EMPTY

  theirs = published.corpus_sizes().get(language) if scale != "lab" and not size else None
  cells = [layout.bracketed(counts("sentences"), [theirs]), counts("tokens")]
  for task in TASK_NAMES:
    parts = [counts(f"{task}/{part}") for part in ("train", "dev", "test")]
    cells.append(EMPTY if set(parts) == {EMPTY} else " / ".join(parts))
  return cells


def compute_section(study: Study) -> Section:
  """Returns the table of what each kind of pretraining run cost, with its perplexities."""
  note = (
    "Perplexity per predicted token on `valid`: mean ± sample standard deviation over seeds. In "
    "parentheses: the perplexity of word frequencies alone. Held-out text trains phi. It is not that of "
    "`valid`, and may be easier. A ratio of the two perplexities that falls during training "
    "(`metrics.jsonl` has both) is a sign that phi learns it by heart. FLOPs are counted from shapes."
  )
  header = ["system", "languages", "seeds", "steps", "tokens", "held-out tokens", "FLOPs"]
  header += ["theta", "phi per language", "perplexity of the target", "of its held-out text"]
  header += ["of English"]
  section = Section("compute", "Compute and perplexity", note)
  runs = sorted(study.pretraining, key=lambda r: (*origin_order(r.origin), r.origin.steps or 0))
  groups = collections.defaultdict(list)
  for scale in dict.fromkeys(run.origin.scale for run in runs):
    here = [run for run in runs if run.origin.scale == scale]
    labels = [pair_label(run.origin) for run in here]
    systems = [system_of(run.origin, run) for run in here]
    settings = [row_settings(run) for run in here]
    variants, _ = split_by_place(labels, systems, systems, settings)
    for run, label, system, variant in zip(here, labels, systems, variants, strict=True):
      steps = run.origin.steps or 0 if run.origin.system == "mono" else 0  # one row per length
      groups[scale, Row(system, variant, steps), label].append(run)
  tables: dict[str, Table] = {}
  for (scale, row, languages), members in groups.items():
    table = tables.setdefault(scale, Table(f"Scale {scale}", header, []))
    label = row.label.replace("pretraining ", "")
    table.rows.append([label, languages, *compute_cells(members)])
  section.tables = list(tables.values())
  return section


def compute_cells(runs: list[Run]) -> list[str]:
  """Returns the cells of a row of the compute table after the system and the languages.

  Args:
    runs: that differ in their seeds only.
  """

  def several(values: Iterable[float], text: str) -> str:
    return " or ".join(text.format(value) for value in sorted(set(values)))

  results = [run.result for run in runs]
  cells = [layout.listed(str(seed) for seed in sorted({run.origin.seed or 0 for run in runs}))]
  for name, text in (
    *(("steps", "{:,}"), ("tokens_seen", "{:,}"), ("held_out_tokens_seen", "{:,}")),
    ("flops", "{:.3g}"),
  ):
    cells.append(several([result[name] for result in results], text))
  for name in ("theta", "phi_of_each_language"):
    cells.append(several([result["parameters"][name] for result in results], "{:,}"))
  languages = runs[0].origin.languages
  english = languages[-1] if languages[-1] in ENGLISH and len(languages) > 1 else None
  held_out = EMPTY
  if all("meta_perplexity" in result for result in results):
    held_out = layout.spread(pool(r["meta_perplexity"][languages[0]] for r in results), 2)
  return [*cells, perplexity(results, languages[0]), held_out, perplexity(results, english)]


def perplexity(results: list[dict], language: str | None) -> str:
  """Returns "56.24 ± 0.31 (125.88)": the model's perplexity, and that of word frequencies."""
  if language is None:
    return EMPTY
  own = layout.spread(pool(result["perplexity"][language] for result in results), 2)
  unigram = pool(result["unigram_perplexity"][language] for result in results).mean
  return f"{own} ({unigram:.2f})"


def estimate(value: dict | None) -> str:
  """Returns "0.123 ± 0.004": a mean and its standard error."""
  if value is None:
    return EMPTY
  if value["mean"] is None:
    return "undefined"
  if value["standard_error"] is None:
    return layout.number(value["mean"], 3)
  return f"{layout.number(value['mean'], 3)} ± {value['standard_error']:.3f}"


def gradient_section(study: Study, missing: list[Missing]) -> Section:
  """Returns the table of gradient cosines at the last checkpoint, by scope."""
  note = (
    "Mean ± standard error over repeats. X-Y: cosine of the gradients of two languages. X-X: cosine of "
    "the gradients of two independent batches of one language, which sampling noise lowers below 1. "
    "Corrected: X-Y divided by the geometric mean of X-X and Y-Y, each averaged first; undefined where "
    "X-X or Y-Y is 0 or below. No sum includes `language_embedding`: its row of one language has a "
    "gradient from that language alone, so X-Y is 0 there."
  )
  section = Section("gradients", "Gradient cosines at the last checkpoint", note)
  section.data_header = ("run", "step", "scope", "kind", "pair", "mean", "standard_error")
  runs = sorted(study.of("gradient_similarity"), key=lambda run: origin_order(run.origin))
  for run in runs:
    if not run.result["checkpoints"]:
      continue
    last = max(run.result["checkpoints"], key=lambda checkpoint: checkpoint["step"])
    raw = sorted({p for scope in last["scopes"].values() for p in scope["cosine"]})
    corrected = sorted({p for scope in last["scopes"].values() for p in scope["corrected"]})
    header = ["scope", *raw, *(f"{pair}, corrected" for pair in corrected)]
    table = Table(f"{run_label(run)}, step {last['step']:,}", header, [])
    for name, scope in last["scopes"].items():
      cells = [scope["cosine"].get(pair) for pair in raw]
      cells += [scope["corrected"].get(pair) for pair in corrected]
      table.rows.append([name, *(estimate(cell) for cell in cells)])
      section.data += [
        (run.workdir, last["step"], name, kind, pair, value["mean"], value["standard_error"])
        for kind in ("cosine", "corrected")
        for pair, value in sorted(scope[kind].items())
      ]
    section.tables.append(table)
  if not section.tables:
    missing.append(Missing(section.heading, "no gradient_similarity run"))
  return section


def run_label(run: Run) -> str:
  """Returns the title of a run's table."""
  origin = run.origin
  return f"{Row(origin.system).label}, {pair_label(origin)}, {origin.scale}, seed {origin.seed}"


def pruning_section(study: Study, missing: list[Missing]) -> Section:
  """Returns the table of what each mask keeps, and what that costs in perplexity."""
  note = (
    "Perplexities on `valid`: without a mask → with the mask (with the same gates, shuffled within each "
    "projection). Each mask is learned for one language."
  )
  section = Section("pruning", "Pruning masks", note)
  section.data_header = ("run", "mask_of", "seed", "penalty", "kept")
  section.data_header += ("language", "perplexity_unpruned", "perplexity", "perplexity_shuffled")
  for run in sorted(study.of("pruning"), key=lambda run: origin_order(run.origin)):
    languages = sorted(run.result["unpruned_perplexity"])
    header = ["mask of", "seed", "penalty", "kept", *(f"perplexity of {c}" for c in languages)]
    table = Table(run_label(run), header, [])
    before = run.result["unpruned_perplexity"]
    for mask in sorted(run.result["masks"], key=lambda mask: (mask["language"], mask["seed"])):
      found = mask["language"], mask["seed"], mask["penalty"], mask["kept"]
      change = []
      for language in languages:
        after, shuffled = mask["perplexity"][language], mask["shuffled_perplexity"][language]
        section.data.append((run.workdir, *found, language, before[language], after, shuffled))
        change.append(f"{before[language]:.2f} → {after:.2f} ({shuffled:.2f})")
      kept = f"{100 * mask['kept']:.1f} %"
      penalty = f"{mask['penalty']:.2f}"
      table.rows.append([mask["language"], str(mask["seed"]), penalty, kept, *change])
    section.tables.append(table)
  if not section.tables:
    missing.append(Missing(section.heading, "no pruning run"))
  elif saturated := saturated_parts(study):
    section.note += (
      f" Saturated: more than {similarity.SATURATED:.0%} of the gates of one of two masks stand at the same "
      "limit. Their plain cosine is then high for any two languages, and Figure 4a does not show it."
    )
    section.tables.append(Table("Saturated parts", ["model", "masks", "parts"], saturated))
  if order := orders(study):
    section.note += (
      " Order of the gates: rank correlation of all gates' π, mean over pairs of masks. Two seeds of one "
      "language say how much of an order is chance."
    )
    header = ["model", "two seeds of one language", "two languages"]
    section.tables.append(Table("Order of the gates", header, order))
  return section


def orders(study: Study) -> list[list[str]]:
  """Returns (model, rank correlation of two seeds, of two languages) of each run that has it."""
  rows = []
  for run in sorted(study.of("pruning"), key=lambda run: origin_order(run.origin)):
    entries = [e for e in run.result["similarity"] if e["scope"] == "all"]
    found: dict[bool, list[float]] = {True: [], False: []}
    for entry in entries:
      if entry.get("rank_correlation") is not None:
        found[len(set(entry["languages"])) == 1].append(entry["rank_correlation"])
    if any(found.values()):
      means = [layout.number(pool(each).mean, 2) if each else EMPTY for each in found.values()]
      rows.append([run_label(run), *means])
  return rows


def saturated_parts(study: Study) -> list[list[str]]:
  """Returns (model, masks, parts) of each pair of masks whose plain cosine says nothing."""
  found: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
  for run in sorted(study.of("pruning"), key=lambda run: origin_order(run.origin)):
    for entry in filter(similarity.is_saturated, run.result["similarity"]):
      names = [f"{c} seed {s}" for c, s in zip(entry["languages"], entry["seeds"], strict=False)]
      found[run_label(run), " and ".join(names)].append(entry["scope"])
  return [[*key, layout.listed(parts)] for key, parts in found.items()]


def seed_label(origin_seed: int | None, seeds: list[str]) -> str:
  """Returns "1/1,2,3": the seed of pretraining, and the seeds of fine-tuning."""
  own = EMPTY if origin_seed is None else str(origin_seed)
  return f"{own}/{','.join(seeds)}" if seeds else own


def provenance_section(study: Study) -> Section:
  """Returns the table of every run that the report was made from."""
  header = ["workdir", "config.json", "task", "system", "languages", "seed", "steps", "data"]
  table = Table("", header, [])
  for run in study.runs:
    origin = run.origin
    seeds = [str(entry["seed"]) for entry in run.result.get("seeds", [])]
    data = run.settings.get("data.source") or run.settings.get("data.tasks_dir") or ""
    if not data and run.task in TASK_NAMES:
      data = "lab" if origin.scale == "lab" else run.settings.get("data.tfds", "")
    baseline = run.result.get("baseline", "none")
    system = origin.system if baseline == "none" else f"{origin.system}, {baseline}"
    setting = (
      f" {run.result['setting']} {run.result['language']}" if "setting" in run.result else ""
    )
    steps = EMPTY if origin.steps is None else f"{origin.steps:,}"
    table.rows.append(
      [run.workdir, run.digest, f"{run.task}{setting}", system, pair_label(origin)]
      + [seed_label(origin.seed, seeds), steps, data or EMPTY]
    )
  note = (
    "Folders below the folder of runs; the first eight hexadecimal digits of the SHA-256 of "
    "config.json; seeds: of pretraining/of fine-tuning; steps of pretraining."
  )
  return Section("provenance", "Provenance", note, [table])
