"""Agreement with values that other people's code computed.

Reads every golden file in tests/golden/ and in the folder that NEGINT_GOLDEN names, whatever their
languages and sizes.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_folders import FOLDERS, checkpoints
from toy import slow, step_on, toy_run

from negint.method import losses, meta, model, optim, steps
from negint.method.masking import MaskedBatch
from negint.method.phi import merge_params, select_language
from negint.method.state import ReleaseState, TrainState
from negint.pretrained import xlm_weights
from negint.tasks import scoring
from negint.tasks.examples import Question, TaggedSentence
from negint.tasks.ner import NER
from negint.tasks.pos import POS
from negint.tasks.qa import QA

META_STEPS = sorted(
  path
  for folder in FOLDERS
  for path in folder.rglob("*.npz")
  if "inner_learning_rate" in np.load(path).files
)
XLM_FOLDERS = checkpoints("xlm")

METRICS = sorted(path for folder in FOLDERS for path in folder.rglob("metrics.json"))

pytestmark = pytest.mark.usefixtures("float64")


def group(data, prefix):
  return {key.removeprefix(prefix): data[key] for key in data.files if key.startswith(prefix)}


def difference(ours, theirs):
  """Largest difference relative to the largest entry: near-zero entries carry only rounding."""
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  assert ours.shape == theirs.shape
  return np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), 1e-12)


class MetaStep:
  """One golden file: our parameters, batches, losses and meta problem."""

  def __init__(self, path):
    self.data = data = np.load(path)
    self.languages = [str(code) for code in data["languages"]]
    self.options, theta, phi = xlm_weights.from_xlm(
      group(data, "param/"),
      num_heads=int(data["n_heads"]),
      gelu=bool(data["gelu"]),
      languages=self.languages,
    )
    self.theta, self.phi = jax.tree.map(jnp.asarray, (theta, phi))
    self.language = int(data["train_language"])
    self.train = self.batch("train/")
    held = [self.batch(f"held/{code}/") for code in self.languages]
    self.held_out = jax.tree.map(lambda *leaves: jnp.stack(leaves), *held)

  def batch(self, prefix):
    fields = group(self.data, prefix)
    positions = jnp.asarray(fields["target_positions"])
    return MaskedBatch(
      jnp.asarray(fields["tokens"]),
      positions,
      jnp.asarray(fields["targets"]),
      jnp.ones(positions.shape),
      jnp.asarray(fields["lengths"]),
    )

  def loss(self, theta, phi_i, batch, language):
    total, count = losses.mlm_loss(self.options, merge_params(theta, phi_i), batch, language)
    return total / count

  def problem(self):
    return meta.MetaProblem(
      train_loss=lambda theta, phi_i, part: self.loss(theta, phi_i, self.train, self.language),
      held_out_loss=lambda theta, phi_k, k, part: self.loss(
        theta, phi_k, jax.tree.map(lambda leaf: leaf[k], self.held_out), k
      ),
      language=jnp.asarray(self.language),
      num_languages=len(self.languages),
      held_out_languages=jnp.arange(len(self.languages)),
      inner_rate=float(self.data["inner_learning_rate"]),
    )

  def gradient(self, route, radius):
    """The meta-gradient by one route, compiled as one program."""
    problem = self.problem()
    compute = jax.jit(
      lambda theta, phi: meta.meta_gradient(route, problem, theta, phi, radius=radius)
    )
    return compute(self.theta, self.phi)

  def phi_names(self, gradient):
    """The gradient of phi_i under XLM's names."""
    phi = jax.tree.map(lambda leaf: leaf[None], gradient)
    names = xlm_weights.to_xlm(self.options, self.theta, phi, [self.languages[self.language]])
    return {name: value for name, value in names.items() if name.startswith("adapter")}


@pytest.fixture(params=META_STEPS, ids=lambda path: path.name)
def golden(request):
  return MetaStep(request.param)


def test_encoder_output(golden):
  params = merge_params(golden.theta, select_language(golden.phi, golden.language))

  @jax.jit
  def encode(params, batch):
    return model.encode(
      golden.options, params, batch.tokens, golden.language, lengths_B=batch.lengths
    )

  hidden = encode(params, golden.train)
  expected = golden.data["expect/encoder_output"]
  inside = np.arange(expected.shape[1])[None] < np.asarray(golden.train.lengths)[:, None]
  assert difference(hidden[inside], expected[inside]) < 1e-6


