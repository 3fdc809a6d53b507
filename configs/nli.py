"""x"""

from configs import tasks


def get_config(arg=None):
  """Config of `<language>[,zero_shot][,key=value...]` (configs/tasks.py)."""
  return tasks.finetune("nli", arg)
