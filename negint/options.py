"""The run's options as frozen dataclasses, and every check across their fields.

`from_config` turns a ConfigDict into a `RunOptions`; no other file of the method sees a config. It finds
everything that can be wrong with a configuration before anything is compiled. configs/base.py says what
each field means, in which unit.
"""

import dataclasses
import os
from collections.abc import Collection
from typing import Any

import ml_collections

from negint.errors import UserError
from negint.special_tokens import MASK, PAD

META_GRADIENTS = ("grad_of_grad", "forward_over_reverse", "finite_difference", "first_order")
META_VARIANTS = ("paper", "release")
INNER_OPTIMISERS = ("sgd", "adam")
PHI_SPLITS = ("train", "meta")
SCHEDULES = ("inverse_sqrt", "linear", "constant")
ACTIVATIONS = ("gelu", "relu", "gelu_tanh", "silu")
HALF_DTYPES = ("bfloat16", "float16")
DTYPES = ("float32", *HALF_DTYPES)  # tests also use float64, which JAX allows only on request
INITS = ("local", "xlm")
SURGERIES = ("none", "pcgrad", "gradvac")
ATTENTIONS = ("xla", "cudnn")
REMATS = ("none", "layer")  # the cheapest first
AUTO = "auto"  # a value that the run chooses by its device when it begins
SPECIFIC = ("adapter", "ffn", "attention")
SOFTMAX_TRANSFORMS = ("none", *ACTIVATIONS)
SOURCES = ("sample", "lab", "prepared")
SMALL_SCALES = ("sample", "small", "lab")  # models of minutes or hours on a CPU, at large rates


@dataclasses.dataclass(frozen=True)
class ModelOptions:
  """The encoder's shape: `model` of the config, and two numbers that the run's data fix.

  The fields after `remat` tell BERT's and RoBERTa's encoder from XLM's.
  """

  vocab_size: int  # V, special tokens included
  num_languages: int  # L
  num_layers: int
  model_dim: int  # D
  num_heads: int  # H
  head_dim: int  # width of one head
  ffn_dim: int  # F
  max_length: int  # position embeddings, tokens
  language_embedding: bool
  adapter_dim: int = 0  # A
  adapter_activation: str = "gelu"  # one of ACTIVATIONS
  adapter_init_std: float = 0.01
  specific: tuple[str, ...] = ()  # modules in phi, of SPECIFIC
  shared_adapter: bool = False  # adapters in theta
  activation: str = "gelu"  # one of ACTIVATIONS
  dropout: float = 0.0  # share
  attention_dropout: float = 0.0  # share
  dtype: str = "float32"  # one of DTYPES, or AUTO until the run begins
  init: str = "xlm"  # one of INITS
  attention: str = "xla"  # one of ATTENTIONS
  remat: str = "none"  # one of REMATS, or AUTO until the run begins
  norm_epsilon: float = 1e-12  # of every LayerNorm
  position_offset: int = 0  # rows of the position table before the first position's
  token_types: int = 0  # rows of the table of token types; 0: no such table
  softmax_transform: str = "none"  # activation of a dense layer and LayerNorm before the softmax
  tied_softmax: bool = True  # the softmax has the token embeddings as its weights
  pad_id: int = PAD
  mask_id: int = MASK  # shown at hidden positions
  kept_ids: tuple[int, ...] = ()  # tokens that are never hidden

  @property
  def has_adapters(self) -> bool:
    """Whether the layers have adapters, shared or language-specific."""
    return self.shared_adapter or "adapter" in self.specific

  def replace(self, **changes: Any) -> "ModelOptions":  # Any: each field has its own type
    """A copy with other values of some fields."""
    return dataclasses.replace(self, **changes)


