"""The ablation, a language added later, the order of gates, and what tables say of their seeds."""

import json

import pytest
from studies import analyses, lab, pretrain, simulate, tune, write

from negint.report import (
  ablation,
  added,
  layout,
  pruning_figures,
  run_tables,
  score_tables,
  worth,
)
from negint.report.cells import Column, Key, Row, collect
from negint.report.comparisons import Comparer
from negint.report.difference_tables import DATA_HEADER, Differences
from negint.report.layout import Section
from negint.report.records import read_study
from negint.report.statistics import EXAMPLES, PRETRAINING, TUNING, Estimate, Interval

pytestmark = pytest.mark.usefixtures("few_resamples")
XB = Column("xb", similarity=0.5)
TRUTH = {
  ("ner", "within"): 80,
  ("ner", "zero_shot"): 50,
  ("pos", "within"): 80,
  ("pos", "zero_shot"): 50,
}


def read(folder):
  study = read_study(folder)
  cells = collect(study)
  return study, cells, Comparer(cells, study)


def test_the_ablation_shows_each_variant_beside_adpt_and_meta_adpt(tmp_path):
  better = {place: score + 8 for place, score in TRUTH.items()}
  lab(tmp_path, "joint_pair", TRUTH, seeds=(1, 2, 3))
  lab(tmp_path, "adpt", TRUTH, 3.0, seeds=(1, 2, 3))
  lab(tmp_path, "meta_adpt", better, 2.9, seeds=(1, 2, 3))
  lab(tmp_path, "meta_adpt", TRUTH, 3.0, seeds=(1, 2, 3), variant="release")
  _, cells, comparer = read(tmp_path)
  release = Row("meta_adpt", "pretraining meta.variant=release")
  assert cells.ablation("lab", XB) == [Row("adpt"), Row("meta_adpt"), release]
  found = ablation.section(cells, comparer)
  values = {
    (row[DATA_HEADER.index("system")], row[2], row[3]): row[DATA_HEADER.index("difference")]
    for row in found.data
  }
  assert values["+ meta adpt - adpt", "ner", "zero_shot"] == pytest.approx(8, abs=2)
  assert values["+ meta adpt - adpt", "perplexity", "within"] == pytest.approx(0.1), "bits saved"
  name = "+ meta adpt (meta.variant=release) - meta_adpt"
  assert values[name, "pos", "within"] == pytest.approx(-8, abs=2)
  assert [table.title for table in found.tables] == [
    "Variants, xb @0.5, scale lab",
    "Minus adpt, xb @0.5, scale lab",
    "Minus meta adpt, xb @0.5, scale lab",
  ]
  (block, _) = score_tables.blocks(score_tables.TABLES[0], cells, "lab", "ner", ("f1",))
  assert release not in block.rows(cells) and Row("meta_adpt") in block.rows(cells)
  (figure,) = ablation.draw(cells, comparer, "lab", tmp_path)
  assert (tmp_path / f"{figure.name}.png").stat().st_size > 10_000


def test_systems_on_the_same_languages_are_paired_by_their_seeds(tmp_path):
  for system, mean in (("mono", 70), ("joint_pair", 60), ("adpt", 65)):
    lab(tmp_path, system, {("ner", "within"): mean}, shared=8.0, spread=0.3, seeds=range(1, 5))
  lab(tmp_path, "ffn", {("ner", "within"): 62}, shared=8.0, spread=0.3, seeds=(3, 4, 5))
  lab(tmp_path, "attn", {("ner", "within"): 62}, shared=8.0, spread=0.3, seeds=(1,))
  comparer = read(tmp_path)[2]

  def minus_joint_pair(system):
    ours, theirs = (Key("lab", "ner", "within", Row(each), XB) for each in (system, "joint_pair"))
    found = comparer.difference(ours, theirs)
    return found.value, found.interval.high - found.interval.low, found.seeds

  value, width, seeds = minus_joint_pair("adpt")
  assert value == pytest.approx(5, abs=1) and width < 4 and seeds == 4
  value, width, seeds = minus_joint_pair("ffn")  # over the seeds that both have
  assert value == pytest.approx(2, abs=1) and seeds == 2
  _, width, seeds = minus_joint_pair("mono")  # other batches: nothing is shared
  assert width > 10 and seeds == 4
  assert minus_joint_pair("attn")[2] == 1


