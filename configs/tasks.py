"""Defaults of the fine-tuning configs ner, pos, qa and nli, and the argument after their name.

`arg = <language>[,zero_shot][,key=value...]`: `ar` fine-tunes and tests on ar (within-language);
`ar,zero_shot` fine-tunes and selects on en and tests on ar; `lab` is the lab's target language, with
xa in English's part. NLI has English training data only and is always zero-shot, as in the paper.
"""

import re

import ml_collections

from configs.base import LAB_LANGUAGES
from negint.errors import UserError

KEYS = {"seed": int, "seeds": int, "epochs": int}


def legal_arguments(task: str) -> str:
  keys = " ".join(f"{key}=<{kind.__name__}>" for key, kind in KEYS.items())
  return (
    f"configs/{task}.py takes <language>[,zero_shot][,key=value...]: language: a code such as ar or "
    f"en, or lab; keys: {keys}. Example: --config=configs/{task}.py:ar,zero_shot"
  )


def finetune(task: str, arg: str | None) -> ml_collections.ConfigDict:
  """The configuration of one fine-tuning run of a task."""

  def refuse(part, why):
    raise UserError(f"config argument {part!r}: {why}. {legal_arguments(task)}")

  language, *rest = (arg or "").split(",")
  language = {"lab": "xb"}.get(language, language)
  if not re.fullmatch("[a-z]{2,3}", language):
    refuse(language, "unknown language")
  english = "xa" if language in LAB_LANGUAGES else "en"
  zero_shot, values = task == "nli", {}
  for part in rest:
    key, equals, value = part.partition("=")
    if part == "zero_shot":
      zero_shot = True
      if language == english:
        refuse(part, f"zero-shot means from {english} to another language")
    elif equals and key in KEYS and value.isdigit():
      values[key] = int(value)
    else:
      refuse(part, "unknown, or not a number")
  config = defaults()
  config.task = task
  config.language = language
  config.source_language = english if zero_shot else language
  {"ner": lambda c: None, "pos": pos, "qa": qa, "nli": nli}[task](config)
  if language in LAB_LANGUAGES:
    lab(config)
  config.seed = values.get("seed", config.seed)
  config.seeds = values.get("seeds", config.seeds)
  config.train.epochs = values.get("epochs", config.train.epochs)
  return config


def defaults() -> ml_collections.ConfigDict:
  """NER's values, which POS shares; all fields with their meaning."""
  c = ml_collections.ConfigDict()
  c.task = ""  # ner | pos | qa | nli
  c.language = ""  # target: the language that is tested
  c.source_language = ""  # language of training and dev data; the target itself: within-language
  c.init_from = ""  # workdir of the pretraining run to start from
  c.route = "target"  # phi at zero-shot test time: target | source | mean of all languages
  c.freeze_phi = False  # keep language-specific modules as pretrained; the paper fine-tunes all
  c.baseline = "none"  # none | scratch (random encoder of the same shape) | majority (no model)
  c.search = "none"  # none: one setting | paper: the grid of Appendix A
  c.seed = 1  # of the head, batch order and dropout; the first of `seeds`
  c.seeds = 1  # repetitions with consecutive seeds; result.json has mean and standard deviation

  c.data = d = ml_collections.ConfigDict()
  d.tasks_dir = ""  # folder of <task>/<language>/{train,dev,test} files; empty: TFDS
  d.tfds = "wikiann/{language}"  # TFDS builder(s) joined by +, without tasks_dir
  d.tfds_train = ""  # TFDS builder(s) of the training split where it is another; empty: tfds
  d.tfds_dir = ""  # folder of prepared TFDS data; empty: TFDS's own
  d.lab_train = 300  # training examples that the lab makes
  d.lab_dev = 400  # dev examples that the lab makes
  d.lab_test = 800  # test examples that the lab makes
  d.max_length = 128  # subwords a row; longer sentences are split at words, passages windowed
  d.stride = 128  # QA: tokens between the starts of two windows
  d.max_question = 64  # QA: subwords of a question that are kept
  d.max_answer = 30  # QA: longest predicted answer, subwords

  c.train = t = ml_collections.ConfigDict()
  t.batch_size = 32  # global batch, rows; a multiple of the devices
  t.learning_rate = 5e-5  # peak, of the encoder; falls linearly to zero
  t.head_learning_rate = 0.0  # peak, of the head; 0: the encoder's
  t.epochs = 10  # passes over the training data; the best on dev is kept
  t.epoch_size = 0  # training rows an epoch; 0: all of them
  t.b1 = 0.9  # Adam
  t.b2 = 0.999  # Adam
  t.eps = 1e-8  # Adam
  t.weight_decay = 0.0  # decoupled, of every parameter
  t.clip_norm = 1.0  # global gradient norm

  c.grid = g = ml_collections.ConfigDict()  # search=paper: every combination
  g.batch_size = (16, 32)  # rows
  g.learning_rate = (2e-5, 3e-5, 5e-5)  # encoder
  g.head_learning_rate = (0.0,)  # head; 0: the encoder's
  c.checkpoint = ml_collections.ConfigDict()
  c.checkpoint.every = 2000  # updates between checkpoints inside an epoch; each epoch ends with one
  c.eval = ml_collections.ConfigDict()
  c.eval.batch_size = 64  # rows
  return c


def pos(c):
  c.data.tfds = "universal_dependencies/{treebank}"
  c.data.lab_train = 100


def qa(c):
  c.data.tfds = "tydi_qa/goldp"
  c.data.max_length = 256
  c.data.lab_train = 2000
  c.train.epochs = 2


def nli(c):
  c.data.tfds = "xnli"
  c.data.tfds_train = "multi_nli"
  c.data.lab_train = 6000
  c.train.batch_size = 8
  c.train.learning_rate = 5e-6
  c.train.head_learning_rate = 2e-5
  c.train.epochs = 200  # of 20,000 pairs, as XLM counts: about 10 passes over MultiNLI
  c.train.epoch_size = 20_000
  c.grid.batch_size = (4, 8)
  c.grid.learning_rate = (1e-6, 5e-6, 2e-5)
  c.grid.head_learning_rate = (5e-6, 2e-5, 5e-5)


def lab(c):
  """The lab's models are small, see 64 positions, and learn at larger rates."""
  c.data.max_length = 64
  c.data.stride = 32
  c.data.max_question = 24
  c.train.learning_rate = 1e-3
  c.train.head_learning_rate = 0.0
  c.train.batch_size = 32
  c.train.epochs = 10
  c.train.epoch_size = 0
  if c.task == "nli":  # a larger rate never leaves chance
    c.train.learning_rate = 3e-4
    c.train.epochs = 4
