"""Preparing is resumable, refuses to mix data, and ends with the promised exit codes."""

import dataclasses
import fcntl
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from negint import config_file
from negint.data import prepare_corpus
from negint.data.cleaning import Filters
from negint.data.corpus import SPLITS, open_corpus
from negint.data.prepare_corpus import prepare, summary
from negint.data.sources import Source, parse_source
from negint.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError

ROOT = pathlib.Path(__file__).parents[2]
FILTERS = Filters(language_filter=False)


def _source(count=400, name="made", stop_after=None, calls=None):
  """Two-line documents, every seventh a repetition; interrupts after `stop_after` if given."""

  def read(skip, advance):
    for number in range(skip, count):
      if stop_after is not None and number >= stop_after:
        raise KeyboardInterrupt
      if calls is not None:
        calls.append(number)
      advance(1)
      yield [f"Text number {number - number % 7}", f"Unique line {number}", "ab"]

  return Source({"spec": name}, total=count, unit="doc", read=read)


def _prepare(source, data_dir, filters=FILTERS, language="ar", said=None):
  said = [] if said is None else said
  return prepare(source, language, data_dir, filters, progress=False, say=said.append)


def _names(data_dir):
  """What lies in the corpus folder apart from the lock."""
  return sorted(path.name for path in (data_dir / "corpus").iterdir() if path.suffix != ".lock")


def test_only_clean_lines_arrive_and_all_are_accounted_for(tmp_path):
  corpus = _prepare(_source(), tmp_path)
  lines = [line for split in SPLITS for document in corpus.documents(split) for line in document]
  assert len(set(lines)) == len(lines) == sum(corpus.num_lines.values())
  assert "ab" not in lines
  counts = corpus.provenance["counts"]
  assert counts["lines_read"] == 1200 and counts["too_short"] == 400
  assert counts["lines_read"] - sum(counts.values()) + counts["lines_read"] == len(lines)
  assert _names(tmp_path) == ["ar"]


@pytest.mark.parametrize("stop_after", [0, 5, 150, 399])
def test_an_interrupted_preparation_goes_on_to_the_identical_corpus(
  tmp_path, monkeypatch, stop_after
):
  monkeypatch.setattr(prepare_corpus, "PART_DOCUMENTS", 50)
  whole = _prepare(_source(), tmp_path / "whole")
  with pytest.raises(KeyboardInterrupt):
    _prepare(_source(stop_after=stop_after), tmp_path / "cut")
  calls, said = [], []
  resumed = _prepare(_source(calls=calls), tmp_path / "cut", said=said)
  assert dataclasses.replace(resumed, directory=whole.directory) == whole
  assert calls[0] == stop_after // 50 * 50
  assert any("Resuming" in sentence for sentence in said) == (stop_after >= 50)
  assert _names(tmp_path / "cut") == ["ar"]


def test_forgetting_what_was_kept_would_change_the_corpus(tmp_path, monkeypatch):
  """The negative control of the test above: its sources do depend on the memory of duplicates."""
  monkeypatch.setattr(prepare_corpus, "PART_DOCUMENTS", 50)
  whole = _prepare(_source(), tmp_path / "whole")
  with pytest.raises(KeyboardInterrupt):
    _prepare(_source(stop_after=150), tmp_path / "cut")
  monkeypatch.setattr(prepare_corpus.Cleaner, "remember", lambda self, line: None)
  assert _prepare(_source(), tmp_path / "cut").fingerprint != whole.fingerprint


def test_the_size_of_the_parts_does_not_show(tmp_path, monkeypatch):
  first = _prepare(_source(), tmp_path / "a")
  monkeypatch.setattr(prepare_corpus, "PART_CHARACTERS", 300)
  assert _prepare(_source(), tmp_path / "b").fingerprint == first.fingerprint


def test_an_interruption_while_writing_does_not_read_again(tmp_path, monkeypatch):
  def interrupt(*args, **kwargs):
    raise KeyboardInterrupt

  monkeypatch.setattr(prepare_corpus, "write_corpus", interrupt)
  with pytest.raises(KeyboardInterrupt):
    _prepare(_source(), tmp_path)
  monkeypatch.undo()
  calls = []
  _prepare(_source(calls=calls), tmp_path)
  assert not calls


def test_a_prepared_corpus_is_returned_without_reading(tmp_path):
  first = _prepare(_source(), tmp_path)
  calls, said = [], []
  assert _prepare(_source(calls=calls), tmp_path, said=said) == first
  assert not calls and "already prepared" in said[0]


