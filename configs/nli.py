"""NLI: natural language inference, zero-shot only (Table 6).

XNLI: the encoder and the classifier have rates of their own; accuracy.

  python -m negint.main --config=configs/nli.py:lab --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/nli.py:ar --config.init_from=runs/<run> --config.search=paper

`--config.data.tasks_dir=<folder>` reads <folder>/nli/<language>/{train,dev,test} files; without it
TFDS is asked. `--config.baseline=scratch` and `=majority` give the rows that a score means nothing
without. Cost: the lab takes minutes on two CPU cores; 10 passes are the paper's.
"""

from configs import tasks


def get_config(arg=None):
  """Config of `<language>[,zero_shot][,key=value...]` (configs/tasks.py)."""
  return tasks.finetune("nli", arg)
