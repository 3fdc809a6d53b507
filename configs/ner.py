"""NER: named entities by first-subword tagging (Tables 2, 4, 5).

IOB2 over the types of the training data (WikiAnn: PER, LOC, ORG); micro F1, lenient and strict.

  python -m negint.main --config=configs/ner.py:lab,zero_shot --config.init_from=runs/joint_pair-xb-xa-lab-seed1
  python -m negint.main --config=configs/ner.py:ar --config.init_from=runs/<run>            # within-language
  python -m negint.main --config=configs/ner.py:ar,zero_shot --config.init_from=runs/<run> --config.search=paper

`--config.data.tasks_dir=<folder>` reads <folder>/ner/<language>/{train,dev,test} files in the
layouts that WORKSPACE.md lists; without it TFDS is read. Compare a score with two baselines:
`--config.baseline=scratch` (random encoder) and `=majority` (no model).
10 epochs are the paper's.
"""

from ml_collections import ConfigDict

from configs import tasks


def get_config(arg: str | None = None) -> ConfigDict:
  """Returns the config of `<language>[,zero_shot][,key=value...]`, see configs/tasks.py."""
  return tasks.finetune("ner", arg, paper=paper, lab=lab)


def paper(c: ConfigDict) -> None:
  """Sets where TFDS has the data."""
  c.data.tfds = "wikiann/{language}"


def lab(c: ConfigDict) -> None:
  """Sets how many training examples the lab makes."""
  tasks.few_examples(c, 60)
