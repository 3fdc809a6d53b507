"""Invented runs, as their config.json and result.json say: a small fixed study, and simulated scores."""

import json
import pathlib

import numpy as np

from negint.report import statistics

META = {"variant": "paper", "inner_learning_rate": 0.0}


def write(path: pathlib.Path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value))


def pretrain(
  runs,
  system,
  languages,
  seed=1,
  scale="lab",
  similarity=0.5,
  subsample=0,
  steps=600,
  bits=None,
  **meta,
) -> dict:
  """Writes a pretraining run; returns what other runs record of it.

  Args:
    bits: {language: per held-out character}; None: the run is of before these were recorded, and neither
      does it know what it saw of each language.
    meta: settings of its config's meta that are not the default's.
  """
  name = f"{system}-{'-'.join(languages)}-{scale}-{similarity if scale == 'lab' else subsample}"
  name += f"-subsample{subsample}" * (scale == "lab" and bool(subsample))
  name += f"-steps{steps}" * (steps != 600) + "".join(f"-{k}={v}" for k, v in meta.items())
  name += f"-seed{seed}"
  lab = {"similarity": similarity}
  data = {"source": "lab" if scale == "lab" else "prepared", "subsample": subsample, "lab": lab}
  train = {"steps": steps, "warmup_steps": 100}
  config = {"task": "pretrain", "system": system, "languages": languages, "scale": scale}
  write(
    runs / name / "config.json",
    config | {"seed": seed, "data": data, "train": train, "meta": META | meta},
  )
  result = config | {
    "seed": seed,
    "perplexity": dict.fromkeys(languages, 50.0 + seed),
    "unigram_perplexity": dict.fromkeys(languages, 125.0),
    "steps": steps,
    "parameters": {"theta": 1000, "phi_of_each_language": 0 if system != "adpt" else 10},
    "training_sentences": dict.fromkeys(languages, 8000),
    "tokens_seen": steps * 2048,
    "held_out_tokens_seen": 0 if "meta" not in system else steps * 2048,
    "flops": 2.5e9 * steps * (2 if system == "pcgrad" else 1),
  }
  if "meta" in system:
    result["meta_perplexity"] = dict.fromkeys(languages, 49.0 + seed)
  if bits is not None:
    result["bits_per_character"] = bits
    share = steps * 2048 // len(languages)
    result["tokens_seen_by_language"] = dict.fromkeys(languages, share)
  write(runs / name / "result.json", result)
  slow = 300 if system == "joint_pair" else 200
  lines = [
    {"step": step} | {f"loss/{code}": 3 + 3 * 2 ** (-step / slow) for code in languages}
    for step in range(50, 601, 50)
  ]
  for line in lines[3::4]:
    line |= {f"perplexity/{code}": 40 + 9000 / line["step"] for code in languages}
  text = "\n".join(json.dumps(line) for line in lines)
  (runs / name / "metrics.jsonl").write_text(text + "\n" + '{"step": 6')  # cut short by a crash
  names = ("system", "languages", "scale", "seed", "steps", "tokens_seen", "flops")
  origin = {"workdir": f"runs/{name}", "subsample": subsample}
  origin["similarity"] = similarity if scale == "lab" else None
  names += ("tokens_seen_by_language",) * (bits is not None)
  return origin | {name: result[name] for name in names}