def test_training_loss_and_theta_gradient(golden):
  phi_i = select_language(golden.phi, golden.language)
  value, gradient = jax.jit(jax.value_and_grad(golden.loss))(
    golden.theta, phi_i, golden.train, golden.language
  )
  assert difference(value, golden.data["expect/train_loss"]) < 1e-6
  ours = xlm_weights.to_xlm(golden.options.replace(specific=()), gradient, {})
  expected = group(golden.data, "expect/grad_theta/")
  assert ours.keys() == expected.keys()
  scale = max(np.max(np.abs(value)) for value in expected.values())
  for name, value in expected.items():
    if name.endswith("k_lin.bias"):  # zero in exact arithmetic: softmax ignores a common shift
      assert np.max(np.abs(ours[name])) < 1e-6 * scale
    else:
      assert difference(ours[name], value) < 1e-6, name


def test_held_out_losses_after_the_inner_step(golden):
  problem = golden.problem()

  @jax.jit
  def held_out_losses(theta, phi):
    inner_gradient = jax.grad(problem.train_loss)(theta, select_language(phi, golden.language), 0)
    ahead, _ = meta.look_ahead(problem, theta, inner_gradient)
    return jnp.stack(
      [
        problem.held_out_loss(ahead, select_language(phi, j), j, 0)
        for j in range(problem.num_languages)
      ]
    )

  ours = held_out_losses(golden.theta, golden.phi)
  assert difference(ours, golden.data["expect/held_losses_after_inner_step"]) < 1e-6


@pytest.mark.parametrize(
  ("route", "tolerance"),
  [("grad_of_grad", 1e-6), slow("forward_over_reverse", 1e-6), slow("finite_difference", 1e-4)],
)
def test_meta_gradient(golden, route, tolerance):
  if route == "finite_difference" and golden.options.activation == "relu":
    pytest.skip("finite differences see ReLU's kinks")
  radius = 1e-4  # float64 leaves room for a radius whose truncation error is below the tolerance
  gradient = golden.gradient(route, radius)
  ours = golden.phi_names(gradient.total())
  expected = group(golden.data, "expect/meta_grad_phi/")
  assert ours.keys() == expected.keys()
  for name, value in expected.items():
    assert difference(ours[name], value) < tolerance, name


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "release"])
def test_the_training_step_of_both_variants(golden, variant, monkeypatch):
  """The whole step, from its batches to Adam's first moments, which are 0.1 of each gradient.

  The learning rate is too small to move a parameter, so that the golden values hold in each phase.
  """
  known = [
    golden.train,
    *(select_language(golden.held_out, j) for j in range(len(golden.languages))),
  ]

  def as_the_file_says(run, key, tokens):
    fitting = [batch for batch in known if batch.tokens.shape == tokens.shape]
    found = jnp.stack([jnp.all(batch.tokens == tokens) for batch in fitting]).argmax()
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[found], *fitting)

  monkeypatch.setattr(steps, "_mask", as_the_file_says)
  run = toy_run(
    "meta_adpt",
    meta__variant=variant,
    meta__inner_learning_rate=float(golden.data["inner_learning_rate"]),
    train__learning_rate=1e-30,
    train__schedule="constant",
    train__warmup_steps=0,
    train__clip_norm=1e9,
  )
  run = dataclasses.replace(run, model=golden.options)
  theta_slots, phi_slots = optim.init_slots(run.optimiser, golden.theta, golden.phi)
  fields = dict(
    step=jnp.zeros((), jnp.int32),
    key=jax.random.key_data(jax.random.key(0)),
    theta=golden.theta,
    phi=golden.phi,
    theta_slots=theta_slots,
    phi_slots=phi_slots,
    rho_LL=jnp.zeros((len(golden.languages),) * 2),
  )
  state = TrainState(**fields)
  tokens = np.asarray(golden.train.tokens)
  held_out = np.swapaxes(np.asarray(golden.held_out.tokens), 0, 1)
  batch = {"tokens": tokens, "held_out": held_out}
  if variant == "release":
    batch["inner"] = tokens
    state = ReleaseState(**fields, meta_slots=phi_slots)
  state, metrics = step_on(1, run)(state, batch, golden.language)
  assert difference(metrics["loss"], golden.data["expect/train_loss"]) < 1e-6

  def gradient_of(moments):
    return jax.tree.map(lambda mu: mu / (1 - run.optimiser.b1), moments)

  theirs = group(golden.data, "expect/grad_theta/")
  ours = gradient_of(state.theta_slots.mu)
  ours = xlm_weights.to_xlm(golden.options.replace(specific=()), ours, {})
  largest = max(np.max(np.abs(value)) for value in theirs.values())
  for name, value in theirs.items():
    assert np.max(np.abs(ours[name] - value)) < 1e-6 * largest, name

  slots = state.meta_slots if variant == "release" else state.phi_slots
  ours = golden.phi_names(gradient_of(select_language(slots.mu, golden.language)))
  theirs = group(golden.data, "expect/meta_grad_phi/")
  for name, value in theirs.items():
    assert difference(ours[name], value) < 1e-6, name
  if variant == "release":  # negative control: the ordinary slots have another gradient
    mu = select_language(state.phi_slots.mu, golden.language)
    ours = golden.phi_names(gradient_of(mu))
    assert max(difference(ours[name], value) for name, value in theirs.items()) > 1e-2


