"""The run's options as frozen dataclasses, and every check across their fields.

A ConfigDict is converted here once (`from_config`); nothing behind this file sees a config. All
that can be wrong with a configuration is found here, before anything is compiled.
"""

import dataclasses
import os

from negint.errors import UserError

META_GRADIENTS = ("grad_of_grad", "forward_over_reverse", "finite_difference", "first_order")
INNER_OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("inverse_sqrt", "linear", "constant")
ACTIVATIONS = ("gelu", "relu")
DTYPES = ("float32", "bfloat16")  # of runs; tests compare in float64, which JAX must be told of
INITS = ("local", "xlm")
SURGERIES = ("none", "pcgrad", "gradvac")
ATTENTIONS = ("xla", "cudnn")
REMATS = ("none", "layer")
SPECIFIC = ("adapter", "ffn", "attention")
SOURCES = ("sample", "lab", "prepared")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
  """The encoder's shape; configs/base.py says what each field means."""

  vocab_size: int
  num_languages: int
  num_layers: int
  model_dim: int
  num_heads: int
  head_dim: int
  ffn_dim: int
  max_length: int
  language_embedding: bool
  adapter_dim: int = 0
  adapter_activation: str = "gelu"
  adapter_init_std: float = 0.01
  specific: tuple[str, ...] = ()
  shared_adapter: bool = False
  activation: str = "gelu"
  dropout: float = 0.0
  attention_dropout: float = 0.0
  dtype: str = "float32"
  init: str = "xlm"
  attention: str = "xla"
  remat: str = "none"

  @property
  def has_adapters(self) -> bool:
    return self.shared_adapter or "adapter" in self.specific

  def replace(self, **changes) -> "ModelOptions":
    return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class SurgeryOptions:
  method: str = "none"
  ema_rate: float = 0.01

  @property
  def enabled(self) -> bool:
    return self.method != "none"


@dataclasses.dataclass(frozen=True)
class OptimiserOptions:
  steps: int
  learning_rate: float
  warmup_steps: int
  schedule: str
  b1: float
  b2: float
  eps: float
  weight_decay: float
  clip_norm: float
  surgery: SurgeryOptions = SurgeryOptions()


@dataclasses.dataclass(frozen=True)
class MetaOptions:
  enabled: bool
  gradient: str
  inner_optimiser: str
  inner_learning_rate: float
  batch_size: int
  finite_difference_radius: float
  languages_per_step: int = 0


@dataclasses.dataclass(frozen=True)
class LabOptions:
  similarity: float
  seed: int
  documents: int


@dataclasses.dataclass(frozen=True)
class DataOptions:
  source: str
  dir: str
  vocab_size: int
  sequence_length: int
  sampling_exponent: float
  subsample: int
  tokenizer_sentences: int
  lab: LabOptions


@dataclasses.dataclass(frozen=True)
class GradientSimilarityOptions:
  every: int = 0
  sentences: int = 4096
  batch_size: int = 64


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """Everything a pretraining run reads. languages: the target first, English (or xa) last."""

  system: str
  languages: tuple[str, ...]
  scale: str
  seed: int
  model: ModelOptions
  data: DataOptions
  optimiser: OptimiserOptions
  meta: MetaOptions
  gradient_similarity: GradientSimilarityOptions
  batch_size: int
  accumulate: int
  mask_rate: float
  checkpoint_every: int
  checkpoint_keep: int
  log_every: int
  eval_every: int
  eval_batch_size: int

  @property
  def sequences_per_step(self) -> int:
    """Training sequences of a step: a batch of one language, or with surgery of each."""
    return self.batch_size * (len(self.languages) if self.optimiser.surgery.enabled else 1)

  @property
  def held_out_languages(self) -> int:
    """Languages in a meta step's held-out batch; the first-order gradient hears its own alone."""
    if self.meta.gradient == "first_order":
      return 1
    return self.meta.languages_per_step or len(self.languages)

  @property
  def held_out_sequences_per_step(self) -> int:
    return self.meta.batch_size * self.held_out_languages if self.meta.enabled else 0


def check_choice(field, value, legal):
  if value not in legal:
    raise UserError(f"{field} is {value!r}; it must be one of {', '.join(map(repr, legal))}.")


def check_at_least(field, value, lowest):
  if not value >= lowest:  # a NaN is refused, too
    raise UserError(f"{field} is {value}; it must be at least {lowest}.")


def check_positive(field, value):
  if not value > 0:
    raise UserError(f"{field} is {value}; it must be above 0.")


def check_share(field, value, *, open_end=False):
  if not 0.0 <= value <= 1.0 or (open_end and value == 1.0):
    raise UserError(f"{field} is {value}; it must lie in 0..1{' (below 1)' * open_end}.")


