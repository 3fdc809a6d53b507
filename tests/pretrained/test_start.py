"""What a run takes from the model that it starts from: at step 0 it computes the same function."""

import jax
import numpy as np
import pytest
from toy import assert_same_bits, random_tokens, slow, toy_config, toy_model
from xlm_folder import write_checkpoint

from configs import base
from negint.errors import UserError
from negint.method import model
from negint.method.phi import init_theta_and_phi, merge_params, select_language
from negint.pretrained import start
from negint.pretrained.load import Pretrained
from negint.run.files import write_json

TOKENS = random_tokens(0, 3, 12, vocab_size=61)


def options_of(system, num_languages=2, **changes):
  system = base.SYSTEMS[system]
  return toy_model(
    specific=system["specific"],
    shared_adapter=system["shared_adapter"],
    num_languages=num_languages,
    num_layers=1,
    **{"language_embedding": num_languages > 1, **changes},
  )


def random_params(options, seed):
  """(theta, phi) far from a start: each adapter does something, and no two languages are equal."""
  theta, phi = init_theta_and_phi(options, jax.random.key(seed))
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: x + rng.normal(0, 0.2, x.shape).astype(x.dtype), (theta, phi))


def old_model(system, languages=("xb", "xa")):
  options = options_of(system, len(languages))
  theta, phi = jax.device_get(random_params(options, 1))
  return Pretrained("runs/old", options, languages, theta, phi, tokenizer=None)


def started(old, system, languages, **changes):
  """The (options, theta, phi) that a run of the system starts with."""
  embedding = old.model.language_embedding or len(languages) > 1
  options = options_of(system, len(languages), **{"language_embedding": embedding, **changes})
  start.check_fits(old, options)
  fresh = init_theta_and_phi(options, jax.random.key(2))
  theta, phi = start.parameters(old, languages, *fresh)
  shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)  # noqa: E731
  assert shapes((theta, phi)) == shapes(fresh)
  return options, theta, phi


def logits(options, theta, phi, language):
  params = merge_params(theta, select_language(phi, language) if phi else {})
  hidden = model.encode(options, params, TOKENS, language)
  return np.asarray(model.vocabulary_logits(options, params, hidden))


def same_function(old, system, languages, **changes):
  new = started(old, system, languages, **changes)
  for row, code in enumerate(languages):
    if code in old.languages:
      before = logits(old.model, old.theta, old.phi, old.languages.index(code))
      np.testing.assert_allclose(logits(*new, row), before, atol=1e-5)
  return new


SHAPES = ("mono", "joint_pair", "joint_tri", "ffn", "attn", "adpt", "share_adpt")


@pytest.mark.parametrize(
  "system", [name if name in SHAPES else slow(name) for name in base.SYSTEMS]
)
def test_every_system_starts_from_a_joint_model_and_from_itself(system):
  if system == "mono":
    same_function(old_model("mono", ("xb",)), "mono", ("xb",))
  elif system == "joint_tri":
    same_function(old_model("joint_pair"), system, ("xb", "xc", "xa"))
  else:
    same_function(old_model("joint_pair"), system, ("xb", "xa"))
    same_function(old_model(system), system, ("xa", "xb"))


@pytest.mark.parametrize(
  ("before", "after"), [("share_adpt", "adpt"), ("adpt", "meta_adpt"), ("meta_ffn", "ffn")]
)
def test_modules_that_move_into_phi_keep_the_function(before, after):
  same_function(old_model(before), after, ("xb", "xa"))


def test_a_model_of_one_language_becomes_one_of_two_and_a_pair_becomes_one():
  options, theta, _ = same_function(old_model("mono", ("xb",)), "joint_pair", ("xb", "xa"))
  assert not theta["language"].any()
  same_function(old_model("joint_pair"), "mono", ("xb",))


def test_new_adapters_with_two_random_matrices_would_be_seen():
  """Negative control: the start of a run from scratch changes the function."""
  old = old_model("joint_pair")
  options, theta, phi = started(old, "adpt", ("xb", "xa"))
  _, fresh = init_theta_and_phi(options.replace(adapter_init_std=0.1), jax.random.key(2))
  before = logits(old.model, old.theta, {}, 0)
  assert np.abs(logits(options, theta, fresh, 0) - before).max() > 1e-3
  inner = [leaf for path, leaf in jax.tree.leaves_with_path(phi) if "inner" in str(path)]
  assert any(leaf.any() for leaf in inner)  # with both matrices zero nothing would ever learn


def test_a_new_language_starts_at_the_mean_with_new_adapters():
  old = old_model("adpt")
  _, theta, phi = same_function(old, "adpt", ("xc", "xb", "xa"))
  assert_same_bits(jax.tree.map(lambda leaf: leaf[1:], phi), old.phi)
  np.testing.assert_array_equal(theta["language"][0], old.theta["language"].mean(0))
  rest = {name: leaf for name, leaf in theta.items() if name != "language"}
  assert_same_bits(rest, {name: old.theta[name] for name in rest})
  adapter = phi["layers_0"]["ffn_adapter"]
  assert not adapter["outer"]["kernel"][0].any() and adapter["inner"]["kernel"][0].any()


def test_a_new_language_has_copies_of_the_last_languages_layers():
  old = old_model("ffn")
  _, _, phi = same_function(old, "ffn", ("xb", "xc", "xa"))
  for leaf, theirs in zip(*map(jax.tree.leaves, (phi, old.phi)), strict=True):
    np.testing.assert_array_equal(leaf[1], theirs[1])
    np.testing.assert_array_equal(leaf[2], theirs[1])
    np.testing.assert_array_equal(leaf[0], theirs[0])


