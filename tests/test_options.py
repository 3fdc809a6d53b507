"""Every rule of a config: the message names what breaks it and what is legal; a neighbour passes."""

import pytest
from toy import toy_config, toy_run

from negint import options
from negint.errors import UserError

FD = dict(meta__gradient="finite_difference")
CUDNN = dict(model__attention="cudnn", model__dtype="bfloat16")

# system, fields, what the message must hold, the change that makes it legal
RULES = {
  "batch": (
    "joint_pair",
    dict(train__batch_size=5),
    ("train.batch_size", "5", "2", "4"),
    dict(train__batch_size=6),
  ),
  "no batch": (
    "joint_pair",
    dict(train__batch_size=0),
    ("train.batch_size", "0", "use 2"),
    dict(train__batch_size=2),
  ),
  "eval batch": (
    "joint_pair",
    dict(eval__batch_size=3),
    ("eval.batch_size", "3", "2"),
    dict(eval__batch_size=4),
  ),
  "meta batch": (
    "meta_adpt",
    dict(meta__batch_size=3),
    ("meta.batch_size", "3", "2"),
    dict(meta__batch_size=4),
  ),
  "parts": (
    "joint_pair",
    dict(train__accumulate=0),
    ("train.accumulate", "0", "1"),
    dict(train__accumulate=2),
  ),
  "parts of a batch": (
    "joint_pair",
    dict(train__batch_size=10, train__accumulate=3),
    ("train.batch_size", "10", "2 device", "train.accumulate", "3", "use 6"),
    dict(train__batch_size=12),
  ),
  "parts of a meta batch": (
    "meta_adpt",
    dict(train__accumulate=2, meta__batch_size=6),
    ("meta.batch_size", "6", "2 device", "train.accumulate", "use 4"),
    dict(meta__batch_size=8),
  ),
  "a first-order gradient of a random language": (
    "meta_adpt",
    dict(meta__languages_per_step=1, meta__gradient="first_order"),
    ("meta.languages_per_step is 1", "'first_order'", "use 0"),
    dict(meta__gradient="grad_of_grad"),
  ),
  "meta variant": (
    "meta_adpt",
    dict(meta__variant="authors"),
    ("meta.variant", "'authors'", "'paper'", "'release'"),
    dict(meta__variant="release"),
  ),
  "split of phi": (
    "adpt",
    dict(train__phi_split="valid"),
    ("train.phi_split", "'valid'", "'train'", "'meta'"),
    dict(train__phi_split="meta"),
  ),
  "split of a phi that meta steps train": (
    "meta_adpt",
    dict(train__phi_split="meta"),
    ("train.phi_split", "meta.enabled True", "configs/adpt.py", "'train'"),
    dict(train__phi_split="train"),
  ),
  "split of no phi": (
    "joint_pair",
    dict(train__phi_split="meta"),
    ("train.phi_split", "model.specific ()", "configs/adpt.py"),
    dict(model__specific=("adapter",)),
  ),
  "held-out batch of phi": (
    "adpt",
    dict(train__phi_split="meta", meta__batch_size=3),
    ("meta.batch_size", "3", "2 device"),
    dict(meta__batch_size=4),
  ),
  "rate of phi": (
    "adpt",
    dict(train__phi_rate=-0.5),
    ("train.phi_rate", "-0.5", "0"),
    dict(train__phi_rate=0.5),
  ),
  "too many held-out languages": (
    "meta_adpt",
    dict(meta__languages_per_step=3),
    ("meta.languages_per_step", "3", "2 to 2", "1 (one drawn from all)", "0 (all 2)"),
    dict(languages=("xb", "xc", "xa")),
  ),
  "negative held-out languages": (
    "meta_adpt",
    dict(meta__languages_per_step=-1),
    ("meta.languages_per_step", "-1", "0"),
    dict(meta__languages_per_step=0),
  ),
  "length": (
    "joint_pair",
    dict(data__sequence_length=25),
    ("sequence_length", "25", "24"),
    dict(model__max_length=25),
  ),
  "short": (
    "joint_pair",
    dict(data__sequence_length=3),
    ("sequence_length", "3", "4"),
    dict(data__sequence_length=4),
  ),
  "mask rate low": (
    "joint_pair",
    dict(train__mask_rate=0.01),
    ("mask_rate", "0.01", "1", "23"),
    dict(train__mask_rate=0.05),
  ),
  "mask rate high": (
    "joint_pair",
    dict(train__mask_rate=1.0),
    ("mask_rate", "1.0", "24", "23"),
    dict(train__mask_rate=0.95),
  ),
  "both adapters": (
    "adpt",
    dict(model__shared_adapter=True),
    ("model.shared_adapter", "model.specific", "adapter"),
    dict(model__shared_adapter=False),
  ),
  "no adapter width": (
    "adpt",
    dict(model__adapter_dim=0),
    ("model.adapter_dim", "0", "1"),
    dict(model__adapter_dim=1),
  ),
  "unknown module": (
    "adpt",
    dict(model__specific=("norm",)),
    ("norm", "adapter", "ffn"),
    dict(model__specific=("ffn", "attention")),
  ),
  "finite differences see relu": (
    "meta_ffn",
    {**FD, "model__activation": "relu"},
    ("finite_difference", "relu", "gelu", "grad_of_grad"),
    dict(model__activation="gelu"),
  ),
  "finite differences see an adapter's relu": (
    "meta_adpt",
    {**FD, "model__adapter_activation": "relu"},
    ("finite_difference", "relu", "gelu"),
    dict(meta__gradient="forward_over_reverse"),
  ),
  "relu of adapters that are not there": (
    "meta_ffn",
    {**FD, "model__adapter_activation": "relu", "model__activation": "relu"},
    ("relu",),
    dict(model__activation="gelu"),
  ),
  "radius": (
    "meta_adpt",
    {**FD, "meta__finite_difference_radius": 0.0},
    ("radius", "0.0", "0.01"),
    dict(meta__finite_difference_radius=0.1),
  ),
  "meta without phi": (
    "joint_pair",
    dict(meta__enabled=True),
    ("meta.enabled", "model.specific", "adapter", "ffn", "attention"),
    dict(model__specific=("ffn",)),
  ),
  "meta gradient": (
    "meta_adpt",
    dict(meta__gradient="exact"),
    ("exact", *options.META_GRADIENTS),
    dict(meta__gradient="first_order"),
  ),
  "inner optimiser": (
    "meta_adpt",
    dict(meta__inner_optimiser="lamb"),
    ("lamb", "sgd", "adam"),
    dict(meta__inner_optimiser="adam"),
  ),
  "inner rate": (
    "meta_adpt",
    dict(meta__inner_learning_rate=-0.1),
    ("inner_learning_rate", "-0.1"),
    dict(meta__inner_learning_rate=0.1),
  ),
  "cudnn second derivative": (
    "meta_adpt",
    CUDNN,
    ("cudnn", "grad_of_grad", "xla", "first_order"),
    dict(meta__gradient="first_order"),
  ),
  "cudnn float32": (
    "joint_pair",
    dict(model__attention="cudnn"),
    ("cudnn", "bfloat16", "float16", "float32", "xla"),
    dict(model__dtype="float16"),
  ),
  "cudnn head": (
    "joint_pair",
    {**CUDNN, "model__num_heads": 1, "model__head_dim": 12},
    ("head_dim", "12", "8", "128"),
    dict(model__head_dim=16),
  ),
  "cudnn wide head": (
    "joint_pair",
    {**CUDNN, "model__model_dim": 512, "model__head_dim": 136},
    ("head_dim", "136", "128"),
    dict(model__head_dim=128),
  ),
  "cudnn dropout": (
    "joint_pair",
    {**CUDNN, "model__attention_dropout": 0.1},
    ("attention_dropout", "0.1", "xla"),
    dict(model__attention="xla"),
  ),
  "dropout": (
    "joint_pair",
    dict(model__dropout=1.0),
    ("model.dropout", "1.0", "0..1"),
    dict(model__dropout=0.9),
  ),
  "no layers": (
    "joint_pair",
    dict(model__num_layers=0),
    ("num_layers", "0", "1"),
    dict(model__num_layers=1),
  ),
  "activation": (
    "joint_pair",
    dict(model__activation="swish"),
    ("swish", *options.ACTIVATIONS),
    dict(model__activation="relu"),
  ),
  "dtype": (
    "joint_pair",
    dict(model__dtype="float8"),
    ("float8", *options.DTYPES, options.AUTO),
    dict(model__dtype="bfloat16"),
  ),
  "init": (
    "joint_pair",
    dict(model__init="bert"),
    ("bert", *options.INITS),
    dict(model__init="xlm"),
  ),
  "attention": (
    "joint_pair",
    dict(model__attention="flash"),
    ("flash", *options.ATTENTIONS),
    dict(model__attention="xla"),
  ),
  "remat": (
    "joint_pair",
    dict(model__remat="all"),
    ("all", *options.REMATS),
    dict(model__remat="layer"),
  ),
  "schedule": (
    "joint_pair",
    dict(train__schedule="cosine"),
    ("cosine", *options.SCHEDULES),
    dict(train__schedule="constant"),
  ),
  "source": (
    "joint_pair",
    dict(data__source="web"),
    ("web", *options.SOURCES),
    dict(data__source="prepared"),
  ),
  "vocabulary": (
    "joint_pair",
    dict(data__vocab_size=31),
    ("vocab_size", "31", "32"),
    dict(data__vocab_size=32),
  ),
  "subsample": (
    "joint_pair",
    dict(data__subsample=-1),
    ("subsample", "-1", "0"),
    dict(data__subsample=1),
  ),
  "exponent": (
    "joint_pair",
    dict(data__sampling_exponent=1.5),
    ("sampling_exponent", "1.5"),
    dict(data__sampling_exponent=1.0),
  ),
  "similarity": (
    "joint_pair",
    dict(data__lab__similarity=1.1),
    ("similarity", "1.1", "0..1"),
    dict(data__lab__similarity=1.0),
  ),
  "documents": (
    "joint_pair",
    dict(data__lab__documents=99),
    ("documents", "99", "100"),
    dict(data__lab__documents=100),
  ),
  "language twice": (
    "joint_pair",
    dict(languages=("xa", "xa")),
    ("xa", "twice"),
    dict(languages=("xb", "xa")),
  ),
  "steps": ("joint_pair", dict(train__steps=0), ("train.steps", "0", "1"), dict(train__steps=1)),
  "rate": (
    "joint_pair",
    dict(train__learning_rate=0.0),
    ("learning_rate", "0.0", "above 0"),
    dict(train__learning_rate=1.0),
  ),
  "rate not a number": (
    "joint_pair",
    dict(train__learning_rate=float("nan")),
    ("learning_rate", "nan"),
    dict(train__learning_rate=1e-9),
  ),
  "momentum": ("joint_pair", dict(train__b1=1.0), ("train.b1", "1.0"), dict(train__b1=0.0)),
  "clip": (
    "joint_pair",
    dict(train__clip_norm=0.0),
    ("clip_norm", "0.0"),
    dict(train__clip_norm=0.1),
  ),
  "checkpoints": (
    "joint_pair",
    dict(checkpoint__every=0),
    ("checkpoint.every", "0", "1"),
    dict(checkpoint__every=1),
  ),
  "checkpoints kept": (
    "joint_pair",
    dict(checkpoint__keep=0),
    ("checkpoint.keep", "0", "1"),
    dict(checkpoint__keep=1),
  ),
  "surgery": (
    "pcgrad",
    dict(surgery__method="mgda"),
    ("surgery.method", "mgda", *options.SURGERIES),
    dict(surgery__method="none"),
  ),
  "surgery of phi": (
    "gradvac",
    dict(model__specific=("ffn",)),
    ("surgery.method", "'gradvac'", "model.specific", "ffn", "'none'"),
    dict(model__specific=()),
  ),
  "surgery in a meta step": (
    "meta_ffn",
    dict(surgery__method="pcgrad"),
    ("surgery.method", "'pcgrad'", "meta.enabled True", "'none'"),
    dict(surgery__method="none"),
  ),
  "surgery of one language": (
    "pcgrad",
    dict(languages=("xb",)),
    ("surgery.method", "'pcgrad'", "'xb'", "two", "'none'"),
    dict(languages=("xb", "xc", "xa")),
  ),
  "rate of the target": (
    "gradvac",
    dict(surgery__ema_rate=1.5),
    ("surgery.ema_rate", "1.5", "0..1"),
    dict(surgery__ema_rate=1.0),
  ),
  "frozen theta in the release's step": (
    "meta_adpt",
    dict(train__freeze_theta=True, meta__variant="release"),
    ("meta.variant", "'release'", "train.freeze_theta", "'paper'"),
    dict(meta__variant="paper"),
  ),
  "frozen without phi": (
    "joint_pair",
    dict(train__freeze_theta=True),
    ("train.freeze_theta", "model.specific is empty", "configs/adpt.py"),
    dict(model__specific=("ffn",)),
  ),
  "seed": ("joint_pair", dict(seed=-1), ("seed", "-1", "0"), dict(seed=0)),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_named_with_the_legal_values_and_a_neighbour_passes(rule):
  system, fields, words, fixed = RULES[rule]
  with pytest.raises(UserError) as caught:
    options.from_config(toy_config(system, **fields), num_devices=2)
  message = str(caught.value)
  assert all(word in message for word in words), message
  options.from_config(toy_config(system, **{**fields, **fixed}), num_devices=2)


@pytest.mark.parametrize(
  "fields",
  [dict(meta__batch_size=3), dict(meta__gradient="unknown"), {**FD, "model__activation": "relu"}],
)
def test_meta_fields_do_not_matter_to_a_run_without_meta_steps(fields):
  options.from_config(toy_config("adpt", **fields), num_devices=2)


def test_the_batch_rule_follows_the_devices():
  config = toy_config("joint_pair", train__batch_size=6, eval__batch_size=6)
  for num_devices in (1, 2, 3, 6):
    options.from_config(config, num_devices)
  with pytest.raises(UserError, match=r"6; .*4 device.*use 4 "):
    options.from_config(config, 4)


def test_a_step_has_a_batch_of_one_language_or_of_each():
  assert toy_run("joint_pair", train__batch_size=4).sequences_per_step == 4
  assert toy_run("pcgrad", train__batch_size=4).sequences_per_step == 8


def test_a_meta_step_at_a_frozen_theta_reads_held_out_text_of_one_language():
  run = toy_run("meta_adpt", train__freeze_theta=True, meta__batch_size=2)
  assert (run.sequences_per_step, run.held_out_sequences_per_step) == (0, 2)
  assert toy_run("adpt", train__freeze_theta=True, train__batch_size=4).sequences_per_step == 4


def test_the_releases_step_has_two_batches_and_a_random_held_out_language_need_not_be_the_steps():
  release = toy_run("meta_adpt", train__batch_size=4, meta__variant="release")
  assert release.sequences_per_step == 8 and release.meta.own_slots
  assert not toy_run("adpt", meta__variant="release").meta.own_slots  # without meta steps
  random = toy_run("meta_adpt", meta__languages_per_step=1)
  assert random.held_out_languages == 1 and not random.own_language_held_out
  assert toy_run("meta_adpt").own_language_held_out
  first_order = toy_run("meta_adpt", meta__gradient="first_order")
  assert first_order.held_out_languages == 1 and first_order.own_language_held_out


def test_every_field_of_the_config_arrives():
  config = toy_config(
    "meta_adpt",
    train__b1=0.85,
    meta__inner_learning_rate=0.25,
    data__lab__similarity=0.75,
    log__every=3,
    checkpoint__keep=5,
    surgery__ema_rate=0.02,
    train__accumulate=2,
    meta__languages_per_step=2,
    meta__variant="release",
    train__phi_rate=0.25,
    seed=9,
  )
  run = options.from_config(config, 1)
  assert (run.optimiser.b1, run.meta.inner_learning_rate, run.data.lab.similarity) == (
    0.85,
    0.25,
    0.75,
  )
  assert (run.log_every, run.checkpoint_keep, run.seed) == (3, 5, 9)
  assert run.surgery.ema_rate == 0.02
  assert (run.accumulate, run.meta.languages_per_step) == (2, 2)
  assert (run.meta.variant, run.phi_rate, run.phi_split) == ("release", 0.25, "train")
  assert run.model.vocab_size == run.data.vocab_size == config.data.vocab_size
  assert run.model.num_languages == len(run.languages) == 2
  assert hash(run) == hash(options.from_config(config, 1))
