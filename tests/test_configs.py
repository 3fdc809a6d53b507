"""Every config file with every legal argument, the arguments it refuses, and its own prose."""

import ast
import importlib
import inspect
import itertools
import pathlib
import re

import pytest

from configs import base
from negint import options
from negint.errors import UserError

FOLDER = pathlib.Path(base.__file__).parent
FILES = sorted(path for path in FOLDER.glob("*.py") if "def get_config(" in path.read_text("utf-8"))
LANGUAGES = {"mono": ("ar", "en", "de", "lab", "xa"), "joint_tri": ("hi", "te", "de-nl-en", "lab")}
PAIRS = ("ar", "fr", "ru", "hi", "sw", "te", "de-en", "fr-de-ru-en", "lab")
VALUES = ("", ",steps=7,seed=3", ",subsample=50")


def get_config(system, arg):
  return importlib.import_module(f"configs.{system}").get_config(arg)


def legal_arguments(system):
  for language in LANGUAGES.get(system, PAIRS):
    if language in ("lab", *base.LAB_LANGUAGES):
      yield from (language + rest for rest in ("", ",lab", ",similarity=0.3", ",steps=7"))
    else:
      scales = ("", ",sample", ",base", ",paper")
      yield from (language + s + v for s, v in itertools.product(scales, VALUES))


def test_every_system_has_its_file():
  assert set(base.SYSTEMS) <= {path.stem for path in FILES}


@pytest.mark.parametrize("system", base.SYSTEMS)
def test_every_legal_argument_loads_locks_and_validates(system):
  for arg in legal_arguments(system):
    config = get_config(system, arg)
    config.lock()
    with pytest.raises(AttributeError, match="learning_rate"):
      config.train.learning_rat = 1.0
    run = options.from_config(config, num_devices=8)
    assert run.system == system == config.system
    assert len(run.languages) == {"mono": 1, "joint_tri": 3}.get(system, 4 if "fr-de" in arg else 2)
    assert run.model.specific == base.SYSTEMS[system]["specific"]
    assert run.model.shared_adapter == base.SYSTEMS[system]["shared_adapter"]
    assert run.meta.enabled == base.SYSTEMS[system]["meta"]
    assert run.surgery.method == base.SYSTEMS[system].get("surgery", "none")
    assert run.model.language_embedding == (system != "mono")
    named = next((s for s in base.SCALES if f",{s}" in arg), None)
    lab = set(run.languages) <= set(base.LAB_LANGUAGES)
    assert run.scale == (named or ("lab" if lab else "sample"))
    if "steps=7" in arg:
      assert run.schedule.steps == 7
    if "seed=3" in arg:
      assert run.seed == 3
    if "similarity" in arg:
      assert run.data.lab.similarity == 0.3
    assert run.data.subsample == (50 if "subsample" in arg else 0)


@pytest.mark.parametrize(
  ("system", "arg", "languages"),
  [
    ("mono", "ar", ("ar",)),
    ("mono", "lab", ("xb",)),
    ("joint_pair", "ar", ("ar", "en")),
    ("joint_pair", "de-nl", ("de", "nl")),
    ("ffn", "de", ("de", "en")),
    ("joint_pair", "lab", ("xb", "xa")),
    ("joint_pair", "fr-sr-Latn-pt_br-en", ("fr", "sr_Latn", "pt_br", "en")),
    ("meta_adpt", "xb-xc-xa", ("xb", "xc", "xa")),
    ("joint_tri", "hi", ("hi", "mr", "en")),
    ("joint_tri", "te", ("te", "kn", "en")),
    ("joint_tri", "lab", ("xb", "xc", "xa")),
  ],
)
def test_the_target_comes_first_and_english_last(system, arg, languages):
  assert get_config(system, arg).languages == languages


