"""Fine-tuning runs: selection, routes, resuming, and what never decides anything."""

import dataclasses
import gc
import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import (
  assert_same_bits,
  counted_compilations,
  has_logged,
  memoised,
  slow,
  toy_config,
  toy_tuning,
  wait_until,
)
from toy_task import OPINION
from xlm_folder import LINES, write_checkpoint

from configs import tasks as task_configs
from negint import pretrain
from negint.errors import Interrupted, NonFiniteLoss, UserError
from negint.finetuning import batches, data, finetune, programs, testing, trial
from negint.finetuning import options as finetune_options
from negint.method import device, memory, parallel
from negint.pretrained.load import init_state, load_pretrained, routed
from negint.run import runner
from negint.run.interrupt import Interruption
from negint.tasks import loading, tfds_source
from negint.tasks.table import TASKS

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_run_compiled_once():
  with memoised(programs, "make_tune_step", "make_predictor"):
    yield


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """A pretrained toy model with adapters, by its workdir."""
  root = tmp_path_factory.mktemp("pretrained")
  config = toy_config(
    "adpt",
    data__dir=str(root / "data"),
    data__sequence_length=48,
    model__max_length=48,
    model__num_layers=1,
  )
  runner.run(pretrain.KIND, config, root / "adpt-toy", print)
  return root / "adpt-toy"


def run_finetune(config, workdir, say=print):
  return runner.run(finetune.KIND, config, workdir, say)


def per_example(workdir, language):
  return json.loads((workdir / "seed1" / "per_example" / f"{language}.json").read_text())


def main_score(task, statistics):
  """The main score in per cent, from nothing but the per-example statistics."""
  columns = dict(zip(statistics["columns"], zip(*statistics["rows"], strict=True), strict=True))
  if task in ("ner", "pos"):
    found = sum(columns["predicted"]) + sum(columns["gold"])
    return 200 * sum(columns["correct"]) / found if found else 0
  column = columns[{"qa": "f1", "nli": "correct"}[task]]
  return 100 * sum(column) / len(column)


def task_config(task, base, arg="lab", **fields):
  config = toy_tuning(importlib.import_module(f"configs.{task}").get_config(arg), base)
  for name, value in fields.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return config


@pytest.mark.parametrize(
  ("task", "arg"),
  [
    ("ner", "lab"),
    ("ner", "lab,zero_shot"),
    ("pos", "lab"),
    slow("pos", "lab,zero_shot"),
    ("qa", "lab"),
    slow("qa", "lab,zero_shot"),
    ("nli", "lab"),
  ],
)
def test_every_task_and_setting_ends_in_scores_and_predictions(task, arg, base, tmp_path):
  said = []
  result = run_finetune(task_config(task, base, arg), tmp_path / "run", said.append)
  zero_shot = "zero_shot" in arg or task == "nli"
  assert result["setting"] == ("zero_shot" if zero_shot else "within")
  assert list(result["test"]) == (["xb", "xa"] if zero_shot else ["xb"])
  for scores in result["test"].values():
    assert TASKS[task].main_score in scores
    assert all(0 <= value <= 100 for value in scores.values())
  for code in result["test"]:
    files = list((tmp_path / "run").glob(f"seed1/predictions/*/test-{code}.*"))
    assert len(files) == 1 and files[0].stat().st_size
    rows = per_example(tmp_path / "run", code)
    assert len(rows["rows"]) == result["examples"][f"test/{code}"] == 24
    assert main_score(task, rows) == result["test"][code][TASKS[task].main_score]
  assert result["examples"]["train"] == 48 and result["examples"]["dev"] == 16
  assert result["pretraining"] == load_pretrained(str(base)).identity()
  assert len(result["seeds"][0]["trials"][0]["dev"]) == 2
  assert "test xb" in said[-1]
  again = run_finetune(task_config(task, base, arg), tmp_path / "run", said.append)
  assert again == result


