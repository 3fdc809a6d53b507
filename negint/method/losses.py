"""The masked-language-model loss as (weighted sum, weight) pairs, divided once by the caller."""

import jax.numpy as jnp
import optax

from negint.method import model
from negint.method.masking import MaskedBatch
from negint.options import ModelOptions


def mlm_loss(options: ModelOptions, params, batch: MaskedBatch, language, dropout_key=None):
  """Cross-entropy in nats at the predicted positions of a batch in one language.

  Returns:
    (sum over predicted tokens, number of predicted tokens), two scalars.
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