@pytest.mark.parametrize(
  ("system", "arg", "culprit"),
  [
    ("joint_pair", None, "missing"),
    ("joint_pair", "", "missing"),
    ("joint_pair", "ar,huge", "huge"),
    ("joint_pair", "ar,lr=3", "lr=3"),
    ("joint_pair", "ar,steps=3,steps=4", "steps=4"),
    ("joint_pair", "ar,base,paper", "paper"),
    ("joint_pair", "ar,steps=many", "many"),
    ("joint_pair", "ar,steps=0.5", "0.5"),
    ("joint_pair", "en", "en"),
    ("joint_pair", "AR", "AR"),
    ("joint_pair", "ar-fr-ar", "ar-fr-ar"),
    ("joint_pair", "en-en", "en-en"),
    ("joint_pair", "xb-en", "xb-en"),
    ("joint_pair", "lab,base", "lab"),
    ("joint_pair", "ar,lab", "lab"),
    ("joint_pair", "ar,similarity=0.3", "similarity"),
    ("mono", "ar-en", "ar-en"),
    ("mono", "xb-ar", "xb-ar"),
    ("joint_tri", "ar", "ar"),
    ("joint_tri", "hi-en", "hi-en"),
    ("joint_tri", "hi-mr-te-en", "hi-mr-te-en"),
  ],
)
def test_a_refused_argument_names_itself_and_the_legal_ones(system, arg, culprit):
  with pytest.raises(UserError) as caught:
    get_config(system, arg)
  message = str(caught.value)
  assert culprit in message.partition(". ")[0]
  assert f"configs/{system}.py takes" in message
  for legal in (*base.SCALES, *base.KEYS, "lab"):
    assert legal in message
  example = re.search(rf"--config=configs/{system}.py:(\S+)", message)[1]
  get_config(system, example)


@pytest.mark.parametrize(
  ("arg", "code"),
  [("sw", "sw"), ("xc,steps=5,seed=2", "xc"), ("zh-min-nan,subsample=9", "zh_min_nan")],
)
def test_a_language_to_add_is_all_that_its_config_says(arg, code):
  config = get_config("add_language", arg)
  assert (config.system, config.languages, config.scale) == ("add_language", (code,), "")
  assert config.new_language == code and config.train.freeze_theta and not config.init_from
  assert ("steps" in arg) == (config.train.steps == 5) and (config.seed == 2) == ("seed" in arg)
  assert config.data.subsample == (9 if "subsample" in arg else 0)


@pytest.mark.parametrize("arg", [None, "", "sw-en", "SW", "sw,base", "xc,similarity=0.2", "lab"])
def test_a_refused_language_to_add_says_what_is_legal(arg):
  with pytest.raises(UserError, match=r"configs/add_language.py takes .* init_from does not have"):
    get_config("add_language", arg)


def test_the_papers_scale_has_the_papers_numbers():
  run = options.from_config(get_config("meta_adpt", "ar,paper"), num_devices=4)
  model, data = run.model, run.data
  assert (model.num_layers, model.num_heads, model.model_dim, model.ffn_dim) == (8, 12, 512, 2048)
  assert (model.head_dim, model.adapter_dim) == (40, 128)
  assert (model.init, model.activation, model.dropout) == ("xlm", "gelu", 0.1)
  assert (data.vocab_size, data.sequence_length) == (32_000, 256)
  assert (run.batch_size, run.mask_rate) == (512, 0.15)
  assert run.schedule == options.ScheduleOptions(500_000, 1e-4, 4000, "inverse_sqrt")
  assert (run.optimiser.b2, run.optimiser.clip_norm) == (0.98, 5.0)
  assert run.meta.inner_learning_rate == 0.0 and run.meta.inner_optimiser == "sgd"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_files_docstring_holds_its_own_commands_and_they_load(path):
  text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
  commands = re.findall(r"--config=configs/(\w+)\.py:(\S+)", text)
  assert commands and {name for name, _ in commands} == {path.stem}
  assert "python -m negint." in text
  for name, arg in commands:
    get_config(name, arg)


def uncommented(source):
  """Lines that set a field and do not say what it means, and how many fields there are."""
  fields = [line for line in source.splitlines() if re.match(r"\s+[\w.]+\.\w+ = ", line)]
  fields = [line for line in fields if "ConfigDict()" not in line]
  return [line for line in fields if not re.search(r"  # \S", line)], len(fields)


def test_every_field_says_what_it_means_on_its_line():
  source = inspect.getsource(base.sample_scale)
  config = base.sample_scale()
  flat = [
    name
    for section in config.values()
    for name in (section.keys() if hasattr(section, "keys") else ["_"])
  ]
  nested = len(config.data.lab) - 1  # data.lab counts as one field of data
  assert uncommented(source) == ([], len(flat) + nested)
  stripped, count = re.subn(r"  # Adam: .*", "", source)
  assert len(uncommented(stripped)[0]) == count > 0