@pytest.fixture
def opinions(monkeypatch, tmp_path):
  """The toy task, in the table; returns the folder of its data."""
  monkeypatch.setitem(TASKS, "opinion", OPINION)
  words = LINES[0].split()
  for split, number in (("train", 48), ("dev", 16), ("test", 12)):
    lines = [
      f"{label}: {' '.join([clue, *np.random.default_rng(i).permutation(words)[:4]])}"
      for i in range(number // 2)
      for label, clue in (("praise", "kala kala"), ("blame", "mobo mobo"))
    ]
    path = tmp_path / "tasks" / "opinion" / "xb" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")
  return tmp_path / "tasks"


def opinion_config(base, folder, **fields):
  """What configs/opinion.py would return."""
  config = toy_tuning(task_configs.finetune("opinion", "lab"), base)
  config.update_from_flattened_dict({"data.tasks_dir": str(folder), **fields})
  return config


def test_a_task_is_added_by_its_record_its_config_and_a_line_of_the_table(base, opinions, tmp_path):
  config = opinion_config(base, opinions, **{"train.epochs": 8})
  result = run_finetune(config, tmp_path / "run")
  assert (result["task"], result["main_score"]) == ("opinion", "right")
  assert result["test"]["xb"]["right"] == 100
  assert result["examples"] == {"train": 48, "dev": 16, "test/xb": 12}
  predicted = tmp_path / "run" / "seed1" / "predictions" / "opinions" / "test-xb.txt"
  assert predicted.read_text() == "\n".join(["praise", "blame"] * 6)
  assert per_example(tmp_path / "run", "xb") == {"columns": ["correct"], "rows": [[1]] * 12}
  # Negative control: without the texts half is right.
  config = opinion_config(base, opinions, baseline="majority")
  assert run_finetune(config, tmp_path / "majority")["test"]["xb"]["right"] == 50


def test_a_task_without_lab_or_tfds_asks_for_files(base, opinions, tmp_path):
  with pytest.raises(UserError, match="The lab has no examples of task 'opinion'.*tasks_dir"):
    run_finetune(opinion_config(base, ""), tmp_path / "run")
  assert not (tmp_path / "run").exists()

  def load(task, tfds):
    loading.load(task, loading.SourceOptions(tfds=tfds), None, "ar", "dev")

  with pytest.raises(UserError, match=r"data.tfds is 'x'.*tasks_dir\.$"):
    load(OPINION, "x")
  with pytest.raises(UserError, match=r"data.tfds is ''.*or a TFDS builder\.$"):
    load(TASKS["ner"], "")


def test_a_task_that_is_not_in_the_table_is_refused(base, tmp_path):
  with pytest.raises(UserError, match="'ner', 'pos', 'qa', 'nli'"):
    run_finetune(opinion_config(base, tmp_path), tmp_path / "run")


def test_only_a_tasks_own_file_and_the_table_name_it():
  names = re.compile("|".join(rf"[\"']{name}[\"']" for name in TASKS))
  files = [*(ROOT / "negint/tasks").glob("*.py"), *(ROOT / "negint/finetuning").glob("*.py")]
  naming = {path.name for path in files if names.search(path.read_text(encoding="utf-8"))}
  assert naming == {f"{name}.py" for name in TASKS}


def test_the_test_set_decides_nothing(base, tmp_path, monkeypatch):
  """It is read once, after selection; and other test labels select the same weights."""
  config = task_config(
    "ner", base, search="paper", grid__batch_size=(8,), grid__learning_rate=(1e-4, 1e-3)
  )
  load, asked = loading.load, []

  def recording(task, source, lab, language, split, selects=True):
    asked.append(
      (split, (tmp_path / "run" / "seed1" / "batch8-rate0.001" / "metrics.jsonl").exists())
    )
    return load(task, source, lab, language, split, selects=selects)

  monkeypatch.setattr(loading, "load", recording)
  result = run_finetune(config, tmp_path / "run", print)
  assert [split for split, _ in asked] == ["train", "dev", "test"]
  assert asked[-1] == ("test", True)  # after the last trial

  def shuffled(task, source, lab, language, split, selects=True):
    examples, report = load(task, source, lab, language, split, selects=selects)
    if split == "test":
      words = [e.words for e in examples]
      examples = [
        type(e)(w, (e.tags * len(w))[: len(w)]) for e, w in zip(examples, words[::-1], strict=True)
      ]
    return examples, report

  monkeypatch.setattr(loading, "load", shuffled)
  other = run_finetune(config, tmp_path / "other", print)
  for name in ("selected", "selected_epoch", "dev", "trials"):
    assert other["seeds"][0][name] == result["seeds"][0][name]
  assert other["test"] != result["test"]


@pytest.mark.slow
def test_the_best_epoch_on_dev_is_tested(base, tmp_path, monkeypatch):
  """With dev scores 10, 90, 20 the second epoch's weights are selected."""
  config = task_config("ner", base, train__epochs=3)
  scores, seen = iter([10.0, 90.0, 20.0]), []

  def scripted(shared, tuned):
    seen.append(trial.on_host(tuned))
    return next(scores)

  monkeypatch.setattr(trial, "dev_score", scripted)
  tested = []

  def test(shared, tuned, language, folder):
    tested.append(tuned)
    return testing.Tested({"f1": 1.0}, 0, {})

  monkeypatch.setattr(testing, "test", test)
  result = run_finetune(config, tmp_path / "run", print)
  assert result["seeds"][0]["selected_epoch"] == 2
  assert_same_bits(tested[0], seen[1])
  with pytest.raises(AssertionError):
    assert_same_bits(tested[0], seen[2])


@pytest.mark.parametrize(("second", "best"), [(100 / 3, 1.0), (33.4, 2.0), (33.3, 1.0)])
def test_of_two_epochs_with_one_score_the_first_is_the_best(second, best):
  """A score that float32 cannot hold ties with itself; the best weights are those of argmax(dev)."""
  assert float(np.float32(100 / 3)) < 100 / 3
  tuned = {"w": jnp.float32(1)}
  tuning = programs.TuneState(jnp.int32(0), jnp.float32(0), jax.random.key(0), tuned, slots={})
  state = trial.end_epoch(trial.at_start(tuning, {"w": 0.0}, epochs=2), 100 / 3)
  tuning = tuning.replace(tuned={"w": jnp.float32(2)})
  state = trial.end_epoch(state.replace(tuning=tuning), second)
  assert float(state.best["w"]) == best == 1 + np.argmax(state.dev)


@pytest.mark.slow
def test_all_trials_of_a_shape_share_one_compilation(base, tmp_path):
  counts = []
  for rates in ((1e-3,), (1e-3, 2e-3, 3e-3)):
    config = task_config(
      "ner", base, search="paper", grid__batch_size=(8,), grid__learning_rate=rates
    )
    programs.make_tune_step.cache_clear()  # what other tests compiled
    programs.make_predictor.cache_clear()
    with counted_compilations() as compiled:
      result = run_finetune(config, tmp_path / str(len(rates)), print)
    assert len(result["seeds"][0]["trials"]) == len(rates)
    counts.append(len(compiled))
  assert 0 < counts[1] <= counts[0]


def test_the_papers_grids():
  sizes = {}
  for task in ("ner", "pos", "qa", "nli"):
    config = importlib.import_module(f"configs.{task}").get_config("ar")
    config.init_from, config.search = "somewhere", "paper"
    run = finetune_options.from_config(config, 1)
    sizes[task] = len(run.trials)
    assert {t.epochs for t in run.trials} == {{"qa": 2, "nli": 200}.get(task, 10)}
    assert {t.epoch_size for t in run.trials} == {20_000 if task == "nli" else 0}
    if task != "nli":
      assert {t.batch_size for t in run.trials} == {16, 32}
      assert {t.learning_rate for t in run.trials} == {2e-5, 3e-5, 5e-5}
      assert all(t.head_learning_rate == t.learning_rate for t in run.trials)
  assert sizes == {"ner": 6, "pos": 6, "qa": 6, "nli": 18}


def test_routes_choose_whose_modules_are_used():
  theta = {"language": np.arange(6.0).reshape(3, 2), "token": np.ones((4, 2))}
  phi = {"w": np.array([[1.0], [2.0], [6.0]])}
  _, phi_i, index = routed(theta, phi, "target", 0, 2)
  assert (phi_i["w"], index) == (6.0, 2)
  _, phi_i, index = routed(theta, phi, "source", 0, 2)
  assert (phi_i["w"], index) == (1.0, 0)
  mean_theta, phi_i, index = routed(theta, phi, "mean", 0, 2)
  assert phi_i["w"] == 3.0
  np.testing.assert_array_equal(mean_theta["language"][index], [2.0, 3.0])
  np.testing.assert_array_equal(theta["language"][0], [0.0, 1.0])


@pytest.mark.slow
def test_the_route_changes_zero_shot_scores_only(base, tmp_path):
  tests = {}
  for route in ("target", "source", "mean"):
    config = task_config("pos", base, "lab,zero_shot", route=route, train__epochs=1)
    tests[route] = run_finetune(config, tmp_path / route, print)["test"]
  assert tests["target"]["xa"] == tests["source"]["xa"] == tests["mean"]["xa"]
  assert len({json.dumps(test["xb"]) for test in tests.values()}) > 1


@pytest.mark.parametrize("frozen", [False, slow(True)])
def test_fine_tuning_moves_the_source_languages_modules_unless_frozen(
  frozen, base, tmp_path, monkeypatch
):
  tested = []
  test = testing.test
  monkeypatch.setattr(testing, "test", lambda *given: tested.append(given[:2]) or test(*given))
  config = task_config("ner", base, train__epochs=1, freeze_phi=frozen)
  run_finetune(config, tmp_path / "run", print)
  shared, tuned = tested[0]
  if frozen:
    assert tuned["phi"] == {}
  else:
    moved = [
      not np.array_equal(a, b)
      for a, b in zip(jax.tree.leaves(tuned["phi"]), jax.tree.leaves(shared.phi_i), strict=True)
    ]
    assert all(moved)


def test_a_scratch_row_starts_from_the_initial_weights(base):
  trained, scratch = load_pretrained(str(base)), load_pretrained(str(base), scratch=True)
  assert not np.array_equal(trained.theta["token"], scratch.theta["token"])
  run = trained.run
  fresh = init_state(run.model, run.optimiser, run.seed)
  assert_same_bits(scratch.theta, fresh.theta)


def test_the_identity_of_a_run_is_what_its_result_says(base):
  identity = load_pretrained(str(base)).identity()
  result = json.loads((base / "result.json").read_text())
  assert len(identity.pop("vocabulary")) == 16
  assert identity == {
    "workdir": str(base),
    "system": "adpt",
    "languages": ["xb", "xa"],
    "scale": "lab",
    "seed": 1,
    "steps": result["steps"],
    "subsample": 0,
    "similarity": toy_config().data.lab.similarity,
    "tokens_seen": result["tokens_seen"],
    "tokens_seen_by_language": result["tokens_seen_by_language"],
    "flops": result["flops"],
  }


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
  """(folder of a Hugging Face XLM checkpoint, folder of labelled data in its languages)."""
  root = tmp_path_factory.mktemp("imported")
  write_checkpoint(root / "xlm")
  words = {"en": LINES[0].split(), "ar": LINES[2].split()}
  for code, text in words.items():
    tagged = "".join(f"{word}\t{'B-PER' if i % 3 == 0 else 'O'}\n" for i, word in enumerate(text))
    context = " ".join(text)
    questions = [
      {"id": f"{code}{i}", "question": word, "answers": [answer(context, word)]}
      for i, word in enumerate(text[:4])
    ]
    squad = {"data": [{"paragraphs": [{"context": context, "qas": questions}]}]}
    pairs = "".join(
      f"{context}\t{word}\t{label}\n"
      for word, label in zip(text, ("entailment", "neutral", "contradiction"), strict=False)
    )
    for split in ("train", "dev", "test"):
      for name, content in {
        "ner": (tagged + "\n") * 3,
        "pos": tagged.replace("B-PER", "NOUN").replace("\tO", "\tX"),
        "nli": pairs,
        "qa": json.dumps(squad),
      }.items():
        path = root / "tasks" / name / code / f"{split}.{'json' if name == 'qa' else 'tsv'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
  return root / "xlm", root / "tasks"


def answer(context, word):
  return {"text": word, "answer_start": context.index(word)}


@pytest.mark.parametrize(
  ("task", "arg"),
  [
    ("ner", "ar"),
    slow("ner", "ar,zero_shot"),
    slow("pos", "ar"),
    slow("qa", "ar"),
    slow("nli", "ar"),
  ],
)
def test_an_imported_checkpoint_is_a_system_like_any_other(task, arg, imported, tmp_path):
  folder, data = imported
  said = []
  config = task_config(task, folder, arg, data__tasks_dir=str(data), train__epoch_size=0)
  result = run_finetune(config, tmp_path / "run", said.append)
  assert (result["system"], result["pretraining_steps"]) == ("xlm", None)
  assert result["pretraining"] == load_pretrained(str(folder)).identity()
  assert "xlm (imported), fine-tuned on" in said[-1]
  for code, scores in result["test"].items():
    statistics = per_example(tmp_path / "run", code)
    assert len(statistics["rows"]) == result["examples"][f"test/{code}"] > 0
    assert main_score(task, statistics) == scores[TASKS[task].main_score]
  assert run_finetune(config, tmp_path / "run", print) == result


@pytest.mark.parametrize(
  ("name", "task"),
  [
    ("tiny_bert", "nli"),
    *[slow("tiny_bert", task) for task in ("ner", "pos", "qa")],
    *[slow("tiny_xlm_roberta", task) for task in ("ner", "pos", "qa", "nli")],
  ],
)
def test_other_families_are_fine_tuned_and_tested(name, task, imported, tmp_path):
  """They accept any language; a zero-shot test needs no more of them."""
  folder = pathlib.Path(__file__).parents[1] / "golden" / name
  limits = dict(data__max_length=30, data__max_question=4)
  config = task_config(
    task, folder, "ar,zero_shot", data__tasks_dir=str(imported[1]), train__epoch_size=0, **limits
  )
  result = run_finetune(config, tmp_path / "run", print)
  family = load_pretrained(str(folder)).system
  assert (result["system"], result["pretraining"]["scale"]) == (family, "imported")
  for code in ("ar", "en"):
    statistics = per_example(tmp_path / "run", code)
    assert main_score(task, statistics) == result["test"][code][TASKS[task].main_score]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_imported_model_is_tuned_in_the_dtype_of_the_device(
  dtype, imported, tmp_path, monkeypatch
):
  """The choice stays when the run resumes on another device, and leaves the task learnable."""
  folder, data = imported
  config = task_config("nli", folder, "ar", data__tasks_dir=str(data), train__epoch_size=0)
  plain = run_finetune(config, tmp_path / "plain", print)
  assert (plain["dtype"], plain["remat"]) == ("float32", "none")
  monkeypatch.setattr(device, "fast_dtype", lambda devices: (dtype, "a test says so"))
  said = []
  result = run_finetune(config, tmp_path / "run", said.append)
  assert f"The imported model computes in {dtype}, because a test says so." in said
  assert result["dtype"] == dtype
  dev, exact = (each["seeds"][0]["trials"][0]["dev"] for each in (result, plain))
  assert len(dev) == len(exact) and all(map(np.isfinite, dev))
  (tmp_path / "run" / "result.json").unlink()
  monkeypatch.undo()
  assert run_finetune(config, tmp_path / "run", print) == result


def test_a_bfloat16_run_is_tuned_in_what_the_device_is_fast_in(base, tmp_path, monkeypatch):
  """A T4 takes float16; what a run began with stays when it resumes on the other device."""
  found = load_pretrained(str(base))
  said = []

  def begun(name, pretrained_in, fast):
    inputs = data.Inputs(
      dataclasses.replace(found, model=found.model.replace(dtype=pretrained_in)), (), None, None
    )
    monkeypatch.setattr(device, "fast_dtype", lambda devices: (fast, "a test says so"))
    place = runner.Place(tmp_path / name, Interruption(), said.append)
    model = finetune._on_device(inputs, place).model.model
    assert model.remat == found.model.remat
    return model.dtype

  assert begun("t4", "bfloat16", "float16") == "float16"
  assert "here it computes in float16, because a test says so" in said.pop()
  assert begun("t4", "bfloat16", "bfloat16") == "float16"
  assert begun("a100", "bfloat16", "bfloat16") == "bfloat16"
  assert begun("a100", "bfloat16", "float16") == "bfloat16"
  assert begun("half", "float16", "bfloat16") == "float16"
  assert begun("whole", "float32", "bfloat16") == "float32"
  assert said == [] and not (tmp_path / "half").exists()


@pytest.mark.parametrize("baseline", ["scratch", "majority"])
def test_the_baselines_of_an_imported_checkpoint(baseline, imported, tmp_path):
  folder, data = imported
  config = task_config("ner", folder, "ar", data__tasks_dir=str(data), baseline=baseline)
  said = []
  result = run_finetune(config, tmp_path / "run", said.append)
  assert (result["system"], result["pretraining_steps"]) == ("xlm", 0)
  assert f"{baseline} (0 pretraining steps)" in said[-1]


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (dict(language="fr", source_language="fr"), r"'fr' is not a language .*\(ar, en\)"),
    (dict(data__max_length=64), "48 positions"),
    (dict(freeze_phi=True), "xlm has no language-specific modules"),
  ],
)
def test_what_an_imported_checkpoint_lacks_is_refused(fields, words, imported, tmp_path):
  folder, data = imported
  config = task_config("ner", folder, "ar", data__tasks_dir=str(data), **fields)
  with pytest.raises(UserError, match=words):
    run_finetune(config, tmp_path / "run", print)
  assert not (tmp_path / "run").exists()


