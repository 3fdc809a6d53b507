"""A run's folder belongs to one configuration."""

import json

import pytest
from toy import toy_config

from negint.errors import UserError
from negint.run import workdir
from negint.run.files import write_json


def files(folder):
  return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_a_new_folder_records_the_configuration(tmp_path):
  config = toy_config("meta_adpt", seed=3)
  folder = tmp_path / "runs" / "one"
  assert workdir.check_workdir(folder, config) is None
  assert not folder.exists()
  workdir.claim_workdir(folder, config)
  assert list(files(folder)) == ["config.json"]
  recorded = json.loads((folder / "config.json").read_text(encoding="utf-8"))
  assert recorded["seed"] == 3 and recorded["model"]["specific"] == ["adapter"]
  assert recorded == json.loads(json.dumps(config.to_dict()))


def test_the_same_configuration_goes_on_and_a_finished_run_returns_its_result(tmp_path):
  config = toy_config("joint_pair")
  workdir.claim_workdir(tmp_path, config)
  assert workdir.check_workdir(tmp_path, toy_config("joint_pair")) is None
  write_json(tmp_path / "result.json", {"perplexity": {"xb": 2.0}})
  before = files(tmp_path)
  assert workdir.check_workdir(tmp_path, config) == {"perplexity": {"xb": 2.0}}
  assert files(tmp_path) == before


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    (dict(train__learning_rate=0.5), ("train.learning_rate", "0.002", "0.5")),
    (dict(seed=2), ("seed", "1 there", "2 here")),
    (dict(data__lab__similarity=0.25), ("data.lab.similarity", "0.5", "0.25")),
    (dict(languages=("xc", "xa")), ("languages", "'xb'", "'xc'")),
    (dict(seed=2, model__dropout=0.3), ("seed", "model.dropout", "0.1", "0.3")),
  ],
)
def test_another_configuration_is_refused_with_both_values(tmp_path, fields, words):
  workdir.claim_workdir(tmp_path, toy_config("joint_pair"))
  before = files(tmp_path)
  with pytest.raises(UserError) as caught:
    workdir.check_workdir(tmp_path, toy_config("joint_pair", **fields))
  assert all(word in str(caught.value) for word in (*words, str(tmp_path), "--workdir"))
  assert files(tmp_path) == before


def test_a_finished_run_of_another_configuration_is_refused_too(tmp_path):
  workdir.claim_workdir(tmp_path, toy_config("joint_pair"))
  write_json(tmp_path / "result.json", {})
  with pytest.raises(UserError, match="system: 'joint_pair' there, 'adpt' here"):
    workdir.check_workdir(tmp_path, toy_config("adpt"))


def test_a_field_that_only_one_side_has_is_a_difference(tmp_path):
  workdir.claim_workdir(tmp_path, toy_config("joint_pair"))
  recorded = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
  del recorded["train"]["b1"]
  write_json(tmp_path / "config.json", recorded)
  with pytest.raises(UserError, match="train.b1: None there, 0.9 here"):
    workdir.check_workdir(tmp_path, toy_config("joint_pair"))


def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path):
  (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
  with pytest.raises(UserError, match=rf"{tmp_path} is not empty"):
    workdir.check_workdir(tmp_path, toy_config())
  assert files(tmp_path) == {"thesis.tex": "years of work"}
  with pytest.raises(UserError, match="is a file"):
    workdir.check_workdir(tmp_path / "thesis.tex", toy_config())
  empty = tmp_path / "empty"
  empty.mkdir()
  assert workdir.check_workdir(empty, toy_config()) is None


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_record_is_named(tmp_path, name):
  workdir.claim_workdir(tmp_path, toy_config())
  (tmp_path / name).write_text('{"seed": ', encoding="utf-8")
  with pytest.raises(UserError, match=f"{name} is damaged"):
    workdir.check_workdir(tmp_path, toy_config())


def test_default_names_tell_runs_apart():
  names = [
    str(workdir.default_workdir(toy_config(system, seed=seed)))
    for system in ("joint_pair", "adpt")
    for seed in (1, 2)
  ]
  assert names[0] == "runs/joint_pair-xb-xa-lab-seed1"
  assert len(set(names)) == 4