@pytest.mark.parametrize("interrupted", [False, True])
def test_other_sources_and_filters_are_not_mixed(tmp_path, interrupted):
  if interrupted:
    with pytest.raises(KeyboardInterrupt):
      _prepare(_source(stop_after=10), tmp_path)
  else:
    _prepare(_source(), tmp_path)
  with pytest.raises(UserError, match="source.spec is 'made' there and 'other' here.*--data_dir"):
    _prepare(_source(name="other"), tmp_path)
  with pytest.raises(UserError, match="filters.min_characters is 5 there and 9 here"):
    _prepare(_source(), tmp_path, dataclasses.replace(FILTERS, min_characters=9))
  _prepare(_source(), tmp_path)
  _prepare(_source(name="other"), tmp_path, language="en")


def test_two_preparations_of_one_corpus_do_not_meet(tmp_path):
  (tmp_path / "corpus").mkdir()
  with (tmp_path / "corpus" / ".ar.lock").open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="Another process"):
      _prepare(_source(), tmp_path)
    _prepare(_source(), tmp_path, language="en")
  _prepare(_source(), tmp_path)


def test_a_full_disk_leaves_no_half_corpus(tmp_path, monkeypatch):
  monkeypatch.setattr(prepare_corpus, "PART_DOCUMENTS", 50)
  write, written = prepare_corpus.write_json_lines, []

  def fill(path, values):
    written.append(path)
    if len(written) == 4:
      raise OSError(28, "No space left on device")
    write(path, values)

  monkeypatch.setattr(prepare_corpus, "write_json_lines", fill)
  with pytest.raises(UserError, match="No space left on device.*which resumes"):
    _prepare(_source(), tmp_path)
  assert not (tmp_path / "corpus" / "ar").exists()
  whole = _prepare(_source(), tmp_path / "whole")
  assert _prepare(_source(), tmp_path).fingerprint == whole.fingerprint


@pytest.mark.parametrize(
  ("name", "lost"), [("plan.json", 30), ("part-000001.jsonl", 30), ("part-000001.jsonl", None)]
)
def test_a_damaged_staging_is_named(tmp_path, name, lost):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(prepare_corpus, "PART_DOCUMENTS", 50)
    with pytest.raises(KeyboardInterrupt):
      _prepare(_source(stop_after=120), tmp_path)
  path = tmp_path / "corpus" / ".ar.staging" / name
  path.write_bytes(path.read_bytes()[:-lost] if lost else b"")
  words = f"{name} is damaged .* part of an interrupted preparation; delete .*staging and start"
  with pytest.raises(UserError, match=words):
    _prepare(_source(), tmp_path)


def test_sample_prepares(tmp_path):
  corpus = _prepare(parse_source("sample", "te"), tmp_path, Filters(), "te")
  assert 950 <= sum(corpus.num_lines.values()) <= 1000


def _command(*arguments):
  return [sys.executable, "-m", "negint.prepare", *arguments]


def _run(*arguments):
  return subprocess.run(_command(*arguments), cwd=ROOT, capture_output=True, text=True)


def test_command_line_prints_a_summary_and_says_what_comes_next(tmp_path):
  arguments = ("--source=sample", "--language=ar", f"--data_dir={tmp_path}", "--min_characters=40")
  first, second = _run(*arguments), _run(*arguments)
  corpus = open_corpus(tmp_path, "ar")
  assert first.returncode == second.returncode == 0, first.stderr
  assert first.stdout == second.stdout
  assert first.stderr == "" and "already prepared" in second.stderr
  for part in ("lines read", "1,000", str(corpus.directory), "configs/joint_pair.py:ar-en,base"):
    assert part in first.stdout
  assert f"{corpus.provenance['counts']['too_short']:,}" in first.stdout


@pytest.mark.parametrize(
  ("arguments", "part"),
  [
    (["--language=ar"], "--source is missing"),
    (["--source=sample"], "--language is missing"),
    (["--source=sample", "--language=sw"], "no sentences in 'sw'"),
    (["--source=nothing", "--language=ar"], "Legal: sample"),
    (["--source=sample", "--language=../x"], "language code"),
    (["--source=sample", "--language=ar", "--min_characters=-1"], "min_characters=-1"),
    (["sample", "ar"], "'sample' is not a flag"),
  ],
)
def test_mistakes_give_one_sentence_and_exit_code_2(tmp_path, arguments, part):
  result = _run(*arguments, f"--data_dir={tmp_path}")
  assert result.returncode == EXIT_USER_ERROR
  assert part in result.stderr and result.stderr.count("\n") == 1
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_say_how_to_go_on(tmp_path, number):
  words = ["river", "mountain", "harbour", "teacher"]
  text = [f"The {words[n % 4]} number {n} is described in a long sentence." for n in range(60_000)]
  (tmp_path / "a.txt").write_text("\n".join(text), encoding="utf-8")
  process = subprocess.Popen(
    _command(f"--source=text:{tmp_path}/a.txt", "--language=en", f"--data_dir={tmp_path}"),
    cwd=ROOT,
    stderr=subprocess.PIPE,
    text=True,
    # A shell starts background jobs, perhaps these tests, with Ctrl-C ignored.
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
  )
  while not (tmp_path / "corpus" / ".en.staging" / "plan.json").exists():
    assert process.poll() is None
    time.sleep(0.01)
  process.send_signal(number)
  _, errors = process.communicate(timeout=30)
  assert process.returncode == EXIT_INTERRUPTED
  assert errors == "negint.prepare: interrupted; start the same command again to resume.\n"