def test_majority_row_needs_no_model_and_knows_the_labels(base, tmp_path):
  result = run_finetune(task_config("nli", base, baseline="majority"), tmp_path / "run", print)
  assert result["test"]["xb"]["accuracy"] == pytest.approx(100 / 3, abs=3)
  assert result["examples"] == {"train": 48, "dev": 16, "test/xb": 24, "test/xa": 24}
  for code, scores in result["test"].items():
    assert main_score("nli", per_example(tmp_path / "run", code)) == scores["accuracy"]
  result = run_finetune(task_config("ner", base, baseline="majority"), tmp_path / "n", print)
  assert result["test"]["xb"]["f1"] == 0


@pytest.mark.slow
def test_seeds_are_repeated_and_summarised(base, tmp_path):
  config = task_config("pos", base, seeds=2, train__epochs=1)
  result = run_finetune(config, tmp_path / "run", print)
  values = [entry["test"]["xb"]["accuracy"] for entry in result["seeds"]]
  assert values[0] != values[1]
  assert result["test"]["xb"]["accuracy"] == pytest.approx(np.mean(values))
  assert result["standard_deviation"]["xb"]["accuracy"] == pytest.approx(np.std(values, ddof=1))


def test_batches_hold_every_row_once_at_a_width_that_fits():
  lengths = np.array([5, 40, 33, 32, 90, 12, 64, 65])
  arrays = {
    "tokens": np.arange(8 * 96).reshape(8, 96),
    "lengths": lengths,
    "labels": np.arange(8),
  }
  seen = []
  order = np.random.default_rng(0)
  for rows, batch in batches.batches(arrays, ("labels",), 3, np.arange(8)[::-1], order):
    assert batch["tokens"].shape[0] == 3
    assert batch["tokens"].shape[1] >= lengths[rows].max()
    assert batch["tokens"].shape[1] in (32, 64, 96)
    np.testing.assert_array_equal(batch["labels"][: len(rows)], rows)
    np.testing.assert_array_equal(batch["lengths"][len(rows) :], 0)
    seen += list(rows)
  assert sorted(seen) == list(range(8))


