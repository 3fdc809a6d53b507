"""A language more for a run that exists: theta and the old phi stay, phi of the new language is trained.

theta are the parameters shared by all languages, phi_i those of language i. The new run has all
languages, so that fine-tuning, tests and analyses read it like any other run. Its tokenizer is the old
one. Model, data and training are those of the run in `init_from` unless a flag sets them, and each
batch is of the new language. The result has the perplexity, the unknown pieces and the pieces per word
of every language.

A run without phi, such as joint_pair, gets adapters: those of the old languages do nothing. phi_new is
trained on the training text, or with --config.meta.enabled=True on the held-out text of `meta`.
--config.train.freeze_theta=False also trains theta, on the new language alone.

  python -m negint.main --config=configs/add_language.py:sw --config.init_from=runs/meta_adpt-ar-en-base-seed1
  python -m negint.main --config=configs/add_language.py:xc --config.init_from=runs/adpt-xb-xa-lab-seed1
"""

from configs import base


def get_config(arg=None):
  """The config of `<language>[,key=value...]`, see configs/base.py."""
  return base.add_language(arg)
