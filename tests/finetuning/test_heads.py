"""Linear heads and the tasks' losses: what counts in a loss and what gets a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import random_tokens, toy_model

from negint.finetuning import heads
from negint.method import model
from negint.special_tokens import XLM
from negint.tasks.examples import Question
from negint.tasks.qa import QA
from negint.tasks.table import TASKS
from negint.tasks.tagging import IGNORE
from negint.tasks.task import Limits

MODEL = toy_model(num_layers=1)


def batch_of(task):
  """Four rows, the last of which only fills up the batch."""
  rng = np.random.default_rng(0)
  batch = {
    "tokens": random_tokens(0, 4, 12, vocab_size=MODEL.vocab_size),
    "lengths": np.array([12, 7, 9, 0], np.int32),
  }
  if task == "qa":
    batch["starts"], batch["ends"] = np.array([3, 2, 0, 0]), np.array([5, 2, 0, 0])
  elif task == "nli":
    batch["labels"] = np.array([0, 2, 1, 0])
  else:
    labels = rng.integers(0, 5, (4, 12))
    labels[:, ::2] = IGNORE
    labels[np.arange(12)[None] >= batch["lengths"][:, None]] = IGNORE
    batch["labels"] = labels
  return batch


@pytest.fixture(scope="module")
def params():
  return model.init_params(MODEL, jax.random.key(0))


def outputs_of(task):
  return {"ner": 5, "qa": 2, "nli": 3}[task]


def logits(params, head, task, batch):
  first = TASKS[task].first_position
  return heads.logits(MODEL, params, head, batch, 0, first_position=first)


def mean_loss(params, head, task, batch):
  total, count = TASKS[task].loss(logits(params, head, task, batch), batch)
  return total / count


@pytest.mark.parametrize("task", ["ner", "qa", "nli"])
def test_a_zero_head_is_undecided_and_filling_rows_count_nothing(task, params):
  batch = batch_of(task)
  head = jax.tree.map(jnp.zeros_like, heads.init_head(jax.random.key(1), 16, outputs_of(task)))
  value = jax.jit(mean_loss, static_argnums=2)(params, head, task, batch)
  choices = {"ner": [5.0], "nli": [3.0], "qa": [12.0, 7.0, 9.0]}[task]
  assert float(value) == pytest.approx(np.mean(np.log(choices)), rel=1e-6)
  other = {name: values.copy() for name, values in batch.items()}
  other["tokens"][3] = 20
  for name in ("starts", "labels"):
    if name in other:
      other[name][3] = 1
  head = heads.init_head(jax.random.key(1), 16, outputs_of(task))
  values = [jax.jit(mean_loss, static_argnums=2)(params, head, task, b) for b in (batch, other)]
  assert values[0] == values[1]
  other["tokens"][0] = 20  # negative control: a row that counts
  assert jax.jit(mean_loss, static_argnums=2)(params, head, task, other) != values[0]


@pytest.mark.parametrize("task", ["ner", "qa", "nli"])
def test_head_gradient_is_the_closed_form(task, params):
  """D loss / d bias = mean of (softmax - one-hot) over what has a label."""
  batch = batch_of(task)
  head = heads.init_head(jax.random.key(1), 16, outputs_of(task))
  gradient = jax.jit(jax.grad(mean_loss, argnums=1), static_argnums=2)(params, head, task, batch)
  scores = np.asarray(logits(params, head, task, batch), np.float64)

  def error(logits, label):
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    shares[label] -= 1
    return shares

  if task == "ner":
    labels = batch["labels"]
    expected = np.mean(
      [error(scores[i], labels[i]) for i in zip(*np.nonzero(labels >= 0), strict=True)], axis=0
    )
  elif task == "nli":
    expected = np.mean([error(scores[i], batch["labels"][i]) for i in range(3)], axis=0)
  else:  # a shift of all start scores changes nothing
    expected = np.zeros(2)
  np.testing.assert_allclose(gradient["bias"], expected, atol=2e-6)
  assert np.abs(np.asarray(gradient["kernel"])).max() > 1e-4


def test_question_answering_never_points_into_the_padding(params):
  """Scores of the padding change neither the loss nor the answers."""
  batch = batch_of("qa")
  head = heads.init_head(jax.random.key(1), 16, 2)
  scores = np.array(logits(params, head, "qa", batch))
  padding = np.arange(12)[None] >= batch["lengths"][:, None]
  higher = np.where(padding[..., None], 1e4, scores)
  assert QA.loss(higher, batch)[0] == QA.loss(scores, batch)[0]
  higher[0, 0] += 1  # negative control: a position that counts
  assert QA.loss(higher, batch)[0] != QA.loss(scores, batch)[0]

  questions = [Question("q", "a b", "c", (("b", 2),))]
  arrays, _ = QA.features(questions, Letters(), QA.labels, Limits(10, max_question=3))
  scores = np.zeros((1, 10, 2))
  scores[0, arrays["lengths"][0] :] = 1e4
  assert QA.decode(scores, arrays, questions, QA.labels, Limits(10))["q"] in ("a", "b", "a b")


class Letters:
  """A tokenizer whose tokens are the letters."""

  special = XLM

  def encode(self, text):
    return self.encode_with_offsets(text)[0]

  def encode_word(self, word):
    return self.encode(word)

  def encode_with_offsets(self, text):
    letters = [(ord(char), (i, i + 1)) for i, char in enumerate(text) if char != " "]
    return [token for token, _ in letters], [offset for _, offset in letters]


def test_inference_reads_the_first_position_only(params):
  """Computing one row of the last layer gives what all rows would have given."""
  batch = batch_of("nli")
  head = heads.init_head(jax.random.key(1), 16, 3)
  scores = logits(params, head, "nli", batch)
  hidden = model.encode(MODEL, params, batch["tokens"], 0, lengths_B=batch["lengths"])
  expected = hidden[:, 0] @ head["kernel"] + head["bias"][None]
  np.testing.assert_allclose(scores[:3], expected[:3], atol=1e-5)