def test_epochs_walk_through_shuffled_passes():
  """Epochs of 7 of 10 rows: any ten in a row from the start of a pass are all the rows."""
  rows = np.concatenate([trial.epoch_rows(10, 7, 3, epoch) for epoch in range(10)])
  for start in range(0, 70, 10):
    assert sorted(rows[start : start + 10]) == list(range(10))
  assert list(rows[:10]) != list(rows[10:20])
  whole = [sorted(trial.epoch_rows(10, 0, 3, epoch)) for epoch in range(2)]
  assert whole == [list(range(10))] * 2


def test_a_diverged_trial_is_recorded_and_the_others_go_on(base, tmp_path, monkeypatch):
  fields = dict(search="paper", grid__batch_size=(8,))
  check = trial.check_finite

  def diverging(state, trial, epoch, language):
    loss = np.float32("nan" if trial.learning_rate > 1 else 1)
    check(state.replace(loss_sum=loss), trial, epoch, language)

  monkeypatch.setattr(trial, "check_finite", diverging)
  config = task_config("ner", base, **fields, grid__learning_rate=(2.0, 1e-3))
  result = run_finetune(config, tmp_path / "run", print)
  assert "diverged" in result["seeds"][0]["trials"][0]
  assert result["seeds"][0]["selected"] == "batch8-rate0.001"
  config = task_config("ner", base, **fields, grid__learning_rate=(2.0, 3.0))
  with pytest.raises(NonFiniteLoss):
    run_finetune(config, tmp_path / "all", print)


