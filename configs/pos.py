"""POS: universal part-of-speech tags by first-subword tagging (Tables 2, 4, 5).

Universal Dependencies; chunk F1 (what XTREME and the paper report) and accuracy.

  python -m negint.main --config=configs/pos.py:lab,zero_shot --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/pos.py:ar --config.init_from=runs/<run>            # within-language
  python -m negint.main --config=configs/pos.py:ar,zero_shot --config.init_from=runs/<run> --config.search=paper

`--config.data.tasks_dir=<folder>` reads <folder>/pos/<language>/{train,dev,test} files; without it
TFDS is asked. `--config.baseline=scratch` and `=majority` give the rows that a score means nothing
without. Cost: the lab takes minutes on two CPU cores; 10 epochs are the paper's.
"""

from configs import tasks


def get_config(arg=None):
  """Config of `<language>[,zero_shot][,key=value...]` (configs/tasks.py)."""
  return tasks.finetune("pos", arg)
