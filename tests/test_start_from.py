"""Runs that start from a model: the function at step 0, a language more, what keeps its bits."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from test_pretrain import final_state
from toy import assert_same_bits, relative_difference, slow, toy_config
from xlm_folder import write_checkpoint

from configs import base, ner
from negint import main, pretrain
from negint.data.corpus import write_corpus
from negint.data.coverage import coverage
from negint.errors import UserError
from negint.finetuning import finetune
from negint.pretrained import start
from negint.pretrained.load import load_pretrained
from negint.run import runner
from negint.run.records import read_metrics
from negint.special_tokens import EOS, UNK, XLM

pytestmark = pytest.mark.usefixtures("pretraining_compiled_once")


@pytest.fixture(scope="module")
def old(data_dir, tmp_path_factory):
  """Finished toy runs, made when they are asked for: system -> folder."""
  root = tmp_path_factory.mktemp("old")

  def of(system):
    if not (root / system).exists():
      config = toy_config(system, data__dir=data_dir, model__num_layers=1)
      runner.run(pretrain.KIND, config, root / system, print)
    return root / system

  return of


def run_from(folder, workdir, default, say=print, **fields):
  """A run from the model in a folder: (its complete config, its result)."""
  config = default.copy_and_resolve_references()
  fields = {"init_from": str(folder), **fields}
  config.update_from_flattened_dict({n.replace("__", "."): v for n, v in fields.items()})
  config = pretrain.KIND.complete(config, default)
  return config, runner.run(pretrain.KIND, config, workdir, say)


def add_xc(folder, workdir, **fields):
  return run_from(folder, workdir, base.add_language("xc"), **fields)


def result_of(folder):
  return json.loads((folder / "result.json").read_text())


def rows_of_old_languages(tree):
  """Of phi or its slots in a run with (xc, xb, xa)."""
  return jax.tree.map(lambda leaf: leaf[1:], tree)


def assert_old_parts_are_kept(folder, workdir, config):
  """theta, the old phi and its slots keep their bits; phi of the new language moves."""
  before, after = load_pretrained(str(folder)), load_pretrained(str(workdir))
  assert after.languages == ("xc", *before.languages)
  theta = {name: leaf for name, leaf in after.theta.items() if name != "language"}
  assert_same_bits(theta, {name: before.theta[name] for name in theta})
  np.testing.assert_array_equal(after.theta["language"][1:], before.theta["language"])
  start_phi = start.parameters(before, after.languages, after.theta, after.phi)[1]
  assert_same_bits(rows_of_old_languages(after.phi), rows_of_old_languages(start_phi))
  state = final_state(config, workdir)
  zero = lambda tree: all(not np.any(leaf) for leaf in jax.tree.leaves(tree))  # noqa: E731
  assert state.theta_slots == {} and zero(rows_of_old_languages(state.phi_slots))
  assert not zero(state.phi_slots)
  new = jax.tree.map(lambda leaf: leaf[0], (after.phi, start_phi))
  assert relative_difference(*new) > 1e-4


@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("adpt", {}),
    slow("meta_adpt", dict(meta__enabled=True)),
    slow("ffn", {}),
    slow("adpt", dict(train__accumulate=2)),
  ],
)
def test_a_language_is_added_and_the_old_ones_keep_their_bits(system, fields, old, tmp_path):
  folder = old(system)
  config, result = add_xc(folder, tmp_path / "run", **fields)
  assert result["languages"] == ["xc", "xb", "xa"] and result["system"] == system
  assert_old_parts_are_kept(folder, tmp_path / "run", config)
  before = result_of(folder)["perplexity"]
  assert {code: result["perplexity"][code] for code in before} == pytest.approx(before, rel=1e-6)
  records = read_metrics(tmp_path / "run" / "metrics.jsonl")
  at_start = {r["step"]: r for r in records if "perplexity/xc" in r}[0]
  assert at_start["perplexity/xb"] == pytest.approx(before["xb"], rel=1e-6)
  assert at_start["perplexity/xc"] != result["perplexity"]["xc"]
  losses = {name for record in records for name in record if name.startswith("loss/")}
  assert losses == {"loss/xc"}
  assert (result["new_language"], result["freeze_theta"]) == ("xc", True)
  assert result["init_from"]["workdir"] == str(folder)
  meta = config.meta.enabled
  assert result["tokens_seen"] == (0 if meta else 2 * 4 * 24)
  assert result["held_out_tokens_seen"] == (2 * 2 * 24 if meta else 0)
  seen = {"xc": result["tokens_seen"], "xb": 0, "xa": 0}
  assert result["tokens_seen_by_language"] == seen
  for name in ("unknown_pieces", "pieces_per_word"):
    assert set(result[name]) == {"xc", "xb", "xa"}
    assert result[name]["xc"] > result[name]["xa"] >= 0
  text = pretrain.summary(result, tmp_path / "run")
  assert "pieces/word" in text and "phi alone was trained, xc is new" in text


@pytest.mark.slow
@pytest.mark.parametrize("system", ["joint_pair", "share_adpt", "gradvac"])
def test_a_run_without_phi_gets_adapters_for_the_new_language(system, old, tmp_path):
  config, result = add_xc(old(system), tmp_path / "run")
  assert_old_parts_are_kept_but_adapters(old(system), tmp_path / "run")
  before = result_of(old(system))["perplexity"]
  assert {code: result["perplexity"][code] for code in before} == pytest.approx(before, rel=1e-5)


def assert_old_parts_are_kept_but_adapters(folder, workdir):
  """theta keeps its bits; adapters that it had are those of each old language."""
  before, after = load_pretrained(str(folder)), load_pretrained(str(workdir))
  fresh = start.parameters(before, after.languages, after.theta, after.phi)
  assert_same_bits(after.theta, fresh[0])
  assert_same_bits(rows_of_old_languages(after.phi), rows_of_old_languages(fresh[1]))


@pytest.mark.slow
def test_theta_is_trained_where_it_is_asked_for_and_forgets(old, tmp_path):
  folder = old("adpt")
  _, result = add_xc(folder, tmp_path / "run", train__freeze_theta=False)
  before, after = load_pretrained(str(folder)), load_pretrained(str(tmp_path / "run"))
  assert relative_difference(after.theta["token"], before.theta["token"]) > 1e-4
  assert_same_bits(rows_of_old_languages(after.phi), before.phi)
  assert result["perplexity"]["xb"] != result_of(folder)["perplexity"]["xb"]


@pytest.mark.slow
@pytest.mark.parametrize("system", [name for name in base.SYSTEMS if name != "mono"])
def test_every_system_begins_with_the_perplexity_of_the_model_it_starts_from(
  system, old, data_dir, tmp_path
):
  for number, source in enumerate(dict.fromkeys(("joint_pair", system))):
    if system == "joint_tri" and source == system:
      continue
    default = toy_config(system, data__dir=data_dir, model__num_layers=1)
    workdir = tmp_path / str(number)
    run_from(old(source), workdir, default)
    at_start = read_metrics(workdir / "metrics.jsonl")[0]
    for code, value in result_of(old(source))["perplexity"].items():
      assert at_start[f"perplexity/{code}"] == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_a_run_that_started_from_a_model_resumes_bit_for_bit(old, data_dir, tmp_path):
  default = toy_config(
    "adpt", data__dir=data_dir, model__num_layers=1, train__steps=4, checkpoint__every=2
  )
  config, whole = run_from(old("joint_pair"), tmp_path / "run", default)
  state = final_state(config, tmp_path / "run")
  shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
  (tmp_path / "run" / "result.json").unlink()
  said = []
  _, again = run_from(old("joint_pair"), tmp_path / "run", default, said.append)
  assert any("Resuming at step 2" in line for line in said) and again == whole
  assert_same_bits(final_state(config, tmp_path / "run"), state)


@pytest.mark.slow
def test_an_imported_checkpoint_gets_adapters_and_its_run_is_read_like_any_other(
  data_dir, tmp_path
):
  write_checkpoint(tmp_path / "xlm", languages=("sw", "en", "ar"))
  default = toy_config("adpt", "ar", data__dir=data_dir)
  fields = dict(train__freeze_theta=True)
  said = []
  run_from(tmp_path / "xlm", tmp_path / "run", default, said.append, **fields)
  assert any("(xlm on sw, en, ar)" in line for line in said)
  before, after = load_pretrained(str(tmp_path / "xlm")), load_pretrained(str(tmp_path / "run"))
  rest = {name: leaf for name, leaf in after.theta.items() if name != "language"}
  assert_same_bits(rest, {name: before.theta[name] for name in rest})
  np.testing.assert_array_equal(after.theta["language"], before.theta["language"][[2, 1]])
  text = "l homme regarde la mer, النهر."
  assert after.tokenizer.encode(text) == before.tokenizer.encode(text)
  path = tmp_path / "run" / "tokenizer.model"
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(UserError, match="tokenizer.model is damaged"):
    load_pretrained(str(tmp_path / "run"))


@pytest.mark.parametrize(
  ("name", "freeze"),
  [
    ("tiny_xlm_roberta", True),
    slow("tiny_xlm_roberta", False),
    slow("tiny_bert", True),
    slow("tiny_bert", False),
  ],
)
def test_checkpoints_of_other_families_are_trained_on_and_read_again(
  name, freeze, data_dir, tmp_path
):
  """Some have rows of positions before the first one, so their tables are longer than a sequence."""
  folder = pathlib.Path(__file__).parent / "golden" / name
  default = toy_config("adpt", "ar", data__dir=data_dir)
  run_from(folder, tmp_path / "run", default, train__freeze_theta=freeze)
  before, after = load_pretrained(str(folder)), load_pretrained(str(tmp_path / "run"))
  assert after.theta["position"].shape == before.theta["position"].shape
  same = [np.array_equal(after.theta[n], before.theta[n]) for n in ("position", "token")]
  assert all(same) == freeze


@pytest.mark.slow
def test_a_task_is_tuned_on_an_old_language_and_tested_on_the_new_one(old, tmp_path):
  add_xc(old("adpt"), tmp_path / "run")
  config = ner.get_config("xc,zero_shot,epochs=1")
  config.init_from = str(tmp_path / "run")
  config.data.update(max_length=24, lab_train=20, lab_dev=10, lab_test=20)
  result = runner.run(finetune.KIND, config, tmp_path / "ner", print)
  assert set(result["test"]) == {"xc", "xa"} and result["setting"] == "zero_shot"
  assert result["pretraining"]["languages"] == ["xc", "xb", "xa"]


def test_the_command_line_completes_the_config(old, tmp_path, monkeypatch):
  default = base.add_language("xc")
  config = default.copy_and_resolve_references()
  config.init_from, config.train.steps = str(old("adpt")), 9
  ran = []
  monkeypatch.setattr(runner, "run", lambda kind, config, folder, say: ran.append(config))
  with flagsaver.flagsaver():
    main.flags.FLAGS(["main"])
    main.run_in(tmp_path, config, default)
    assert (ran[0].languages, ran[0].train.steps) == (("xc", "xb", "xa"), 9)
    config.model.ffn_dim = 48
    with pytest.raises(UserError, match="model.ffn_dim is 48, but the model in .* has 32"):
      main.run_in(tmp_path, config, default)


def test_coverage_counts_unknown_pieces_and_words(tmp_path):
  documents = [[f"one two three {number}", "four"] for number in range(60)]
  corpus = write_corpus(documents, language="en", data_dir=tmp_path, provenance={})
  lines = [line for document in corpus.documents("valid") for line in document]
  words = sum(len(line.split()) for line in lines)
  stream = [EOS]
  for line in lines:  # two pieces per word, the first unknown
    stream += [UNK, 20] * len(line.split()) + [EOS]
  found = coverage(corpus, np.array(stream), XLM)
  assert words > 0 and found == (0.5, 2.0)


def test_a_shape_that_the_config_does_not_have_is_refused(old, data_dir, tmp_path):
  """A config that was not completed; the folder is not touched."""
  config = toy_config("adpt", data__dir=data_dir, init_from=str(old("adpt")), model__num_layers=2)
  with pytest.raises(UserError, match="model.num_layers 1, and this run 2"):
    runner.run(pretrain.KIND, config, tmp_path / "run", print)
  assert not (tmp_path / "run").exists()
