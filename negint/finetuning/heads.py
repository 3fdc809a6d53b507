"""The head of a task: one linear layer on the encoder (Section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp

from negint.method import model
from negint.options import ModelOptions
from negint.tasks.task import Batch

INIT_STD = 0.02  # standard deviation of a new head's matrix

Head = dict[str, jax.Array]


def init_head(key: jax.Array, model_dim: int, num_outputs: int) -> Head:
  """Returns random weights: {"kernel": [D, outputs], "bias": [outputs]}."""
  kernel = INIT_STD * jax.random.normal(key, (model_dim, num_outputs))
  return {"kernel": kernel, "bias": jnp.zeros((num_outputs,))}


def logits(
  options: ModelOptions,
  params: Any,  # a tree of arrays
  head: Head,
  batch: Batch,
  language: jax.Array | int,
  *,
  first_position: bool,
  dropout_key: jax.Array | None = None,
) -> jax.Array:
  """Returns the scores of a batch in float32.

  Args:
    options: shape of the encoder.
    params: its weights, theta and phi_i merged.
    head: weights of the head.
    batch: `tokens` [B, T], `lengths` [B] and, where there are token types, `types` [B, T].
    language: index of the language embedding.
    first_position: the head reads the first position only.
    dropout_key: key of dropout; None switches dropout off.

  Returns:
    [B, T, outputs], or [B, outputs] if first_position.
  """
  first = jnp.zeros((batch["tokens"].shape[0], 1), jnp.int32)
  hidden_BxKxD = model.encode(
    options,
    params,
    batch["tokens"],
    language,
    lengths_B=batch["lengths"],
    positions_BxK=first if first_position else None,
    types_BxT=batch.get("types"),
    dropout_key=dropout_key,
  ).astype(jnp.float32)
  scores = hidden_BxKxD @ head["kernel"] + head["bias"][None, None]
  return scores[:, 0] if first_position else scores
