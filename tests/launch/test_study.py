"""The study: what it consists of, and running it: order, resuming, failures, interruption."""

import contextlib
import errno
import os
import pathlib
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

import pytest
from ml_collections import ConfigDict

from configs import base
from launch.study import ablation, cost, execute, finished, jobs, lab, matching, matrix, slurm
from launch.study.jobs import TASKS, Job
from negint import config_file, options, pretrain
from negint.analysis import gradient_similarity, gradients, pruning
from negint.errors import UserError
from negint.finetuning import options as finetune_options
from negint.method import flops
from negint.pretrained import start
from negint.run import lock, pack
from negint.run.files import write_json
from negint.tasks.examples import SPLITS

ROOT = pathlib.Path(__file__).parents[2]


def study(preset="lab", **changes):
  is_lab = preset == "lab"
  fields = dict(
    preset=preset,
    runs="runs",
    languages=("lab",) if is_lab else base.PAPER_LANGUAGES,
    systems=(*lab.SYSTEMS, *lab.EXTRA_SYSTEMS) if is_lab else matrix.PAPER_SYSTEMS,
    tasks=TASKS,
    scale="lab" if is_lab else "base",
    seeds=1,
    tasks_dir="",
    match=("steps", "flops") if is_lab else ("steps",),
    xlm="",
    parts=lab.PARTS if is_lab else (),
  )
  return jobs.Study(**{**fields, **changes})


@pytest.fixture(scope="module")
def small_lab(tmp_path_factory):
  """Flags of a lab that is made in a second, for what counts batches."""
  folder = tmp_path_factory.mktemp("data")
  return ("--config.data.lab.documents=100", f"--config.data.dir={folder}")


def pretrainings(made, *systems):
  """The pretraining jobs of some systems, or of all."""
  return [job for job in made if job.kind in (systems or base.SYSTEMS)]


@pytest.mark.parametrize("preset", matrix.PRESETS)
def test_every_command_is_one_that_main_accepts(preset):
  seeds = 2 if preset == "lab" else 1
  made = matrix.make_jobs(study(preset, seeds=seeds, tasks_dir="tasks", xlm="hf-xlm"))
  check = {
    "pretrain": options.from_config,
    "gradient_similarity": gradient_similarity.from_config,
    "pruning": pruning.from_config,
  }
  seen, names = set(), set()
  for job in made:
    assert job.name not in names
    assert job.model is None or job.model.name in names, "needed before it is made"
    assert job.seconds > 0
    names.add(job.name)
    config = job.config
    check.get(config.task, finetune_options.from_config)(config, 1)
    seen.add((config.task, config.get("system", "")))
  systems = (*lab.SYSTEMS, *lab.EXTRA_SYSTEMS) if preset == "lab" else matrix.PAPER_SYSTEMS
  assert {system for task, system in seen if task == "pretrain"} >= set(systems)
  assert {task for task, _ in seen} == {"pretrain", "gradient_similarity", "pruning", *TASKS}


def test_the_lab_has_the_dial_and_mono_is_never_tested_zero_shot():
  made = matrix.make_jobs(study(match=("steps",)))
  main = config_file.load("configs/mono.py:lab").data.lab.similarity
  found = {job.config.data.lab.similarity for job in pretrainings(made, *lab.COMPARED)}
  assert main in found and found - {main} < set(lab.DIAL)
  assert {round(s) for s in found} == {0, 1} and len(found) >= 5
  assert min(abs(s - main) for s in found - {main}) >= lab.NEAR
  assert not [job for job in made if "zero_shot" in job.name and "mono" in job.name]


def test_first_comes_one_seed_of_the_main_setting_then_its_other_seeds():
  fields = dict(seeds=jobs.FEW + 1, match=("steps",), systems=("mono", "joint_pair", "adpt"))
  made = pretrainings(matrix.make_jobs(study(parts=("main", "dial"), **fields)))
  main = {job.name for job in pretrainings(matrix.make_jobs(study(parts=("main",), **fields)))}
  seeds = [job.config.seed for job in made]
  assert {job.name for job in made[: len(main)]} == main
  assert seeds[: len(main)] == sorted(seeds[: len(main)])
  assert set(seeds[: len(main)]) == set(range(1, jobs.FEW + 2))
  assert set(seeds[len(main) :]) == set(range(1, jobs.FEW + 1))


def test_parts_that_are_added_later_run_nothing_again():
  changes = dict(match=("steps",), systems=("joint_pair",), tasks=("pos",))
  whole = {job.name for job in matrix.make_jobs(study(**changes))}
  for parts in (("main",), ("main", "dial"), ("analyses",), ("main", "analyses")):
    some = {job.name for job in matrix.make_jobs(study(parts=parts, **changes))}
    assert some and some < whole


def test_a_jobs_config_is_that_of_its_command():
  made = matrix.make_jobs(study(parts=("main", "analyses"), systems=("joint_pair",), tasks=("qa",)))
  for job in made:
    assert job.config.to_dict() == config_file.load(job.spec, job.arguments[1:]).to_dict()


def test_the_majority_label_is_found_once_and_random_weights_by_seed():
  made = matrix.make_jobs(study("paper", seeds=2, systems=("joint_pair",), languages=("ar",)))
  count = {
    name: sum(f"baseline={name}" in job.name for job in made) for name in ("majority", "scratch")
  }
  assert count["scratch"] == 2 * count["majority"] > 0


def test_parts_and_systems_choose():
  made = matrix.make_jobs(study(parts=("main",), systems=("mono", "adpt"), tasks=("ner",)))
  assert [job.kind for job in made] == ["mono", "ner", "adpt", "ner", "ner"]
  made = matrix.make_jobs(study(parts=("ablation",)))
  expected = {run.system for run in ablation.RUNS if run.seeds}
  assert {job.kind for job in pretrainings(made)} == expected
  assert {job.kind for job in made} - set(base.SYSTEMS) == set(jobs.SIDE_TASKS)


