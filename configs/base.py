"""Defaults of every pretraining config, by scale, and the argument after the config's name.

The argument is `<language>[,<scale>][,key=value...]`, for example `ar`, `ar,paper`,
`fr,paper,subsample=100000`, `lab,similarity=0.3`. A language alone goes with English; `fr-de-ru-en` are
four, the target first. A flag sets any other field: `--config.train.learning_rate=5e-4`.

theta are the parameters shared by all languages, phi those of each language.
"""

import ml_collections

from negint import language_codes, options
from negint.errors import UserError

PAPER_LANGUAGES = ("ar", "fr", "ru", "hi", "sw", "te")
LAB_LANGUAGES = ("xb", "xc", "xa")  # target, a relative of it, and the counterpart of English
THIRD_LANGUAGE = {"hi": "mr", "te": "kn", "lab": "xc"}  # Table 4 adds a similar language
SCALES = ("sample", "small", "base", "paper", "lab")
# phi's share of the learning rate in meta systems of small scales. Their rates are high, and phi's gradient
# comes from few held-out sequences. Where phi moves as fast as theta, a model predicts by word
# frequencies for much longer.
META_PHI_RATE = 0.25
KEYS = {"subsample": int, "similarity": float, "steps": int, "seed": int}

# A system: its modules in phi, whether theta has adapters, whether the meta-gradient trains phi, and
# how a step combines the gradients of all languages (without `surgery` it takes one language).
SYSTEMS = {
  "mono": dict(specific=(), shared_adapter=False, meta=False),
  "joint_pair": dict(specific=(), shared_adapter=False, meta=False),
  "joint_tri": dict(specific=(), shared_adapter=False, meta=False),
  "ffn": dict(specific=("ffn",), shared_adapter=False, meta=False),
  "attn": dict(specific=("attention",), shared_adapter=False, meta=False),
  "adpt": dict(specific=("adapter",), shared_adapter=False, meta=False),
  "share_adpt": dict(specific=(), shared_adapter=True, meta=False),
  "meta_adpt": dict(specific=("adapter",), shared_adapter=False, meta=True),
  "meta_ffn": dict(specific=("ffn",), shared_adapter=False, meta=True),
  "meta_attn": dict(specific=("attention",), shared_adapter=False, meta=True),
  "pcgrad": dict(specific=(), shared_adapter=False, meta=False, surgery="pcgrad"),
  "gradvac": dict(specific=(), shared_adapter=False, meta=False, surgery="gradvac"),
}


def legal_arguments(system: str) -> str:
  """The legal arguments of a system's config, for an error message."""
  if system == "add_language":
    return (
      "configs/add_language.py takes <language>[,key=value...]: language: a code that the run in "
      "init_from does not have, such as sw, or xc for a run of the lab; keys: subsample=<int> "
      "steps=<int> seed=<int>. Example: --config=configs/add_language.py:sw"
    )
  languages = {
    "mono": "a language code such as ar, or lab",
    "joint_tri": "hi (adds mr), te (adds kn), lab, or three codes such as de-nl-en",
  }.get(system, "a code such as ar (with en), lab, or two or more codes such as de-nl, fr-de-ru-en")
  keys = " ".join(f"{key}=<{kind.__name__}>" for key, kind in KEYS.items())
  return (
    f"configs/{system}.py takes <language>[,<scale>][,key=value...]: language: {languages}; "
    f"scale: {' '.join(SCALES)} (default sample, lab for the lab's languages); keys: {keys}. "
    f"Example: --config=configs/{system}.py:{'hi' if system == 'joint_tri' else 'ar'}"
  )


def parse(system: str, arg: str | None):
  """Parses the text after the colon.

  Returns:
    (languages, scale, {key: value}).

  Raises:
    UserError: a part is not legal; the message lists what is.
  """

  def refuse(part, why):
    raise UserError(f"config argument {part!r}: {why}. {legal_arguments(system)}")

  if not arg:
    refuse("", "a language is missing")
  language, *rest = arg.split(",")
  if system == "add_language":  # the run in init_from sets the scale and the similarity
    scales, keys = (), {key: kind for key, kind in KEYS.items() if key != "similarity"}
  else:
    scales, keys = SCALES, KEYS
  languages = expand_languages(system, language, refuse)
  is_lab = set(languages) <= set(LAB_LANGUAGES)
  scale, values = None, {}
  for part in rest:
    key, equals, value = part.partition("=")
    if not equals and key in scales and scale is None:
      scale = key
    elif equals and key in keys and key not in values:
      try:
        values[key] = keys[key](value)
      except ValueError:
        refuse(part, f"{value!r} is not of type {keys[key].__name__}")
    else:
      refuse(part, "unknown, or given twice")
  if scale is None:
    scale = "lab" if is_lab else "sample"
  if is_lab != (scale == "lab"):
    refuse(arg, "scale lab goes with the lab's languages, every other scale with real languages")
  if "similarity" in values and not is_lab:
    refuse(arg, "only the lab's languages have a similarity to set")
  return languages, scale, values


