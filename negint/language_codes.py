"""Codes of languages: one rule for the folders of corpora and for the arguments of configs.

A code is two or three lower-case letters, and perhaps parts after an underscore: `ar`, `sr_Latn`,
`zh_min_nan`. Between languages stands a hyphen: `zh_min_nan-en`. People also write a hyphen inside a
code (`zh-min-nan`); it is read as an underscore.
"""

import re

from negint.errors import UserError

_CODE = re.compile("([a-z]{2,3}|simple)(_[A-Za-z0-9]+)*")
# Codes of which each part could be a code of its own. Others, such as sr-Latn, show what they are.
_OF_SEVERAL_PARTS = [
  "zh-min-nan",
  "be-x-old",
  "bat-smg",
  "cbk-zam",
  "fiu-vro",
  "map-bms",
  "nds-nl",
  "roa-rup",
] + ["roa-tara", "zh-yue", "zh-cn", "zh-tw", "zh-hk", "pt-br", "pt-pt"]


def canonical(code: str) -> str:
  """Returns a language code as it names folders: 'zh-min-nan' becomes 'zh_min_nan'.

  Raises:
    UserError: it is not a language code.
  """
  written = code.replace("-", "_")
  if not _CODE.fullmatch(written):
    raise UserError(
      f"language={code!r} is not a language code: write two or three lower-case letters, and other "
      "parts after an underscore, such as ar, yue, sr_Latn or zh_min_nan."
    )
  return written


def split(text: str, count: int) -> tuple[str, ...]:
  """Returns the codes of 'de-en' or 'zh-min-nan-en', in canonical form.

  A part that cannot be a code belongs to the code before it: sr-Latn-en is two codes. Known codes of
  several parts are put together where there would be more than `count` codes otherwise.

  Args:
    text: codes with hyphens between them.
    count: how many codes are wanted. The result may have another number.

  Raises:
    UserError: a part is not a language code.
  """
  codes = _parts_joined(text)
  if len(codes) > count:
    for known in _OF_SEVERAL_PARTS:
      text = re.sub(rf"(?<![^-]){known}(?![^-])", known.replace("-", "_"), text)
    codes = _parts_joined(text)
  return tuple(canonical(code) for code in codes)


def _parts_joined(text: str) -> list[str]:
  """Returns the parts between hyphens; one that cannot be a code is joined to the one before it."""
  codes: list[str] = []
  for part in text.split("-"):
    if codes and part and not _CODE.fullmatch(part):
      codes[-1] += f"_{part}"
    else:
      codes.append(part)
  return codes