def test_a_language_is_added_beside_models_that_have_it_from_the_start():
  made = matrix.make_jobs(study(parts=("language",)))
  models = {job.name: job for job in made if job.config.task == "pretrain"}
  tests = [job for job in made if job.config.task in TASKS]
  tested = [job.model for job in tests]
  assert {job.config.language for job in tests} == {"xc"}
  assert sorted({job.kind for job in tested}) == ["add_language", "joint_tri", "mono"]
  added = [job for job in models.values() if job.kind == "add_language"]
  assert [job.model.kind for job in added] == list(lab.ADDED_TO)
  assert [job.config.meta.enabled for job in added] == [False, True]
  zero_shot = {t.kind for t, job in zip(tested, tests, strict=True) if "zero_shot" in job.name}
  assert zero_shot == {"add_language", "joint_tri"}


def test_the_papers_tables_are_all_there():
  names = [job.name for job in matrix.make_jobs(study("paper", xlm="xlm-folder"))]
  for wanted in (
    "joint_tri-hi-mr-en-base-tokenizer_from=hi-en-seed1",
    "mono-fr-base-subsample=100000-tokenizer_from=fr-en-seed1",
    "pos-within-en-joint_pair-ru-en-base-subsample=100000-tokenizer_from=ru-en-seed1-seed1",
    "qa-zero_shot-te-meta_adpt-te-en-base-seed1-max_length=128-stride=64-seed1",
    "nli-zero_shot-sw-joint_pair-sw-en-base-gradient_similarity.every=5000-seed1-seed1",
    "pruning-joint_pair-ar-en-base-gradient_similarity.every=5000-seed1-seed1",
    "ner-within-ar-joint_pair-ar-en-base-gradient_similarity.every=5000-seed1-baseline=scratch-seed1",
  ):
    assert wanted in names
  assert any(name.startswith("ner-within-ar-xlm-folder-") for name in names)
  assert not [
    name for name in names if name.startswith(("pos-within-sw", "nli-within", "qa-within-fr"))
  ]


@pytest.mark.parametrize("preset", matrix.PRESETS)
def test_all_runs_of_a_comparison_have_the_pieces_of_its_pair(preset):
  for job in pretrainings(matrix.make_jobs(study(preset))):
    config = job.config
    pair = "xb-xa" if preset == "lab" else f"{config.languages[0]}-en"
    trained_on = config.data.tokenizer_from or "-".join(config.languages)
    assert trained_on == pair
    assert config.data.tokenizer_from or not config.data.subsample, "pieces of the whole text"


@pytest.mark.parametrize("preset", matrix.PRESETS)
def test_gradients_are_measured_from_the_beginning_of_training(preset):
  """The paper's claim is about the first epochs; the checkpoints that are left show the end."""
  made = {job.name: job for job in matrix.make_jobs(study(preset))}
  analysed = [job.model for job in made.values() if job.kind == "gradient_similarity"]
  assert analysed
  for job in analysed:
    config = job.config
    due = [
      step
      for step in range(config.train.steps)
      if gradients.is_due(step, config.gradient_similarity.every)
    ]
    assert due[:3] == [10, 20, 40] and due[-1] > 0.9 * config.train.steps


def test_equal_flops_buy_fewer_steps_of_a_dearer_system():
  spent = {}
  systems = ("joint_pair", "ffn", "adpt", "meta_adpt", "pcgrad")
  made = matrix.make_jobs(study("paper", languages=("ar",), match=("flops",), systems=systems))
  for job in pretrainings(made):
    run = options.from_config(job.config, 1)
    spent[job.kind] = run.schedule.steps * flops.step(run)
  assert set(spent) == set(systems) and max(spent.values()) / min(spent.values()) < 1.02
  equal = matrix.make_jobs(study("paper", languages=("ar",)))
  assert len({job.config.train.steps for job in pretrainings(equal)}) == 1


def test_ways_of_matching_share_the_runs_that_they_can():
  both = study("paper", languages=("ar",), match=("steps", "flops"))
  steps = {}
  for job in pretrainings(matrix.make_jobs(both)):
    steps.setdefault(job.kind, []).append(job.config.train.steps)
  assert {len(each) for system, each in steps.items() if system != "meta_adpt"} == {1}
  assert len(steps["meta_adpt"]) == 2 and steps["meta_adpt"][1] < steps["meta_adpt"][0] / 3


def batches_of_target(job, steps):
  """Batches of the target that a run sees in so many updates, counted by its own sampler."""
  run = options.from_config(job.config, 1)
  sampler = pretrain.prepare(run, print).sampler
  return int(sampler.sequences_by_language(steps)[0]) // run.batch_size


@pytest.mark.parametrize("argument", ["lab", "lab,subsample=200"])
def test_equal_text_of_the_target_is_equal_over_seeds(argument, small_lab):
  flags = (*small_lab, "--config.train.steps=600", "--config.data.vocab_size=200")
  it = study(pretrain_flags=flags, match=("target_tokens",))

  def mean_of_target(system, steps):
    runs = [jobs.pretraining(it, system, argument, seed, steps=steps) for seed in range(1, 7)]
    return statistics.fmean(batches_of_target(run, steps) for run in runs)

  wanted = mean_of_target("joint_pair", 600)
  assert 50 < wanted < 550
  for system in ("mono", "pcgrad", "joint_tri", "adpt", "meta_adpt"):
    steps = {
      job.config.train.steps for seed in (1, 2) for job in jobs.matched(it, system, argument, seed)
    }
    assert len(steps) == 1, "all seeds make the same updates"
    (count,) = steps
    assert mean_of_target(system, count) == pytest.approx(wanted, rel=0.05)
    assert system not in ("adpt", "meta_adpt") or count == 600


def test_mono_has_a_curve_with_the_pairs_own_amount_of_text(small_lab):
  it = study(pretrain_flags=small_lab, match=("steps", "target_tokens"), parts=("main", "curve"))
  made = pretrainings(matrix.make_jobs(it), "mono")
  configs = [job.config for job in made]
  steps = [config.train.steps for config in configs]
  exact = matching.equal_target(made[0].spec, made[0].arguments[1:])
  assert exact in steps and len(steps) == len(set(steps)) >= 5 and max(steps) == steps[0]
  for config in configs:
    config.train.steps = 0
  assert len({config.to_json() for config in configs}) == 1, "nothing else differs"


