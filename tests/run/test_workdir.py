"""A run's folder belongs to one configuration."""

import json

import pytest
from toy import toy_config

from negint import config_file
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
    (dict(data__lab__similarity=0.25), ("data.lab.similarity", "0.3", "0.25")),
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


def test_a_damaged_result_says_that_it_can_be_made_anew(tmp_path):
  workdir.claim_workdir(tmp_path, toy_config())
  (tmp_path / "result.json").touch()
  with pytest.raises(UserError, match="result.json is damaged .* delete it and start the same"):
    workdir.check_workdir(tmp_path, toy_config())


def test_a_run_keeps_to_the_data_that_it_began_with(tmp_path):
  began = workdir.DataRecord(tokens="a1", tokenizer="b2")
  workdir.tie_to_data(tmp_path, began)
  workdir.tie_to_data(tmp_path, began)
  assert workdir.read_data_record(tmp_path) == began
  with pytest.raises(UserError, match="began with the token cache a1, but the corpora now give c3"):
    workdir.tie_to_data(tmp_path, began._replace(tokens="c3"))
  with pytest.raises(UserError, match="began with another tokenizer .* version of SentencePiece"):
    workdir.tie_to_data(tmp_path, began._replace(tokenizer="c3"))


@pytest.mark.parametrize("text", ["", "{}", '{"tokens": "a1"', '{"tokens": "a1"}'])
def test_a_damaged_or_missing_record_of_the_data_is_named(tmp_path, text):
  (tmp_path / "data.json").write_text(text)
  words = f"data.json is damaged .* the run in {tmp_path}; start that run anew in another folder"
  with pytest.raises(UserError, match=words):
    workdir.tie_to_data(tmp_path, workdir.DataRecord("a1", "b2"))
  (tmp_path / "data.json").unlink()
  with pytest.raises(UserError, match="data.json is missing. It is part of the run"):
    workdir.read_data_record(tmp_path)


def name(file, arg="lab", /, **fields):
  """The default folder of a config with changed fields."""
  config = config_file.load(f"configs/{file}.py:{arg}")
  config.update_from_flattened_dict({n.replace("__", "."): value for n, value in fields.items()})
  return str(workdir.default_workdir(config, config_file.defaults(f"configs/{file}.py:{arg}")))


def test_default_names_say_what_differs_from_the_default():
  assert name("joint_pair") == "runs/joint_pair-xb-xa-lab-seed1"
  assert name("adpt", "lab,similarity=0.2,seed=2") == "runs/adpt-xb-xa-lab-similarity=0.2-seed2"
  assert name("mono", "fr,base,subsample=50") == "runs/mono-fr-base-subsample=50-seed1"
  assert (
    name("mono", train__steps=7, eval__every=3) == "runs/mono-xb-lab-eval.every=3-steps=7-seed1"
  )
  assert (
    name("ner", "ar,zero_shot", init_from="runs/x-seed1") == "runs/ner-zero_shot-ar-x-seed1-seed1"
  )
  assert name("pruning", init_from="runs/x") == "runs/pruning-x-seed1"
  assert name("adpt", init_from="runs/x") == "runs/adpt-xb-xa-lab-from-x-seed1"
  assert name("add_language", "xc,steps=9", init_from="runs/adpt-xb-xa-lab-seed1") == (
    "runs/add_language-xc-from-adpt-xb-xa-lab-seed1-steps=9-seed1"
  )


def test_no_two_configs_have_the_same_name():
  """Every field changed by itself gives a name of its own, and so do values that look alike."""
  names = []
  for system, arg in (("meta_adpt", "ar"), ("ner", "ar"), ("pruning", "lab")):
    config = config_file.load(f"configs/{system}.py:{arg}")
    names.append(name(system, arg))
    for field, value in config_file.flatten(config.to_dict()):
      if field not in ("task", "system", "languages"):
        changed = not value if isinstance(value, bool) else value * 2 if value else type(value)(1)
        names.append(name(system, arg, **{field.replace(".", "__"): changed}))
  for folder in ("a/b", "a_b", "/a/b", "elsewhere/a/b"):
    names += [name("ner", data__tasks_dir=folder), name("ner", init_from=folder)]
  names += [name("ner", "lab", init_from="runs/x"), name("pos", "lab", init_from="runs/x")]
  assert len(set(names)) == len(names)
  assert all("/" not in n.removeprefix("runs/") for n in names)


def test_a_name_fits_a_file_system_however_much_differs():
  long = {f"data__{field}": "f" * 90 for field in ("dir", "source")}
  first, second = name("mono", **long), name("mono", **long, data__vocab_size=7)
  assert first != second and max(len(first), len(second)) < 220