def test_an_update_takes_the_memory_of_its_state_and_of_nothing_else(base, tmp_path):
  """The compiler's figures say so: what comes out lies where it came in. The model stays whole."""
  kind, config = finetune.KIND, task_config("ner", base)
  run = kind.from_config(config, 2)
  shared = trial.make_shared(run, kind.prepare(run, print), Interruption())
  need = trial.step_need(shared, run.trials[0], "none")
  state = memory.size_of(trial.state_shapes(shared).replace(key=()))
  tuned = memory.size_of(trial.state_shapes(shared).tuned)
  assert 3 * tuned < state < 3.1 * tuned  # with Adam's two moments, and no best weights
  assert need.aliased >= state
  phi_i = trial.on_host(shared.phi_i)
  [(_, batch), *_] = batches.batches(
    shared.inputs.train.arrays, run.task.targets, run.trials[0].batch_size, np.arange(8)
  )
  before = trial.init_state(shared, 1)
  rates = trial.rates_of(run.trials[0], 0.0)
  after, _ = shared.step(before, parallel.split(batch), np.int32(0), shared.phi_i, rates)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves((before.tuned, before.slots)))
  assert_same_bits(shared.phi_i, phi_i)
  assert_same_bits(trial.init_state(shared, 1).tuned["theta"], shared.inputs.model.theta)
  assert int(after.step) == 1