@dataclasses.dataclass(frozen=True)
class AdamOptions:
  """Adam and the clipping before it."""

  b1: float  # decay of the first moments
  b2: float  # decay of the second moments
  eps: float
  weight_decay: float  # decoupled, of every parameter
  clip_norm: float  # largest global gradient norm


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
  """The learning rate at each update."""

  steps: int  # updates of the run
  learning_rate: float  # peak
  warmup_steps: int  # updates
  kind: str  # one of SCHEDULES, `train.schedule` of the config


@dataclasses.dataclass(frozen=True)
class SurgeryOptions:
  """How the gradients of several languages are combined."""

  method: str  # one of SURGERIES
  ema_rate: float  # of GradVac's target cosines

  @property
  def enabled(self) -> bool:
    """Whether each step takes a batch of every language."""
    return self.method != "none"


@dataclasses.dataclass(frozen=True)
class MetaOptions:
  """The meta step of phi."""

  enabled: bool
  gradient: str  # one of META_GRADIENTS
  inner_optimiser: str  # one of INNER_OPTIMISERS
  inner_learning_rate: float  # beta of Eq. 3; 0 follows the schedule
  batch_size: int  # B', held-out sequences per language
  finite_difference_radius: float  # L2 distance from theta
  languages_per_step: int  # held-out languages of a step; 0: all, 1: one drawn from all
  variant: str = "paper"  # one of META_VARIANTS

  @property
  def own_slots(self) -> bool:
    """Whether the meta step has Adam slots of its own, beside those of ordinary updates of phi."""
    return self.enabled and self.variant == "release"


@dataclasses.dataclass(frozen=True)
class LabOptions:
  """The lab's artificial languages."""

  similarity: float  # of the target language to xa, 0..1
  seed: int
  documents: int  # per language


@dataclasses.dataclass(frozen=True)
class DataOptions:
  """Where the text comes from and how it is cut."""

  source: str  # one of SOURCES
  dir: str  # folder of corpora and token caches
  vocab_size: int  # V
  sequence_length: int  # T, tokens
  sampling_exponent: float  # 0..1
  subsample: int  # training sentences of the target language; 0: all
  tokenizer_sentences: int
  lab: LabOptions
  tokenizer_from: str = ""  # languages joined by hyphens, or a folder; "": the run's languages


@dataclasses.dataclass(frozen=True)
class GradientSimilarityOptions:
  """Measurements of the languages' gradient cosines during training (Figure 3)."""

  every: int  # updates; 0: none
  sentences: int  # sequences per gradient
  batch_size: int  # sequences


@dataclasses.dataclass(frozen=True)
class RunOptions:
  """Everything that a pretraining run reads."""

  system: str
  languages: tuple[str, ...]  # the target first, English (or xa) last
  scale: str
  seed: int
  model: ModelOptions
  data: DataOptions
  optimiser: AdamOptions
  schedule: ScheduleOptions
  surgery: SurgeryOptions
  meta: MetaOptions
  gradient_similarity: GradientSimilarityOptions
  batch_size: int  # B, sequences
  accumulate: int  # parts that a batch is computed in
  mask_rate: float  # share of positions predicted in training
  phi_split: str  # that gives phi's gradient where meta is off, one of PHI_SPLITS
  phi_rate: float  # factor on the learning rate of phi
  checkpoint_every: int  # updates
  checkpoint_keep: int
  log_every: int  # updates
  eval_every: int  # updates
  eval_batch_size: int  # sequences
  init_from: str = ""  # folder of the model to start from; "": random weights
  new_language: str = ""  # the only language of the batches, added to the run in init_from
  freeze_theta: bool = False  # phi alone is trained

  @property
  def batches_per_step(self) -> int:
    """Training batches of a step: of every language for surgery, two for the release's meta step.

    At a frozen theta a step takes a held-out batch instead of a training batch, if it takes any.
    """
    if self.freeze_theta:
      return 0 if self.held_out_languages else 1
    if self.surgery.enabled:
      return len(self.languages)
    return 2 if self.meta.enabled and self.meta.variant == "release" else 1

  @property
  def sequences_per_step(self) -> int:
    """Training sequences of a step."""
    return self.batch_size * self.batches_per_step

  @property
  def held_out_languages(self) -> int:
    """Languages m in a step's held-out batch; 0: the step takes none.

    The first-order meta-gradient, phi's gradient from the split `meta`, and a meta step at a frozen
    theta read their own language alone.
    """
    if self.freeze_theta or not self.meta.enabled:
      return 1 if self.meta.enabled or self.phi_split == "meta" else 0
    if self.meta.gradient == "first_order":
      return 1
    return self.meta.languages_per_step or len(self.languages)

  @property
  def own_language_held_out(self) -> bool:
    """Whether each held-out batch has the step's own language; if not, it has one drawn from all."""
    return self.freeze_theta or not (self.meta.enabled and self.meta.languages_per_step == 1)

  @property
  def held_out_sequences_per_step(self) -> int:
    """Held-out sequences of a step, of all its languages."""
    return self.meta.batch_size * self.held_out_languages


