"""Runs as rows of a table, and logged scalars as columns."""

import json

import numpy as np
import pytest

import negint
from negint.errors import UserError
from negint.run import pack
from negint.run.records import read_metrics


def test_finished_runs_are_flat_rows(base, ner_run):
  rows = {row["task"]: row for row in negint.runs(base.parent)}
  assert set(rows) == {"pretrain", "ner"}
  result = json.loads((base / "result.json").read_text())
  row = rows["pretrain"]
  assert row["run"] == str(base) and row["system"] == "adpt" and row["languages"] == "xb-xa"
  assert row["perplexity.xb"] == result["perplexity"]["xb"]
  assert row["config.train.learning_rate"] == 2e-3 and row["seed"] == 1 and row["steps"] == 2
  result = json.loads((ner_run / "result.json").read_text())
  assert rows["ner"]["test.xb.f1"] == result["test"]["xb"]["f1"]
  assert rows["ner"]["system"] == "adpt" and rows["ner"]["config.source_language"] == "xa"
  flat = (str, int, float, bool, type(None))
  assert all(isinstance(value, flat) for row in rows.values() for value in row.values())
  assert negint.load(rows["ner"]["run"]).task == "ner"


def test_a_pack_has_the_rows_of_its_folder(base, tmp_path):
  pack.pack([base.parent], tmp_path / "lab.pack")
  rows, packed = negint.runs(base.parent), negint.runs(tmp_path / "lab.pack")
  assert [row.pop("run") for row in packed] == [
    str(tmp_path / "lab.pack" / row.pop("run").rpartition("/")[2]) for row in rows
  ]
  assert packed == rows


def test_unfinished_runs_are_left_out(base, tmp_path):
  (tmp_path / "begun").mkdir()
  (tmp_path / "begun" / "config.json").write_text((base / "config.json").read_text())
  with pytest.raises(UserError, match="unfinished"):
    negint.runs(tmp_path)
  (tmp_path / "done").symlink_to(base)
  with pytest.raises(UserError, match=f"^{tmp_path}/none is not a folder"):
    negint.runs(tmp_path / "none")


def test_metrics_are_columns(base, ner_run):
  columns = negint.metrics(base)
  records = read_metrics(base / "metrics.jsonl")
  assert list(columns["step"]) == [record["step"] for record in records]
  assert {len(values) for values in columns.values()} == {len(records)}
  logged = [record["perplexity/xb"] for record in records if "perplexity/xb" in record]
  column = columns["perplexity/xb"]
  np.testing.assert_array_equal(column[~np.isnan(column)], logged)
  assert np.isnan(column).any()
  with pytest.raises(UserError, match="Name one of .*batch8-rate0.001"):
    negint.metrics(ner_run)
  (trial,) = ner_run.glob("seed1/batch*")
  assert len(negint.metrics(trial)["dev/f1"]) == 2