def from_config(config, num_devices: int) -> RunOptions:
  """Checks a pretraining ConfigDict and freezes it; UserError at the first broken rule."""
  languages = tuple(config.languages)
  shape = {**config.model.to_dict(), "specific": tuple(config.model.specific)}
  model = ModelOptions(vocab_size=config.data.vocab_size, num_languages=len(languages), **shape)
  train = config.train.to_dict()
  batch_size, mask_rate = train.pop("batch_size"), train.pop("mask_rate")
  data = config.data.to_dict()
  # Runs of before there were these fields lack them.
  accumulate = train.pop("accumulate", 1)
  surgery = SurgeryOptions(**config.get("surgery", {}))
  similarity = GradientSimilarityOptions(**config.get("gradient_similarity", {}))
  options = RunOptions(
    system=config.system,
    languages=languages,
    scale=config.scale,
    seed=config.seed,
    model=model,
    data=DataOptions(
      **{**data, "dir": os.path.expanduser(data["dir"]), "lab": LabOptions(**data["lab"])}
    ),
    optimiser=OptimiserOptions(**train, surgery=surgery),
    meta=MetaOptions(**config.meta.to_dict()),
    gradient_similarity=similarity,
    batch_size=batch_size,
    accumulate=accumulate,
    mask_rate=mask_rate,
    checkpoint_every=config.checkpoint.every,
    checkpoint_keep=config.checkpoint.keep,
    log_every=config.log.every,
    eval_every=config.eval.every,
    eval_batch_size=config.eval.batch_size,
  )
  check_model(options.model)
  check_data(options)
  check_training(options, num_devices)
  check_meta(options, num_devices)
  check_surgery(options)
  check_gradient_similarity(options.gradient_similarity, num_devices)
  return options


def check_model(model: ModelOptions):
  for name, lowest in {
    "num_layers": 1,
    "model_dim": 1,
    "num_heads": 1,
    "head_dim": 1,
    "ffn_dim": 1,
    "max_length": 2,
  }.items():
    check_at_least(f"model.{name}", getattr(model, name), lowest)
  if model.num_heads * model.head_dim > model.model_dim:
    raise UserError(
      f"model.num_heads is {model.num_heads} and model.head_dim {model.head_dim}: together the heads "
      f"are {model.num_heads * model.head_dim} wide, more than model.model_dim {model.model_dim}; use "
      f"--config.model.head_dim={max(model.model_dim // model.num_heads, 1)} or fewer heads."
    )
  check_choice("model.activation", model.activation, ACTIVATIONS)
  check_choice("model.adapter_activation", model.adapter_activation, ACTIVATIONS)
  check_choice("model.dtype", model.dtype, DTYPES)
  check_choice("model.init", model.init, INITS)
  check_choice("model.attention", model.attention, ATTENTIONS)
  check_choice("model.remat", model.remat, REMATS)
  check_share("model.dropout", model.dropout, open_end=True)
  check_share("model.attention_dropout", model.attention_dropout, open_end=True)
  for module in model.specific:
    check_choice("model.specific", module, SPECIFIC)
  if model.has_adapters:
    check_at_least("model.adapter_dim", model.adapter_dim, 1)
    check_at_least("model.adapter_init_std", model.adapter_init_std, 0.0)
  if model.shared_adapter and "adapter" in model.specific:
    raise UserError(
      "model.shared_adapter is True and model.specific holds 'adapter'; adapters belong either to "
      "theta (shared) or to phi (specific): drop one of the two."
    )
  if model.attention == "cudnn":
    if model.dtype != "bfloat16":
      raise UserError(
        f"model.attention='cudnn' needs model.dtype='bfloat16', not {model.dtype!r}; use 'xla'."
      )
    if model.head_dim % 8 or model.head_dim > 128:
      raise UserError(
        f"model.head_dim is {model.head_dim}; cuDNN attention needs a multiple of 8 of at most 128."
      )
    if model.attention_dropout:
      raise UserError(
        f"model.attention_dropout is {model.attention_dropout}; cuDNN attention is used without "
        "dropout: set it to 0.0 or model.attention to 'xla'."
      )


def check_data(options: RunOptions):
  data = options.data
  check_choice("data.source", data.source, SOURCES)
  check_at_least("data.sequence_length", data.sequence_length, 4)
  check_at_least("data.vocab_size", data.vocab_size, 32)
  check_at_least("data.subsample", data.subsample, 0)
  check_at_least("data.tokenizer_sentences", data.tokenizer_sentences, 1)
  check_share("data.sampling_exponent", data.sampling_exponent)
  check_share("data.lab.similarity", data.lab.similarity)
  check_at_least("data.lab.documents", data.lab.documents, 100)
  if data.sequence_length > options.model.max_length:
    raise UserError(
      f"data.sequence_length is {data.sequence_length} but model.max_length is "
      f"{options.model.max_length}; a sequence needs a position embedding for each token: lower "
      "the one or raise the other."
    )
  if len(set(options.languages)) != len(options.languages):
    raise UserError(f"languages {options.languages} holds a language twice; name each once.")