def test_without_a_variant_there_is_no_ablation(tmp_path):
  lab(tmp_path, "adpt", TRUTH, seeds=(1,))
  lab(tmp_path, "meta_adpt", TRUTH, seeds=(1,))
  _, cells, comparer = read(tmp_path)
  assert not ablation.section(cells, comparer).tables
  assert ablation.draw(cells, comparer, "lab", tmp_path) == []


def test_each_target_language_has_a_figure_of_its_variants(tmp_path):
  for language in ("ar", "fr"):
    for variant in ({}, {"variant": "release"}):
      for system in ("adpt", "meta_adpt"):
        fields = variant if system == "meta_adpt" else {}
        simulate(tmp_path, system, [language, "en"], TRUTH, seeds=(1,), scale="base", **fields)
  _, cells, comparer = read(tmp_path)
  drawn = ablation.draw(cells, comparer, "base", tmp_path)
  assert [figure.name for figure in drawn] == ["figure6ar_base", "figure6fr_base"]
  assert [figure.title.split(", ")[1] for figure in drawn] == ["ar", "fr"]


def add_language(runs, old: dict, new: str, seed: int) -> dict:
  """Writes a run that adds a language to an old one, as configs/add_language.py does."""
  languages = [new, *old["languages"]]
  origin = pretrain(runs, old["system"], languages, seed, bits=dict.fromkeys(languages, 3.0))
  path = runs / origin["workdir"].removeprefix("runs/")
  name = f"{path.name}-to-{old['system']}"
  path = path.rename(runs / name)
  for file, changes in {
    "config.json": {"init_from": old["workdir"], "new_language": new},
    "result.json": {
      "init_from": {"system": old["system"], "languages": old["languages"]},
      "new_language": new,
      "unknown_pieces": dict.fromkeys(languages, 0.01),
      "pieces_per_word": dict.fromkeys(languages, 1.5),
    },
  }.items():
    tree = json.loads((path / file).read_text()) | changes
    if file == "config.json":
      tree["data"]["tokenizer_from"] = old["workdir"]  # whose name has the seed
    write(path / file, tree)
  return origin | {"workdir": f"runs/{name}"}


def test_a_language_added_later_stands_beside_models_that_had_it_from_the_start(tmp_path):
  for seed in (1, 2):
    for system in ("adpt", "meta_adpt"):
      old = pretrain(tmp_path, system, ["xb", "xa"], seed)
      origin = add_language(tmp_path, old, "xc", seed)
      tune(tmp_path, origin, language="xc", source="xa", errors=seed + 4 * (system == "adpt"))
    three = pretrain(tmp_path, "joint_tri", ["xb", "xc", "xa"], seed)
    tune(tmp_path, three, language="xc", source="xa", errors=3)
    alone = pretrain(tmp_path, "mono", ["xc"], seed)
    tune(tmp_path, alone, language="xc", source="xc", errors=2)
  _, cells, comparer = read(tmp_path)
  found = added.section(cells, comparer, [])
  (table,) = found.tables
  assert table.title == "xc @0.5, scale lab"
  rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
  assert list(rows) == ["Mono", "JointTri", "added to adpt", "added to meta adpt"]
  assert rows["added to adpt"]["unknown"] == "1.00%" and rows["Mono"]["unknown"] == layout.EMPTY
  assert rows["added to adpt"]["NER zero-shot"].endswith("(2)"), "both seeds in one row"
  held_out = {name for name, row in rows.items() if row["held-out tokens"] != "0"}
  assert held_out == {"added to meta adpt"}
  assert rows["Mono"]["NER zero-shot"] == layout.EMPTY != rows["Mono"]["NER within-language"]
  assert found.note.endswith(layout.coverage([PRETRAINING]))