@pytest.mark.parametrize(
  ("before", "after", "words"),
  [
    ("ffn", "joint_pair", "runs/old has 'ffn' in phi.*configs/ffn.py"),
    ("adpt", "share_adpt", "runs/old has 'adapter' in phi.*configs/adpt.py"),
    ("attn", "adpt", "runs/old has 'attention' in phi.*configs/attn.py"),
    ("share_adpt", "ffn", "runs/old has adapters in theta, and this run has none"),
  ],
)
def test_a_system_that_cannot_compute_the_old_function_is_refused(before, after, words):
  with pytest.raises(UserError, match=words):
    started(old_model(before), after, ("xb", "xa"))


def test_another_shape_is_refused_with_both_values():
  with pytest.raises(UserError, match="model.ffn_dim 32, and this run 64"):
    started(old_model("joint_pair"), "joint_pair", ("xb", "xa"), ffn_dim=64)
  with pytest.raises(UserError, match="model.vocab_size 61, and this run 70"):
    started(old_model("joint_pair"), "joint_pair", ("xb", "xa"), vocab_size=70)


def run_folder(folder, config):
  """A finished run without weights."""
  folder.mkdir()
  write_json(folder / "config.json", config.to_dict())
  write_json(folder / "result.json", {})
  (folder / "tokenizer.model").touch()
  return str(folder)


def test_a_config_takes_shape_and_vocabulary_and_nothing_else(tmp_path):
  old = toy_config("meta_adpt", model__dropout=0.3, train__steps=77)
  folder = run_folder(tmp_path / "run", old)
  default = base.pretrain("adpt", "lab")
  config = default.copy_and_resolve_references()
  config.init_from = folder
  config.lock()
  complete = start.complete(config, default)
  for name in ("model_dim", "ffn_dim", "max_length", "adapter_dim"):
    assert complete.model[name] == old.model[name] != config.model[name], name
  assert (complete.data.vocab_size, complete.data.tokenizer_from) == (200, folder)
  assert complete.train.steps == config.train.steps and complete.model.dropout == 0.0
  assert start.complete(complete, complete) == complete
  config.model.model_dim = 48
  with pytest.raises(UserError, match="model.model_dim is 48, but .*/run has 16, .*leave --config"):
    start.complete(config, default)
  assert start.complete(default, default) == default


def test_a_folder_named_like_a_language_is_a_folder_all_the_same(tmp_path, monkeypatch):
  run_folder(tmp_path / "xc", toy_config("adpt"))
  monkeypatch.chdir(tmp_path)
  default = base.pretrain("adpt", "lab")
  config = default.copy_and_resolve_references()
  config.init_from = "xc"
  assert start.complete(config, default).data.tokenizer_from == "./xc"


def test_a_config_takes_the_shape_of_an_imported_checkpoint(tmp_path):
  options, _ = write_checkpoint(tmp_path / "xlm")
  default = base.pretrain("adpt", "ar")
  config = default.copy_and_resolve_references()
  config.init_from = str(tmp_path / "xlm")
  complete = start.complete(config, default)
  assert complete.model.num_layers == options.num_layers
  assert complete.model.head_dim == options.head_dim
  assert complete.data.vocab_size == options.vocab_size
  assert complete.model.adapter_dim == config.model.adapter_dim
  config.new_language = "sw"
  with pytest.raises(UserError, match="imported checkpoint, .*adpt.py:sw-en .*freeze_theta=True"):
    start.complete(config, default)


def with_new_language(folder, code="xc", **fields):
  default = base.add_language(code)
  config = default.copy_and_resolve_references()
  config.init_from = folder
  for name, value in fields.items():
    config.update_from_flattened_dict({name.replace("__", "."): value})
  return start.complete(config, default)


def test_a_language_is_added_to_the_old_runs_config(tmp_path):
  old = toy_config("meta_adpt", train__steps=77, data__lab__similarity=0.25, seed=4)
  complete = with_new_language(run_folder(tmp_path / "run", old), train__batch_size=8)
  assert complete.languages == ("xc", "xb", "xa") and complete.system == "meta_adpt"
  assert (complete.scale, complete.data.source, complete.data.lab.similarity) == (
    "lab",
    "lab",
    0.25,
  )
  assert (complete.train.steps, complete.train.batch_size, complete.seed) == (77, 8, 1)
  assert complete.model.specific == ("adapter",) and complete.train.freeze_theta
  assert not complete.meta.enabled and complete.meta.batch_size == old.meta.batch_size
  assert with_new_language(str(tmp_path / "run"), meta__enabled=True).meta.enabled


@pytest.mark.parametrize("system", ["joint_pair", "share_adpt", "pcgrad"])
def test_a_run_without_phi_gets_adapters_unless_theta_is_trained(system, tmp_path):
  folder = run_folder(tmp_path / "run", toy_config(system))
  complete = with_new_language(folder)
  assert complete.model.specific == ("adapter",) and not complete.model.shared_adapter
  assert complete.surgery.method == "none"
  trained = with_new_language(folder, train__freeze_theta=False)
  assert trained.model.specific == () and trained.model.shared_adapter == (system == "share_adpt")
  assert with_new_language(folder, model__specific=("ffn",)).model.specific == ("ffn",)


def test_a_language_that_cannot_be_added_is_refused(tmp_path):
  folder = run_folder(tmp_path / "run", toy_config("adpt"))
  with pytest.raises(UserError, match=r"'xa' is a language of .*/run already \(xb, xa\)"):
    with_new_language(folder, "xa")
  with pytest.raises(UserError, match="init_from is empty; .*add_language.py adds a language"):
    with_new_language("")