def test_the_papers_languages_have_mono_s_curve_beside_equal_text():
  made = matrix.make_jobs(
    study("paper", languages=("ar",), scale="sample", match=("steps", "target_tokens"))
  )
  models = pretrainings(made, "mono")
  steps = sorted({job.config.train.steps for job in models}, reverse=True)
  equal = matching.equal_target(models[0].spec, models[0].arguments[1:])
  assert len(steps) == len(models) == 3 and equal in steps and steps[-1] < 0.8 * equal
  for task in ("ner", "pos", "qa"):
    assert {job.name for job in models} <= {job.model.name for job in made if job.kind == task}


def test_mono_with_little_text_also_reads_no_more_of_it_than_the_pair(monkeypatch):
  monkeypatch.setitem(matrix.SUBSAMPLE, "sample", 100)
  changes = dict(languages=("fr",), scale="sample", systems=matrix.COMPARED)
  for match, count in ((("steps",), 1), (("steps", "target_tokens"), 2)):
    made = matrix.make_jobs(study("paper", match=match, **changes))
    little = [job for job in pretrainings(made, "mono") if job.config.data.subsample]
    assert len(little) == count and {job.config.data.subsample for job in little} == {100}
    for job in little:
      assert {test.kind for test in made if test.model == job} == {"ner", "pos"}
  equal = matching.equal_target(little[0].spec, little[0].arguments[1:])
  steps = [job.config.train.steps for job in little]
  assert steps[1] == equal < steps[0] / 2


@pytest.mark.parametrize("scale, sentences", [("small", 10_000), ("base", 100_000)])
def test_table_5_comes_after_the_other_tables(scale, sentences):
  made = matrix.make_jobs(study("paper", languages=("ar", "fr"), scale=scale))
  small = [k for k, job in enumerate(made) if job.config.get("data", {}).get("subsample")]
  assert {made[k].config.data.subsample for k in small} == {sentences}
  english = [k for k, job in enumerate(made) if "-within-en-" in job.name]
  assert {made[k].kind for k in english} == {"ner", "pos", "qa"}
  others = set(range(len(made))) - set(small) - set(english)
  last = [k for k in others if not made[k].model or not made[k].model.config.data.subsample]
  assert max(last) < min(small)


def test_an_imported_checkpoint_is_tuned_at_the_papers_rates():
  made = matrix.make_jobs(study("paper", languages=("ar",), scale="small", xlm="xlm-folder"))
  rates = {
    "xlm-folder" in job.name: job.config.train.learning_rate for job in made if job.kind == "ner"
  }
  assert rates[False] > 3 * rates[True]


def test_missing_labelled_data_are_found_before_anything_runs(tmp_path):
  it = study("paper", languages=("fr",), scale="sample", tasks=("ner",), tasks_dir=str(tmp_path))
  made = matrix.make_jobs(it)
  files = [tmp_path / "ner" / code / f"{split}.tsv" for code in ("fr", "en") for split in SPLITS]
  for file in files:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("Paris\tB-LOC\n")
  matrix.check_data(made)
  files[-3].unlink()  # English training data, for zero-shot tests alone
  with pytest.raises(UserError, match="No train data for task 'ner' in language 'en'"):
    matrix.check_data(made)
  within = [job for job in made if job.name.startswith("ner-within-fr-")]
  assert within
  matrix.check_data(within)


def test_a_language_that_is_not_the_papers_has_the_tasks_of_its_files(tmp_path):
  def files(task, code, *splits):
    for split in splits:
      path = tmp_path / task / code / f"{split}.tsv"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text("Paris\tB-LOC\n")

  files("ner", "de", *SPLITS)
  files("ner", "en", *SPLITS)
  files("pos", "de", "test")
  files("pos", "en", *SPLITS)
  files("nli", "de", *SPLITS)
  files("nli", "en", *SPLITS)
  files("qa", "de", "train")  # nothing to test on
  it = study("paper", languages=("de",), tasks_dir=str(tmp_path))
  made = matrix.make_jobs(it)
  matrix.check_data([job for job in made if job.config.task != "pretrain"])
  with pytest.raises(UserError, match="There is no corpus of 'de'"):
    matrix.check_data(made)
  (adpt,) = [job for job in made if job.kind == "adpt"]
  assert adpt.config.languages == ("de", "en") and adpt.name.startswith("adpt-de-en-")
  of_adpt = {"-".join(job.name.split("-")[:3]) for job in made if job.model == adpt}
  assert of_adpt == {"ner-zero_shot-de", "ner-within-de", "pos-zero_shot-de", "nli-zero_shot-de"}
  assert {job.kind for job in made if job.config.task == "pretrain"} == {*matrix.PAPER_SYSTEMS} - {
    "joint_tri"
  }
  alone = matrix.make_jobs(study("paper", languages=("de",), tasks=()))
  assert {job.config.task for job in alone} == {"pretrain", "gradient_similarity", "pruning"}


def test_text_that_is_not_prepared_is_asked_for(tmp_path):
  flags = (f"--config.data.dir={tmp_path}",)
  with pytest.raises(UserError, match="no corpus of 'ar'.*--match=target_tokens counts batches"):
    matrix.make_jobs(
      study("paper", languages=("ar",), match=("target_tokens",), pretrain_flags=flags)
    )