def test_the_order_of_gates_is_told_between_seeds_and_between_languages(tmp_path):
  analyses(tmp_path, pretrain(tmp_path, "joint_pair", ["xb", "xa"]))
  path = tmp_path / "masks" / "result.json"
  result = json.loads(path.read_text())
  assert not run_tables.orders(read_study(tmp_path)), "runs of before it was measured"
  for entry in result["similarity"]:
    entry["rank_correlation"] = 0.25
  for languages, value in ((["xa", "xa"], 0.8), (["xb", "xb"], 0.6), (["xb", "xa"], 0.1)):
    row = {"languages": languages, "seeds": [1, 2], "scope": "all", "cosine": 0.9, "centred": 0.5}
    result["similarity"].append(row | {"rank_correlation": value})
  path.write_text(json.dumps(result))
  study = read_study(tmp_path)
  assert run_tables.orders(study) == [["JointPair, xb-xa @0.5, lab, seed 1", "0.70", "0.10"]]
  curves = pruning_figures.mask_curves(study.of("pruning"))
  assert pruning_figures.has_kind(curves, "rank_correlation")
  assert pruning_figures.figure4a(study, "lab", tmp_path)
  group = {"group": "layer1/ffn/inner[3]", "in_seeds": 2}
  assert pruning_figures.group_label(group, 3) == "layer1/ffn/inner[3], 2 of 3"
  assert pruning_figures.group_label(group, 1) == pruning_figures.group_label(group, None)


def test_a_table_says_what_its_intervals_cover():
  assert layout.coverage([]) == layout.coverage(["", ""]) == ""
  assert layout.coverage([PRETRAINING]) == "Intervals cover pretraining seeds and test examples."
  assert layout.coverage([EXAMPLES]).startswith("One seed: intervals cover test examples only")
  assert "fine-tuning seeds of one pretrained model" in layout.coverage([TUNING])
  assert layout.coverage([EXAMPLES, PRETRAINING]).startswith("Intervals cover pretraining seeds")
  assert "A cell with (1) has one seed" in layout.coverage([EXAMPLES, PRETRAINING])
  both = layout.coverage([TUNING, PRETRAINING])
  assert "pretraining seeds" in both and "its fine-tuning seeds" in both and "(1)" not in both


def test_the_star_is_holms_over_the_table_and_never_of_one_seed():
  def found(p, over=PRETRAINING):
    return Estimate(2.0, Interval(1.0, 3.0, p), 3, over)

  where = ("t", "lab", "ner", "within", "a", "xb", "f1")
  every = [found(0.001), found(0.03), found(0.04), found(0.0001, EXAMPLES), None]
  table = Differences("T", ["system", *"abcde"], [["a", *((where, each) for each in every)]])
  section = Section("t", "T", data_header=DATA_HEADER)
  table.write(section)
  texts = section.tables[0].rows[0][1:]
  assert [text.count("*") for text in texts] == [1, 0, 0, 0, 0] and texts[-1] == layout.EMPTY
  adjusted = [row[DATA_HEADER.index("p_holm")] for row in section.data]
  assert adjusted == [*map(pytest.approx, (0.003, 0.06, 0.06)), None]


def test_the_first_figure_is_drawn_with_one_length_of_line_and_with_all(tmp_path):
  for steps in (150, 300, 600):
    lab(tmp_path, "mono", TRUTH_WITHIN[steps], steps=steps, seeds=(1, 2))
  lab(tmp_path, "joint_pair", TRUTH_WITHIN[300], seeds=(1, 2))
  _, cells, comparer = read(tmp_path)
  worths = worth.Worths(cells, comparer)
  figure = worth.figure(worths, "lab", tmp_path)
  assert figure.title == "Equivalent monolingual tokens, scale lab"
  (table,) = worth.section(read_study(tmp_path), worths, []).tables
  assert table.rows[0] == ["xb @0.5; Mono at 0.307, 0.614, 1.23 million tokens"]
  assert table.rows[1][0] == "JointPair" and table.rows[1][1] == "614,400"
  assert worth.figure(worths, "base", tmp_path) is None


TRUTH_WITHIN = {
  steps: {("ner", "within"): score} for steps, score in ((150, 60), (300, 70), (600, 80))
}