def expand_languages(system, language, refuse):
  """The codes of a run's languages, the target first and English last."""
  exact = {"mono": 1, "add_language": 1, "joint_tri": 3}.get(system)  # the others: two or more
  least = exact or 2
  number = {1: "one language", 3: "three different languages"}
  wanted = f"{system} takes {number.get(exact, 'two or more different languages')}"
  if language == "lab":
    if system == "add_language":
      refuse(language, "name one language, such as xc")
    return {1: ("xb",), 2: ("xb", "xa"), 3: LAB_LANGUAGES}[least]
  try:
    codes = language_codes.split(language, least)
  except UserError as error:
    refuse(language, str(error).rstrip("."))
  if len(codes) == 1 and least == 3:
    if language not in THIRD_LANGUAGE:
      refuse(language, f"{wanted}; write {codes[0]}-<a relative of it>-en")
    codes += (THIRD_LANGUAGE[language],)
  if len(codes) < least:
    codes += ("en",)
  if len(codes) < least or (exact and len(codes) > exact) or len(set(codes)) < len(codes):
    refuse(language, wanted)
  if set(codes) & set(LAB_LANGUAGES) and not set(codes) <= set(LAB_LANGUAGES):
    refuse(language, "the lab's languages do not mix with real ones")
  return codes


def pretrain(system: str, arg: str | None) -> ml_collections.ConfigDict:
  """The configuration of one pretraining run of a system."""
  languages, scale, values = parse(system, arg)
  config = sample_scale()
  config.task = "pretrain"
  config.system = system
  config.languages = languages
  config.scale = scale
  {
    "sample": lambda c: None,
    "lab": lab_scale,
    "small": small_scale,
    "base": base_scale,
    "paper": paper_scale,
  }[scale](config)
  config.model.specific = SYSTEMS[system]["specific"]
  config.model.shared_adapter = SYSTEMS[system]["shared_adapter"]
  config.model.language_embedding = len(languages) > 1  # XLM's: a mono model has none
  config.meta.enabled = SYSTEMS[system]["meta"]
  if config.meta.enabled and scale in options.SMALL_SCALES:
    config.train.phi_rate = META_PHI_RATE
  config.surgery.method = SYSTEMS[system].get("surgery", "none")
  config.data.subsample = values.get("subsample", config.data.subsample)
  config.data.lab.similarity = values.get("similarity", config.data.lab.similarity)
  config.train.steps = values.get("steps", config.train.steps)
  config.seed = values.get("seed", config.seed)
  return config


def add_language(arg: str | None) -> ml_collections.ConfigDict:
  """The configuration of a run that adds a language to the run in `init_from`.

  It says what is new. Before the run starts, every other value is taken from the run in `init_from`
  unless a flag sets it (`negint.pretrained.start.complete`).
  """
  system = "add_language"
  languages, _, values = parse(system, arg)
  config = sample_scale()
  config.system = system
  config.languages = languages
  config.scale = ""
  (config.new_language,) = languages
  config.train.freeze_theta = True
  config.model.specific = ("adapter",)  # where that run has no phi
  config.data.subsample = values.get("subsample", config.data.subsample)
  config.train.steps = values.get("steps", config.train.steps)
  config.seed = values.get("seed", config.seed)
  return config


