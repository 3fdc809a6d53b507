"""The lab's study: every table and figure of the paper with artificial languages.

The main setting (similarity, steps, sizes) is the default of configs/base.py. What the first results
need comes first: one seed of everything at the main setting, then the other seeds, then the rest.
"""

from collections.abc import Iterator, Sequence

from launch.study import ablation, matching
from launch.study.jobs import (
  FEW,
  SHORTER,
  SIDE_TASKS,
  Job,
  Study,
  analysis_jobs,
  baseline_jobs,
  curve_jobs,
  english_jobs,
  make_job,
  matched,
  measured,
  pretraining,
  side_tasks,
  task_jobs,
  tuning,
)
from negint import config_file

SYSTEMS = ("mono", "joint_pair", "ffn", "attn", "adpt", "share_adpt", "meta_adpt")
EXTRA_SYSTEMS = ("joint_tri", "pcgrad")  # of the parts third and flops
# Parts of the study, in the order in which their jobs are made.
PARTS = (
  "main",  # Tables 2, 3, 6, 7: all systems, and the rows without pretraining
  "curve",  # Mono with less text: what a bilingual model is worth in monolingual tokens
  "analyses",  # Figures 3 and 4
  "dial",  # Mono and JointPair at other similarities
  "sizes",  # Table 5: Mono and JointPair with less text of the target
  "third",  # Table 4: JointTri
  "flops",  # systems whose steps are dearer, at JointPair's FLOPs
  "language",  # xc added to models of xb and xa, beside models of all three and of xc alone
  "ablation",  # what makes meta adapters work
)
DIAL = (0.0, 0.25, 0.5, 0.75, 1.0)  # similarities ...
NEAR = 0.1  # ... of which those so near to the main one are left out
COMPARED = ("mono", "joint_pair")  # systems of dial and sizes
# Mono's shorter runs at the main setting, as shares of the steps.
BUDGETS = (1 / 8, 1 / 4, 1 / 2, 3 / 4)
SIZES = (2.0, 0.5)  # training sentences of a small corpus, per document of the whole one
DEARER = (
  "meta_adpt",
  "pcgrad",
)  # systems at equal FLOPs; PCGrad then also sees as much of the target
ADDED_TO = ("adpt", "meta_adpt")  # systems to whose models xc is added
QUICK = {  # what --quick runs, unless a flag such as --systems says otherwise
  "systems": ("mono", "joint_pair", "adpt", "meta_adpt"),
  "tasks": SIDE_TASKS,
  "match": ("steps", "target_tokens"),
  "parts": ("main", "curve"),
}


def jobs(study: Study) -> Iterator[Job]:
  """Yields the jobs of the study's parts; a job that two parts share comes twice."""
  makers = {
    "dial": dial_jobs,
    "sizes": size_jobs,
    "third": third_jobs,
    "flops": flops_jobs,
    "language": language_jobs,
    "ablation": ablation_jobs,
  }
  for seed in range(1, study.seeds + 1):
    yield from seed_jobs(study, seed)
  for part, make in makers.items():
    if part in study.parts:
      yield from make(study)


def quick_flags() -> tuple[str, ...]:
  """Returns the flags with which --quick shortens every pretraining: half of the steps."""
  return (f"--config.train.steps={config_file.load('configs/mono.py:lab').train.steps // 2}",)


def few(study: Study) -> range:
  """Returns the seeds outside of the main setting."""
  return range(1, min(study.seeds, FEW) + 1)


def seed_jobs(study: Study, seed: int) -> Iterator[Job]:
  """Yields one seed of the main setting."""
  if "main" in study.parts:
    for system in main_systems(study):
      for model in main_models(study, system, seed):
        yield model
        yield from task_jobs(study, model, system, "lab")
        if system == "joint_pair" and seed <= FEW:
          yield from english_jobs(study, model, "xa", side_tasks(study))
        if system == "joint_pair" and seed == 1:
          for baseline in ("scratch", "majority"):
            yield from baseline_jobs(study, model, "lab", baseline)
  if "curve" in study.parts and "mono" in study.systems:
    shares = BUDGETS if seed <= FEW else ()
    yield from curve_jobs(
      study, "lab", seed, shares, equal_tasks=study.tasks, tasks=side_tasks(study)
    )
  if "analyses" in study.parts and seed <= FEW and "joint_pair" in study.systems:
    for model in main_models(study, "joint_pair", seed):
      yield from analysis_jobs(study, model)


def main_systems(study: Study) -> list[str]:
  """Returns the systems of the main tables; parts of their own have the others."""
  apart = {"joint_tri"} if "third" in study.parts else set()
  apart |= {"pcgrad"} if "flops" in study.parts and "flops" in study.match else set()
  return [system for system in study.systems if system not in apart]


