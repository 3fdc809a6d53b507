"""Every compiled step of the project becomes a program for NVIDIA's GPUs, on a machine without one.

`jax.export` lowers a step for CUDA: it refuses an operation, a dtype or a collective that has no form
there. What XLA's GPU compiler then makes of the program is not seen here. Each step is taken as a run
makes it; in the place of pmap, which cannot be exported, stands shard_map with the same axis.

For cuDNN attention JAX asks the installed cuDNN for its version, and there is none. The test answers in
its place; all else (shapes, dtypes, the custom calls and their gradients) is JAX's own.
"""

import inspect
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import DisabledSafetyCheck, export
from jax.sharding import Mesh, PartitionSpec
from toy import all_held_out, batch_of, random_tokens, slow, toy_run

from negint.analysis import gradients, l0, pruning
from negint.finetuning import programs, trial
from negint.method import optim, parallel, steps
from negint.method.phi import init_theta_and_phi, merge_params, select_language
from negint.method.state import init_state
from negint.options import DTYPES, HALF_DTYPES, META_GRADIENTS
from negint.tasks.table import TASKS

CUDNN = (
  "__cudnn$fmhaSoftmax"  # the custom call of the forward pass; "Backward" follows in a gradient
)
SHAPE = dict(model__num_layers=1)
SHORT = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}  # as StableHLO writes them


def lowered(step, *, rows=False):
  """In the place of pmap_step and pmap_rows: a function of a step's arguments -> its program."""

  def lower(state, batch, *replicated):
    axis = parallel.AXIS
    mapped = jax.shard_map(
      lambda state, batch, replicated: step(state, batch, *replicated),
      mesh=Mesh(np.array(jax.devices()[:1]), (axis,)),
      in_specs=(PartitionSpec(), PartitionSpec(axis), PartitionSpec()),
      out_specs=PartitionSpec(axis) if rows else PartitionSpec(),
      check_vma=False,
    )
    unchecked = [DisabledSafetyCheck.custom_call(CUDNN + end) for end in ("", "Backward")]
    program = export(jax.jit(mapped), platforms=["cuda"], disabled_checks=unchecked)
    found = program(state, batch, replicated)
    assert found.platforms == ("cuda",)
    return found.mlir_module()

  return lower


@pytest.fixture(autouse=True)
def programs_for_cuda(monkeypatch):
  monkeypatch.setattr(parallel, "pmap_step", lambda step, donate_state: lowered(step))
  monkeypatch.setattr(parallel, "pmap_rows", lambda function: lowered(function, rows=True))


@pytest.fixture
def a_cudnn(monkeypatch):
  """Says that cuDNN 9.0 is there."""
  from jax._src.cudnn import fused_attention_stablehlo

  monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 90000)


def products(program):
  """The lines of a program's matrix products; none of vectors."""
  lines = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
  return [line for line in lines if re.search(r": \(tensor<\d+x\d", line)]


def is_precise(product):
  """Whether GPUs compute a product of float32 in float32, and not in TensorFloat-32."""
  return "precision = [HIGHEST, HIGHEST]" in product


def operands(program, precise=False):
  """The dtypes of the operands of a program's products, of those that are precise or of the others."""
  lines = (line for line in products(program) if is_precise(line) == precise)
  types = (line.rpartition(" : ")[2].partition(" -> ")[0] for line in lines)
  return {name for each in types for name in re.findall(r"x([a-z]+\d+)>", each)}


def precise_share(program):
  """The share of a program's matrix products that are precise."""
  return np.mean([is_precise(line) for line in products(program)])


def train_step(system, **fields):
  run = toy_run(system, **{**SHAPE, **fields})
  batch = batch_of(4, 24, 4 if run.held_out_languages else None, surgery=run.surgery.enabled)
  if run.held_out_languages == 1:
    batch["held_out"] = batch["held_out"][:, :1]
  if run.meta.own_slots:
    batch["inner"] = random_tokens(4, 4, 24)
  state = jax.eval_shape(
    lambda: init_state(run.model, run.optimiser, 0, meta_slots=run.meta.own_slots)
  )
  make_step = inspect.unwrap(steps.make_train_step)
  return make_step(run)(state, batch, np.float32(0.1), np.int32(0), all_held_out(batch))


SYSTEMS = [
  ("joint_pair", {}),
  slow("adpt", dict(model__remat="layer", model__num_layers=2, train__accumulate=2)),
  slow("adpt", dict(train__phi_split="meta")),
  slow("adpt", dict(train__freeze_theta=True)),
  slow("meta_adpt", dict(train__freeze_theta=True)),
  slow("meta_adpt", dict(meta__variant="release")),
  slow("meta_adpt", dict(meta__inner_optimiser="adam")),
  slow("pcgrad", {}),
  slow("gradvac", {}),
  *(slow("meta_adpt", dict(meta__gradient=route)) for route in META_GRADIENTS),
]


@pytest.mark.parametrize("dtype", [*map(slow, ["float32", "bfloat16"]), "float16"])
@pytest.mark.parametrize(("system", "fields"), SYSTEMS)
def test_every_training_step(system, fields, dtype):
  program = train_step(system, **fields, model__dtype=dtype)
  assert operands(program) == {SHORT[dtype]}, "of all derivatives, too"
  assert "stablehlo.all_reduce" in program