def check_training(options: RunOptions, num_devices: int):
  o = options.optimiser
  check_choice("train.schedule", o.schedule, SCHEDULES)
  check_at_least("train.steps", o.steps, 1)
  check_at_least("train.warmup_steps", o.warmup_steps, 0)
  check_at_least("seed", options.seed, 0)
  check_positive("train.learning_rate", o.learning_rate)
  check_adam(o)
  check_share("train.mask_rate", options.mask_rate)
  for name in ("checkpoint_every", "checkpoint_keep", "log_every", "eval_every"):
    check_at_least(name.replace("_", ".", 1), getattr(options, name), 1)
  length = options.data.sequence_length
  if not 1 <= round(options.mask_rate * length) < length:
    raise UserError(
      f"train.mask_rate is {options.mask_rate}: of {length} tokens it predicts "
      f"{round(options.mask_rate * length)}; at least 1 and at most {length - 1} must be predicted."
    )
  check_at_least("train.accumulate", options.accumulate, 1)
  check_divisible("train.batch_size", options.batch_size, num_devices, options.accumulate)
  check_divisible("eval.batch_size", options.eval_batch_size, num_devices)


def check_adam(o: OptimiserOptions):
  check_positive("train.clip_norm", o.clip_norm)
  check_positive("train.eps", o.eps)
  check_at_least("train.weight_decay", o.weight_decay, 0.0)
  check_share("train.b1", o.b1, open_end=True)
  check_share("train.b2", o.b2, open_end=True)


def check_divisible(field: str, batch_size: int, num_devices: int, parts: int = 1):
  """A batch has equal shares on all devices, and a share equal parts (`train.accumulate`)."""
  unit = num_devices * parts
  if batch_size < 1 or batch_size % unit:
    times = f" times train.accumulate, {parts}" if parts > 1 else ""
    lower = ", lower train.accumulate," if parts > 1 else ""
    raise UserError(
      f"{field} is {batch_size}; it must be a positive multiple of the {num_devices} "
      f"device(s){times}: use {max(batch_size // unit, 1) * unit}{lower} or hide devices with "
      "CUDA_VISIBLE_DEVICES."
    )


def check_meta(options: RunOptions, num_devices: int):
  meta, model = options.meta, options.model
  if not meta.enabled:
    return
  check_choice("meta.gradient", meta.gradient, META_GRADIENTS)
  check_choice("meta.inner_optimiser", meta.inner_optimiser, INNER_OPTIMISERS)
  check_at_least("meta.inner_learning_rate", meta.inner_learning_rate, 0.0)
  check_divisible("meta.batch_size", meta.batch_size, num_devices, options.accumulate)
  if not model.specific:
    raise UserError(
      "meta.enabled is True but model.specific is empty; the meta step trains phi, so name what "
      f"lives in it: {', '.join(map(repr, SPECIFIC))}."
    )
  num_languages = len(options.languages)
  if meta.languages_per_step and not 2 <= meta.languages_per_step <= num_languages:
    raise UserError(
      f"meta.languages_per_step is {meta.languages_per_step}; a step holds out its own language and "
      f"others drawn from the rest: use 2 to {num_languages}, or 0 for all {num_languages}."
    )
  if meta.gradient == "finite_difference":
    if not meta.finite_difference_radius > 0:
      raise UserError(
        f"meta.finite_difference_radius is {meta.finite_difference_radius}; it must be above 0 "
        "(0.01 is DARTS's and the default)."
      )
    if "relu" in (model.activation, model.has_adapters and model.adapter_activation):
      raise UserError(
        "meta.gradient='finite_difference' with a 'relu' activation: a finite difference sees the "
        "kinks that the derivative ignores and is wrong by 50 to 500 %. Use 'gelu' for "
        "model.activation and model.adapter_activation, or an exact meta.gradient "
        "('grad_of_grad', 'forward_over_reverse')."
      )
  if model.attention == "cudnn" and meta.gradient != "first_order":
    raise UserError(
      f"model.attention='cudnn' has no second derivative, which meta.gradient={meta.gradient!r} "
      "needs; use model.attention='xla', or meta.gradient='first_order'."
    )


def check_surgery(options: RunOptions):
  surgery = options.optimiser.surgery
  check_choice("surgery.method", surgery.method, SURGERIES)
  if not surgery.enabled:
    return
  check_share("surgery.ema_rate", surgery.ema_rate)
  if options.model.specific or options.meta.enabled:
    raise UserError(
      f"surgery.method is {surgery.method!r} with model.specific {options.model.specific} and "
      f"meta.enabled {options.meta.enabled}; surgery combines the gradients of shared parameters: "
      "use model.specific=() and meta.enabled=False, or surgery.method='none'."
    )
  if len(options.languages) < 2:
    raise UserError(
      f"surgery.method is {surgery.method!r} with the one language {options.languages[0]!r}; it "
      "combines the gradients of two or more: name another language, or use surgery.method='none'."
    )


def check_gradient_similarity(similarity: GradientSimilarityOptions, num_devices: int):
  check_at_least("gradient_similarity.every", similarity.every, 0)
  if not similarity.every:
    return
  check_at_least("gradient_similarity.sentences", similarity.sentences, similarity.batch_size)
  check_divisible("gradient_similarity.batch_size", similarity.batch_size, num_devices)
