"""Defaults of the fine-tuning configs, and the argument after their name.

`arg = <language>[,zero_shot][,key=value...]`: `ar` fine-tunes and tests on ar (within-language);
`ar,zero_shot` fine-tunes and selects on en and tests on ar; `lab` is the lab's target language, with
xa in the place of English. What a task changes is in its own config.
"""

from collections.abc import Callable

from ml_collections import ConfigDict

from configs.base import LAB_LANGUAGES
from negint import language_codes
from negint.errors import UserError

KEYS = {"seed": int, "seeds": int, "epochs": int}


def legal_arguments(task: str) -> str:
  """Returns what a task's config takes after its name."""
  keys = " ".join(f"{key}=<{kind.__name__}>" for key, kind in KEYS.items())
  return (
    f"configs/{task}.py takes <language>[,zero_shot][,key=value...]: language: a code such as ar or "
    f"en, or lab; keys: {keys}. Example: --config=configs/{task}.py:ar,zero_shot"
  )


def unchanged(c: ConfigDict) -> None:
  """Changes nothing."""


def finetune(
  task: str,
  arg: str | None,
  *,
  paper: Callable[[ConfigDict], None] = unchanged,
  lab: Callable[[ConfigDict], None] = unchanged,
  only_zero_shot: bool = False,
) -> ConfigDict:
  """Returns the config of one fine-tuning run.

  Args:
    task: name of the task.
    arg: what stands after the config's name.
    paper: sets the task's values where they are not the defaults.
    lab: sets the task's values for the lab's models where they are not those of all tasks.
    only_zero_shot: the task has English training data only.

  Raises:
    UserError: arg is not legal.
  """

  def refuse(part: str, why: str) -> None:
    raise UserError(f"config argument {part!r}: {why}. {legal_arguments(task)}")

  language, *rest = (arg or "").split(",")
  language = {"lab": "xb"}.get(language, language)
  try:
    language = language_codes.canonical(language)
  except UserError as error:
    refuse(language, str(error).rstrip("."))
  english = "xa" if language in LAB_LANGUAGES else "en"
  zero_shot, values = only_zero_shot, {}
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
  c = defaults()
  c.task = task
  c.language = language
  c.source_language = english if zero_shot else language
  paper(c)
  if language in LAB_LANGUAGES:
    lab_models(c)
    lab(c)
  c.seed = values.get("seed", c.seed)
  c.seeds = values.get("seeds", c.seeds)
  c.train.epochs = values.get("epochs", c.train.epochs)
  return c


def defaults() -> ConfigDict:
  """Returns all fields with their meaning; the values are those of the tagging tasks."""
  c = ConfigDict()
  c.task = ""  # name of the task
  c.language = ""  # target: the language that is tested
  c.source_language = ""  # language of training and dev data; the target itself: within-language
  c.init_from = ""  # pretraining run or Hugging Face folder to start from
  c.route = "target"  # whose phi a zero-shot test uses: target | source | mean of all languages
  c.freeze_phi = False  # keep phi as pretrained; the paper fine-tunes theta and phi
  c.baseline = "none"  # none | scratch (random encoder of the same shape) | majority (no model)
  c.search = "none"  # none: one setting | paper: the grid of Appendix A
  c.seed = 1  # of the head, the order of batches and dropout; the first of `seeds`
  c.seeds = 1  # repetitions with consecutive seeds; result.json has mean and standard deviation

  c.data = d = ConfigDict()
  d.tasks_dir = ""  # folder of <task>/<language>/{train,dev,test} files, or XTREME's; empty: TFDS
  d.labels = (
    ""  # labels, and OLD=NEW for others, by commas: "PER,LOC,MISC=O"; empty: the training data's
  )
  d.tag_column = ""  # NER, POS: column of the tags in files, number from 1 or name; empty: the last
  d.tfds = ""  # TFDS builder(s) joined by +; read where there is no tasks_dir
  d.tfds_train = ""  # TFDS builder(s) of the training split where they are others; empty: tfds
  d.tfds_dir = ""  # folder of prepared TFDS data; empty: the default of TFDS
  d.lab_train = 100  # training examples that the lab makes
  d.lab_dev = 400  # dev examples that the lab makes
  d.lab_test = 800  # test examples that the lab makes
  d.max_length = (
    128  # subwords per row; longer sentences are split at words, longer contexts into windows
  )
  d.stride = 128  # QA: tokens between the starts of two windows
  d.max_question = 64  # QA: subwords of a question that are kept
  d.max_answer = 30  # QA: subwords of the longest predicted answer

  c.train = t = ConfigDict()
  t.batch_size = 32  # rows of a batch on all devices together; a multiple of their number
  t.learning_rate = 5e-5  # peak rate of the encoder; it falls linearly to zero
  t.head_learning_rate = 0.0  # peak rate of the head; 0: that of the encoder
  t.epochs = 10  # epochs; the weights of the best one on dev are kept
  t.epoch_size = 0  # training rows per epoch; 0: all of them
  t.b1 = 0.9  # Adam
  t.b2 = 0.999  # Adam
  t.eps = 1e-8  # Adam
  t.weight_decay = 0.0  # decoupled, of all parameters
  t.clip_norm = 1.0  # global gradient norm

  c.grid = g = ConfigDict()  # search=paper: every combination
  g.batch_size = (16, 32)  # rows
  g.learning_rate = (2e-5, 3e-5, 5e-5)  # encoder
  g.head_learning_rate = (0.0,)  # head; 0: that of the encoder
  c.checkpoint = ConfigDict()
  c.checkpoint.every = 2000  # updates between checkpoints inside an epoch; each epoch ends with one
  c.eval = ConfigDict()
  c.eval.batch_size = 64  # rows
  return c


def lab_models(c: ConfigDict) -> None:
  """Sets what suits the lab's models: they are small, see 64 positions, and learn at larger rates."""
  c.data.max_length = 64
  c.data.stride = 32
  c.data.max_question = 24
  c.train.learning_rate = 1e-3
  c.train.head_learning_rate = 0.0
  c.train.batch_size = 32
  c.train.epochs = 10
  c.train.epoch_size = 0


def few_examples(c: ConfigDict, count: int) -> None:
  """Sets how many training examples the lab makes: so few that systems can be told apart.

  Every epoch repeats them, so that the number of updates does not depend on the number of examples.
  """
  c.data.lab_train = count
  c.train.batch_size = 8
  c.train.epochs = 6
  c.train.epoch_size = 500