def test_one_trial_at_a_time_is_on_the_device(base, tmp_path, monkeypatch):
  """No state of a trial lives when the next trial starts, or when the best one is tested."""
  states, alive = [], []
  end_epoch, init_state, test = trial.end_epoch, trial.init_state, testing.test

  def recording(*given):
    states.append(weakref.ref(state := end_epoch(*given)))
    return state

  def counting(function):
    def counted(*given):
      gc.collect()
      alive.append(sum(ref() is not None for ref in states))
      return function(*given)

    return counted

  monkeypatch.setattr(trial, "end_epoch", recording)
  monkeypatch.setattr(trial, "init_state", counting(init_state))
  monkeypatch.setattr(testing, "test", counting(test))
  grid = dict(search="paper", grid__batch_size=(8,), grid__learning_rate=(1e-3, 2e-3, 3e-3))
  run_finetune(task_config("ner", base, **grid, train__epochs=1), tmp_path / "run", print)
  assert len(states) == 3 and len(alive) >= 4 and not any(alive)


def test_each_language_and_split_has_a_builder_of_its_own(monkeypatch):
  """Zero-shot training data never comes from the target's treebank."""
  asked = []

  def splits(builder, data_dir):
    asked.append(builder)
    raise UserError("no such builder")

  monkeypatch.setattr(tfds_source, "splits", splits)

  def builder(task, language, split):
    config = importlib.import_module(f"configs.{task}").get_config("ar,zero_shot")
    config.init_from = "somewhere"
    run = finetune_options.from_config(config, 1)
    with pytest.raises(UserError, match="no such builder"):
      loading.load(run.task, run.source, None, language, split)
    return asked[-1]

  assert builder("pos", "en", "train") == "universal_dependencies/en_ewt"
  assert builder("pos", "ar", "test") == "universal_dependencies/ar_padt"
  assert builder("nli", "en", "train") == "multi_nli"
  assert builder("nli", "en", "dev") == builder("nli", "ar", "test") == "xnli"
  assert builder("ner", "ar", "dev") == "wikiann/ar"
  with pytest.raises(UserError, match="no treebank of 'sw'"):
    TASKS["pos"].builders("universal_dependencies/{treebank}", "sw")


def test_a_missing_test_set_is_reported_before_training(base, tmp_path):
  folder = tmp_path / "tasks" / "ner" / "xa"
  folder.mkdir(parents=True)
  for split in ("train", "dev", "test"):
    (folder / f"{split}.tsv").write_text("anna\tB-PER\nsings\tO\n\n", encoding="utf-8")
  config = task_config("ner", base, "lab,zero_shot", data__tasks_dir=str(tmp_path / "tasks"))
  with pytest.raises(UserError, match="No test data for task 'ner' in language 'xb'"):
    run_finetune(config, tmp_path / "run", pytest.fail)
  assert not (tmp_path / "run").exists()