def check_choice(field: str, value: object, legal: Collection[str]) -> None:
  """UserError unless the value is one of the legal ones."""
  if value not in legal:
    raise UserError(f"{field} is {value!r}; it must be one of {', '.join(map(repr, legal))}.")


def check_at_least(field: str, value: float, lowest: float) -> None:
  """UserError unless the value is at least `lowest`."""
  if not value >= lowest:  # refuses a NaN, which `value < lowest` would accept
    raise UserError(f"{field} is {value}; it must be at least {lowest}.")


def check_positive(field: str, value: float) -> None:
  """UserError unless the value is above 0."""
  if not value > 0:
    raise UserError(f"{field} is {value}; it must be above 0.")


def check_share(field: str, value: float, *, open_end: bool = False) -> None:
  """UserError unless the value lies in 0..1; `open_end` excludes 1."""
  if not 0.0 <= value <= 1.0 or (open_end and value == 1.0):
    raise UserError(f"{field} is {value}; it must lie in 0..1{' (below 1)' * open_end}.")


def from_config(config: ml_collections.ConfigDict, num_devices: int) -> RunOptions:
  """The options of a pretraining config.

  Args:
    config: of configs/base.py.
    num_devices: devices of all processes, which share each batch.

  Raises:
    UserError: the first rule that the config breaks.
  """
  languages = tuple(config.languages)
  shape: dict[str, Any] = {  # JSON has lists for tuples
    name: tuple(value) if isinstance(value, list) else value
    for name, value in config.model.to_dict().items()
  }
  data = config.data.to_dict()
  train = config.train
  options = RunOptions(
    system=config.system,
    languages=languages,
    scale=config.scale,
    seed=config.seed,
    model=ModelOptions(vocab_size=config.data.vocab_size, num_languages=len(languages), **shape),
    data=DataOptions(
      **{**data, "dir": os.path.expanduser(data["dir"]), "lab": LabOptions(**data["lab"])}
    ),
    optimiser=AdamOptions(train.b1, train.b2, train.eps, train.weight_decay, train.clip_norm),
    schedule=ScheduleOptions(train.steps, train.learning_rate, train.warmup_steps, train.schedule),
    surgery=SurgeryOptions(**config.surgery),
    meta=MetaOptions(**config.meta),
    gradient_similarity=GradientSimilarityOptions(**config.gradient_similarity),
    batch_size=train.batch_size,
    accumulate=train.accumulate,
    mask_rate=train.mask_rate,
    phi_split=train.phi_split,
    phi_rate=train.phi_rate,
    init_from=config.init_from,
    new_language=config.new_language,
    freeze_theta=train.freeze_theta,
    checkpoint_every=config.checkpoint.every,
    checkpoint_keep=config.checkpoint.keep,
    log_every=config.log.every,
    eval_every=config.eval.every,
    eval_batch_size=config.eval.batch_size,
  )
  check_model(options.model)
  check_data(options)
  check_training(options, num_devices)
  check_phi(options, num_devices)
  check_meta(options)
  check_surgery(options)
  check_gradient_similarity(options.gradient_similarity, num_devices)
  return options