def sample_scale() -> ml_collections.ConfigDict:
  """Bundled sentences and a small model: minutes on two cores. Says what every field means."""
  c = ml_collections.ConfigDict()
  c.task = "pretrain"  # what the run does
  c.system = ""  # row of the paper's tables; part of the default workdir's name
  c.languages = ("",)  # target first, English last
  c.scale = "sample"  # sample | small | base | paper | lab; part of the default workdir's name
  c.seed = 1  # of initialisation, batches, masks and dropout
  c.init_from = ""  # run or Hugging Face folder to start from; "": random weights
  c.new_language = ""  # language added to that run; set by configs/add_language.py

  c.model = m = ml_collections.ConfigDict()
  m.num_layers = 2  # Transformer layers
  m.model_dim = 96  # D, width of the residual stream
  m.num_heads = 4  # H, attention heads
  m.head_dim = 24  # width of one head; H x head_dim need not equal D
  m.ffn_dim = 384  # F, width inside the feed-forward layer
  m.max_length = 64  # longest sequence, tokens
  m.adapter_dim = 24  # A, width inside an adapter; D / 4 in the paper
  m.adapter_activation = "gelu"  # gelu | relu; relu rules out meta.gradient=finite_difference
  m.adapter_init_std = 1e-2  # of both adapter matrices at the start; with init_from W2 is zero
  m.activation = "gelu"  # gelu (exact, erf) | relu | gelu_tanh | silu
  m.dropout = 0.0  # share of sublayer outputs and embeddings dropped
  m.attention_dropout = 0.0  # share of attention weights dropped
  m.dtype = "float32"  # of matrix products: | bfloat16 | float16 | auto (fast on the device)
  m.init = "local"  # local (heads start near their own position) | xlm
  m.attention = "xla"  # xla | cudnn (A100 and later, bfloat16 or float16, no second derivatives)
  m.remat = "none"  # none | layer (the backward pass recomputes all layers but the last) | auto
  m.specific = ()  # modules in phi: adapter, ffn, attention; set by the system
  m.shared_adapter = False  # adapters in theta; set by the system
  m.language_embedding = True  # set by the system: off for one language

  c.data = d = ml_collections.ConfigDict()
  d.source = "sample"  # sample | lab | prepared (negint.prepare)
  d.dir = "data"  # folder of corpora and token caches
  d.vocab_size = 400  # V, BPE pieces shared by the run's languages, special tokens included
  d.sequence_length = 64  # T, tokens per sequence
  d.sampling_exponent = 0.7  # of P_i ~ n_i^exponent, n_i sentences; 1: proportional, 0: uniform
  d.subsample = 0  # training sentences of the target language; 0 takes all
  d.tokenizer_sentences = 1_000_000  # largest number of sentences that train the BPE
  d.tokenizer_from = ""  # "": of the run's languages | of others, such as xb-xa | of a folder
  d.lab = ml_collections.ConfigDict()
  d.lab.similarity = 0.5  # relatedness of the lab's target language to xa, 0..1
  d.lab.seed = 0  # of the lab's lexicon and meanings
  d.lab.documents = 4000  # documents per lab language

  c.train = t = ml_collections.ConfigDict()
  t.steps = 900  # updates
  t.batch_size = 32  # global batch, sequences; a multiple of the devices x accumulate
  t.accumulate = 1  # parts of a batch, computed one after another in the memory of one
  t.learning_rate = 4e-3  # peak
  t.warmup_steps = 100  # updates of linear warm-up from 1e-7
  t.schedule = "linear"  # inverse_sqrt (XLM's) | linear (to zero at train.steps) | constant
  t.b1 = 0.9  # Adam: decay of the first moments
  t.b2 = 0.98  # Adam: decay of the second moments
  t.eps = 1e-8  # Adam: added to the root of the second moments
  t.weight_decay = 0.0  # decoupled, of every parameter
  t.clip_norm = 5.0  # largest global gradient norm
  t.freeze_theta = False  # train phi alone
  t.mask_rate = 0.4  # share of positions predicted in training; evaluation always predicts 0.15
  t.phi_split = "train"  # train | meta: of the text that gives phi's gradient where meta is off
  t.phi_rate = 1.0  # factor on the learning rate of phi; smaller in meta systems of small scales

  c.meta = ml_collections.ConfigDict()
  c.meta.enabled = False  # the meta-gradient trains phi (Algorithm 1); set by the system
  c.meta.variant = "paper"  # | release: theta and phi by one batch, then phi once more (WORKSPACE)
  c.meta.gradient = "grad_of_grad"  # | forward_over_reverse | finite_difference | first_order
  c.meta.inner_optimiser = "sgd"  # sgd | adam (scaled by theta's second moments, as constants)
  c.meta.inner_learning_rate = 0.0  # beta of Eq. 3; 0 follows the schedule, as in the paper
  c.meta.batch_size = 16  # held-out batch of each language, sequences
  c.meta.languages_per_step = 0  # 0: all; m >= 2: the step's own and m - 1 drawn; 1: one of all
  c.meta.finite_difference_radius = 0.01  # L2 distance from theta of the two points of Eq. 8

  c.surgery = ml_collections.ConfigDict()
  c.surgery.method = "none"  # none | pcgrad | gradvac; set by the system
  c.surgery.ema_rate = 0.01  # GradVac: rate at which a target cosine follows the measured one, 0..1

  c.gradient_similarity = g = ml_collections.ConfigDict()  # Figure 3
  g.every = 0  # updates between measurements, the first ones at 10, 20, 40, 80, ...; 0: none
  g.sentences = 4096  # sequences per gradient; each language gives two gradients
  g.batch_size = 64  # sequences per batch; a multiple of the devices

  c.checkpoint = ml_collections.ConfigDict()
  c.checkpoint.every = 200  # updates
  c.checkpoint.keep = 2  # checkpoints kept, the newest
  c.log = ml_collections.ConfigDict()
  c.log.every = 20  # updates averaged in one line of metrics.jsonl
  c.eval = ml_collections.ConfigDict()
  c.eval.every = 300  # updates between perplexities on `valid`
  c.eval.batch_size = 64  # sequences; a multiple of the devices
  return c


