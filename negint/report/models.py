"""The runs of each pretrained model that figures and claims show: those with the main settings."""

import collections

from negint.report.records import Run, Study
from negint.report.run_tables import origin_order
from negint.report.variants import split_by_place

Model = tuple[str, int, float | None]  # (target, subsample, similarity): one panel of a figure


def by_model(
  study: Study, scale: str, systems: tuple[str, ...]
) -> dict[Model, dict[str, list[Run]]]:
  """Returns the pretraining runs of each model that have its main settings.

  Args:
    study: all runs.
    scale: of the runs.
    systems: that are wanted.

  Returns:
    {model: {system: one run per seed}}, sorted.
  """
  runs = [run for run in study.pretraining if run.origin.scale == scale and not run.adds_language]
  runs = sorted(runs, key=lambda run: origin_order(run.origin))
  models = [model_of(run) for run in runs]
  kinds = [(run.origin.system, run.origin.languages) for run in runs]
  names = [run.origin.system for run in runs]
  variants, _ = split_by_place(models, kinds, names, [run.pretraining_settings for run in runs])
  found: dict = collections.defaultdict(lambda: collections.defaultdict(list))
  for run, model, variant in zip(runs, models, variants, strict=True):
    if run.origin.system in systems and not variant:
      found[model][run.origin.system].append(run)
  return found


def model_of(run: Run) -> Model:
  """Returns the model that a run is, or that it started from."""
  return run.origin.languages[0], run.origin.subsample, run.origin.similarity


def model_label(model: Model) -> str:
  """Returns the title of a model's panel."""
  language, subsample, similarity = model
  name = f"{language}_l ({subsample:,})" if subsample else language
  return name if similarity is None else f"{name} @{similarity:g}"


def analyses_by_model(study: Study, task: str, scale: str) -> dict[Model, list[Run]]:
  """Returns JointPair's analyses of each model that have its main settings, sorted.

  The others are added to `study.problems`.

  Args:
    study: all runs.
    task: gradient_similarity or pruning.
    scale: of the pretraining runs.
  """
  runs = [r for r in study.of(task) if (r.origin.system, r.origin.scale) == ("joint_pair", scale)]
  runs = sorted(runs, key=lambda run: origin_order(run.origin))
  models = [model_of(run) for run in runs]
  settings = []
  for run in runs:
    source = study.source_of(run.origin)
    settings.append(run.computed | (source.pretraining_settings if source else {}))
  systems = ["joint_pair"] * len(runs)
  variants, _ = split_by_place(models, systems, systems, settings)
  found = collections.defaultdict(list)
  for run, model, variant in zip(runs, models, variants, strict=True):
    if variant:
      study.add_problem(
        run.workdir, f"has {variant}; in no figure or claim, which show one setting"
      )
    else:
      found[model].append(run)
  return found