def check_model(model: ModelOptions) -> None:
  """UserError at the first rule of `model` that is broken."""
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
  check_choice("model.dtype", model.dtype, (*DTYPES, AUTO))
  check_choice("model.init", model.init, INITS)
  check_choice("model.attention", model.attention, ATTENTIONS)
  check_choice("model.remat", model.remat, (*REMATS, AUTO))
  check_choice("model.softmax_transform", model.softmax_transform, SOFTMAX_TRANSFORMS)
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
    if model.dtype not in (*HALF_DTYPES, AUTO):
      raise UserError(
        f"model.attention is 'cudnn' and model.dtype {model.dtype!r}; cuDNN needs 'bfloat16' or "
        "'float16': use --config.model.dtype=bfloat16 or --config.model.attention=xla."
      )
    if model.head_dim % 8 or model.head_dim > 128:
      raise UserError(
        f"model.head_dim is {model.head_dim}; cuDNN attention needs a multiple of 8 of at most 128."
      )
    if model.attention_dropout:
      raise UserError(
        f"model.attention_dropout is {model.attention_dropout}; cuDNN attention takes no dropout "
        "here: set model.attention_dropout to 0.0 or model.attention to 'xla'."
      )


def check_data(options: RunOptions) -> None:
  """UserError at the first rule of `data` and `languages` that is broken."""
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
      "the first or raise the second."
    )
  if len(set(options.languages)) != len(options.languages):
    raise UserError(f"languages {options.languages} holds a language twice; name each once.")


def check_training(options: RunOptions, num_devices: int) -> None:
  """UserError at the first rule of `train`, `seed` and the cadences that is broken."""
  schedule = options.schedule
  check_choice("train.schedule", schedule.kind, SCHEDULES)
  check_at_least("train.steps", schedule.steps, 1)
  check_at_least("train.warmup_steps", schedule.warmup_steps, 0)
  check_at_least("seed", options.seed, 0)
  check_positive("train.learning_rate", schedule.learning_rate)
  check_adam(options.optimiser)
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
  if options.freeze_theta and not options.model.specific:
    raise UserError(
      "train.freeze_theta is True but model.specific is empty: nothing is left to train; choose a "
      "system with language-specific modules, such as configs/adpt.py, or train.freeze_theta=False."
    )
  check_divisible("train.batch_size", options.batch_size, num_devices, options.accumulate)
  check_divisible("eval.batch_size", options.eval_batch_size, num_devices)


def check_adam(o: AdamOptions) -> None:
  """UserError at the first rule of Adam and clipping that is broken."""
  check_positive("train.clip_norm", o.clip_norm)
  check_positive("train.eps", o.eps)
  check_at_least("train.weight_decay", o.weight_decay, 0.0)
  check_share("train.b1", o.b1, open_end=True)
  check_share("train.b2", o.b2, open_end=True)


def check_divisible(field: str, batch_size: int, num_devices: int, parts: int = 1) -> None:
  """UserError unless a batch has equal shares on all devices, and each share equal parts.

  Args:
    field: the config's name of the batch size.
    batch_size: sequences of the global batch.
    num_devices: devices of all processes.
    parts: `train.accumulate`.
  """
  unit = num_devices * parts
  if batch_size < 1 or batch_size % unit:
    times = f" times train.accumulate, {parts}" if parts > 1 else ""
    lower = ", lower train.accumulate," if parts > 1 else ""
    raise UserError(
      f"{field} is {batch_size}; it must be a positive multiple of the {num_devices} "
      f"device(s){times}: use {max(batch_size // unit, 1) * unit}{lower} or hide devices with "
      "CUDA_VISIBLE_DEVICES."
    )