def tune(
  runs, origin: dict, *, task="ner", language, source, errors: int = 0, right=None, **config
):
  """Writes a fine-tuning run; right: of each test example, or 40 of which `errors` are wrong."""
  setting = "within" if source == language else "zero_shot"
  name = f"{task}-{setting}-{language}-{pathlib.Path(origin['workdir']).name}"
  name += "".join(f"-{value}" for value in config.values())
  columns, rows, score = ["correct", "predicted", "gold"], [], "f1"
  for good in [(7 * k) % 40 >= errors for k in range(40)] if right is None else map(int, right):
    simple = [good, 1, 1]
    row = {"nli": [good], "qa": [max(good, 0.25 if right is None else 0), good]}
    rows.append(row.get(task, [2 * good, 2, 1 + good] if right is None else simple))
  test = {"f1": statistics.score(ratio_rows(rows))}
  if task == "nli":
    columns, test, score = ["correct"], {"accuracy": test["f1"]}, "accuracy"
  if task == "qa":
    columns = ["f1", "exact_match"]
    test = {name: 100 * value for name, value in zip(columns, np.mean(rows, axis=0), strict=True)}
  own = {"task": task, "language": language, "source_language": source, "seed": 1, "seeds": 1}
  own |= {"init_from": origin["workdir"], "route": "target"}
  write(runs / name / "config.json", own | config)
  test = {language: test}
  result = {
    **own,
    "setting": setting,
    "baseline": "none",
    "system": origin["system"],
    "main_score": score,
    "test": test,
    "seeds": [{"seed": 1, "test": test}],
    "pretraining": origin,
    "examples": {"train": 300, "dev": 400, f"test/{language}": len(rows)},
  }
  write(runs / name / "result.json", result)
  examples = {"columns": columns, "rows": [[float(v) for v in row] for row in rows]}
  write(runs / name / "seed1" / "per_example" / f"{language}.json", examples)
  return runs / name


def ratio_rows(rows) -> np.ndarray:
  rows = np.asarray(rows, float)
  if rows.shape[1] < 3:
    return np.stack([rows[:, 0], np.ones(len(rows))], axis=1)
  return np.stack([2 * rows[:, 0], rows[:, 1] + rows[:, 2]], axis=1)


def analyses(runs, origin: dict):
  """A gradient similarity and a pruning run."""

  def estimate(mean):
    return {"mean": mean, "standard_error": None if mean is None else 0.01}

  scopes = {
    scope: {
      "cosine": {pair: estimate(0.5) for pair in ("xb-xa", "xb-xb", "xa-xa")},
      "corrected": {"xb-xa": estimate(corrected)},
    }
    for scope, corrected in (("all", 0.9), ("layer1/ffn", None))
  }
  write(runs / "gradients" / "config.json", {"task": "gradient_similarity"})
  checkpoints = [{"step": step, "scopes": scopes} for step in (300, 600)]
  result = {"task": "gradient_similarity", "pretraining": origin, "checkpoints": checkpoints}
  write(runs / "gradients" / "result.json", result)
  write(runs / "masks" / "config.json", {"task": "pruning"})
  mask = {"language": "xb", "seed": 1, "kept": 0.6, "penalty": 0.5}
  mask |= {"perplexity": {"xb": 60.0, "xa": 61.0}, "shuffled_perplexity": {"xb": 90.0, "xa": 91.0}}
  similarity = [
    dict(languages=pair, seeds=[1, 2], scope=f"layer{n}/{module}", cosine=0.9 / n, centred=0.5 / n)
    for pair in (["xb", "xa"], ["xa", "xa"])
    for n in (1, 2)
    for module in ("attention", "ffn")
  ]
  groups = [{"group": f"layer1/ffn/inner[{n}]", "pi": n - 9.5, "other_pi": 1.0} for n in range(20)]
  result = {
    "task": "pruning",
    "pretraining": origin,
    "masks": [mask],
    "unpruned_perplexity": {"xb": 51.0, "xa": 52.0},
    "similarity": similarity,
    "extreme": [{"language": "xb", "other": "xa", "groups": groups}],
  }
  write(runs / "masks" / "result.json", result)


