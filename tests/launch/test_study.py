"""The study: what it consists of, and running it: order, resuming, failures, interruption."""

import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time

import pytest

from configs import base
from launch.study import execute, matrix, slurm
from launch.study.matrix import Job
from negint import config_file, options
from negint.analysis import gradient_similarity, gradients, pruning
from negint.errors import UserError
from negint.finetuning import options as finetune_options
from negint.method import flops

ROOT = pathlib.Path(__file__).parents[2]


def study(preset="lab", **changes):
  is_lab = preset == "lab"
  fields = dict(
    preset=preset,
    runs="runs",
    languages=("lab",) if is_lab else base.PAPER_LANGUAGES,
    systems=matrix.LAB_SYSTEMS if is_lab else matrix.PAPER_SYSTEMS,
    tasks=matrix.LAB_TASKS if is_lab else matrix.TASKS,
    scale="lab" if is_lab else "base",
    seeds=1,
    tasks_dir="",
    match="steps",
    xlm="",
  )
  return matrix.Study(**{**fields, **changes})


def config_of(job):
  """The job's config with its overrides, as the command line would make it."""
  return config_file.load(job.arguments[0].removeprefix("--config="), job.arguments[1:])


@pytest.mark.parametrize("preset", matrix.PRESETS)
def test_every_command_is_one_that_main_accepts(preset):
  jobs = matrix.make_jobs(study(preset, seeds=2, tasks_dir="tasks", xlm="hf-xlm"))
  check = {
    "pretrain": options.from_config,
    "gradient_similarity": gradient_similarity.from_config,
    "pruning": pruning.from_config,
  }
  seen, names = set(), set()
  for job in jobs:
    assert job.name not in names and set(job.needs) <= names, "needed before it is made"
    names.add(job.name)
    config = config_of(job)
    check.get(config.task, finetune_options.from_config)(config, 1)
    seen.add((config.task, config.get("system", "")))
  systems = matrix.LAB_SYSTEMS if preset == "lab" else matrix.PAPER_SYSTEMS
  assert {system for task, system in seen if task == "pretrain"} == set(systems)
  assert {task for task, _ in seen} >= {"pretrain", "gradient_similarity", "pruning", "ner", "pos"}


def test_the_lab_has_the_dial_and_mono_is_never_tested_zero_shot():
  jobs = matrix.make_jobs(study())
  similarities = {
    config_of(job).data.lab.similarity for job in jobs if job.kind in matrix.DIAL_SYSTEMS
  }
  assert similarities == {0.0, 0.5, 1.0}
  assert not [job for job in jobs if "zero_shot" in job.name and "mono" in job.name]


def test_the_papers_tables_are_all_there():
  names = [job.name for job in matrix.make_jobs(study("paper", xlm="xlm-folder"))]
  for wanted in (
    "joint_tri-hi-mr-en-base-seed1",
    "mono-fr-base-subsample=100000-seed1",
    "pos-within-en-joint_pair-ru-en-base-subsample=100000-seed1-seed1",
    "qa-zero_shot-te-meta_adpt-te-en-base-seed1-max_length=128-stride=64-seed1",
    "nli-zero_shot-sw-joint_pair-sw-en-base-gradient_similarity.every=1000-seed1-seed1",
    "pruning-joint_pair-ar-en-base-gradient_similarity.every=1000-seed1-seed1",
    "ner-within-ar-joint_pair-ar-en-base-gradient_similarity.every=1000-seed1-baseline=scratch-seed1",
  ):
    assert wanted in names
  assert any(name.startswith("ner-within-ar-xlm-folder-") for name in names)
  assert not [
    name for name in names if name.startswith(("pos-within-sw", "nli-within", "qa-within-fr"))
  ]


@pytest.mark.parametrize("preset", matrix.PRESETS)
def test_gradients_are_measured_from_the_beginning_of_training(preset):
  """The paper's claim is about the first epochs; the checkpoints that are left show the end."""
  jobs = {job.name: job for job in matrix.make_jobs(study(preset))}
  analysed = [jobs[job.needs[0]] for job in jobs.values() if job.kind == "gradient_similarity"]
  assert analysed
  for job in analysed:
    config = config_of(job)
    due = [
      step
      for step in range(config.train.steps)
      if gradients.is_due(step, config.gradient_similarity.every)
    ]
    assert due[:3] == [10, 20, 40] and due[-1] > 0.9 * config.train.steps


def test_equal_flops_buy_fewer_steps_of_a_dearer_system():
  spent = {}
  for job in matrix.make_jobs(study(match="flops", systems=("joint_pair", "ffn", "meta_adpt"))):
    if job.kind in base.SYSTEMS and config_of(job).data.lab.similarity == 0.5:
      run = options.from_config(config_of(job), 1)
      spent[job.kind] = run.schedule.steps * flops.step(run)
  assert max(spent.values()) / min(spent.values()) < 1.02
  equal_steps = {
    options.from_config(config_of(job), 1).schedule.steps
    for job in matrix.make_jobs(study())
    if job.kind in base.SYSTEMS
  }
  assert len(equal_steps) == 1


@pytest.mark.parametrize(
  "changes, match",
  [
    (dict(systems=("joint",)), "--systems names 'joint'"),
    (dict(tasks=("parsing",)), "--tasks names 'parsing'"),
    (dict(languages=("de",)), "--languages names 'de'"),
    (dict(seeds=0), "--seeds is 0"),
    (
      dict(scale="sample"),
      "--scale=sample has no sentences in 'sw'; use --languages=ar,fr,ru,hi,te",
    ),
  ],
)
def test_mistakes_are_one_sentence(changes, match):
  with pytest.raises(UserError, match=match):
    matrix.make_jobs(study("paper", **changes))


