"""Whole runs of the analyses on a small pretrained model: results, resuming, refusals."""

import importlib
import json
import shutil
import signal

import numpy as np
import pytest
from toy import slow, toy_config

from negint import pretrain
from negint.analysis import gradient_similarity, l0, pruning
from negint.errors import Interrupted, UserError
from negint.method import similarity
from negint.run import runner
from negint.run.records import read_metrics

PAIRS = ("xb-xb", "xa-xa", "xb-xa")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A finished run that measured gradients on its way and kept two checkpoints."""
  folder = tmp_path_factory.mktemp("analyses")
  config = toy_config(
    data__dir=str(folder / "data"),
    train__steps=4,
    gradient_similarity__every=2,
    gradient_similarity__sentences=8,
    gradient_similarity__batch_size=8,
    model__dropout=0.0,
  )
  runner.run(pretrain.KIND, config, folder / "runs" / "pretrained", lambda line: None)
  return folder / "runs" / "pretrained"


def analysis_config(name, workdir, **fields):
  config = importlib.import_module(f"configs.{name}").get_config("lab")
  config.init_from = str(workdir)
  config.batch_size = 8
  config.update(fields)
  return config


def similarity_config(workdir, **fields):
  return analysis_config(
    "gradient_similarity", workdir, **{"sentences": 16, "repeats": 2, **fields}
  )


def pruning_config(workdir, **fields):
  return analysis_config("pruning", workdir, **{"steps": 3, "checkpoint_every": 2, **fields})


def test_a_pretraining_run_logs_cosines_of_every_scope(workdir):
  records = [r for r in read_metrics(workdir / "metrics.jsonl") if "gradient_cosine/all/xb-xa" in r]
  assert [record["step"] for record in records] == [2]
  for scope in ("all", "without_vocabulary", "layer1/attention", "layer2/ffn", "vocabulary"):
    for pair in PAIRS:
      assert -1 <= records[0][f"gradient_cosine/{scope}/{pair}"] <= 1
  assert records[0]["gradient_cosine/language_embedding/xb-xa"] == 0
  assert not [name for name in records[0] if "corrected" in name], "the report corrects the means"


def test_gradient_similarity_measures_every_checkpoint_and_nothing_twice(workdir, tmp_path):
  config, said = similarity_config(workdir), []
  result = runner.run(gradient_similarity.KIND, config, tmp_path / "run", said.append)
  assert [checkpoint["step"] for checkpoint in result["checkpoints"]] == [2, 4]
  assert result["sentences"] == 16 and result["pretraining"]["system"] == "joint_pair"
  first, last = (c["scopes"]["all"]["cosine"]["xb-xa"] for c in result["checkpoints"])
  assert first["mean"] != last["mean"] and first["standard_error"] > 0
  assert "gradient cosines of joint_pair" in said[-1]
  again = runner.run(gradient_similarity.KIND, config, tmp_path / "run", said.append)
  assert again == result
  # Resuming reads what is there: a changed record shows up in the result.
  (tmp_path / "run" / "result.json").unlink()
  path = tmp_path / "run" / "steps" / "2.json"
  record = json.loads(path.read_text())
  record["scopes"]["all"]["cosine"]["xb-xa"]["mean"] = 0.125
  path.write_text(json.dumps(record))
  resumed = runner.run(gradient_similarity.KIND, config, tmp_path / "run", said.append)
  assert resumed["checkpoints"][0]["scopes"]["all"]["cosine"]["xb-xa"]["mean"] == 0.125
  assert resumed["checkpoints"][1] == result["checkpoints"][1]


def test_only_the_last_checkpoint_is_measured_where_that_is_asked(workdir, tmp_path):
  config = similarity_config(workdir, checkpoints="last", repeats=1)
  result = runner.run(gradient_similarity.KIND, config, tmp_path / "run", lambda line: None)
  assert [checkpoint["step"] for checkpoint in result["checkpoints"]] == [4]


@pytest.mark.parametrize("granularity", [slow("unit"), "row"])
def test_pruning_compares_languages_and_seeds(granularity, workdir, tmp_path):
  config, said = pruning_config(workdir, granularity=granularity), []
  result = runner.run(pruning.KIND, config, tmp_path / "run", said.append)
  assert [(mask["language"], mask["seed"]) for mask in result["masks"]] == [
    ("xb", 1),
    ("xa", 1),
    ("xb", 2),
    ("xa", 2),
  ]
  pairs = {(tuple(r["languages"]), tuple(r["seeds"])) for r in result["similarity"]}
  assert pairs == {
    (("xb", "xa"), (1, 1)),
    (("xb", "xa"), (2, 2)),
    (("xb", "xb"), (1, 2)),
    (("xa", "xa"), (1, 2)),
  }
  for mask in result["masks"]:
    assert 0 < mask["kept"] <= 1 and mask["saturated"] == 0
    assert set(mask["perplexity"]) == set(mask["shuffled_perplexity"]) == {"xb", "xa"}
  assert set(result["unpruned_perplexity"]) == {"xb", "xa"}
  groups = result["extreme"][0]["groups"]
  values = [group["pi"] for group in groups]
  assert values == sorted(values) and len(groups) == 20
  assert "L0 masks of joint_pair" in said[-1]


@pytest.mark.slow
def test_the_share_that_is_asked_for_is_reached_and_without_a_penalty_all_is_kept(
  workdir, tmp_path
):
  config = pruning_config(
    workdir,
    steps=150,
    checkpoint_every=150,
    seeds=1,
    target_kept=0.4,
    penalty_rate=0.3,
    learning_rate=0.1,
  )
  result = runner.run(pruning.KIND, config, tmp_path / "run", lambda line: None)
  for mask in result["masks"]:
    assert abs(mask["expected_kept"] - 0.4) < 0.1 and mask["kept"] < 1
  free = runner.run(
    pruning.KIND,
    pruning_config(workdir, steps=5, seeds=1, target_kept=0.0, penalty=0.0),
    tmp_path / "free",
    lambda line: None,
  )
  assert all(mask["kept"] > 0.9 and mask["penalty"] == 0 for mask in free["masks"])


@pytest.mark.slow
def test_an_interrupted_mask_goes_on_bit_for_bit(workdir, tmp_path, monkeypatch):
  config = pruning_config(workdir, steps=5, seeds=1)
  whole = runner.run(pruning.KIND, config, tmp_path / "whole", lambda line: None)
  make = pruning.make_mask_step
  done = []

  def failing(*arguments):
    step = make(*arguments)

    def counted(*inputs):
      done.append(1)
      if len(done) == 4:
        raise KeyboardInterrupt
      return step(*inputs)

    return counted

  monkeypatch.setattr(pruning, "make_mask_step", failing)
  with pytest.raises(KeyboardInterrupt):
    runner.run(pruning.KIND, config, tmp_path / "broken", lambda line: None)
  resumed = runner.run(pruning.KIND, config, tmp_path / "broken", lambda line: None)
  assert resumed == whole
  assert 4 < len(done) < 4 + 10, "the steps before the last checkpoint were not done again"


def test_a_signal_stops_an_analysis_with_a_sentence(workdir, tmp_path, monkeypatch):
  measure = gradient_similarity.gradients.mean_gradient

  def interrupted(*arguments):
    *_, poll = arguments
    poll.__self__(signal.SIGTERM, None)
    return measure(*arguments)

  monkeypatch.setattr(gradient_similarity.gradients, "mean_gradient", interrupted)
  with pytest.raises(Interrupted, match="start the same command again"):
    runner.run(
      gradient_similarity.KIND, similarity_config(workdir), tmp_path / "run", lambda line: None
    )


@pytest.mark.parametrize(
  "make, fields, match",
  [
    (similarity_config, dict(checkpoints="some"), "checkpoints is 'some'"),
    (similarity_config, dict(repeats=0), "repeats is 0"),
    (similarity_config, dict(batch_size=7), "batch_size is 7"),
    (similarity_config, dict(init_from="nowhere"), "--config.init_from=nowhere"),
    (pruning_config, dict(granularity="matrix"), "granularity is 'matrix'"),
    (pruning_config, dict(target_kept=1.0), "target_kept is 1.0"),
    (pruning_config, dict(learning_rate=0.0), "learning_rate is 0.0"),
  ],
)
def test_mistakes_are_one_sentence_and_leave_no_folder(make, fields, match, workdir, tmp_path):
  kind = pruning.KIND if make is pruning_config else gradient_similarity.KIND
  with pytest.raises(UserError, match=match):
    runner.run(kind, make(workdir, **fields), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_other_corpora_than_the_models_are_refused(workdir, tmp_path):
  copy = tmp_path / "copy"
  shutil.copytree(workdir, copy)
  record = json.loads((copy / "data.json").read_text())
  (copy / "data.json").write_text(json.dumps({**record, "tokens": "another"}))
  with pytest.raises(UserError, match="learned from the token cache another"):
    runner.run(pruning.KIND, pruning_config(copy), tmp_path / "run")


def test_cosines_of_masks_worked_by_hand():
  def mask(*values):
    return {"layers_0": {"ffn": {"neuron": np.array(values)}}}

  log_alpha = {("xb", 1): mask(1.0, 2.0), ("xa", 1): mask(2.0, 1.0), ("xa", 2): mask(4.0, 2.0)}
  rows = {
    (tuple(r["languages"]), tuple(r["seeds"]), r["scope"]): (
      r["cosine"],
      r["centred"],
      r["rank_correlation"],
    )
    for r in pruning.similarities(log_alpha)
  }
  assert rows[("xb", "xa"), (1, 1), "layer1/ffn"] == (
    pytest.approx(0.8),
    pytest.approx(-1.0),
    pytest.approx(-1.0),
  )
  assert rows[("xa", "xa"), (1, 2), "all"] == (pytest.approx(1.0),) * 3
  assert (("xb", "xa"), (1, 2), "all") not in rows


def test_a_rank_correlation_shares_the_ranks_of_ties_and_does_not_see_a_monotone_change():
  random = np.random.default_rng(0)
  a, b = random.normal(size=(2, 50))
  np.testing.assert_array_equal(pruning.ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])), [3, 0, 3, 1, 3])
  assert sorted(pruning.ranks(a)) == list(range(50))
  # Without ties: 1 - 6 sum d^2 / (n (n^2 - 1)).
  squares = np.sum((pruning.ranks(a) - pruning.ranks(b)) ** 2)
  found = pruning.rank_correlation(a, b)
  assert found == pytest.approx(1 - 6 * squares / (50 * (50**2 - 1)))
  assert pruning.rank_correlation(np.exp(a), b**3) == pytest.approx(found)
  assert pruning.rank_correlation(a, -a) == pytest.approx(-1)
  # scipy.stats.spearmanr([1, 2, 2, 3], [1, 3, 2, 2])
  ties = pruning.rank_correlation(np.array([1.0, 2, 2, 3]), np.array([1.0, 3, 2, 2]))
  assert ties == pytest.approx(0.5)
  assert pruning.rank_correlation(np.ones(4), np.arange(4.0)) is None


def test_extreme_gates_are_those_of_the_mean_and_know_their_seeds():
  """Gate 0 is low and gate 39 high in both seeds; gates 20 and 25 are extreme in one seed each."""

  def mask(**values):
    gates = np.linspace(-1, 1, 40)
    for place, value in values.items():
      gates[int(place[1:])] = value
    return {"layers_0": {"ffn": {"neuron": gates}}}

  log_alpha = {
    ("xb", 1): mask(_0=-4.0, _20=-4.5, _39=4.0),
    ("xa", 1): mask(),
    ("xb", 2): mask(_0=-4.0, _20=0.5, _25=4.5, _39=4.0),
    ("xa", 2): mask(),
  }
  [of_xb, of_xa] = pruning.extremes(log_alpha)
  assert (of_xb["language"], of_xb["other"], of_xb["seeds"]) == ("xb", "xa", 2)
  groups = {group["group"]: group for group in of_xb["groups"]}
  assert len(groups) == 2 * pruning.EXTREME_GROUPS
  lowest, middle, high, highest = (f"layer1/ffn/neuron[{n}]" for n in (0, 20, 25, 39))
  assert [groups[g]["in_seeds"] for g in (lowest, middle, high, highest)] == [2, 1, 1, 2]
  assert groups[middle]["pi"] == pytest.approx(-2.0) and groups[high]["pi"] > 2
  assert groups[middle]["other_pi"] == pytest.approx(np.linspace(-1, 1, 40)[20])
  assert [group["pi"] for group in of_xb["groups"]] == sorted(g["pi"] for g in of_xb["groups"])
  assert all(group["in_seeds"] == 2 for group in of_xa["groups"])


def test_a_mask_of_gates_at_one_limit_is_saturated():
  """Its plain cosine is 1 whatever the languages are, and its centred one undefined."""
  limit = np.float32(l0.LOG_ALPHA_LIMIT)

  def mask(*values):
    return {"layers_0": {"ffn": {"neuron": np.array(values, np.float32)}}}

  def compared(a, b):
    [row, _] = pruning.similarities({("xb", 1): mask(*a), ("xa", 1): mask(*b)})
    return row

  constant = compared([limit] * 20, [limit] * 20)
  assert constant["cosine"] == pytest.approx(1) and constant["centred"] is None
  assert constant["rank_correlation"] is None
  assert constant["saturation"] == 1 and similarity.is_saturated(constant)
  one_side = compared([limit] * 19 + [0.0], [-limit] * 10 + [limit] * 10)
  assert one_side["saturation"] == 0.95 and similarity.is_saturated(one_side)
  # Gates at both limits differ between languages: their cosine means something.
  both_sides = compared([-limit] * 10 + [limit] * 10, [limit] * 10 + [-limit] * 10)
  assert both_sides["saturation"] == 0.5 and not similarity.is_saturated(both_sides)


def test_the_summary_says_where_gates_are_saturated(workdir, tmp_path):
  said = []
  result = runner.run(pruning.KIND, pruning_config(workdir), tmp_path / "run", said.append)
  assert "saturated" not in said[-1] and all(
    row["saturation"] < 0.9 for row in result["similarity"]
  )
  result["similarity"][0]["saturation"] = 0.97
  text = pruning.summary(result, tmp_path / "run")
  assert "more than 90% of the gates of a mask stand at one limit" in text