def make_study(runs: pathlib.Path) -> pathlib.Path:
  """A partial study: the lab at two similarities, Arabic and Swahili NER at scale base."""
  for similarity in (0.1, 0.5):
    for seed in (1, 2):
      mono = pretrain(runs, "mono", ["xb"], seed, similarity=similarity)
      pair = pretrain(runs, "joint_pair", ["xb", "xa"], seed, similarity=similarity)
      worse = seed + (4 if similarity < 0.5 else 2)
      tune(runs, mono, language="xb", source="xb", errors=seed)
      tune(runs, pair, language="xb", source="xb", errors=worse)
      tune(runs, pair, language="xb", source="xa", errors=3 * worse)
      tune(runs, pair, task="nli", language="xb", source="xa", errors=20 + seed)
  analyses(runs, pair)
  adapters = pretrain(runs, "adpt", ["xb", "xa"])
  tune(runs, adapters, language="xb", source="xa", errors=9)
  tune(runs, adapters, language="xb", source="xa", errors=15, route="mean")
  for language in ("ar", "sw"):
    mono = pretrain(runs, "mono", [language], scale="base")
    pair = pretrain(runs, "joint_pair", [language, "en"], scale="base")
    tune(runs, mono, language=language, source=language, errors=3)
    tune(runs, pair, language=language, source=language, errors=5)
    tune(runs, mono, task="qa", language=language, source=language, errors=20)
    tune(runs, pair, task="qa", language=language, source=language, errors=24)
  three = pretrain(runs, "joint_tri", ["xb", "xc", "xa"])
  tune(runs, three, language="xb", source="xa", errors=8)
  for size in (0, 100_000):
    pair = pretrain(runs, "joint_pair", ["ru", "en"], scale="base", subsample=size)
    tune(runs, pair, language="ru", source="ru", errors=6 + size // 20_000)
    tune(runs, pair, language="en", source="en", errors=4)
  write(runs / "unfinished" / "config.json", {"task": "pretrain"})
  write(runs / "lacking" / "config.json", {"task": "ner"})
  write(runs / "lacking" / "result.json", {"task": "ner", "language": "ar"})
  write(runs / "mono-ar" / "checkpoints" / "config.json", {"task": "pretrain"})  # not searched
  write(runs / "cut" / "config.json", {"task": "pretrain"})
  (runs / "cut" / "result.json").write_text('{"task": "pre')
  return runs


def lab(runs, system, truth, bits=None, **fields):
  """`simulate` with the lab's languages; bits: per character of every language."""
  languages = {"mono": ["xb"], "joint_tri": ["xb", "xc", "xa"]}.get(system, ["xb", "xa"])
  simulate(runs, system, languages, truth, bits=dict.fromkeys(languages, bits or 3.0), **fields)


def simulate(
  runs,
  system: str,
  languages: list[str],
  truth: dict[tuple[str, str], float],
  *,
  seeds=range(1, 6),
  spread: float = 1.0,
  shared: float = 0.0,
  size: int = 300,
  **fields,
):
  """Writes pretraining runs whose tasks have scores of known mean.

  Args:
    runs: the folder.
    system: of the runs.
    languages: of the runs.
    truth: {(task, "within" or "zero_shot"): mean score in per cent}.
    seeds: of pretraining.
    spread: standard deviation over seeds, points.
    shared: that of what a seed adds to every system on the same languages, points.
    size: test examples.
    fields: of `pretrain`.
  """
  for seed in seeds:
    origin = pretrain(runs, system, languages, seed, **fields)
    luck = shared * np.random.default_rng([seed, *map(ord, "".join(languages))]).normal()
    for (task, setting), mean in truth.items():
      random = np.random.default_rng([seed, *map(ord, origin["workdir"] + task + setting)])
      difficulty = np.random.default_rng(7).random(size)  # every run has the same test examples
      right = difficulty + 0.1 * random.normal(size=size)
      right = right <= np.quantile(
        right, np.clip(mean + luck + spread * random.normal(), 0, 100) / 100
      )
      source = languages[0] if setting == "within" else languages[-1]
      tune(runs, origin, task=task, language=languages[0], source=source, right=right)
