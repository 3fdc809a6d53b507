"""QA: extractive question answering (Tables 3, 5, 7).

TyDiQA-GoldP in SQuAD's layout; F1 and exact match, best over the gold answers.

  python -m negint.main --config=configs/qa.py:lab,zero_shot --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/qa.py:ar --config.init_from=runs/<run>            # within-language
  python -m negint.main --config=configs/qa.py:ar,zero_shot --config.init_from=runs/<run> --config.search=paper

`--config.data.tasks_dir=<folder>` reads <folder>/qa/<language>/{train,dev,test} files; without it
TFDS is asked. `--config.baseline=scratch` and `=majority` give the rows that a score means nothing
without. Cost: the lab takes minutes on two CPU cores; 2 epochs are the paper's.
"""

from configs import tasks


def get_config(arg=None):
  """Config of `<language>[,zero_shot][,key=value...]` (configs/tasks.py)."""
  return tasks.finetune("qa", arg)