def lab_scale(c):
  """Changes to the lab: artificial languages, minutes on two cores.

  launch/lab_study/calibration.md has what else was tried.
  """
  c.data.source = "lab"
  c.data.vocab_size = 1500
  c.data.lab.similarity = 0.3
  c.model.model_dim = 64
  c.model.head_dim = 16
  c.model.ffn_dim = 256
  c.model.adapter_dim = 16
  c.train.steps = 2000
  c.train.learning_rate = 6e-3
  c.gradient_similarity.sentences = 256
  c.checkpoint.keep = 6


def small_scale(c):
  """Changes to your prepared corpora and a model of 2 M parameters.

  A core of an AMD EPYC made 938 updates of mono in 7.5 minutes. After 500 updates of joint_pair:fr the
  perplexities of French and English were 491 and 1,022; at learning rate 1.5e-3 601 and 1,085, at 4e-3
  538 and 1,088 (27 November 2026).
  """
  c.data.source = "prepared"
  c.data.vocab_size = 7000
  c.data.sequence_length = 128
  c.model.num_layers = 3
  c.model.model_dim = 160
  c.model.num_heads = 4
  c.model.head_dim = 40
  c.model.ffn_dim = 640
  c.model.max_length = 128
  c.model.adapter_dim = 40
  c.train.steps = 3750
  c.train.learning_rate = 2.5e-3
  c.train.warmup_steps = 250
  c.gradient_similarity.sentences = 512
  c.checkpoint.every = 250
  c.log.every = 50
  c.eval.every = 1000


def base_scale(c):
  """Changes to your prepared corpora and a model that fits a 16 GB GPU."""
  c.data.source = "prepared"
  c.data.vocab_size = 16_000
  c.data.sequence_length = 128
  c.model.num_layers = 6
  c.model.model_dim = 384
  c.model.num_heads = 6
  c.model.head_dim = 64
  c.model.ffn_dim = 1536
  c.model.max_length = 512
  c.model.adapter_dim = 96
  c.model.dropout = 0.1
  c.model.dtype = "auto"
  c.model.remat = "auto"  # none where a step then fits the memory of the device, layer elsewhere
  c.train.steps = 100_000
  c.train.batch_size = 128
  c.train.learning_rate = 5e-4
  c.train.warmup_steps = 4000
  c.train.schedule = "inverse_sqrt"
  c.meta.batch_size = 64
  c.meta.gradient = "forward_over_reverse"  # exact as grad_of_grad is, with less memory
  c.checkpoint.every = 1000
  c.log.every = 100
  c.eval.every = 5000
  c.eval.batch_size = 128


def paper_scale(c):
  """Changes to the paper's setting (Section 3.2).

  8 layers, 12 heads, D 512, F 2048, 32k BPE, 512 x 256 tokens per batch, 50 x 10k steps. 512 is not a
  multiple of 12, so a head has 40 dimensions: the multiple of 8 nearest to 512 / 12. The authors'
  release needs heads that divide D: --config.model.num_heads=8 --config.model.head_dim=64.
  """
  base_scale(c)
  c.data.vocab_size = 32_000
  c.data.sequence_length = 256
  c.data.tokenizer_sentences = 10_000_000
  c.model.num_layers = 8
  c.model.model_dim = 512
  c.model.num_heads = 12
  c.model.head_dim = 40
  c.model.ffn_dim = 2048
  c.model.adapter_dim = 128
  c.model.init = "xlm"
  c.model.attention_dropout = 0.1
  c.train.steps = 500_000
  c.train.batch_size = 512
  c.train.learning_rate = 1e-4
  c.train.mask_rate = 0.15
  c.eval.every = 10_000
