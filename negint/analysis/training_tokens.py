"""The token streams that a pretrained model learned from, as the analyses read them."""

import pathlib
from collections.abc import Callable

from negint.data import token_cache
from negint.errors import UserError
from negint.pretrained.load import Pretrained
from negint.run.workdir import read_data_record


def open_streams(
  model: Pretrained, init_from: str, say: Callable[[str], object]
) -> token_cache.TokenCache:
  """Returns the token cache of the model's pretraining run.

  Args:
    model: the model of a pretraining run.
    init_from: the workdir of that run.
    say: receives sentences for the user.

  Raises:
    UserError: the model was imported, or the corpora are no longer those of its run.
  """
  data = model.run.data
  ready = model.tokenizer if token_cache.needs_ready_tokenizer(data) else None
  cache = token_cache.open_tokens(data, model.languages, say, ready)
  began_with = read_data_record(pathlib.Path(init_from)).tokens
  if cache.key != began_with:
    raise UserError(
      f"--config.init_from={init_from} learned from the token cache {began_with}, but the "
      f"corpora in {data.dir} now give {cache.key}: bring the old corpora back, or pretrain again."
    )
  return cache
