"""QA: extractive question answering (Tables 3, 5, 7).

TyDiQA-GoldP in SQuAD's layout; F1 and exact match, best over the gold answers.

  python -m negint.main --config=configs/qa.py:lab,zero_shot --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/qa.py:ar --config.init_from=runs/<run>            # within-language
  python -m negint.main --config=configs/qa.py:ar,zero_shot --config.init_from=runs/<run> --config.search=paper

`--config.data.tasks_dir=<folder>` reads <folder>/qa/<language>/{train,dev,test} files in the
layouts that WORKSPACE.md lists; without it TFDS is read. Compare a score with two baselines:
`--config.baseline=scratch` (random encoder) and `=majority` (no model).
2 epochs are the paper's.
"""

from ml_collections import ConfigDict

from configs import tasks


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config of `<language>[,zero_shot][,key=value...]`, see configs/tasks.py."""
  return tasks.finetune("qa", arg, paper=paper, lab=lab)


def paper(c: ConfigDict) -> None:
  """Sets the paper's values."""
  c.data.tfds = "tydi_qa/goldp"
  c.data.max_length = 256
  c.train.epochs = 2


def lab(c: ConfigDict) -> None:
  """Sets how many training examples the lab makes."""
  c.data.lab_train = 600
