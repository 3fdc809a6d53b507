"""The record of a run: JSON whole or not at all, metrics lines that end where the run resumes."""

import json

import pytest

from negint.run.files import write_json
from negint.run.records import MetricsWriter, read_metrics


def lines(workdir):
  return (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()


def record(workdir, first_step, steps):
  writer = MetricsWriter(workdir, first_step)
  for step in steps:
    writer.write(step, {"loss/ar": step / 4})
  writer.close()


def test_json_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / "result.json"
  write_json(path, {"perplexity": {"నది": 1.5}})
  assert json.loads(path.read_text(encoding="utf-8")) == {"perplexity": {"నది": 1.5}}
  assert "నది" in path.read_text(encoding="utf-8")
  with pytest.raises(TypeError):
    write_json(path, {"first": 1, "then": object()})
  assert json.loads(path.read_text(encoding="utf-8")) == {"perplexity": {"నది": 1.5}}
  write_json(path, {"next": 2})
  assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
  assert json.loads(path.read_text(encoding="utf-8")) == {"next": 2}


def test_lines_are_on_disk_as_soon_as_they_are_written(tmp_path):
  writer = MetricsWriter(tmp_path, 0)
  writer.write(1, {"loss/ar": 0.25, "learning_rate": 1e-7})
  assert json.loads(lines(tmp_path)[0]) == {"step": 1, "loss/ar": 0.25, "learning_rate": 1e-7}
  writer.close()
  assert any((tmp_path / "tensorboard").iterdir())


def test_records_after_the_restored_step_are_dropped(tmp_path):
  record(tmp_path, 0, [10, 20, 30])
  record(tmp_path, 20, [30, 40])
  assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20, 30, 40]
  record(tmp_path, 40, [50])
  assert len(lines(tmp_path)) == 5
  record(tmp_path, 0, [1])
  assert [json.loads(line)["step"] for line in lines(tmp_path)] == [1]


def test_a_torn_last_line_is_left_out_and_the_next_run_writes_after_it(tmp_path):
  record(tmp_path, 0, [10, 20])
  path = tmp_path / "metrics.jsonl"
  path.write_text(path.read_text(encoding="utf-8") + '{"step": 30, "loss/a', encoding="utf-8")
  assert [r["step"] for r in read_metrics(path)] == [10, 20]
  record(tmp_path, 20, [30])
  assert [json.loads(line)["step"] for line in lines(tmp_path)] == [10, 20, 30]


def test_losses_that_are_not_finite_come_back(tmp_path):
  writer = MetricsWriter(tmp_path, 0)
  writer.write(1, {"perplexity/ar": float("inf")})
  writer.close()
  assert read_metrics(tmp_path / "metrics.jsonl")[0]["perplexity/ar"] == float("inf")


@pytest.mark.parametrize("damage", [b"\xff\x00 noise\n", b'{"step": \n', b"7\n", b"{}\n", b"\n"])
def test_a_damaged_line_ends_the_record_with_one_sentence(tmp_path, damage):
  record(tmp_path, 0, [1, 2, 3])
  path = tmp_path / "metrics.jsonl"
  first, second, third = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(first + damage + third)
  assert [each["step"] for each in read_metrics(path)] == [1]
  said = []
  MetricsWriter(tmp_path, 3, say=said.append).close()
  assert said == [f"{path} is damaged; its lines from number 2 on are left out."]
  assert path.read_bytes() == first
  path.write_bytes(first + second[:5])  # a run was killed while it wrote
  MetricsWriter(tmp_path, 3, say=pytest.fail).close()
  assert path.read_bytes() == first