@pytest.mark.parametrize(
  "preset, changes, match",
  [
    ("paper", dict(systems=("joint",)), "--systems names 'joint'"),
    ("paper", dict(tasks=("parsing",)), "--tasks names 'parsing'"),
    (
      "paper",
      dict(languages=("de",)),
      "names 'de'. Without --tasks_dir there are no labelled data",
    ),
    (
      "paper",
      dict(languages=("de",), tasks_dir="none"),
      "names 'de'. --tasks_dir=none has no labelled",
    ),
    ("paper", dict(languages=("en",)), "names 'en'; name the codes of the targets alone"),
    (
      "paper",
      dict(languages=("fr-de-en",)),
      "names 'fr-de-en'; name the codes of the targets alone",
    ),
    ("paper", dict(languages=("german",)), "'german' is not a language code"),
    ("paper", dict(languages=()), "--languages names nothing"),
    ("lab", dict(languages=("de",)), "--languages is for --preset=paper"),
    ("paper", dict(seeds=0), "--seeds is 0"),
    ("paper", dict(systems=()), "--systems names nothing; choose among mono, joint_pair"),
    ("lab", dict(parts=()), "--parts names nothing; choose among main, curve"),
    ("paper", dict(parts=("dial",)), "--parts names 'dial'; only the lab's preset has parts"),
    ("paper", dict(match=("time",)), "--match names 'time'; choose among steps, target_tokens"),
    ("lab", dict(parts=("tables",)), "--parts names 'tables'; choose among main, curve"),
    (
      "paper",
      dict(scale="sample"),
      "--scale=sample has no sentences in 'sw'; use --languages=ar,fr,ru,hi,te",
    ),
  ],
)
def test_mistakes_are_one_sentence(preset, changes, match):
  with pytest.raises(UserError, match=match):
    matrix.make_jobs(study(preset, **changes))


def test_estimates_follow_what_a_job_computes():
  plain, meta = (
    cost.seconds(config_file.load(f"configs/{system}.py:lab"), None)
    for system in ("joint_pair", "meta_adpt")
  )
  assert 3 < (meta - cost.START) / (plain - cost.START) < 6
  model = config_file.load("configs/joint_pair.py:lab")
  ner, longer, none = (
    cost.seconds(config_file.load("configs/ner.py:lab", flags), model)
    for flags in (
      [],
      ["--config.train.epochs=12"],
      ["--config.baseline=majority"],
    )
  )
  assert none == cost.START_LATER and longer - none == pytest.approx(2 * (ner - none), rel=0.1)
  said = execute.estimate([Job("a", "toy", (), seconds=7200), Job("b", "toy", (), seconds=7200)], 2)
  assert said.startswith("2 jobs: about 4.0 hours on one processor core, 2.0 hours with --jobs=2")


class ToyJob(Job):
  """A job whose command is a Python program, and whose config is that program."""

  @property
  def config(self):
    return ConfigDict({"program": self.arguments[0]})


def toy_jobs(*specs):
  """Jobs of programs: (name, program) or (name, program, name of its model)."""
  jobs = {}
  for name, program, *model in specs:
    jobs[name] = ToyJob(name, "toy", (program,), jobs[model[0]] if model else None)
  return list(jobs.values())


def writes(name, before=""):
  """A program that makes a finished run and counts how often it ran."""
  return (
    f"{before}\nimport json, pathlib; p = pathlib.Path(runs, '{name}'); p.mkdir(exist_ok=True)\n"
    "(p / 'config.json').write_text(json.dumps({'program': program}))\n"
    "(p / 'result.json').write_text('{}'); (p / 'runs').open('a').write('x')"
  )


@pytest.fixture
def run_jobs(monkeypatch, tmp_path):
  runs = str(tmp_path / "runs")

  def command(job, runs):
    program = job.arguments[0]
    return [sys.executable, "-c", f"runs = {runs!r}; program = {program!r}\n{program}"]

  monkeypatch.setattr(execute, "command", command)
  monkeypatch.setattr(execute, "POLL_SECONDS", 0.01)

  def run(jobs, at_once=2, packed=()):
    said = []
    execution = execute.Execution(
      jobs, runs, at_once=at_once, gpus=0, say=said.append, packed=packed
    )
    execution.run()
    return execution, said

  run.runs = pathlib.Path(runs)
  return run


def test_jobs_run_after_what_they_need_and_never_twice(run_jobs):
  needs_a = "assert pathlib.Path(runs, 'a', 'result.json').exists()"
  jobs = toy_jobs(
    ("a", writes("a", "import time; time.sleep(0.3)")),
    ("b", writes("b", f"import pathlib; {needs_a}"), "a"),
    ("c", writes("c")),
  )
  execution, said = run_jobs(jobs)
  assert not execution.failures and execution.finished == {"a", "b", "c"}
  assert len([line for line in said if line.startswith("[")]) == 3
  again, said = run_jobs(jobs)
  assert said == ["3 of 3 jobs are finished already."]
  assert (run_jobs.runs / "a" / "runs").read_text() == "x"
  changed = toy_jobs(("a", writes("a", "changed = True")), ("c", writes("c")))
  run_jobs(changed)  # another command under the same name is another job
  assert (run_jobs.runs / "a" / "runs").read_text() == "xx"
  assert (run_jobs.runs / "c" / "runs").read_text() == "x"


def test_a_run_of_another_config_is_not_finished_nor_are_tasks_on_it(tmp_path):
  it = study(parts=("main",), systems=("mono",), tasks=("ner",))
  made = matrix.make_jobs(it)
  for job in made:
    finished_run(tmp_path, job.name, job.config.to_dict())
  names = {job.name for job in made}
  assert len(names) > 1 and finished.in_folder(tmp_path, made) == names
  other = made[0].config  # as if the scale's defaults had changed, which no name shows
  other.model.model_dim = 32
  write_json(tmp_path / made[0].name / "config.json", other.to_dict())
  assert finished.in_folder(tmp_path, made) == set()
  write_json(tmp_path / made[0].name / "config.json", made[0].config.to_dict())
  (tmp_path / made[0].name / "result.json").unlink()
  assert finished.in_folder(tmp_path, made) == names - {made[0].name}


