"""The four tasks behind one face: examples in, arrays for the model, predictions and scores out."""

import collections
import pathlib

import numpy as np

from negint.data.lab import language as lab_language
from negint.errors import UserError
from negint.finetuning.options import TaskOptions
from negint.run.files import write_json
from negint.tasks import features, lab_examples, loading, ner, nli, pos, scoring

LABELS = {"ner": ner.LABELS, "pos": pos.LABELS, "qa": ("start", "end"), "nli": nli.LABELS}
# What selects a checkpoint and stands in the paper's tables (POS: chunk F1).
MAIN_SCORE = {"ner": "f1", "pos": "f1", "qa": "f1", "nli": "accuracy"}
CHUNKS = ("correct", "predicted", "gold")
COLUMNS = {"ner": CHUNKS, "pos": CHUNKS, "qa": ("f1", "exact_match"), "nli": ("correct",)}


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
    return getattr(lab_examples, task.name)(spoken, lab.seed, split, count), {}
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
  rows = per_example(task, examples, predictions)["rows"]
  if task.name in ("qa", "nli"):
    names = {"qa": ("f1", "exact_match"), "nli": ("accuracy",)}[task.name]
    columns = zip(*rows, strict=True)
    return {n: 100 * sum(column) / len(rows) for n, column in zip(names, columns, strict=True)}
  scores = scoring.micro_average(rows, unit=100)
  gold = [sentence.tags for sentence in examples]
  if task.name == "pos":
    return {"f1": scores["f1"], "accuracy": 100 * scoring.tag_accuracy(gold, predictions)}
  strict = scoring.chunk_counts(gold, predictions, strict=True)
  return {**scores, "strict_f1": scoring.micro_average(strict, unit=100)["f1"]}


def per_example(task: TaskOptions, examples, predictions) -> dict:
  """{"columns": names, "rows": a list of numbers for each example}, from which the scores follow.

  ner, pos: chunks of a sentence, `correct`, `predicted` and `gold`, with F1 = 200 x correct /
  (predicted + gold) of their sums; qa: `f1` and `exact_match` of a question in 0..1, nli: `correct`
  0 or 1, whose means are the scores.
  """
  if task.name == "qa":
    texts = [[text for text, _ in q.answers] for q in examples]
    rows = [
      list(scoring.answer_scores(answers, predictions.get(q.id)))
      for q, answers in zip(examples, texts, strict=True)
    ]
  elif task.name == "nli":
    pairs = zip(examples, predictions, strict=True)
    rows = [[int(pair.label == label)] for pair, label in pairs]
  else:
    rows = scoring.chunk_counts([sentence.tags for sentence in examples], predictions)
  return {"columns": list(COLUMNS[task.name]), "rows": rows}


def write_per_example(folder: pathlib.Path, task: TaskOptions, language, examples, predictions):
  """Writes `per_example` of a test set to <folder>/per_example/<language>.json."""
  path = folder / "per_example" / f"{language}.json"
  path.parent.mkdir(parents=True, exist_ok=True)
  write_json(path, per_example(task, examples, predictions))


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