def _text(tmp_path, lines, name="a.txt", between="\n\n"):
  (tmp_path / name).write_text(between.join(lines), encoding="utf-8")
  return parse_source(f"text:{tmp_path}/*.txt", "en")


ENGLISH = [f"The old house by the river has {n} windows and a garden." for n in range(400)]


@pytest.mark.parametrize(
  ("lines", "filters", "part"),
  [
    (
      [f"La vieille maison près de la rivière a {n} fenêtres." for n in range(300)],
      Filters(),
      "300 of 300 lines dropped as other language (found: fr); --nolanguage_filter keeps them.",
    ),
    (
      [line * 400 for line in ENGLISH],
      FILTERS,
      "400 of 400 lines dropped as too long; --max_characters=0 keeps them.",
    ),
    (
      ["Always the same line."] * 300,
      FILTERS,
      "299 of 300 lines dropped as duplicate; --nodeduplicate keeps them.",
    ),
    (["ab", *ENGLISH[:3]], FILTERS, "1 of 4 lines dropped as too short; --min_characters=0 keeps"),
    ([], FILTERS, "No line was read. Give more text"),
    (ENGLISH[:3], FILTERS, "Give more text (200 documents are enough), or take each line as"),
  ],
)
def test_a_refused_preparation_says_what_was_dropped_and_leaves_nothing(
  tmp_path, lines, filters, part
):
  with pytest.raises(UserError) as caught:
    _prepare(_text(tmp_path, lines), tmp_path, filters, "en")
  message = str(caught.value)
  assert part in message
  assert ("Give more text" in message) == (len(lines) < 300)  # most lines were not dropped
  assert _names(tmp_path) == []
  # More text, and a switch of another filter: what the message says must work.
  more = _text(tmp_path, ENGLISH, "b.txt")
  off = Filters(deduplicate=False, max_characters=0, min_characters=0, language_filter=False)
  assert sum(_prepare(more, tmp_path, off, "en").num_lines.values()) == 400 + len(lines)


def test_a_source_that_cannot_be_read_leaves_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(prepare_corpus, "PART_DOCUMENTS", 50)
  broken = _text(tmp_path, ENGLISH)
  with (tmp_path / "a.txt").open("ab") as file:
    file.write(b"\xff\xfe")
  with pytest.raises(UserError, match="not UTF-8"):
    _prepare(broken, tmp_path, language="en")
  assert _names(tmp_path) == []
  assert _prepare(_text(tmp_path, ENGLISH), tmp_path, language="en")


def test_text_cut_without_knowing_where_is_said(tmp_path):
  said = []
  _prepare(
    _text(tmp_path, ENGLISH * 10, between="\n"), tmp_path, Filters(deduplicate=False), "en", said
  )
  assert len(said) == 1 and "80 in all" in said[0] and "--document=line" in said[0]


def test_documents_that_cannot_be_read_are_counted_also_when_resumed(tmp_path, monkeypatch):
  monkeypatch.setattr(prepare_corpus, "PART_DOCUMENTS", 50)

  def source(stop_after=None):
    def read(skip, advance):
      for number in range(skip, 400):
        if number == stop_after:
          raise KeyboardInterrupt
        yield (
          None if number % 100 == 3 else [f"Unique line {number}", f"Une ligne de plus, {number}"]
        )

    return Source({"spec": "made"}, total=400, unit="doc", read=read)

  with pytest.raises(KeyboardInterrupt):
    _prepare(source(stop_after=220), tmp_path, Filters(), "en")
  corpus = _prepare(source(), tmp_path, Filters(), "en")
  provenance = corpus.provenance
  assert provenance["counts"]["unreadable_documents"] == 4
  assert provenance["found"]["fr"] == provenance["counts"]["other_language"] > 350
  table = summary(corpus, str(tmp_path))
  assert "articles not readable" in table and f"(fr {provenance['found']['fr']})" in table


@pytest.mark.parametrize("share", [-0.1, 0.6])
def test_an_illegal_share_is_refused(tmp_path, share):
  with pytest.raises(UserError, match="between 0 and 0.5"):
    prepare(_source(), "ar", tmp_path, FILTERS, meta_share=share)


@pytest.mark.parametrize("code", ["nb", "en", "yue", "zh_min_nan", "sr_Latn", "simple"])
def test_what_comes_next_is_a_legal_config(tmp_path, code):
  corpus = _prepare(_source(), tmp_path, language=code)
  spec = re.search(r"--config=(\S+)", summary(corpus, "data"))[1]
  languages = config_file.load(spec).languages
  assert code in languages and languages[-1] == "en" and len(languages) == 2
