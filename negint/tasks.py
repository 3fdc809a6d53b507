"""The four tasks behind one face: examples in, arrays for the model, predictions and scores out."""

import collections

import numpy as np

from negint import metrics
from negint.data import lab_language, lab_tasks
from negint.data.tasks import features, loading, ner, nli, pos
from negint.errors import UserError
from negint.finetune_options import TaskOptions

LABELS = {"ner": ner.LABELS, "pos": pos.LABELS, "qa": ("start", "end"), "nli": nli.LABELS}
# What selects a checkpoint and stands in the paper's tables (POS: chunk F1).
MAIN_SCORE = {"ner": "f1", "pos": "f1", "qa": "f1", "nli": "accuracy"}


def load(task: TaskOptions, lab, language: str, split: str):
  """(examples, report of repairs) of a split: from local files, the lab, or TFDS.

  Args:
    task: which task and where its files are.
    lab: LabOptions of the pretrained model if it speaks the lab's languages, else None.
  """
  if task.tasks_dir:
    return loading.load(task.name, language, split, tasks_dir=task.tasks_dir)
  if lab is not None:
    spoken = lab_language.make_language(language, lab.similarity, lab.seed)
    count = {"train": task.lab_train, "dev": task.lab_dev, "test": task.lab_test}[split]
    return getattr(lab_tasks, task.name)(spoken, lab.seed, split, count), {}
  builder = (task.tfds_train if split == "train" else "") or task.tfds
  if "{treebank}" in builder:
    if language not in pos.TREEBANKS:
      raise UserError(
        f"no treebank of '{language}' is known by name, only of {', '.join(pos.TREEBANKS)}; name one "
        "with --config.data.tfds=universal_dependencies/<treebank>, or give local files with "
        "--config.data.tasks_dir."
      )
    builder = builder.replace("{treebank}", pos.TREEBANKS[language])
  return loading.load(task.name, language, split, tfds=builder, tfds_dir=task.tfds_dir or None)


def check_test_set(task: TaskOptions, language: str):
  """UserError now, not after the training, where local files lack a test set; opens none."""
  if task.tasks_dir:
    loading.check_local(task.name, language, "test", task.tasks_dir)


def featurise(task: TaskOptions, examples, tokenizer):
  """(arrays, report) of features.py for the task."""
  if task.name == "qa":
    return features.qa_windows(
      examples, tokenizer, task.max_length, stride=task.stride, max_question=task.max_question
    )
  make = features.pairs if task.name == "nli" else features.tagging
  return make(examples, tokenizer, LABELS[task.name], task.max_length)


def decode(task: TaskOptions, scores: np.ndarray, arrays, examples):
  """Scores of `heads.logits` for all rows to predictions: tags, labels, or {id: answer}."""
  if task.name == "qa":
    return features.answers_from_logits(
      scores[..., 0], scores[..., 1], arrays, examples, max_answer=task.max_answer
    )
  if task.name == "nli":
    return [LABELS["nli"][index] for index in scores.argmax(-1)]
  return features.tags_from_ids(scores.argmax(-1), arrays, LABELS[task.name])


def score(task: TaskOptions, examples, predictions) -> dict[str, float]:
  """All scores of the task in per cent; `MAIN_SCORE` names the one that decides."""
  if task.name == "qa":
    references = {q.id: [text for text, _ in q.answers] for q in examples}
    return metrics.qa_scores(references, predictions)
  if task.name == "nli":
    return {"accuracy": 100 * metrics.accuracy([pair.label for pair in examples], predictions)}
  gold = [list(sentence.tags) for sentence in examples]
  if task.name == "pos":
    scores = metrics.pos_scores(gold, predictions)
    return {"f1": 100 * scores["chunk_f1"], "accuracy": 100 * scores["accuracy"]}
  lenient = metrics.entity_scores(gold, predictions)
  strict = metrics.entity_scores(gold, predictions, strict=True)
  scores = {name: 100 * value for name, value in lenient.items()}
  return {**scores, "strict_f1": 100 * strict["f1"]}


def majority(task: TaskOptions, training_examples, examples):
  """Predictions that ignore the input: the most frequent label or answer of the training data."""

  def most_common(values):
    return collections.Counter(values).most_common(1)[0][0]

  if task.name == "qa":
    answer = most_common(q.answers[0][0] for q in training_examples if q.answers)
    return {q.id: answer for q in examples}
  if task.name == "nli":
    return [most_common(pair.label for pair in training_examples)] * len(examples)
  tag = most_common(tag for sentence in training_examples for tag in sentence.tags)
  return [[tag] * len(sentence.tags) for sentence in examples]
