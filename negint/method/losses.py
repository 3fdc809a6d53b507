"""The masked-language-model loss as a pair (weighted sum, weight), which the caller divides once."""

import jax
import jax.numpy as jnp
import optax

from negint.method import model
from negint.method.masking import MaskedBatch
from negint.method.tree import Index, Tree
from negint.options import ModelOptions


def mlm_loss(
  options: ModelOptions,
  params: Tree,
  batch: MaskedBatch,
  language: Index,
  dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy at the predicted positions of a batch in one language.

  Args:
    options: shape of the encoder.
    params: theta and phi_i merged (`phi.merge_params`).
    batch: rows of one language.
    language: index of that language, int scalar.
    dropout_key: None switches dropout off.

  Returns:
    (sum in nats over the predicted tokens, number of predicted tokens), two scalars.
  """
  hidden_BxKxD = model.encode(
    options,
    params,
    batch.tokens,
    language,
    lengths_B=batch.lengths,
    positions_BxK=batch.positions,
    dropout_key=dropout_key,
  )
  logits_BxKxV = model.vocabulary_logits(options, params, hidden_BxKxD)
  loss_BxK = optax.softmax_cross_entropy_with_integer_labels(logits_BxKxV, batch.targets)
  weights_BxK = batch.weights.astype(loss_BxK.dtype)
  return jnp.sum(loss_BxK * weights_BxK), jnp.sum(weights_BxK)