def test_malformed_data_are_refused_before_the_workdir_is_made(base, tmp_path):
  path = tmp_path / "tasks" / "ner" / "xb" / "train.tsv"
  path.parent.mkdir(parents=True)
  for name in ("train", "dev", "test"):
    path.with_name(f"{name}.tsv").write_text("anna\tB-PER\n", encoding="utf-8")
  config = task_config("ner", base, data__tasks_dir=str(tmp_path / "tasks"))
  for split in ("train", "dev", "test"):
    broken = path.with_name(f"{split}.tsv")
    broken.write_text("anna\tB-PER\nsings\tDATE\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"{split}.tsv, line 2: unknown tag 'DATE'"):
      run_finetune(config, tmp_path / "run", pytest.fail)
    assert not (tmp_path / "run").exists()
    broken.write_text("anna\tB-PER\n", encoding="utf-8")  # negative control
  assert run_finetune(config, tmp_path / "run")["examples"]["train"] == 1


def write_task(folder, task, ending, **splits):
  """Labelled data in the lab's target language."""
  for split, text in splits.items():
    path = folder / task / "xb" / f"{split}.{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
  return str(folder)


def test_labels_are_those_of_the_training_data(base, tmp_path):
  """Also where they are not the task's own; a label that only the test has scores as wrong."""
  folder = write_task(
    tmp_path / "tasks",
    "ner",
    "tsv",
    train="anna\tS-PER\nin\tO\nmay\tS-DATE\n\nold\tB-DATE\nmay\tE-DATE\n",
    dev="anna\tB-PER\n",
    test="may\tB-DATE\nwine\tB-MISC\n",
  )
  config = task_config("ner", base, data__tasks_dir=folder, train__epochs=1)
  said = []
  result = run_finetune(config, tmp_path / "run", said.append)
  names = ["O", "B-PER", "I-PER", "B-DATE", "I-DATE"]
  assert result["labels"] == names
  assert json.loads((tmp_path / "run" / "labels.json").read_text()) == {"labels": names}
  assert "The labels are those of the training data: O, B-PER, I-PER, B-DATE, I-DATE." in said
  what = "labels that training does not have (B-MISC), scored as wrong"
  assert result["data"]["test/xb"] == {what: 1}
  gold = per_example(tmp_path / "run", "xb")["columns"].index("gold")
  assert [row[gold] for row in per_example(tmp_path / "run", "xb")["rows"]] == [2]
  (tmp_path / "run" / "result.json").unlink()
  write_task(tmp_path / "tasks", "ner", "tsv", train="anna\tB-LOC\n")
  with pytest.raises(UserError, match="began with the labels O, B-PER.*are now O, B-LOC, I-LOC"):
    run_finetune(config, tmp_path / "run")


def test_a_run_does_not_resume_with_other_examples(base, tmp_path):
  """Corrected words have the same labels; other batches would follow those of the old words."""
  folder = write_task(
    tmp_path / "tasks",
    "ner",
    "tsv",
    train="anna\tB-PER\n",
    dev="anna\tB-PER\n",
    test="may\tB-PER\n",
  )
  config = task_config("ner", base, data__tasks_dir=folder, train__epochs=1)
  first = run_finetune(config, tmp_path / "run", print)
  (tmp_path / "run" / "result.json").unlink()
  assert run_finetune(config, tmp_path / "run", print) == first, "the same data resume"
  (tmp_path / "run" / "result.json").unlink()
  write_task(tmp_path / "tasks", "ner", "tsv", dev="hanna\tB-PER\n")
  with pytest.raises(UserError, match="began with other dev examples than the data have now"):
    run_finetune(config, tmp_path / "run", print)


def test_labels_can_be_fixed_and_renamed(base, tmp_path):
  folder = write_task(
    tmp_path / "tasks",
    "ner",
    "tsv",
    train="anna\tB-PER\nin\tO\nmay\tB-DATE\n\nold\tB-DATE\nmay\tI-DATE\n",
    dev="anna\tB-PER\n",
    test="may\tB-DATE\nwine\tB-MISC\n",
  )
  config = task_config("ner", base, data__tasks_dir=folder, train__epochs=1)
  config.data.labels = "PER,DATE=O,MISC=O"
  result = run_finetune(config, tmp_path / "fixed")
  assert result["labels"] == ["O", "B-PER", "I-PER"]
  gold = per_example(tmp_path / "fixed", "xb")["columns"].index("gold")
  assert [row[gold] for row in per_example(tmp_path / "fixed", "xb")["rows"]] == [0]
  config.data.labels = "PER,LOC"
  with pytest.raises(UserError, match=r"the label 'B-DATE' \(2 times\).*B-DATE=NEW"):
    run_finetune(config, tmp_path / "refused", pytest.fail)
  assert not (tmp_path / "refused").exists()


def squad_file(*questions):
  """A SQuAD file of (id, answer, offset) about one context."""
  qas = [
    {"id": name, "question": "who", "answers": [{"text": text, "answer_start": start}]}
    for name, text, start in questions
  ]
  return json.dumps({"data": [{"paragraphs": [{"context": "anna sings", "qas": qas}]}]})


def test_every_test_question_is_predicted_and_scored(base, tmp_path):
  folder = write_task(
    tmp_path / "tasks",
    "qa",
    "json",
    train=squad_file(("1", "anna", 0), ("2", "nobody", 0)),
    dev=squad_file(("1", "anna", 0)),
    test=squad_file(("a", "anna", 0), ("b", "nobody", -1), ("c", "no one", -1)),
  )
  config = task_config("qa", base, data__tasks_dir=folder, train__epochs=1)
  result = run_finetune(config, tmp_path / "run")
  assert result["examples"] == {"train": 1, "dev": 1, "test/xb": 3}
  (path,) = (tmp_path / "run" / "seed1" / "predictions").glob("*/test-xb.json")
  assert set(json.loads(path.read_text())) == {"a", "b", "c"}
  config.baseline = "majority"
  result = run_finetune(config, tmp_path / "majority")
  assert result["test"]["xb"]["f1"] == pytest.approx(100 / 3)


def test_emptied_test_answers_are_named_before_training(base, tmp_path):
  whole = squad_file(("1", "anna", 0))
  folder = write_task(
    tmp_path / "tasks", "qa", "json", train=whole, dev=whole, test=squad_file(("1", "", 0))
  )
  config = task_config("qa", base, data__tasks_dir=folder, train__epochs=1)
  with pytest.raises(UserError, match=r"test.json: the answers of all 1 questions are empty"):
    run_finetune(config, tmp_path / "run", pytest.fail)
  assert not (tmp_path / "run").exists()


def test_a_damaged_seed_file_is_named_and_made_anew(base, tmp_path):
  config = task_config("pos", base, train__epochs=1)
  result = run_finetune(config, tmp_path / "run")
  record = tmp_path / "run" / "seed1" / "seed.json"
  (tmp_path / "run" / "result.json").unlink()
  record.write_text("{", encoding="utf-8")
  with pytest.raises(UserError, match=r"seed.json is damaged.*delete it"):
    run_finetune(config, tmp_path / "run")
  record.unlink()
  assert run_finetune(config, tmp_path / "run") == result


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (dict(init_from=""), "init_from"),
    (dict(init_from="nowhere"), "nowhere does not exist"),
    (dict(route="here"), "'target', 'source', 'mean'"),
    (dict(baseline="zero"), "'scratch', 'majority'"),
    (dict(data__max_length=64), "48 positions"),
    (dict(data__max_length=2), "max_length is 2 and leaves no room"),
    (dict(train__clip_norm=0.0), "train.clip_norm is 0"),
    (dict(data__max_answer=0), "data.max_answer is 0"),
    (dict(language="xc"), "'xc' is not a language of the pretrained model"),
    (dict(language="xb", source_language="xc"), "'xc', .* use --config.source_language=xa"),
    (dict(train__batch_size=3), r"train.batch_size.*multiple of the 2"),
    (dict(search="paper", grid__batch_size=(8, 3)), r"grid.batch_size.*multiple of the 2"),
  ],
)
def test_mistakes_are_refused_before_the_workdir_is_made(fields, words, base, tmp_path):
  with pytest.raises(UserError, match=words):
    run_finetune(task_config("ner", base, **fields), tmp_path / "run", print)
  assert not (tmp_path / "run").exists()