def main_models(study: Study, system: str, seed: int) -> list[Job]:
  """Returns a system's pretraining at the main setting: at equal steps, or as --match asks."""
  # Whatever the parts: a study that is widened later must not run its models again.
  flags = measured(study, "lab") if system == "joint_pair" and seed <= FEW else []
  if "steps" in study.match:
    return [pretraining(study, system, "lab", seed, flags)]
  return list(matched(study, system, "lab", seed, flags))


def side_jobs(study: Study, argument: str, seed: int, flags: Sequence[str] = ()) -> Iterator[Job]:
  """Yields Mono, its shorter runs and JointPair away from the main setting."""
  tasks = side_tasks(study)
  for system in COMPARED:
    if system not in study.systems:
      continue
    model = pretraining(study, system, argument, seed, flags if system == "joint_pair" else ())
    yield model
    yield from task_jobs(study, model, system, "lab", tasks)
    if system == "mono" and "curve" in study.parts:
      yield from curve_jobs(study, argument, seed, SHORTER, equal_tasks=tasks, tasks=tasks)


def dial_jobs(study: Study) -> Iterator[Job]:
  """Yields Mono and JointPair at similarities other than the main one."""
  main = config_file.load("configs/joint_pair.py:lab", study.pretrain_flags).data.lab.similarity
  for seed in few(study):
    for similarity in DIAL:
      if abs(similarity - main) < NEAR:
        continue
      argument = f"lab,similarity={similarity:g}"
      flags = measured(study, argument) if seed == 1 else ()
      yield from side_jobs(study, argument, seed, flags)
      if seed == 1 and "analyses" in study.parts and "joint_pair" in study.systems:
        yield from analysis_jobs(study, pretraining(study, "joint_pair", argument, seed, flags))


def size_jobs(study: Study) -> Iterator[Job]:
  """Yields Mono and JointPair with small corpora of the target, and JointPair's test in xa."""
  documents = config_file.load("configs/joint_pair.py:lab", study.pretrain_flags).data.lab.documents
  for seed in few(study):
    for per_document in SIZES:
      argument = f"lab,subsample={round(per_document * documents)}"
      yield from side_jobs(study, argument, seed)
      if "joint_pair" in study.systems:
        model = pretraining(study, "joint_pair", argument, seed)
        yield from english_jobs(study, model, "xa", side_tasks(study))


def third_jobs(study: Study) -> Iterator[Job]:
  """Yields JointTri with xc, at equal steps and at equal text of the target."""
  if "joint_tri" not in study.systems:
    return
  for seed in few(study):
    for model in matched(study, "joint_tri", "lab", seed):
      yield model
      yield from task_jobs(study, model, "joint_tri", "lab", side_tasks(study))


def flops_jobs(study: Study) -> Iterator[Job]:
  """Yields the systems with dearer steps at JointPair's FLOPs."""
  if "flops" not in study.match:
    return
  for seed in few(study):
    for system in (system for system in DEARER if system in study.systems):
      whole = pretraining(study, system, "lab", seed)
      steps = matching.equal_flops(whole.spec, whole.arguments[1:])
      model = pretraining(study, system, "lab", seed, steps=steps)
      yield model
      yield from task_jobs(study, model, system, "lab", side_tasks(study))


def language_jobs(study: Study) -> Iterator[Job]:
  """Yields xc added to models of xb and xa, and the models that this is compared with."""
  for seed in few(study):
    for model in language_models(study, seed):
      yield model
      if model.kind in ADDED_TO:  # it does not know xc yet
        continue
      for task in side_tasks(study):
        if model.kind != "mono":
          yield tuning(study, task, model, "xc", zero_shot=True)
        yield tuning(study, task, model, "xc")


def language_models(study: Study, seed: int) -> Iterator[Job]:
  """Yields the models of a language added: the old ones, the new ones, all three at once, xc alone."""
  for system in (system for system in ADDED_TO if system in study.systems):
    old = pretraining(study, system, "lab", seed)
    flags = [f"--config.init_from={study.runs}/{old.name}"]
    flags += ["--config.meta.enabled=True"] if system == "meta_adpt" else []
    yield old
    yield make_job(study, "add_language", f"configs/add_language.py:xc,seed={seed}", flags, old)
  if "joint_tri" in study.systems:
    yield pretraining(study, "joint_tri", "lab", seed)
  if "mono" in study.systems:
    flags = ["--config.data.tokenizer_from=xb-xa", *study.pretrain_flags]  # that of all the others
    yield make_job(study, "mono", f"configs/mono.py:xc,seed={seed}", flags)


def ablation_jobs(study: Study) -> Iterator[Job]:
  """Yields the variants of meta adapters and their controls, the most telling first."""
  for run in ablation.RUNS:
    if run.system not in study.systems:
      continue
    steps = ablation.updates(run, study.pretrain_flags)
    for seed in range(1, min(study.seeds, run.seeds) + 1):
      model = pretraining(study, run.system, "lab", seed, run.flags, steps)
      yield model
      yield from task_jobs(study, model, run.system, "lab", side_tasks(study))