def test_a_failure_stops_only_what_needs_it_and_is_listed_with_its_log(run_jobs):
  fails = "print('first line'); raise SystemExit('the disk is full')"
  others = (
    ("after", writes("after"), "bad"),
    ("later", writes("later"), "after"),
    ("good", writes("good")),
  )
  execution, _ = run_jobs(toy_jobs(("bad", fails), *others), at_once=1)
  assert execution.finished == {"good"} and set(execution.failures) == {"bad", "after", "later"}
  said = []
  execution.say = said.append
  execution.report()
  text = "\n".join(said)
  assert "3 of 4 jobs failed" in text and "the disk is full" in text
  assert "after: not run: it needs bad, which failed." in text
  execution, _ = run_jobs(toy_jobs(("bad", writes("bad")), *others))
  assert len(execution.finished) == 4 and not execution.failures


def test_a_job_without_a_result_is_not_finished(run_jobs):
  run_jobs(toy_jobs(("a", "pass")))
  execution, said = run_jobs(toy_jobs(("a", "pass")))
  assert "finished already" not in "".join(said)


def test_jobs_get_cores_of_their_own():
  cores = os.sched_getaffinity(0)
  slots = execute.Slots(2, gpus=0)
  assert set.union(*slots.cores) == cores
  if len(cores) > 1:
    assert not slots.cores[0] & slots.cores[1]
  assert execute.Slots(5, gpus=0).cores[4], "more jobs than cores"


PROGRAM = """
import sys, pathlib
sys.path.insert(0, {root!r})
from launch.study import execute
from launch.study.jobs import Job
execute.command = lambda job, runs: [sys.executable, "-c", job.arguments[0]]
child = '''
import os, pathlib, sys, time
from negint.run import interrupt
with interrupt.caught() as interruption:
  pathlib.Path({started!r} + "_").write_text(str(os.getpid()))
  os.rename({started!r} + "_", {started!r})
  while not interruption.asked():
    time.sleep(0.02)
  time.sleep(1)  # the state takes a moment to save
  pathlib.Path({saved!r}).write_text("saved"); sys.exit({code})
'''
from negint.errors import Interrupted
try:
  execute.Execution([Job("a", "toy", (child,))], {runs!r}, at_once=1, gpus=0, say=print).run()
except Interrupted as error:
  print(error); sys.exit(error.exit_code)
"""


@pytest.mark.usefixtures("heeds_hangup")
@pytest.mark.parametrize(
  ("number", "to_all", "code", "words"),
  [
    (signal.SIGINT, False, 75, "1 of 1 running jobs saved their state: start"),
    (signal.SIGTERM, True, 75, "1 of 1 running jobs saved their state: start"),
    (signal.SIGHUP, True, 75, "1 of 1 running jobs saved their state: start"),
    (signal.SIGTERM, False, 1, "0 of 1 running jobs saved their state (not a, which will resume"),
  ],
)
def test_an_interruption_reaches_the_jobs_and_waits_for_them(number, to_all, code, words, tmp_path):
  """A stop of the whole group (SLURM, systemd, a container) reaches each job twice."""
  paths = {name: str(tmp_path / name) for name in ("saved", "started", "runs")}
  process = subprocess.Popen(
    [sys.executable, "-c", PROGRAM.format(root=str(ROOT), code=code, **paths)],
    stdout=subprocess.PIPE,
    text=True,
    cwd=ROOT,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )
  started = pathlib.Path(paths["started"])
  for _ in range(1200):
    if started.exists() or process.poll() is not None:
      break
    time.sleep(0.05)
  if to_all:
    os.kill(int(started.read_text()), signal.SIGTERM)
  process.send_signal(number)
  output, _ = process.communicate(timeout=60)
  assert process.returncode == 75 and "start the same command again" in output
  assert f"stopped by {number.name} with 0 of 1 jobs finished; {words}" in output
  assert pathlib.Path(paths["saved"]).read_text() == "saved"


def test_a_job_that_was_stopped_by_itself_has_not_failed(run_jobs):
  fields = [
    ("stopped", "raise SystemExit(75)"),
    ("after", writes("after"), "stopped"),
    ("later", writes("later"), "after"),
    ("good", writes("good")),
  ]
  execution, said = run_jobs(toy_jobs(*fields))
  assert execution.finished == {"good"} and not execution.failures
  assert execution.stopped == ["stopped", "after", "later"] and execution.exit_code == 75
  assert any("stopped was stopped after" in line and "is saved" in line for line in said)
  execution.report()
  assert "3 of 4 jobs were stopped" in said[-1] and "Start the same command again" in said[-1]
  execution, _ = run_jobs(toy_jobs(*fields, ("bad", "raise SystemExit(1)")))
  assert set(execution.failures) == {"bad"} and execution.exit_code == execute.EXIT_FAILED
  execution, _ = run_jobs(toy_jobs(("stopped", writes("stopped")), *fields[1:]))
  assert execution.finished == {name for name, *_ in fields} and execution.exit_code == 0


def test_a_job_of_another_process_is_waited_for(run_jobs):
  """A study that was killed leaves its jobs running; the next one must not count them as failed."""
  (run_jobs.runs / "a").mkdir(parents=True)
  released = run_jobs.runs / "released"
  with contextlib.ExitStack() as other:
    other.enter_context(lock.exclusive(run_jobs.runs / "a" / ".lock", "running"))
    other.callback(released.touch)
    threading.Timer(0.5, other.pop_all().close).start()
  needs = f"import pathlib; assert pathlib.Path({str(released)!r}).exists()"
  execution, said = run_jobs(toy_jobs(("a", writes("a", needs)), ("b", writes("b"), "a")))
  assert execution.finished == {"a", "b"} and not execution.failures
  assert said[0] == "a runs already in another process: waiting for its end."


def test_a_job_whose_folder_another_process_claims_first_is_waited_for(run_jobs, monkeypatch):
  once = "import pathlib; p = pathlib.Path(runs, 'tried')\nif not p.exists(): p.touch(); exit(2)"
  for answers, is_finished in (([False, True, True, False], True), ([], False)):
    asked = iter(answers)
    monkeypatch.setattr(execute, "is_running", lambda folder, asked=asked: next(asked, False))
    execution, _ = run_jobs(toy_jobs(("a", writes("a", once))))
    assert (execution.finished == {"a"}) == is_finished and bool(execution.failures) != is_finished
    shutil.rmtree(run_jobs.runs)


