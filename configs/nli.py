"""NLI: natural language inference, zero-shot only (Table 6).

XNLI: the encoder and the classifier have rates of their own; accuracy.

  python -m negint.main --config=configs/nli.py:lab --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/nli.py:ar --config.init_from=runs/<run> --config.search=paper

`--config.data.tasks_dir=<folder>` reads <folder>/nli/<language>/{train,dev,test} files in the
layouts that WORKSPACE.md lists; without it TFDS is read. Compare a score with two baselines:
`--config.baseline=scratch` (random encoder) and `=majority` (no model).
10 passes are the paper's.
"""

from ml_collections import ConfigDict

from configs import tasks


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config of `<language>[,key=value...]`, see configs/tasks.py."""
  return tasks.finetune("nli", arg, paper=paper, lab=lab, only_zero_shot=True)


def paper(c: ConfigDict) -> None:
  """Sets the paper's values."""
  c.data.tfds = "xnli"
  c.data.tfds_train = "multi_nli"
  c.train.batch_size = 8
  c.train.learning_rate = 5e-6
  c.train.head_learning_rate = 2e-5
  c.train.epochs = 200  # of 20,000 pairs, as XLM counts: about 10 passes over MultiNLI
  c.train.epoch_size = 20_000
  c.grid.batch_size = (4, 8)
  c.grid.learning_rate = (1e-6, 5e-6, 2e-5)
  c.grid.head_learning_rate = (5e-6, 2e-5, 5e-5)


def lab(c: ConfigDict) -> None:
  """Sets a rate at which the lab's models learn (at a larger one they stay at chance), and its data."""
  c.train.learning_rate = 3e-4
  c.data.lab_train = 6000