def check_phi(options: RunOptions, num_devices: int) -> None:
  """UserError at the first rule of phi's own training that is broken."""
  check_choice("train.phi_split", options.phi_split, PHI_SPLITS)
  check_at_least("train.phi_rate", options.phi_rate, 0.0)
  if options.held_out_languages:
    check_divisible("meta.batch_size", options.meta.batch_size, num_devices, options.accumulate)
  if options.phi_split == "meta" and (options.meta.enabled or not options.model.specific):
    raise UserError(
      f"train.phi_split is 'meta' with meta.enabled {options.meta.enabled} and model.specific "
      f"{options.model.specific}; it trains the modules in phi of a system without meta steps: take "
      "such a system, for example configs/adpt.py, or use train.phi_split='train'."
    )


def check_meta(options: RunOptions) -> None:
  """UserError at the first rule of `meta` that is broken; none without meta steps."""
  meta, model = options.meta, options.model
  if not meta.enabled:
    return
  check_choice("meta.variant", meta.variant, META_VARIANTS)
  check_choice("meta.gradient", meta.gradient, META_GRADIENTS)
  check_choice("meta.inner_optimiser", meta.inner_optimiser, INNER_OPTIMISERS)
  check_at_least("meta.inner_learning_rate", meta.inner_learning_rate, 0.0)
  if meta.variant == "release" and options.freeze_theta:
    raise UserError(
      "meta.variant is 'release', whose first update is of theta, and train.freeze_theta is True; use "
      "meta.variant='paper', or train theta."
    )
  if not model.specific:
    raise UserError(
      "meta.enabled is True but model.specific is empty; the meta step trains phi, so name the "
      f"modules in phi: {', '.join(map(repr, SPECIFIC))}."
    )
  num_languages = len(options.languages)
  if not 0 <= meta.languages_per_step <= num_languages:
    raise UserError(
      f"meta.languages_per_step is {meta.languages_per_step}; use 2 to {num_languages} (the step's "
      f"own language and others), 1 (one drawn from all) or 0 (all {num_languages})."
    )
  if meta.languages_per_step == 1 and meta.gradient == "first_order":
    raise UserError(
      "meta.languages_per_step is 1 and meta.gradient 'first_order'; the first-order gradient reads "
      "the held-out text of the step's own language alone: use 0, or an exact meta.gradient."
    )
  if meta.gradient == "finite_difference":
    if not meta.finite_difference_radius > 0:
      raise UserError(
        f"meta.finite_difference_radius is {meta.finite_difference_radius}; it must be above 0; the "
        "default is 0.01, the value of DARTS."
      )
    if "relu" in (model.activation, model.has_adapters and model.adapter_activation):
      raise UserError(
        "meta.gradient is 'finite_difference' and an activation is 'relu'; the kinks of relu make "
        "finite differences wrong by 50 to 500 %. Use 'gelu' for model.activation and "
        "model.adapter_activation, or an exact meta.gradient: 'grad_of_grad' or "
        "'forward_over_reverse'."
      )
  if model.attention == "cudnn" and meta.gradient != "first_order":
    raise UserError(
      f"model.attention is 'cudnn', which has no second derivative, and meta.gradient "
      f"{meta.gradient!r} needs one; use model.attention='xla', or meta.gradient='first_order'."
    )


def check_surgery(options: RunOptions) -> None:
  """UserError at the first rule of `surgery` that is broken."""
  surgery = options.surgery
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
      f"surgery.method is {surgery.method!r} with one language, {options.languages[0]!r}; it "
      "combines the gradients of two or more: name another language, or use surgery.method='none'."
    )


def check_gradient_similarity(similarity: GradientSimilarityOptions, num_devices: int) -> None:
  """UserError at the first rule of `gradient_similarity` that is broken."""
  check_at_least("gradient_similarity.every", similarity.every, 0)
  if not similarity.every:
    return
  check_at_least("gradient_similarity.sentences", similarity.sentences, similarity.batch_size)
  check_divisible("gradient_similarity.batch_size", similarity.batch_size, num_devices)