def test_a_packed_run_runs_again_only_for_a_job_that_needs_its_weights(tmp_path):
  jobs = toy_jobs(("model", ""), ("one", "", "model"), ("two", "", "model"))
  for name, left in (("one", {"model", "two"}), ("two", set())):
    finished_run(tmp_path, name, {"program": ""})
    done, again = execute.finished_jobs(jobs, finished.in_folder(tmp_path, jobs), {"model"})
    assert {job.name for job in jobs} - done == left
    assert again == left & {"model"}


def test_a_study_that_fails_itself_stops_its_jobs(tmp_path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(
    execute, "command", lambda job, runs: [sys.executable, "-c", job.arguments[0]]
  )
  jobs = [Job("long", "toy", ("import time; time.sleep(60)",)), Job("short", "toy", ("",))]
  execution = execute.Execution(jobs, str(tmp_path), at_once=2, gpus=0, say=full)
  with pytest.raises(OSError, match="No space left"):
    execution.run()
  assert execution._running["long"].process.poll() == -signal.SIGTERM


def test_slurm_arrays_hold_every_command_once_and_levels_wait(tmp_path):
  jobs = matrix.make_jobs(study(runs=str(tmp_path), parts=("main", "analyses")))
  submit = slurm.write(jobs, str(tmp_path)).read_text()
  assert submit.count("sbatch --parsable") == 2 and "--dependency=afterany:$level0" in submit
  lines = [
    line
    for level in (0, 1)
    for line in (tmp_path / "slurm" / f"level{level}.txt").read_text().splitlines()
  ]
  expected = [shlex.join(execute.command(job, str(tmp_path))) for job in jobs]
  assert sorted(lines) == sorted(expected)
  for level in (0, 1):
    script = tmp_path / "slurm" / f"level{level}.sbatch"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    count = len((tmp_path / "slurm" / f"level{level}.txt").read_text().splitlines())
    assert f"--array=1-{count}\n" in script.read_text()
    assert "--ntasks=1\n" in script.read_text(), "GPUs of a task need a number of tasks"


def test_slurm_lists_have_the_interpreter_and_need_no_finished_model(tmp_path):
  model = Job("model", "toy", ("1",))
  jobs = [Job("test", "toy", ("2",), model), Job("other", "toy", ("3",))]
  slurm.write(jobs, str(tmp_path))
  assert not (tmp_path / "slurm" / "level1.txt").exists()
  lines = (tmp_path / "slurm" / "level0.txt").read_text().splitlines()
  assert [shlex.split(line)[0] for line in lines] == [sys.executable] * 2
  assert [shlex.split(line)[-1] for line in lines] == [
    f"--workdir={tmp_path}/{job.name}" for job in jobs
  ]


def test_slurm_arrays_have_no_more_tasks_than_slurm_allows(tmp_path):
  """2,300 pretrainings and an analysis of each: three arrays per level, and the second level waits."""
  models = [Job(f"model{n}", "toy", (str(n),)) for n in range(2300)]
  tests = [Job(f"test{n}", "toy", (str(n),), model) for n, model in enumerate(models)]
  submit = slurm.write([*models, *tests], str(tmp_path)).read_text().splitlines()[2:]
  assert len(submit) == 6 and not any("dependency" in line for line in submit[:3])
  waits = "--dependency=afterany:$level0_1:$level0_2:$level0_3 "
  assert all(waits in line for line in submit[3:])
  lines = []
  for level in (0, 1):
    for part, count in ((1, 1000), (2, 1000), (3, 300)):
      name = f"level{level}_{part}"
      script = (tmp_path / "slurm" / f"{name}.sbatch").read_text()
      assert f"--array=1-{count}\n" in script and f"{name}.txt" in script
      lines += (tmp_path / "slurm" / f"{name}.txt").read_text().splitlines()
  assert lines == [shlex.join(execute.command(job, str(tmp_path))) for job in [*models, *tests]]


@pytest.mark.parametrize("scale", ["sample", "small", "base", "paper"])
def test_no_task_asks_for_more_positions_than_pretraining_saw(scale):
  jobs = matrix.make_jobs(study("paper", languages=("ar",), scale=scale, tasks_dir="tasks"))
  lengths = {job.name: job.config.data.sequence_length for job in jobs if job.model is None}
  seen = set()
  for job in jobs:
    if job.kind in TASKS:
      data = job.config.data
      assert data.max_length <= lengths[job.model.name]
      assert data.stride <= data.max_length or job.kind != "qa"
      assert data.max_question + 3 < data.max_length or job.kind != "qa"
      seen.add(job.kind)
  assert seen == set(TASKS)


def test_lengths_that_were_asked_for_stay():
  flags = ("--config.data.max_length=200",)
  jobs = matrix.make_jobs(study("paper", languages=("ar",), task_flags=flags))
  asked = {job.config.data.max_length for job in jobs if job.kind == "qa"}
  assert asked == {200}
  paper = matrix.make_jobs(study("paper", languages=("ar",), scale="paper"))
  assert not [flag for job in paper for flag in job.arguments if "max_length" in flag]


def test_the_evaluation_batch_of_pruning_divides_among_any_devices():
  for devices in range(1, 130):
    size = pruning.whole_batch(devices)
    assert size % devices == 0 and 0 <= size - pruning.EVAL_BATCH < devices


def test_the_command_line_prints_the_commands():
  command = [sys.executable, "-m", "launch.study", "--dry_run", "--preset=paper", "--languages=ar"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0
  assert "configs/meta_adpt.py:ar,base,seed=1" in done.stdout and "fr" not in done.stdout.split()
  count = len(done.stdout.splitlines())
  assert done.stderr.splitlines()[-1].startswith(f"{count} jobs: about ")
  wrong = subprocess.run([*command, "--systems=nothing"], cwd=ROOT, capture_output=True, text=True)
  assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1


FLAGS_PROGRAM = """
from absl import flags
from absl.testing import flagsaver
from launch.study import __main__ as study, jobs, matrix
from negint.errors import UserError

def parsed(*words):
  with flagsaver.flagsaver():
    flags.FLAGS(["study", *words])
    return study.study_of_flags()

for name in ("scale", "xlm"):
  word = f"--{name}=small"
  assert getattr(parsed("--preset=paper", word), name) == "small"
  try:
    parsed("--preset=lab", word)
  except UserError as error:
    assert f"--{name} is for --preset=paper; add" in str(error)
  else:
    raise AssertionError(f"{word} is ignored")
assert parsed("--preset=paper").scale == "base" and parsed().scale == "lab"
assert parsed().tasks == jobs.TASKS and parsed("--tasks=").tasks == ()
assert parsed("--quick").tasks == jobs.SIDE_TASKS and parsed("--quick", "--tasks=").tasks == ()
made = matrix.make_jobs(parsed("--preset=paper", "--tasks=", "--languages=ar"))
assert {job.config.task for job in made} == {"pretrain", "gradient_similarity", "pruning"}
"""


def test_flags_of_the_other_preset_are_refused_and_no_tasks_are_none():
  """In a process of its own: two programs' flags do not fit into one."""
  command = [sys.executable, "-c", FLAGS_PROGRAM]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def finished_run(folder, name, config, **files):
  """Writes a finished run with what a pack leaves out."""
  write_json(folder / name / "config.json", config)
  write_json(folder / name / "result.json", {"found": name})
  for path, text in {
    "checkpoints/1/state": "weights",
    "tokenizer.model": "pieces",
    **files,
  }.items():
    path = folder / name / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tree(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_a_pack_keeps_every_byte_but_the_weights(tmp_path):
  rows = {"seed1/per_example/xb.json": "[1]", "metrics.jsonl": "{}\n", "data.json": "{}"}
  finished_run(tmp_path / "runs", "a", {"task": "x"}, **rows)
  finished_run(tmp_path / "runs", "group/b", {"task": "y"}, **{"seed1/trial/metrics.jsonl": "{}"})
  write_json(tmp_path / "runs" / "unfinished" / "config.json", {"task": "z"})
  assert pack.pack([tmp_path / "runs"], tmp_path / "one.tar.xz") == 2
  with pack.unpacked(tmp_path / "one.tar.xz") as folder:
    kept = tree(folder)
  assert kept.keys() == {
    *(f"a/{name}" for name in ("config.json", "result.json", *rows)),
    *("group/b/config.json", "group/b/result.json"),
  }
  assert all(kept[name] == (tmp_path / "runs" / name).read_bytes() for name in kept)
  assert not folder.exists()
  assert pack.packed_configs(tmp_path / "one.tar.xz") == {
    "a": {"task": "x"},
    "group/b": {"task": "y"},
  }


def test_equal_runs_give_equal_packs_and_the_first_folder_wins(tmp_path):
  for folder, names in (("first", "abc"), ("second", "cba")):
    for name in names:
      finished_run(tmp_path / folder, name, {"task": name})
  os.utime(tmp_path / "second" / "a" / "result.json", (1, 1))
  packs = [tmp_path / f"{folder}.tar.xz" for folder in ("first", "second")]
  for file in packs:
    pack.pack([tmp_path / file.name.removesuffix(".tar.xz")], file)
  assert packs[0].read_bytes() == packs[1].read_bytes()
  finished_run(tmp_path / "newer", "a", {"task": "changed"})
  with pack.unpacked(packs[0]) as older:
    assert pack.pack([tmp_path / "newer", older], packs[1]) == 3
  assert pack.packed_configs(packs[1])["a"] == {"task": "changed"}
  assert packs[0].read_bytes() != packs[1].read_bytes()


def test_a_damaged_pack_is_one_sentence(tmp_path):
  finished_run(tmp_path / "runs", "a", {"task": "x"})
  file = tmp_path / "runs.tar.xz"
  pack.pack([tmp_path / "runs"], file)
  whole = file.read_bytes()
  for contents in (whole[: len(whole) // 2], b"", b"text", whole[:40] + b"damage" + whole[46:]):
    file.write_bytes(contents)
    with pytest.raises(UserError, match="is no pack of runs, or is damaged"):
      pack.packed_configs(file)
  with pytest.raises(UserError, match="is not a file"):
    pack.packed_configs(tmp_path / "missing")
  with pytest.raises(UserError, match="holds no finished run to pack"):
    pack.pack([tmp_path / "empty"], file)


@pytest.fixture
def packed_study(tmp_path):
  """A study's jobs, and a pack of all its runs, made on a machine with other folders."""
  it = study(parts=("main",), systems=("mono", "joint_pair"), tasks=("ner",), runs="runs")
  made = matrix.make_jobs(it)
  for job in made:
    config = job.config.to_dict()
    if config.get("init_from"):
      config["init_from"] = f"/elsewhere/{pathlib.Path(config['init_from']).name}"
    config["data"]["dir" if "system" in config else "tasks_dir"] = "/elsewhere"
    finished_run(tmp_path / "theirs", job.name, config)
  pack.pack([tmp_path / "theirs"], tmp_path / "theirs.tar.xz")
  return made, tmp_path


def test_packed_runs_count_as_done_if_they_are_the_same(packed_study):
  made, folder = packed_study
  found = finished.in_packs([folder / "theirs.tar.xz"], made)
  assert found.finished == {job.name for job in made} and not found.others
  assert execute.unfinished(made, set(), found.finished) == []
  changed = folder / "theirs" / made[0].name / "config.json"
  write_json(changed, {**made[0].config.to_dict(), "seed": 9})
  pack.pack([folder / "theirs"], folder / "changed.tar.xz")
  found = finished.in_packs([folder / "changed.tar.xz"], made)
  of_mono = {job.name for job in made if made[0] in (job, job.model)}
  assert set(found.others) == of_mono, "its tasks started from other weights"
  assert found.finished == {job.name for job in made} - of_mono
  assert {job.name for job in execute.unfinished(made, set(), found.finished)} == of_mono
  both = finished.in_packs([folder / "changed.tar.xz", folder / "theirs.tar.xz"], made)
  assert both.finished == {job.name for job in made}


def test_packed_runs_count_as_done_where_labelled_data_lie_elsewhere(tmp_path):
  def made(folder):
    it = study("paper", languages=("ar",), tasks=("pos",), systems=("adpt",), tasks_dir=folder)
    return matrix.make_jobs(it)

  for job in made("their tasks"):
    finished_run(tmp_path / "theirs", job.name, job.config.to_dict())
  pack.pack([tmp_path / "theirs"], tmp_path / "theirs.tar.xz")
  ours = made("/data/tasks")
  found = finished.in_packs([tmp_path / "theirs.tar.xz"], ours)
  assert found.finished == {job.name for job in ours} and not found.others
  zero_shot = [job for job in ours if job.kind == "pos"][0]
  assert zero_shot.name not in {job.name for job in made("their tasks")}


def test_a_packed_run_has_decided_what_its_job_leaves_to_the_device(tmp_path):
  job = jobs.pretraining(study(runs="runs"), "adpt", "ar,base", 1)
  config = job.config.to_dict()
  assert config["model"]["dtype"] == "auto"
  for batch_size, is_done in ((config["train"]["batch_size"], True), (7, False)):
    there = job.config
    there.model.dtype, there.train.batch_size = "float16", batch_size
    folder = tmp_path / str(batch_size)
    finished_run(folder, job.name, there.to_dict())
    pack.pack([folder], folder.with_suffix(".tar.xz"))
    found = finished.in_packs([folder.with_suffix(".tar.xz")], [job])
    assert (found.finished, found.others) == (({job.name}, ()) if is_done else (set(), (job.name,)))


def test_a_packed_run_that_adds_a_language_has_what_it_took_from_the_old_run(tmp_path):
  it = study(parts=("main",), systems=("meta_adpt",), tasks=("ner",), runs="runs")
  old = jobs.pretraining(it, "meta_adpt", "lab", 1, ["--config.train.batch_size=8"])
  flags = [f"--config.init_from=runs/{old.name}"]
  new = jobs.make_job(it, "add_language", "configs/add_language.py:xc,seed=1", flags, old)
  assert new.name.startswith("add_language-xc-from-meta_adpt-")
  finished_run(tmp_path / "theirs", old.name, old.config.to_dict())
  run_there = jobs.configured(new.spec, new.arguments[1:])
  run_there.init_from = f"/elsewhere/{old.name}"  # as the command writes it on another machine
  complete = start.complete_with(run_there, config_file.defaults(new.spec), old.config)
  assert complete.train.batch_size == 8 and complete.languages == ("xc", "xb", "xa")
  assert new.seconds == cost.seconds(complete, None) != cost.seconds(run_there, None)
  finished_run(tmp_path / "theirs", new.name, complete.to_dict())
  pack.pack([tmp_path / "theirs"], tmp_path / "theirs.tar.xz")
  found = finished.in_packs([tmp_path / "theirs.tar.xz"], [old, new])
  assert found.finished == {old.name, new.name}
  finished_run(tmp_path / "others", new.name, {**complete.to_dict(), "scale": "sample"})
  pack.pack([tmp_path / "others"], tmp_path / "others.tar.xz")
  assert finished.in_packs([tmp_path / "others.tar.xz"], [old, new]).others == (new.name,)


def test_a_packed_model_runs_again_only_for_a_job_that_needs_its_weights(run_jobs):
  chain = toy_jobs(
    ("model", writes("model")),
    ("second", writes("second"), "model"),
    ("task", writes("task"), "second"),
    ("other", writes("other")),
    ("done", writes("done"), "other"),
  )
  execution, said = run_jobs(chain, packed={"model", "second", "other", "done"})
  assert execution.finished == {job.name for job in chain} and not execution.failures
  assert {path.name for path in run_jobs.runs.iterdir()} >= {"model", "second", "task"}
  assert not (run_jobs.runs / "other").exists() and not (run_jobs.runs / "done").exists()
  assert any(
    "2 packed runs that other jobs start from run again: model, second." in s for s in said
  )
  _, said = run_jobs(chain, packed={"model", "second", "other", "done"})
  assert said == ["5 of 5 jobs are finished already."]


TOY_PRETRAINING = (
  "--config.train.steps=6 --config.model.model_dim=16 --config.model.head_dim=4 "
  "--config.model.ffn_dim=32 --config.data.vocab_size=200 --config.data.lab.documents=200 "
  "--config.eval.batch_size=16 --config.gradient_similarity.sentences=16 "
  "--config.gradient_similarity.batch_size=8"
)
TOY_TASKS = (
  "--config.train.epochs=1 --config.data.lab_train=20 --config.data.lab_dev=10 "
  "--config.data.lab_test=20"
)


@pytest.mark.slow
def test_a_study_its_pack_and_their_reports(tmp_path):
  """A pack gives the report that its runs give, and finishes the study on another machine."""

  def call(module, *flags):
    command = [sys.executable, "-m", module, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout

  def run(runs, *flags):
    return call(
      "launch.study",
      f"--runs={tmp_path / runs}",
      "--parts=main",
      "--systems=joint_pair",
      "--tasks=ner",
      f"--pretrain_flags={TOY_PRETRAINING} --config.data.dir={tmp_path / 'data'}",
      f"--task_flags={TOY_TASKS}",
      *flags,
    )

  first = run("runs")
  count = first.split("All ")[1].split()[0]
  file = tmp_path / "study.tar.xz"
  said = call("launch.study", f"--runs={tmp_path / 'runs'}", f"--pack={file}")
  assert f"{count} finished runs" in said and file.stat().st_size < 100_000
  call("negint.report", f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'report'}")
  call("negint.report", f"--runs={file}", f"--out={tmp_path / 'again'}")
  assert tree(tmp_path / "report") == tree(tmp_path / "again")
  elsewhere = run("elsewhere", f"--done={file}")
  assert f"{count} of {count} jobs are finished already." in elsewhere
  assert not list((tmp_path / "elsewhere").glob("*-seed1"))
