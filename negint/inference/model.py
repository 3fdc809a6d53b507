"""A finished run, or a Hugging Face checkpoint, as an object that does things with text."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from negint.errors import UserError
from negint.finetuning import programs, testing
from negint.finetuning.options import FinetuneOptions
from negint.finetuning.weights import Tuned
from negint.inference import embedding, masked
from negint.inference import rows as row_tools
from negint.inference.masked import Candidate, Perplexities
from negint.method import parallel
from negint.method.model import count_parameters
from negint.method.phi import merge_params, select_language
from negint.options import HALF_DTYPES
from negint.pretrained.load import Pretrained
from negint.tasks import features
from negint.tasks.task import Task

# Any: trees of arrays; JSON; the examples and outputs of any task.


class Finetuned(NamedTuple):
  """What a fine-tuning run adds to its pretrained model."""

  run: FinetuneOptions  # its options
  labels: tuple[str, ...]  # one per output of the head
  seed: int  # of the weights
  weights: Tuned  # theta, phi of the source language, head


class Model:
  """A pretrained or a fine-tuned model. `negint.load` makes it.

  Every method takes texts, in a list or from a generator, and the code of their language, whose
  language-specific modules it uses. A language that the model does not have is refused, and so is an
  empty text.

  Attributes:
    path: the folder that it was read from.
    config: the contents of the folder's config.json.
    languages: codes of its languages; () accepts any.
    system: the system of the pretraining, such as "meta_adpt".
    tokenizer: text to token ids and back.
    theta: nested dict of arrays, the parameters that all languages share.
    phi: nested dict of arrays [languages, ...], the parameters of each language; {} without any.
    task: name of the fine-tuned task; None for a pretrained model.
    labels: of the task, in the order of the head's outputs; ().
    max_tokens: tokens of a row, separators included, which pretraining saw.
    dtype: of matrix products, such as "bfloat16"; the weights are float32.
  """

  def __init__(
    self,
    path: str,
    config: dict[str, Any],
    pretrained: Pretrained,
    finetuned: Finetuned | None = None,
    *,
    dtype: str | None = None,
  ):
    options = pretrained.model
    self._options = options.replace(dtype=dtype or options.dtype)  # to compute with
    if self._options.dtype not in HALF_DTYPES:  # which cuDNN's attention needs
      self._options = self._options.replace(attention="xla")
    self.dtype = self._options.dtype
    self.path = path
    self.config = config
    self.languages = pretrained.languages
    self.system = pretrained.system
    self.tokenizer = pretrained.tokenizer
    self.max_tokens = pretrained.sequence_length
    self.theta, self.phi = pretrained.theta, pretrained.phi
    self.task: str | None = None
    self.labels: tuple[str, ...] = ()
    if finetuned:
      self.theta = finetuned.weights["theta"]
      source = pretrained.language_index(finetuned.run.source_language)
      self.phi = jax.device_get(testing.tuned_phi(pretrained, finetuned.weights, source))
      self.task, self.labels = finetuned.run.task.name, finetuned.labels
    self._pretrained, self._finetuned = pretrained, finetuned
    self._prepared: dict[str, tuple[Any, int]] = {}  # of the last language: parameters, index
    self._predictors: dict[int, programs.Predictor] = {}  # by rows of a batch
    self._tokenizers: dict[str, Any] = {}  # by language; each remembers the words that it has seen

  @property
  def pretrained(self) -> Pretrained:
    """The pretrained model that it is, or that it was fine-tuned from."""
    return self._pretrained

  @property
  def finetuned(self) -> Finetuned | None:
    """What the fine-tuning added; None for a pretrained model."""
    return self._finetuned

  def __repr__(self) -> str:
    """Returns what the model is."""
    of = ", ".join(self.languages) or "any language"
    theta, phi = count_parameters(self.theta), count_parameters(self.phi)
    sizes = f"theta {theta:,}"
    if phi:
      sizes += f", phi {phi // len(self.languages):,} for each language"
    steps = self._pretrained.steps
    base = f"{self.system} of {of}" + (f", {steps:,} steps" if steps is not None else "")
    if self._finetuned:
      run = self._finetuned.run
      base = (
        f"{self.task} ({', '.join(self.labels)}), fine-tuned on {run.source_language}, seed "
        f"{self._finetuned.seed}, from {base}"
      )
    return f"<negint model: {base}; {sizes}; {self.dtype}; in {self.path}>"

  def tokens(self, text: str, language: str) -> list[str]:
    """Returns the pieces into which the tokenizer cuts a text, without separators; [] if it is empty.

    Raises:
      UserError: the model does not have the language.
    """
    tokenizer = self._tokenizer(language)
    return [tokenizer.piece(token) for token in row_tools.encode(text, tokenizer)]

  def fill_mask(
    self,
    texts: Iterable[str],
    language: str,
    top: int = 5,
    *,
    batch_size: int = row_tools.BATCH_SIZE,
  ) -> list[list[list[Candidate]]]:
    """Returns for each text, for each [MASK] in it, the most probable tokens, best first.

    Each [MASK] is one token. Several in one text are all hidden, and each has its own candidates.
    Probabilities are among all tokens of the vocabulary, special tokens too. Of a text that is longer
    than `max_tokens` each mask sees the window around it.

    Args:
      texts: each with [MASK] at least once.
      language: code of their language.
      top: candidates per mask.
      batch_size: rows at most; it changes the memory, and no result beyond rounding.

    Raises:
      UserError: the model does not predict tokens (fine-tuned, or an encoder alone) or does not have
        the language, a text has no [MASK], or `top` is not one of 1..vocabulary.
    """
    self._check_pretrained("fill_mask")
    texts = row_tools.check_texts(texts)
    masked.check_masks(texts)
    vocabulary = self.tokenizer.vocab_size
    if not 1 <= top <= vocabulary:
      raise UserError(
        f"top is {top}; it must be from 1 to {vocabulary}, the tokens that there are."
      )
    tokenizer = self._tokenizer(language)
    params, index = self._encoder(language)
    filled = masked.fill(
      self._options,
      params,
      index,
      [masked.mask_ids(text, tokenizer) for text in texts],
      tokenizer,
      top=top,
      known=vocabulary,
      longest=self.max_tokens,
      batch_size=batch_size,
    )
    return [
      [[Candidate(tokenizer.piece(token), p) for token, p in best] for best in of_text]
      for of_text in filled
    ]

  def perplexity(
    self, texts: Iterable[str], language: str, *, batch_size: int = row_tools.BATCH_SIZE
  ) -> Perplexities:
    """Returns the pseudo-perplexity of each text and of all: each token is hidden once, alone.

    It is exp of the mean of -log p(token | the rest of its text). Of a text that is longer than
    `max_tokens` each token sees the window around it. It differs from the perplexity that a run
    reports, which hides 15 % of the tokens at the same time.

    Args:
      texts: the texts.
      language: code of their language.
      batch_size: rows at most; it changes the memory, and no result beyond rounding.

    Returns:
      `texts` (float64 [n]), `overall` (NaN without texts) and `tokens` (int64 [n]).

    Raises:
      UserError: the model does not predict tokens (fine-tuned, or an encoder alone) or does not have
        the language, or a text is empty.
    """
    self._check_pretrained("perplexity")
    tokenizer = self._tokenizer(language)
    params, index = self._encoder(language)
    return masked.perplexities(
      self._options,
      params,
      index,
      [features.encode(text, tokenizer) for text in row_tools.check_texts(texts)],
      tokenizer,
      longest=self.max_tokens,
      batch_size=batch_size,
    )

  def embed(
    self,
    texts: Iterable[str],
    language: str,
    layer: int = -1,
    *,
    batch_size: int = row_tools.BATCH_SIZE,
  ) -> np.ndarray:
    """Returns a vector for each text, float32 [n, D]: the mean of a layer over the text's tokens.

    Separators and padding do not count. A text that is longer than `max_tokens` is cut into parts,
    and the mean is over the tokens of all parts. Of a fine-tuned model the language's modules follow
    the run's route, as in a test.

    Args:
      texts: the texts.
      language: code of their language.
      layer: 0 the embeddings, 1 the first layer, ...; -1 the last one, -2 the one before.
      batch_size: rows at most; it changes the memory, and no result beyond rounding.

    Raises:
      UserError: the model does not have the language or the layer, or a text is empty.
    """
    tokenizer = self._tokenizer(language)
    params, index = self._encoder(language)
    return embedding.embed(
      self._options,
      params,
      index,
      row_tools.check_texts(texts),
      tokenizer,
      num_layers=embedding.layer_number(layer, self._options.num_layers),
      longest=self.max_tokens,
      batch_size=batch_size,
    )

  def predict(
    self, inputs: Iterable[Any], language: str, *, batch_size: int = row_tools.BATCH_SIZE
  ) -> list[Any]:
    """Returns the task's output for each input, see `negint.tasks.outputs`.

    | task | input | output |
    |---|---|---|
    | ner | a text or a list of words | EntityText: words, tags, entities with places in the text |
    | pos | a text or a list of words | TaggedWords: words and tags |
    | qa | (question, context) | Answer: answer, its place in the context, score |
    | nli | (premise, hypothesis) | PairLabel: label, probabilities |

    Long inputs are treated as in a test (`data.max_length` of the run): a sentence is split at word
    boundaries, a context is read in windows that overlap, a pair loses the last tokens of its longer
    text. A text or list without words gives no tags; an empty question, context, premise or hypothesis
    is refused.

    The language may be one that was never fine-tuned. Its modules follow `--config.route` of the run:
    "target" are the language's own, which the model must have; "source" and "mean" take any
    language.

    Args:
      inputs: as above.
      language: code of their language.
      batch_size: rows at most; it changes the memory, and no result beyond rounding.

    Raises:
      UserError: the model is not fine-tuned or does not have the language, or an input is not one.
    """
    task = self._tuned("predict").run.task
    if task.given is None:
      raise UserError(f"Task '{task.name}' predicts for test sets only: it reads no other inputs.")
    if isinstance(inputs, str):
      raise UserError(f"inputs is one text, {inputs[:60]!r}; give a list of inputs: [text].")
    given = task.given
    examples = [given(value, f"inputs[{index}]") for index, value in enumerate(inputs)]
    return self.predict_examples(examples, language, batch_size=batch_size)

  def predict_examples(
    self, examples: Sequence[Any], language: str, *, batch_size: int = row_tools.BATCH_SIZE
  ) -> list[Any]:
    """Returns what `predict` does for examples of the task; their labels are not read."""
    tuned = self._tuned("predict")
    run, task = tuned.run, tuned.run.task
    if task.outputs is None:
      raise UserError(f"Task '{task.name}' has no outputs beside the scores of its test sets.")
    tokenizer = self._tokenizer(language)
    params, index = self._routed(language)
    if not examples:
      return []
    arrays, _ = task.features(examples, tokenizer, tuned.labels, run.limits)
    predictor = self._predictor(row_tools.batch_rows(len(arrays["tokens"]), batch_size))
    scores = predictor(params, arrays, index, lambda: None)
    return task.outputs(scores, arrays, examples, tuned.labels, run.limits)

  def task_record(self) -> Task[Any, Any] | None:
    """Returns the record of the fine-tuned task; None for a pretrained model."""
    return self._finetuned.run.task if self._finetuned else None

  def check_language(self, language: str) -> None:
    """Raises UserError if the model cannot read text in a language."""
    pretrained, tuned = self._pretrained, self._finetuned
    if pretrained.speaks(language):
      return
    route = tuned.run.route if tuned else "target"
    if route == "target":
      other = " (a run with --config.route=source or mean takes any)" if tuned else ""
      raise UserError(
        f"'{language}' is not a language of {self.path}, which has {', '.join(self.languages)}"
        f"{other}; choose one of these, or load another model."
      )

  def _tokenizer(self, language: str) -> Any:
    """Returns the tokenizer for text in a language; UserError if the model does not have it."""
    self.check_language(language)
    if language not in self._tokenizers:
      self._tokenizers[language] = self.tokenizer.for_language(language)
    return self._tokenizers[language]

  def _tuned(self, method: str) -> Finetuned:
    if self._finetuned is None:
      raise UserError(
        f"{self.path} is a pretrained model, and {method} needs a fine-tuned one: fine-tune it, for "
        f"example with --config=configs/ner.py:<language> --config.init_from={self.path}, and load "
        "that run."
      )
    return self._finetuned

  def _check_pretrained(self, method: str) -> None:
    if self._finetuned:
      raise UserError(
        f"{self.path} is fine-tuned on '{self.task}', and {method} needs the masked language model of "
        f"a pretrained one: load {self._pretrained.workdir}."
      )
    if not self._pretrained.has_head:
      raise UserError(
        f"{self.path} is read as an encoder alone, without the layer that predicts hidden tokens, which "
        f"{method} needs (so is an XLM whose softmax has weights of its own); name a checkpoint of a "
        "masked language model."
      )

  def _routed(self, language: str) -> tuple[Any, int]:
    """Returns ((theta, phi_i, head), language index) of the fine-tuned model, on every device."""
    if language not in self._prepared:
      tuned = self._tuned("predict")
      self._prepared.clear()  # the parameters of another language
      weights: Tuned = {**tuned.weights, "theta": self._theta_on_devices}
      params, index = testing.routed_parameters(tuned.run, self._pretrained, weights, language)
      self._prepared[language] = _on_devices(params), index
    return self._prepared[language]

  def _encoder(self, language: str) -> tuple[Any, int]:
    """Returns (the encoder's parameters in a language, on every device; language index)."""
    if self._finetuned:
      (theta, phi_i, _), index = self._routed(language)
      return merge_params(theta, phi_i), index
    if language not in self._prepared:
      self._prepared.clear()
      index = self._pretrained.language_index(language)
      phi_i = _on_devices(select_language(self.phi, index))
      self._prepared[language] = merge_params(self._theta_on_devices, phi_i), index
    return self._prepared[language]

  @functools.cached_property
  def _theta_on_devices(self) -> Any:
    """Theta on every device. It is sent once, and not again for each language."""
    return _on_devices(self.theta)

  def _predictor(self, batch_size: int) -> programs.Predictor:
    if batch_size not in self._predictors:
      task = self._tuned("predict").run.task
      self._predictors[batch_size] = programs.make_predictor(self._options, task, batch_size)
    return self._predictors[batch_size]


def _on_devices(params: Any) -> Any:
  """Returns parameters with a copy on every device; those that are there stay where they are."""
  return parallel.replicate(jax.tree.map(jnp.asarray, params))
