"""Heads of fine-tuned models under transformers' names, where transformers has one of the same form.

Ours is one linear layer: on every position, or on the first one. BERT and XLM-R put a dense layer before
the head of a sequence, so theirs cannot be ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from negint.errors import UserError
from negint.tasks.qa import QA
from negint.tasks.task import Task

# Ends of the classes' names. The first part is XLM's, Bert's or XLMRoberta's.
TOKENS, ANSWERS, SEQUENCE = (
  "ForTokenClassification",
  "ForQuestionAnswering",
  "ForSequenceClassification",
)


class Head(NamedTuple):
  """A head as transformers has it."""

  kind: str  # TOKENS, ANSWERS or SEQUENCE
  weights: dict[str, np.ndarray]  # by transformers' names
  config: dict[str, Any]  # its fields of config.json

  @property
  def auto_class(self) -> str:
    """The class of transformers that loads the model."""
    return f"AutoModel{self.kind}"


def of_task(
  task: Task[Any, Any],
  labels: tuple[str, ...],
  head: Mapping[str, Any],
  family: str,
) -> Head:
  """Returns the head of a fine-tuned model.

  Args:
    task: what was learned.
    labels: one per output of the head.
    head: {"kernel": [D, outputs], "bias": [outputs]}.
    family: model_type of the exported encoder.

  Raises:
    UserError: transformers has no such head for this encoder.
  """
  names = {"xlm": "XLM", "bert": "Bert", "xlm-roberta": "XLMRoberta"}
  if task.first_position and family != "xlm":
    raise UserError(
      f"The head of '{task.name}' is one layer on the first position, and {names[family]}{SEQUENCE} of "
      "transformers has another form; export the pretrained model, or a model fine-tuned on tagging or "
      "question answering."
    )
  if task.first_position:
    kind, layer = SEQUENCE, "sequence_summary.summary"
  elif task.name == QA.name:
    kind, layer = ANSWERS, "qa_outputs"
  else:
    kind, layer = TOKENS, "classifier"
  simple = "Simple" if (family, kind) == ("xlm", ANSWERS) else ""
  config: dict[str, Any] = {"architectures": [f"{names[family]}{kind}{simple}"]}
  if kind != ANSWERS:
    config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    config["label2id"] = {label: i for i, label in enumerate(labels)}
  if kind == SEQUENCE:
    config |= {
      "summary_type": "first",
      "summary_use_proj": True,
      "summary_proj_to_labels": True,
      "summary_activation": None,
      "summary_first_dropout": 0.0,
    }
  weights = {
    f"{layer}.weight": np.ascontiguousarray(np.asarray(head["kernel"]).T),
    f"{layer}.bias": np.asarray(head["bias"]),
  }
  return Head(kind, weights, config)
