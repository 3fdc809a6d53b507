"""Task heads: one linear layer each, and their losses (Section 3.2).

Tagging: a label at every position; QA: start and end scores of every position; NLI: a label from
the first position's vector. Losses are (weighted sum, weight) pairs.
"""

import jax
import jax.numpy as jnp
import optax

from negint.method import model
from negint.tasks.features import IGNORE

INIT_STD = 0.02  # of a fresh head's matrix


def init_head(key, model_dim: int, num_outputs: int):
  """{"kernel": [D, outputs], "bias": [outputs]}."""
  kernel = INIT_STD * jax.random.normal(key, (model_dim, num_outputs))
  return {"kernel": kernel, "bias": jnp.zeros((num_outputs,))}


def logits(options, params, head, task: str, batch, language, dropout_key=None):
  """Scores of a batch, float32.

  Args:
    options: ModelOptions.
    params: theta and phi_i merged.
    task: ner, pos, qa or nli.
    batch: `tokens` [B, T] and `lengths` [B].
    language: index of the language embedding.
    dropout_key: None switches dropout off.

  Returns:
    [B, T, labels] (tagging), [B, T, 2] (QA; positions in the padding get the lowest score) or
    [B, labels] (NLI).
  """
  first = jnp.zeros((batch["tokens"].shape[0], 1), jnp.int32)
  hidden_BxTxD = model.encode(
    options,
    params,
    batch["tokens"],
    language,
    lengths_B=batch["lengths"],
    positions_BxK=first if task == "nli" else None,
    dropout_key=dropout_key,
  ).astype(jnp.float32)
  scores = hidden_BxTxD @ head["kernel"] + head["bias"][None, None]
  if task == "nli":
    return scores[:, 0]
  if task == "qa":
    valid_BxT = jnp.arange(scores.shape[1])[None] < batch["lengths"][:, None]
    return jnp.where(valid_BxT[..., None], scores, jnp.finfo(scores.dtype).min)
  return scores


def loss(task: str, scores, batch):
  """Cross-entropy in nats against the batch's labels: (sum, number of labels).

  `labels` [B, T] with IGNORE (tagging) or [B] (NLI), or `starts` and `ends` [B] (QA); rows that
  fill up a batch have length 0 and count nothing.
  """
  there_B = (batch["lengths"] > 0).astype(jnp.float32)
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  if task == "qa":
    both_B = cross_entropy(scores[..., 0], batch["starts"])
    both_B += cross_entropy(scores[..., 1], batch["ends"])
    return jnp.sum(both_B * there_B) / 2, jnp.sum(there_B)
  if task == "nli":
    return jnp.sum(cross_entropy(scores, batch["labels"]) * there_B), jnp.sum(there_B)
  weights_BxT = (batch["labels"] != IGNORE).astype(jnp.float32) * there_B[:, None]
  loss_BxT = cross_entropy(scores, jnp.maximum(batch["labels"], 0))
  return jnp.sum(loss_BxT * weights_BxT), jnp.sum(weights_BxT)
