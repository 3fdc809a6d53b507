"""Checks that a result.json has every field that the report reads, of the right type."""

import math
from typing import Any

from negint.report.problems import Damaged

ANALYSES = ("gradient_similarity", "pruning")


def need(tree: dict, name: str, kind: type) -> Any:  # Any: a value of type `kind`
  """Returns a field of a result.

  Args:
    tree: the result, or a part of it.
    name: of the field; a dot goes one level down.
    kind: the type; `float` accepts integers, too, and only finite numbers.

  Raises:
    Damaged: the field is missing, has another type or is not finite.
  """
  value: Any = tree
  for part in name.split("."):
    if not isinstance(value, dict) or part not in value:
      raise Damaged(f"result.json has no field {name}")
    value = value[part]
  fits = isinstance(value, (int, float) if kind is float else kind)
  if not fits or isinstance(value, bool):
    raise Damaged(f"result.json has {name} = {value!r}, which is not of type {kind.__name__}")
  if kind is float and not math.isfinite(value):
    raise Damaged(f"result.json has {name} = {value!r}, which is not finite")
  return value


def need_all(tree: dict, **kinds: type) -> None:
  """Checks several fields as `need` does: `need_all(tree, step=int)`."""
  for name, kind in kinds.items():
    need(tree, name, kind)


def check_result(task: str, result: dict) -> None:
  """Checks a result.json.

  Args:
    task: the kind of run: "pretrain", one of ANALYSES, else the task of a fine-tuning.
    result: the contents of the file.

  Raises:
    Damaged: a field is missing or has another type.
  """
  kinds = {
    "pretrain": check_pretraining,
    "gradient_similarity": check_gradients,
    "pruning": check_pruning,
  }
  kinds.get(task, check_tuning)(result)


def check_pretraining(result: dict) -> None:
  """Checks the result of a pretraining run."""
  for language in need(result, "languages", list):
    for name in ("perplexity", "unigram_perplexity", "training_sentences"):
      need(result, f"{name}.{language}", float)
  need_all(result, tokens_seen=int, held_out_tokens_seen=int, flops=float)
  need_all(need(result, "parameters", dict), theta=int, phi_of_each_language=int)


def check_tuning(result: dict) -> None:
  """Checks the result of a fine-tuning run."""
  need_all(result, language=str, source_language=str, setting=str, baseline=str, main_score=str)
  score = f"test.{result['language']}"
  for tree in (result, *need(result, "seeds", list)):
    need(tree, f"{score}.{result['main_score']}", float)
    for name in tree["test"][result["language"]]:
      need(tree, f"{score}.{name}", float)
  for entry in result["seeds"]:
    need(entry, "seed", int)
  if not result["seeds"] and result["baseline"] != "majority":
    raise Damaged("result.json has no seeds")


def check_gradients(result: dict) -> None:
  """Checks the result of a gradient_similarity run."""
  for checkpoint in need(result, "checkpoints", list):
    need(checkpoint, "step", int)
    for scope in need(checkpoint, "scopes", dict).values():
      for name in ("cosine", "corrected"):
        for pair in need(scope, name, dict).values():
          check_estimate(pair)


def check_estimate(value: Any) -> None:  # Any: whatever JSON holds
  """Checks {"mean": ..., "standard_error": ...}, each a number or null."""
  for name in ("mean", "standard_error"):
    if not isinstance(value, dict) or name not in value:
      raise Damaged(f"result.json has a cosine without {name}: {value!r}")
    if value[name] is not None:
      need(value, name, float)


def check_pruning(result: dict) -> None:
  """Checks the result of a pruning run."""
  need(result, "unpruned_perplexity", dict)
  for mask in need(result, "masks", list):
    need_all(mask, language=str, seed=int, kept=float, penalty=float, perplexity=dict)
    for language in result["unpruned_perplexity"]:
      need(mask, f"perplexity.{language}", float)
      need(mask, f"shuffled_perplexity.{language}", float)
      need(result, f"unpruned_perplexity.{language}", float)
  for similarity in need(result, "similarity", list):
    need_all(similarity, languages=list, seeds=list, scope=str)
    for name in ("cosine", "centred"):
      if name not in similarity or similarity[name] is not None:  # null: a mask is constant
        need(similarity, name, float)
    for name in ("saturation", "rank_correlation"):
      if similarity.get(name) is not None:
        need(similarity, name, float)
  for extreme in need(result, "extreme", list):
    need_all(extreme, language=str, other=str)
    for group in need(extreme, "groups", list):
      need_all(group, group=str, pi=float, other_pi=float)
