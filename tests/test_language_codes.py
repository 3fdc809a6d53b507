"""One rule for language codes: what `negint.prepare` accepts, a config can name."""

import pytest

from negint import config_file, language_codes
from negint.data.corpus import corpus_directory
from negint.errors import UserError


@pytest.mark.parametrize(
  ("written", "code"),
  [
    ("ar", "ar"),
    ("yue", "yue"),
    ("simple", "simple"),
    ("zh-min-nan", "zh_min_nan"),
    ("zh_min_nan", "zh_min_nan"),
    ("sr-Latn", "sr_Latn"),
    ("pt_br", "pt_br"),
    ("eng_Latn", "eng_Latn"),
    ("be-x-old", "be_x_old"),
    ("zh-classical", "zh_classical"),
  ],
)
def test_each_code_names_a_folder_and_a_config(tmp_path, written, code):
  assert language_codes.canonical(written) == code
  assert corpus_directory(tmp_path, written).parent.name == code
  for english in ("-en", ""):
    system = "joint_pair" if english else "mono"
    for form in (written, code):
      config = config_file.load(f"configs/{system}.py:{form}{english},base")
      assert config.languages == ((code, "en") if english else (code,))
  assert config_file.load(f"configs/ner.py:{written}").language == code


@pytest.mark.parametrize(
  "code", ["", "a", "AR", "arabic", "..", "a/b", "ar ", "1a", "ar--en", "ar_", "-"]
)
def test_what_is_no_code_is_refused(tmp_path, code):
  for use in (
    lambda: language_codes.canonical(code),
    lambda: corpus_directory(tmp_path, code),
    lambda: config_file.load(f"configs/mono.py:{code}"),
    lambda: config_file.load(f"configs/ner.py:{code}"),
  ):
    with pytest.raises(UserError):
      use()


@pytest.mark.parametrize(
  ("text", "count", "codes"),
  [
    ("de-en", 2, ("de", "en")),
    ("zh-min-nan-en", 2, ("zh_min_nan", "en")),
    ("en-zh-min-nan", 2, ("en", "zh_min_nan")),
    ("nds-nl-en", 2, ("nds_nl", "en")),
    ("nds-nl-en", 3, ("nds", "nl", "en")),
    ("nds-nl", 2, ("nds", "nl")),
    ("nds-nl", 1, ("nds_nl",)),
    ("sr-Latn-sr-Cyrl-en", 3, ("sr_Latn", "sr_Cyrl", "en")),
    ("hi-mr-en", 2, ("hi", "mr", "en")),
    ("simple-en", 2, ("simple", "en")),
  ],
)
def test_a_hyphen_stands_between_languages_or_inside_a_code(text, count, codes):
  assert language_codes.split(text, count) == codes
