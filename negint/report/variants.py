"""Which runs share a row of a table or a line of a figure: those with the main settings.

All other runs are variants. A variant is named by its settings that do not have the main value.
"""

import collections
import json
import re
from collections.abc import Hashable, Iterable, Sequence

STEPS = "pretraining train.steps"
# Settings that JointPair does not read, by name or as "name=value". Each system has main values of its own.
OF_ONE_SYSTEM = re.compile(r"(pretraining )?(meta|surgery|model\.adapter_|train\.phi_)|route(=|$)")
# Settings in which the main rows of two systems may differ: what makes the system, what it starts from, and
# the tokenizer.
_OF_SYSTEMS = re.compile(
  r"pretraining (model\.(specific|shared_adapter|language_embedding)|init_from|new_language"
  r"|train\.freeze_theta|data\.tokenizer_from)$"
)

Texts = dict[str, str]  # {setting: its value as JSON}


def split_by_place(
  places: Sequence[Hashable],
  identities: Sequence[Hashable],
  systems: Sequence[str],
  settings: Sequence[dict],
) -> tuple[list[str], dict[str, list]]:
  """Returns what distinguishes runs of one identity whose settings differ, place by place.

  A place is where runs are compared: a column of a table, or a panel of a figure. Each has its own
  main settings, so that a run in one place cannot push another place's runs out of their main rows.

  Args:
    places: of each run.
    identities: what each run is in its place.
    systems: of each run.
    settings: {name: value} of each run; those of its pretraining begin with "pretraining ".

  Returns:
    (one text per run: its settings that do not have the main value; {setting: main values of all
    places and systems, without repeats}).
  """
  texts = [""] * len(settings)
  main: dict[str, list] = {}
  for place in dict.fromkeys(places):
    here = [index for index, other in enumerate(places) if other == place]
    variants, chosen = split_variants(
      [identities[index] for index in here],
      [systems[index] for index in here],
      [settings[index] for index in here],
    )
    for index, variant in zip(here, variants, strict=True):
      texts[index] = variant
    for name, values in chosen.items():
      known = main.setdefault(name, [])
      known += [value for value in values if value not in known]
  return texts, main


def split_variants(
  identities: Sequence[Hashable], systems: Sequence[str], settings: Sequence[dict]
) -> tuple[list[str], dict[str, list]]:
  """Returns what distinguishes runs of one identity whose settings differ.

  The main settings are those of a run that exists. If JointPair has runs, it is one of them, because
  every row is compared with JointPair's main row. Settings that JointPair does not read are chosen
  for each system by its own runs, and where these say nothing, by all runs. Each setting in turn has
  the most common value that is left. A setting that a run does not have does not distinguish it from
  runs that have it. Runs of two systems are distinguished, too, by all settings of their pretraining but
  those that make the system and where it starts.

  Args:
    identities: what each run is; runs with equal identities are compared.
    systems: of each run.
    settings: {name: value} of each run.

  Returns:
    (one text per run: its settings that do not have the main value; {setting: its main values}).
  """
  runs = [{name: json.dumps(value) for name, value in each.items()} for each in settings]
  varying = _varying(identities, runs) | _varying_between_systems(runs)
  of_system = sorted(name for name in varying if OF_ONE_SYSTEM.match(name))
  baseline = [run for run, system in zip(runs, systems, strict=True) if system == "joint_pair"]
  shared = _commonest(sorted(varying - set(of_system)), baseline or runs, runs)
  main: dict[str, Texts] = {}  # by system
  for system in dict.fromkeys(systems):
    own = [run for run, other in zip(runs, systems, strict=True) if other == system]
    first = [run for run in own if all(run.get(n, value) == value for n, value in shared.items())]
    main[system] = shared | _commonest(of_system, first or own, own, runs)
  texts = [
    ", ".join(f"{n}={each[n]}" for n in sorted(varying) if n in run and run[n] != main[system][n])
    for run, each, system in zip(runs, settings, systems, strict=True)
  ]
  values = {
    name: [
      json.loads(value)
      for value in dict.fromkeys(each[name] for each in main.values() if name in each)
    ]
    for name in sorted(varying)
  }
  return texts, values


def _varying(identities: Sequence[Hashable], runs: Sequence[Texts]) -> set[str]:
  """Returns the settings in which runs of one identity differ."""
  groups = collections.defaultdict(list)
  for identity, run in zip(identities, runs, strict=True):
    groups[identity].append(run)
  return {
    name
    for group in groups.values()
    for name in set().union(*group)
    if len(_values(group, name)) > 1
  }


def _varying_between_systems(runs: Sequence[Texts]) -> set[str]:
  """Returns the settings in which runs differ, and must not if they are to be compared."""
  names = {name for name in set().union(*runs) if name.startswith("pretraining ")}
  return {
    name
    for name in names
    if not (OF_ONE_SYSTEM.match(name) or _OF_SYSTEMS.match(name)) and len(_values(runs, name)) > 1
  }


def _values(runs: Iterable[Texts], name: str) -> set[str]:
  return {run[name] for run in runs if name in run}


def _commonest(
  names: Sequence[str], candidates: Sequence[Texts], *groups: Sequence[Texts]
) -> Texts:
  """Returns the main value of each setting that runs have.

  Args:
    names: of the settings, in the order in which they are decided.
    candidates: runs, one of which has all main values.
    groups: runs that say how common a value is; where the first say nothing, the next decide.
  """
  main = {}
  for name in names:
    legal = _values(candidates, name) or _values(groups[0], name)
    if not legal:
      continue
    counts = [collections.Counter(run.get(name) for run in group) for group in groups]
    value = min(legal, key=lambda value: (*(-each[value] for each in counts), value))
    candidates = [run for run in candidates if run.get(name, value) == value]
    main[name] = value
  return main