def test_first_order_is_another_number(golden):
  """Negative control: without the second-order term the result is the other known value."""
  gradient = golden.gradient("first_order", 0.01)
  ours = golden.phi_names(gradient.total())
  exact = group(golden.data, "expect/meta_grad_phi/")
  first = group(golden.data, "expect/first_order_grad_phi/")
  for name, value in first.items():
    assert difference(ours[name], value) < 1e-6, name
  gap = max(difference(first[name], exact[name]) for name in exact)
  assert max(difference(ours[name], exact[name]) for name in exact) > gap / 2


@pytest.mark.parametrize("folder", XLM_FOLDERS, ids=lambda path: path.name)
def test_hugging_face_checkpoint(folder):
  options, theta, phi, _ = xlm_weights.read_hugging_face(folder)
  expected = np.load(folder / "expected.npz")
  params = jax.tree.map(jnp.asarray, merge_params(theta, phi))
  right = int(expected["language"])
  lengths = jnp.asarray(expected["lengths"])

  @jax.jit
  def run(params, language):
    hidden = model.encode(options, params, expected["tokens"], language, lengths_B=lengths)
    return hidden, model.vocabulary_logits(options, params, hidden)

  hidden, logits = run(params, right)
  inside = np.arange(hidden.shape[1])[None] < expected["lengths"][:, None]
  assert np.max(np.abs(hidden[inside] - expected["hidden"][inside])) < 1e-4
  assert np.max(np.abs(logits[inside] - expected["logits"][inside])) < 1e-4
  if options.language_embedding:  # negative control: another language's embedding
    wrong, _ = run(params, (right + 1) % options.num_languages)
    assert np.max(np.abs(wrong[inside] - expected["hidden"][inside])) > 1e-3


def metric_cases(path, task):
  cases = json.loads(path.read_text(encoding="utf-8"))[task]
  assert cases
  return cases


def assert_scores(ours, theirs):
  for name, value in theirs.items():
    assert abs(ours[name] - value) < 1e-9, (name, ours[name], value)


def per_cent(fractions):
  return {name: 100 * value for name, value in fractions.items()}


def tagged(case, task):
  """The task's numbers of each sentence of a case."""
  return task.per_example([TaggedSentence((), tags) for tags in case["gold"]], case["pred"])


@pytest.mark.parametrize("path", METRICS)
def test_ner_scores(path):
  for case in metric_cases(path, "ner"):
    rows = tagged(case, NER)
    assert_scores(NER.scores(rows), per_cent(case["lenient"]))
    strict = scoring.micro_average([row[NER.columns.index("strict_correct") :] for row in rows])
    assert_scores(strict, per_cent(case["strict_iob2"]))
    assert NER.scores(rows)["strict_f1"] == strict["f1"]


@pytest.mark.parametrize("path", METRICS)
def test_pos_scores(path):
  for case in metric_cases(path, "pos"):
    theirs = per_cent({"accuracy": case["accuracy"], "f1": case["chunk_f1"]})
    assert_scores(POS.scores(tagged(case, POS)), theirs)


@pytest.mark.parametrize("path", METRICS)
def test_qa_scores(path):
  for case in metric_cases(path, "qa"):
    questions = [
      Question(name, "", "", tuple((text, 0) for text in answers))
      for name, answers in case["references"].items()
    ]
    scores = QA.scores(QA.per_example(questions, case["predictions"]))
    assert_scores(scores, {name: case[name] for name in ("exact_match", "f1")})


def test_the_golden_cases_tell_lenient_from_strict():
  """Negative control: one definition for both would fail."""
  cases = metric_cases(FOLDERS[0] / "metrics.json", "ner")
  assert any(case["lenient"]["f1"] != case["strict_iob2"]["f1"] for case in cases)


@pytest.mark.parametrize("kind", [META_STEPS, XLM_FOLDERS, METRICS], ids=["meta", "xlm", "metrics"])
def test_there_are_golden_files_of_every_kind(kind):
  assert kind
