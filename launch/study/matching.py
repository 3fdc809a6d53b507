"""How many updates make two systems comparable: equal steps, equal text of the target, equal FLOPs.

Each run's learning rate ends with its own last update, so a shorter run is no piece of a longer one.
"""

import functools
import re
from collections.abc import Sequence

from negint import config_file, options
from negint.data.open_corpora import open_corpora
from negint.data.sampling import sampling_probabilities
from negint.data.token_cache import num_training_sentences
from negint.errors import UserError
from negint.method import flops
from negint.options import RunOptions

MATCHES = ("steps", "target_tokens", "flops")
SAME = 0.1  # share by which FLOPs may differ where the run at equal steps also counts as one at equal FLOPs
OF_ONE_LANGUAGE_SET = ("mono", "joint_tri")  # the others have the pair's languages


def pair_of(system: str, spec: str) -> str:
  """Returns JointPair's config on the same languages and seed as a system's."""
  return re.sub(rf"^configs/{system}[.]py", "configs/joint_pair.py", spec)


def budgets(match: Sequence[str], spec: str, flags: Sequence[str]) -> list[int]:
  """Returns the updates of a system under each way of matching, without repeats.

  Args:
    match: of MATCHES.
    spec: config and argument of the system.
    flags: of its command.
  """
  own = _options(spec, flags)
  steps = own.schedule.steps
  found = []
  if "steps" in match:
    found.append(steps)
  if "target_tokens" in match:
    found.append(equal_target(spec, flags))
  if "flops" in match:
    equal = equal_flops(spec, flags)
    found.append(steps if "steps" in match and abs(equal / steps - 1) < SAME else equal)
  return list(dict.fromkeys(found))


def equal_flops(spec: str, flags: Sequence[str]) -> int:
  """Returns the updates at which a system has spent JointPair's FLOPs.

  JointPair's step costs what a step of mono or joint_tri costs.
  """
  own = _options(spec, flags)
  budget = own
  if own.system not in OF_ONE_LANGUAGE_SET:
    budget = _options(pair_of(own.system, spec), _flags_of_pair(flags))
  return max(round(budget.schedule.steps * flops.step(budget) / flops.step(own)), 1)


def equal_target(spec: str, flags: Sequence[str]) -> int:
  """Returns the updates at which a system has seen as much of the target's text as its pair.

  The mean over seeds: each seed of the pair draws another number of batches of the target, by about 2 %
  in the lab. So all seeds of a comparison make the same number of updates.

  Raises:
    UserError: the text is not prepared: how often a language is drawn depends on how much there is.
  """
  own = _options(spec, flags)
  if own.system not in OF_ONE_LANGUAGE_SET and not own.surgery.enabled:
    return own.schedule.steps  # the pair's own batches
  pair = _options(pair_of(own.system, spec), _flags_of_pair(flags))
  # A step of gradient surgery has a batch of each language.
  share = 1.0 if own.surgery.enabled else _target_share(own)
  return max(round(pair.schedule.steps * _target_share(pair) / share), 1)


@functools.cache
def _target_share(run: RunOptions) -> float:
  """Returns the chance that a batch is of the first language."""
  if len(run.languages) == 1:
    return 1.0
  try:
    corpora = open_corpora(run.data, run.languages, lambda line: None)
  except UserError as error:
    raise UserError(
      f"{str(error).rstrip('.')}: --match=target_tokens counts batches, and their number depends on "
      "the text. Prepare it first, or leave target_tokens out."
    ) from None
  sentences = [
    num_training_sentences(corpus, run.data.subsample if number == 0 else 0)
    for number, corpus in enumerate(corpora)
  ]
  return float(sampling_probabilities(sentences, run.data.sampling_exponent)[0])


def _options(spec: str, flags: Sequence[str]) -> RunOptions:
  return options.from_config(config_file.load(spec, flags), num_devices=1)


def _flags_of_pair(flags: Sequence[str]) -> list[str]:
  """Returns the flags that JointPair takes, too: all but those of meta steps and surgery."""
  return [flag for flag in flags if not flag.startswith(("--config.meta.", "--config.surgery."))]
