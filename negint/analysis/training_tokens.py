"""The token streams that a pretrained model learned from, as the analyses read them."""

import pathlib

from negint.data import token_cache
from negint.data.open_corpora import open_corpora
from negint.errors import UserError
from negint.pretrained.load import Pretrained
from negint.run.workdir import data_key


def open_streams(model: Pretrained, init_from: str, say) -> token_cache.TokenCache:
  """The token cache of the model's pretraining run.

  Raises:
    UserError: the model was imported, or the corpora are no longer those of its run.
  """
  if model.run is None:
    raise UserError(
      f"--config.init_from={init_from} is an imported checkpoint, whose pretraining text is not "
      "known; the analyses read the text of a pretraining run: name the workdir of one."
    )
  data = model.run.data
  cache = token_cache.open_cache(open_corpora(data, model.languages, say), data)
  began_with = data_key(pathlib.Path(init_from))
  if cache.key != began_with:
    raise UserError(
      f"--config.init_from={init_from} learned from the token cache {began_with}, but the corpora in "
      f"{data.dir} now give {cache.key}: bring the old corpora back, or pretrain anew."
    )
  return cache