@pytest.mark.parametrize("dtype", [slow("float32"), "bfloat16"])
def test_finite_differences_are_of_exact_products(dtype):
  """The inner gradient and both others; the held-out gradients and theta's are as they were asked."""
  route = dict(meta__gradient="finite_difference", model__dtype=dtype)
  assert 0.4 < precise_share(train_step("meta_adpt", **route)) < 0.8
  route["meta__gradient"] = "grad_of_grad"  # negative control
  assert precise_share(train_step("meta_adpt", **route)) == 0


def test_gradients_whose_angles_are_measured_are_of_exact_products():
  run, params = toy("bfloat16")
  batch = {"tokens": random_tokens(1, 4, 24), "rows": np.arange(4, dtype=np.int32)}
  arguments = batch, np.int32(0), jax.random.key(0), np.float32(1)
  measure = inspect.unwrap(gradients.make_gradient_step)(run)
  assert precise_share(measure((params, params[0]), *arguments)) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", slow("float16")])
@pytest.mark.parametrize(
  ("system", "fields"),
  [
    ("joint_pair", {}),
    # phi of the first layer needs the derivative of the second layer's attention.
    slow("adpt", dict(train__freeze_theta=True, model__num_layers=2)),
    slow("gradvac", {}),
    slow("meta_adpt", dict(meta__gradient="first_order")),
  ],
)
def test_training_steps_with_cudnn_attention(system, fields, dtype, a_cudnn):
  program = train_step(system, **fields, model__dtype=dtype, model__attention="cudnn")
  assert f"@{CUDNN}(" in program and f"@{CUDNN}Backward(" in program
  assert f"@{CUDNN}(" not in train_step(system, **fields, model__dtype=dtype)


def toy(dtype, **fields):
  """(options, theta and phi as shapes)."""
  run = toy_run("adpt", **SHAPE, model__dtype=dtype, **fields)
  return run, jax.eval_shape(lambda: init_theta_and_phi(run.model, jax.random.key(0)))


PRECISIONS = [(dtype, "xla") for dtype in DTYPES] + [(dtype, "cudnn") for dtype in HALF_DTYPES]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "attention"), PRECISIONS)
def test_evaluation_and_both_analyses(dtype, attention, a_cudnn):
  run, params = toy(dtype, model__attention=attention)
  rows = {"tokens": random_tokens(1, 4, 24), "lengths": np.full(4, 24, np.int32)}
  rows["rows"] = np.arange(4, dtype=np.int32)
  unigram = np.zeros(run.model.vocab_size, np.float32)
  assert operands(steps.make_eval_step(run)(params, rows, np.int32(0), unigram)) == {SHORT[dtype]}

  key, weight = jax.random.key(0), np.float32(1)
  measure = inspect.unwrap(gradients.make_gradient_step)(run)
  program = measure((params, params[0]), rows, np.int32(0), key, weight)
  assert precise_share(program) == 1 and operands(program, precise=True) == {"f32"}

  config = pruning.PruningRun("", 1, 1, "unit", 10, 4, 0.1, 0.1, 0.5, 0.1, 10)
  log_alpha = l0.init_log_alpha(run.model, config.granularity, key)
  slots = optim.adam(config.optimiser).init(log_alpha)
  state = pruning.MaskState(jnp.int32(0), key, log_alpha, slots, jnp.float32(0.1))
  make_step = inspect.unwrap(pruning.make_mask_step)
  step = make_step(pruning.shape_of(run.model), config, run.mask_rate)
  frozen = jax.eval_shape(lambda p: merge_params(p[0], select_language(p[1], 0)), params)
  program = step(state, {"tokens": rows["tokens"]}, frozen, np.int32(0), np.float32(0.1))
  assert operands(program) == {"f32" if dtype == "float16" else SHORT[dtype]}


@pytest.mark.parametrize(
  ("dtype", "attention"),
  [("float16", "xla"), *(slow(*each) for each in PRECISIONS if each != ("float16", "xla"))],
)
@pytest.mark.parametrize("name", ["ner", *map(slow, sorted(set(TASKS) - {"ner"}))])
def test_fine_tuning_and_prediction_of_every_task(name, dtype, attention, a_cudnn):
  run, (theta, phi) = toy(dtype, model__attention=attention)
  task = TASKS[name]
  tuning = types.SimpleNamespace(optimiser=run.optimiser, freeze_phi=False)

  def first_state(theta, phi):
    model = types.SimpleNamespace(theta=theta, model=run.model)
    inputs = types.SimpleNamespace(model=model, labels=("a", "b"))
    shared = types.SimpleNamespace(run=tuning, inputs=inputs, phi_i=select_language(phi, 0))
    return trial.init_state(shared, 1)

  state = jax.eval_shape(first_state, theta, phi)
  assert hasattr(state, "loss_scale") == (dtype == "float16")
  batch = {"tokens": random_tokens(1, 4, 24), "lengths": np.full(4, 24, np.int32)}
  targets = (4, 24) if name in ("ner", "pos") else (4,)
  batch |= {target: np.zeros(targets, np.int32) for target in task.targets}
  rates = dict.fromkeys(("theta", "phi", "head"), np.float32(0.1))
  step = inspect.unwrap(programs.make_tune_step)(run.model, run.optimiser, task)
  program = step(state, batch, np.int32(0), state.tuned["phi"], rates)
  assert SHORT[dtype] in operands(program)

  predict = programs.make_scores(run.model, task)
  del batch[task.targets[0]]
  tuned = (state.tuned["theta"], state.tuned["phi"], state.tuned["head"])
  assert SHORT[dtype] in operands(predict(tuned, batch, np.int32(0)))