def test_the_advice_of_a_refusal_works_in_the_same_workdir(base, tmp_path):
  config = task_config("ner", base, data__max_length=64, train__epochs=1, baseline="majority")
  with pytest.raises(UserError, match="use --config.data.max_length=48 or less"):
    run_finetune(config, tmp_path / "run")
  config.data.max_length = 48
  assert run_finetune(config, tmp_path / "run")["test"]


def test_stopped_and_resumed_equals_undisturbed(base, tmp_path, monkeypatch):
  config = task_config("ner", base, train__epochs=3)
  whole = run_finetune(config, tmp_path / "whole", print)
  train_epoch = trial.train_epoch

  def stopping(shared, trial, seed, state, epoch, *rest):
    if epoch == 1:
      signal.raise_signal(signal.SIGTERM)  # seen after the epoch's first update
    return train_epoch(shared, trial, seed, state, epoch, *rest)

  monkeypatch.setattr(trial, "train_epoch", stopping)
  with pytest.raises(Interrupted, match="start the same command again"):
    run_finetune(config, tmp_path / "halved", print)
  monkeypatch.setattr(trial, "train_epoch", train_epoch)
  said = []
  assert run_finetune(config, tmp_path / "halved", said.append) == whole
  assert any("resumes after update 8, in epoch 2" in line for line in said)


def test_only_the_best_trial_keeps_checkpoints_and_a_search_resumes(base, tmp_path, monkeypatch):
  """A checkpoint is several times as large as the model, and a search of the paper has 18 trials."""
  rates = (1e-4, 2e-3, 1e-3, 3e-4)
  grid = dict(search="paper", grid__batch_size=(8,), grid__learning_rate=rates)
  config = task_config("ner", base, **grid, train__epochs=2)
  whole = run_finetune(config, tmp_path / "whole", print)
  (seed,) = whole["seeds"]
  train, trained = finetune.train, []

  def recording(shared, each, *rest):
    trained.append(each.learning_rate)
    if len(trained) == len(rates):
      raise Interrupted("stop")
    return train(shared, each, *rest)

  monkeypatch.setattr(finetune, "train", recording)
  with pytest.raises(Interrupted):
    run_finetune(config, tmp_path / "halved", print)
  best = max(seed["trials"][:3], key=lambda each: max(each["dev"]))["trial"]
  kept = [path.parent.name for path in (tmp_path / "halved" / "seed1").glob("*/checkpoints")]
  assert kept == [best]
  trained.clear()
  assert run_finetune(config, tmp_path / "halved", print) == whole
  selected = float(seed["selected"].partition("-rate")[2])
  assert trained == ([rates[-1]] if selected == rates[-1] else [rates[-1], selected])
  assert not list((tmp_path / "halved").glob("seed1/*/checkpoints"))


@pytest.mark.slow
def test_stopped_while_scoring_dev_and_resumed_equals_undisturbed(base, tmp_path, monkeypatch):
  config = task_config("ner", base, checkpoint__every=1, data__lab_train=16)
  whole = run_finetune(config, tmp_path / "whole", print)
  dev_score = trial.dev_score

  def stopping(shared, tuned):
    signal.raise_signal(signal.SIGTERM)
    return dev_score(shared, tuned)

  monkeypatch.setattr(trial, "dev_score", stopping)
  with pytest.raises(Interrupted):
    run_finetune(config, tmp_path / "halved", print)
  monkeypatch.setattr(trial, "dev_score", dev_score)
  assert run_finetune(config, tmp_path / "halved", print) == whole
  path = "seed1/batch8-rate0.001/metrics.jsonl"
  assert (tmp_path / "halved" / path).read_text() == (tmp_path / "whole" / path).read_text()


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(base, tmp_path):
  """The command line, killed at a random moment of training."""

  def command(name):
    return [
      sys.executable,
      "-m",
      "negint.main",
      "--config=configs/pos.py:lab",
      f"--workdir={tmp_path / name}",
      f"--config.init_from={base}",
      "--config.data.max_length=48",
      "--config.train.batch_size=32",
      "--config.train.epochs=4",
      "--config.data.lab_train=1000",
    ]

  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(command("whole"), cwd=ROOT, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  process = subprocess.Popen(
    command("killed"),
    cwd=ROOT,
    env=environment,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  metrics = tmp_path / "killed" / "seed1" / "batch32-rate0.001" / "metrics.jsonl"
  assert wait_until(lambda: has_logged(metrics.parent, 1), lambda: process.poll() is not None)
  time.sleep(float(np.random.default_rng().uniform(0, 0.5)))
  process.kill()
  process.wait()
  assert not (tmp_path / "killed" / "result.json").exists()
  done = subprocess.run(
    command("killed"), cwd=ROOT, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  results = [json.loads((tmp_path / n / "result.json").read_text()) for n in ("whole", "killed")]
  assert results[0] == results[1]