def toy_jobs(*specs):
  """Jobs whose commands are Python programs: (name, program, needs...)."""
  return [
    Job(name, "toy", (program,), needs)
    for name, program, *needs in specs
    for needs in [tuple(needs)]
  ]


def writes(name, before=""):
  return (
    f"{before}\nimport pathlib; p = pathlib.Path(runs, '{name}'); p.mkdir(exist_ok=True); "
    "(p / 'result.json').write_text('{}'); (p / 'runs').open('a').write('x')"
  )


@pytest.fixture
def run_jobs(monkeypatch, tmp_path):
  runs = str(tmp_path / "runs")

  def command(job, runs):
    return ["python", "-c", f"runs = {runs!r}\n{job.arguments[0]}"]

  monkeypatch.setattr(execute, "command", command)
  monkeypatch.setattr(execute, "POLL_SECONDS", 0.01)

  def run(jobs, at_once=2):
    said = []
    execution = execute.Execution(jobs, runs, at_once=at_once, gpus=0, say=said.append)
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


def test_a_failure_stops_only_what_needs_it_and_is_listed_with_its_log(run_jobs):
  fails = "print('first line'); raise SystemExit('the disk is full')"
  jobs = toy_jobs(
    ("bad", fails),
    ("after", writes("after"), "bad"),
    ("later", writes("later"), "after"),
    ("good", writes("good")),
  )
  execution, _ = run_jobs(jobs, at_once=1)
  assert execution.finished == {"good"} and set(execution.failures) == {"bad", "after", "later"}
  said = []
  execution.say = said.append
  execution.report_failures()
  text = "\n".join(said)
  assert "3 of 4 jobs failed" in text and "the disk is full" in text
  assert "after: not run: it needs bad, which failed." in text
  fixed = toy_jobs(("bad", writes("bad")), *[(j.name, j.arguments[0], *j.needs) for j in jobs[1:]])
  execution, _ = run_jobs(fixed)
  assert len(execution.finished) == 4 and not execution.failures


def test_a_job_without_a_result_is_not_finished(run_jobs):
  run_jobs(toy_jobs(("a", "pass")))
  execution, said = run_jobs(toy_jobs(("a", "pass")))
  assert "finished already" not in "".join(said)


def test_jobs_get_cores_of_their_own():
  cores = os.sched_getaffinity(0)
  slots = execute.Slots(2, gpus=0)
  assert set.union(*slots._cores) == cores
  if len(cores) > 1:
    assert not slots._cores[0] & slots._cores[1]
  assert execute.Slots(5, gpus=0)._cores[4], "more jobs than cores"


PROGRAM = """
import sys, pathlib
sys.path.insert(0, {root!r})
from launch.study import execute
from launch.study.matrix import Job
execute.command = lambda job, runs: ["python", "-c", job.arguments[0]]
child = '''
import pathlib, signal, sys, time
def stop(*_):
  pathlib.Path({saved!r}).write_text("saved"); sys.exit(75)
signal.signal(signal.SIGTERM, stop)
pathlib.Path({started!r}).write_text("started")
time.sleep(60)
'''
from negint.errors import Interrupted
try:
  execute.Execution([Job("a", "toy", (child,))], {runs!r}, at_once=1, gpus=0, say=print).run()
except Interrupted as error:
  print(error); sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_reaches_the_jobs_and_waits_for_them(number, tmp_path):
  paths = {name: str(tmp_path / name) for name in ("saved", "started", "runs")}
  process = subprocess.Popen(
    [sys.executable, "-c", PROGRAM.format(root=str(ROOT), **paths)],
    stdout=subprocess.PIPE,
    text=True,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
  )
  for _ in range(400):
    if pathlib.Path(paths["started"]).exists():
      break
    time.sleep(0.05)
  process.send_signal(number)
  output, _ = process.communicate(timeout=20)
  assert process.returncode == 75 and "start the same command again" in output
  assert pathlib.Path(paths["saved"]).read_text() == "saved"


def test_slurm_arrays_hold_every_command_once_and_levels_wait(tmp_path):
  jobs = matrix.make_jobs(study(runs=str(tmp_path)))
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


def test_slurm_arrays_have_no_more_tasks_than_slurm_allows(tmp_path):
  """2,300 pretrainings and an analysis of each: three arrays per level, and the second level waits."""
  models = [Job(f"model{n}", "toy", (str(n),)) for n in range(2300)]
  tests = [Job(f"test{n}", "toy", (str(n),), (f"model{n}",)) for n in range(2300)]
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


@pytest.mark.parametrize("scale", ["sample", "base", "paper"])
def test_no_task_asks_for_more_positions_than_pretraining_saw(scale):
  jobs = matrix.make_jobs(study("paper", languages=("ar",), scale=scale, tasks_dir="tasks"))
  lengths = {job.name: config_of(job).data.sequence_length for job in jobs if not job.needs}
  seen = set()
  for job in jobs:
    if job.kind in matrix.TASKS:
      data = config_of(job).data
      assert data.max_length <= lengths[job.needs[0]]
      assert data.stride <= data.max_length or job.kind != "qa"
      assert data.max_question + 3 < data.max_length or job.kind != "qa"
      seen.add(job.kind)
  assert seen == set(matrix.TASKS)


def test_lengths_that_were_asked_for_stay():
  flags = ("--config.data.max_length=200",)
  jobs = matrix.make_jobs(study("paper", languages=("ar",), task_flags=flags))
  asked = {config_of(job).data.max_length for job in jobs if job.kind == "qa"}
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
  wrong = subprocess.run([*command, "--systems=nothing"], cwd=ROOT, capture_output=True, text=True)
  assert wrong.returncode == 2 and len(wrong.stderr.splitlines()) == 1
