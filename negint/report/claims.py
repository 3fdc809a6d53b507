"""The paper's claims, each with the paper's number, ours, and a verdict by a stated rule.

To add a claim, add an entry to CLAIMS. Its finder (`negint.report.evidence`) says which number decides it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from negint.report import evidence, layout, statistics
from negint.report.comparisons import Comparer
from negint.report.evidence import (
  Evidence,
  Finder,
  Finding,
  Side,
  best,
  conflict,
  faster,
  interference,
  masks,
  scores,
)
from negint.report.layout import Section, Table
from negint.report.records import Study
from negint.report.statistics import Estimate

REPEATED, CONTRADICTED, UNDECIDED, NOT_RUN = "repeated", "contradicted", "undecided", "not run"
MARGIN = 2.0  # points within which two scores are "similar"
RULE = (
  "Each claim is one number, and “expected” says where the paper's claim puts it. Repeated: the 95 % interval "
  "lies there wholly. Contradicted: it lies wholly on the other side; for ≈ 0, repeated means within "
  f"±{MARGIN:g} points and contradicted wholly outside. Undecided: neither, or one pretraining seed, whose "
  "interval says nothing about other seeds; then the verdict says how many of the claim's parts (tasks and "
  "languages) have the claimed sign. A claim over k systems or languages needs all of them; one that is "
  "on the other side contradicts it if k times its p is below 0.05 (Bonferroni). The number shown is the "
  "one that speaks most against the claim. Points are means over the tasks and languages "
  "that were run; the paper's number is the same mean from its tables, or what the claim names. A star: "
  "decided also after Holm's correction for all claims of the scale (p below 0.05); claims of ≈ 0 have none."
)
DATA_HEADER = (
  *("scale", "claim", "statement", "expected", "unit", "paper", "value", "low", "high"),
  *("p", "p_holm", "interval_covers", "seeds", "verdict"),
)
PARTS_HEADER = ("scale", "claim", "part", "value", "low", "high", "p", "interval_covers", "seeds")
_LOW_RESOURCE = ("hi", "sw", "te")


@dataclass(frozen=True)
class Claim:
  """One claim of the paper."""

  name: str  # in the CSV files
  group: str  # the heading above it
  text: str  # what is claimed, and what the number is
  expected: int  # 1: above zero; -1: below zero; 0: within MARGIN of zero
  find: Finder  # the number
  unit: str = "points"  # points | cosine | similarity | updates
  lab: bool = True  # whether the lab can test it


def _versus(system: str, other: str, setting: str) -> Finder:
  return scores(Side(1, system, setting), Side(-1, other, setting))


_INTERFERENCE, _CAUSES = "Negative interference", "Its causes"
_SPECIFIC, _META = "Language-specific parameters", "Meta adapters"

CLAIMS = (
  Claim(
    "interference",
    _INTERFERENCE,
    "Mono beats JointPair within the language, at equal steps (Tables 2, 3)",
    1,
    interference("steps"),
  ),
  Claim(
    "interference_tokens",
    _INTERFERENCE,
    "… also at equal tokens of the language (the paper did not test it)",
    1,
    interference("tokens"),
  ),
  Claim(
    "low_resource",
    _INTERFERENCE,
    "Low-resource languages suffer too: Mono - JointPair of hi, sw, te (Tables 2, 3)",
    1,
    interference("steps", languages=_LOW_RESOURCE),
    lab=False,
  ),
  Claim(
    "low_resource_tokens",
    _INTERFERENCE,
    "… also at equal tokens of the language (the paper did not test it)",
    1,
    interference("tokens", languages=_LOW_RESOURCE),
    lab=False,
  ),
  Claim(
    "subsampled",
    _CAUSES,
    "With little text JointPair beats Mono: Mono - JointPair, subsampled (Table 5)",
    -1,
    interference("steps", small=True),
  ),
  Claim(
    "size_of_the_other",
    _CAUSES,
    "The other language's size matters little: English beside all text - beside little (Table 5; at equal "
    "steps a model with little text of the target reads more English)",
    0,
    evidence.size_of_the_other,
  ),
  Claim(
    "distance",
    _CAUSES,
    "Distant languages interfere more (Table 5: English beside fr - beside ru; lab: lowest similarity's "
    "Mono - JointPair minus the highest's)",
    1,
    evidence.distance,
  ),
  Claim(
    "third_within",
    _CAUSES,
    "A similar third language does not help within the language: JointTri - JointPair (Table 4)",
    0,
    _versus("joint_tri", "joint_pair", "within"),
  ),
  Claim(
    "third_within_tokens",
    _CAUSES,
    "… nor at equal tokens of the language (the paper did not test it)",
    0,
    evidence.at_equal_text("joint_tri", "joint_pair", "within"),
  ),
  Claim(
    "third_zero_shot",
    _CAUSES,
    "… but zero-shot it does (Table 4)",
    1,
    _versus("joint_tri", "joint_pair", "zero_shot"),
  ),
  Claim(
    "third_zero_shot_tokens",
    _CAUSES,
    "… also at equal tokens of the language (the paper did not test it)",
    1,
    evidence.at_equal_text("joint_tri", "joint_pair", "zero_shot"),
  ),
  Claim(
    "gradients",
    _CAUSES,
    "Gradients of two languages agree less than those of one (Figure 3)",
    1,
    conflict(evidence.gap),
    "cosine",
  ),
  Claim(
    "gradients_early",
    _CAUSES,
    "… more so in the first quarter of the updates than later (Figure 3; corrected for sampling noise)",
    1,
    conflict(evidence.early_loss),
    "cosine",
  ),
  Claim(
    "gradients_negative",
    _CAUSES,
    "… and at the start, the first tenth, the cosine of two languages is negative (Figure 3)",
    -1,
    conflict(evidence.start),
    "cosine",
  ),
  Claim(
    "gradients_distance",
    _CAUSES,
    "Gradients of a close pair agree more than those of a distant one (Figure 3; lab: highest and lowest "
    "similarity)",
    1,
    evidence.near_minus_far,
    "cosine",
  ),
  Claim(
    "masks",
    _CAUSES,
    "Some parameters are language-specific: masks of two languages differ more than two of one (Figure 4)",
    1,
    masks(evidence.one_minus_two_languages),
    "similarity",
  ),
  Claim(
    "masks_layers",
    _CAUSES,
    "Lower layers are shared more than upper ones (Figure 4a)",
    1,
    masks(evidence.lower_minus_upper),
    "similarity",
  ),
  Claim(
    "masks_attention",
    _CAUSES,
    "Attention is shared more than feed-forward layers (Figure 4a)",
    1,
    masks(evidence.attention_minus_ffn),
    "similarity",
  ),
  Claim(
    "ffn_within",
    _SPECIFIC,
    "Feed-forward layers of each language repair interference: ffn - JointPair, within-language (Tables 2, 3)",
    1,
    _versus("ffn", "joint_pair", "within"),
  ),
  Claim(
    "ffn_zero_shot",
    _SPECIFIC,
    "Feed-forward layers of each language ruin transfer: ffn - JointPair, zero-shot (Tables 2, 3, 6)",
    -1,
    _versus("ffn", "joint_pair", "zero_shot"),
  ),
  Claim(
    "attn_within",
    _SPECIFIC,
    "Attention of each language repairs interference: attn - JointPair, within-language (Tables 2, 3)",
    1,
    _versus("attn", "joint_pair", "within"),
  ),
  Claim(
    "attn_zero_shot",
    _SPECIFIC,
    "Attention of each language ruins transfer: attn - JointPair, zero-shot (Tables 2, 3, 6)",
    -1,
    _versus("attn", "joint_pair", "zero_shot"),
  ),
  Claim(
    "ffn_over_attn",
    _SPECIFIC,
    "Feed-forward layers repair more than attention: ffn - attn, within-language",
    1,
    _versus("ffn", "attn", "within"),
  ),
  Claim(
    "adpt_within",
    _SPECIFIC,
    "Adapters of each language repair interference: adpt - JointPair, within-language",
    1,
    _versus("adpt", "joint_pair", "within"),
  ),
  Claim(
    "adpt_zero_shot",
    _SPECIFIC,
    "… but transfer worse than JointPair, zero-shot",
    -1,
    _versus("adpt", "joint_pair", "zero_shot"),
  ),
  Claim(
    "share_adpt_within",
    _SPECIFIC,
    "Shared adapters improve on JointPair, within-language",
    1,
    _versus("share_adpt", "joint_pair", "within"),
  ),
  Claim(
    "share_adpt_zero_shot",
    _SPECIFIC,
    "… and zero-shot",
    1,
    _versus("share_adpt", "joint_pair", "zero_shot"),
  ),
  Claim(
    "meta_adpt_within",
    _META,
    "Meta adapters mitigate interference: meta_adpt - JointPair, within-language",
    1,
    _versus("meta_adpt", "joint_pair", "within"),
  ),
  Claim(
    "meta_adpt_zero_shot",
    _META,
    "… and improve transfer: meta_adpt - JointPair, zero-shot",
    1,
    _versus("meta_adpt", "joint_pair", "zero_shot"),
  ),
  Claim(
    "meta_adpt_over_adpt_within",
    _META,
    "Meta adapters beat ordinary ones: meta_adpt - adpt, within-language",
    1,
    _versus("meta_adpt", "adpt", "within"),
  ),
  Claim(
    "meta_adpt_over_adpt_zero_shot",
    _META,
    "… and zero-shot",
    1,
    _versus("meta_adpt", "adpt", "zero_shot"),
  ),
  Claim(
    "meta_adpt_best",
    _META,
    "Meta adapters are the best of the paper's bilingual systems zero-shot: lead over each other one",
    1,
    best("meta_adpt", "zero_shot"),
  ),
  Claim(
    "meta_adpt_faster",
    _META,
    "Meta adapters converge faster than JointPair: updates saved until a training loss (Figure 4c)",
    1,
    faster("meta_adpt", "joint_pair"),
    "updates",
  ),
  Claim(
    "adpt_slower",
    _META,
    "Ordinary adapters converge slower than JointPair: updates saved (Figure 4c)",
    -1,
    faster("adpt", "joint_pair"),
    "updates",
  ),
)


def verdict(finding: Finding, expected: int) -> str:
  """Returns REPEATED, CONTRADICTED, UNDECIDED or NOT_RUN; the rule is RULE."""
  decisive = shown(finding, expected)
  return NOT_RUN if decisive is None else _verdict_of(decisive, expected, len(finding.estimates))


def _verdict_of(estimate: Estimate, expected: int, number: int) -> str:
  """Returns what one of the `number` estimates that a claim needs says about it."""
  interval = estimate.interval
  if interval is None or estimate.over != statistics.PRETRAINING:
    return UNDECIDED
  low, high = interval.low, interval.high
  if expected == 0:
    inside, outside = low >= -MARGIN and high <= MARGIN, low > MARGIN or high < -MARGIN
    return REPEATED if inside else CONTRADICTED if outside else UNDECIDED
  if expected < 0:
    low, high = -high, -low
  contradicts = high < 0 and interval.p * number < statistics.SIGNIFICANT
  return REPEATED if low > 0 else CONTRADICTED if contradicts else UNDECIDED


def shown(finding: Finding, expected: int) -> Estimate | None:
  """Returns the estimate that speaks most against the claim; None where nothing was run."""
  order = (CONTRADICTED, UNDECIDED, REPEATED)
  number = len(finding.estimates)

  def favour(each: Estimate) -> tuple[int, float]:
    said = _verdict_of(each, expected, number)
    value = expected * each.value if expected else -abs(each.value)
    return order.index(said), (each.p or 0.0) if said == CONTRADICTED else value

  return min(finding.estimates, key=favour, default=None)


def as_claimed(finding: Finding, expected: int) -> str:
  """Returns such as " (2 of 3 parts as claimed)" where no other seeds are known, else an empty text."""
  if any(each.over == statistics.PRETRAINING for each in finding.estimates):
    return ""
  values = [part.value for _, part in finding.parts] or [each.value for each in finding.estimates]
  held = sum(abs(v) <= MARGIN if expected == 0 else v * expected > 0 for v in values)
  if len(values) == 1:
    return f" ({'not ' * (not held)}as claimed)"
  return f" ({held} of {len(values)} parts as claimed)" if values else ""


def sections(study: Study, comparer: Comparer) -> tuple[Section, Section]:
  """Returns the table of claims, and the table of what each is made of."""
  whole = Section("claims", "The paper's claims", RULE, data_header=DATA_HEADER)
  parts = Section("claims_parts", "The claims by task and language", data_header=PARTS_HEADER)
  known = Evidence(study, comparer)
  for scale in comparer.cells.scales:
    claims = [claim for claim in CLAIMS if claim.lab or scale != "lab"]
    found = {claim.name: claim.find(known, scale) for claim in claims}
    if not any(finding.estimates for finding in found.values()):
      continue
    estimates = {claim.name: shown(found[claim.name], claim.expected) for claim in claims}
    holm = _holm(claims, found, estimates)
    table = Table(f"Claims, scale {scale}", ["claim", "expected", "paper", "here", "verdict"], [])
    details = Table(f"Parts, scale {scale}", ["claim", "part", "here"], [])
    group = ""
    for claim in claims:
      if claim.group != group:
        group = claim.group
        table.rows.append([group])
      finding, estimate = found[claim.name], estimates[claim.name]
      decided = verdict(finding, claim.expected)
      digits = {"points": 1, "updates": 0}.get(claim.unit, 2)
      star = holm.get(claim.name, 1.0) < statistics.SIGNIFICANT and decided != UNDECIDED
      here = layout.difference(estimate, digits=digits, significant=star)
      here += f" {claim.unit}" if claim.unit != "points" and estimate else ""
      paper = layout.number(finding.paper, 1, "+")
      expected = ("≈ 0", "> 0", "< 0")[claim.expected]
      shown_verdict = decided + as_claimed(finding, claim.expected)
      table.rows.append([claim.text, expected, paper, here, shown_verdict])
      numbers = _numbers(estimate)
      data = (*numbers[:4], holm.get(claim.name), *numbers[4:], decided)
      statement = claim.text, expected, claim.unit, finding.paper
      whole.data.append((scale, claim.name, *statement, *data))
      for name, part in finding.parts if len(finding.parts) > 1 else []:
        details.rows.append([claim.name, name, layout.difference(part, digits=digits)])
        parts.data.append((scale, claim.name, name, *_numbers(part)))
    whole.tables.append(table)
    parts.tables += [details] if details.rows else []
  covers = DATA_HEADER.index("interval_covers")
  whole.note += " " + layout.coverage(row[covers] or "" for row in whole.data)
  parts.note = layout.coverage(row[-2] or "" for row in parts.data)
  return whole, parts


def _numbers(estimate: Estimate | None) -> tuple:
  """Returns (value, low, high, p, what the interval covers, seeds)."""
  if estimate is None:
    return (None,) * 6
  interval = estimate.interval
  ends = (interval.low, interval.high) if interval else (None, None)
  return (estimate.value, *ends, estimate.p, estimate.over, estimate.seeds)


def _holm(
  claims: Sequence[Claim], found: dict[str, Finding], estimates: dict[str, Estimate | None]
) -> dict[str, float]:
  """Returns Holm's p of each claim of a sign whose number has an interval over pretraining seeds.

  A claim of several parts is repeated only if all of them are, so their largest p counts. One part is
  enough to contradict it, so that part's p counts as often as there are parts (Bonferroni).
  """
  ps = {}
  for claim in claims:
    decisive = estimates[claim.name]
    if claim.expected == 0 or decisive is None or decisive.p is None:
      continue
    every = [each.p for each in found[claim.name].estimates if each.p is not None]
    is_contradicted = _verdict_of(decisive, claim.expected, len(every)) == CONTRADICTED
    ps[claim.name] = min(1.0, decisive.p * len(every)) if is_contradicted else max(every)
  return dict(zip(ps, statistics.holm(list(ps.values())), strict=True))
