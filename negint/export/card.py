"""README.md of an exported folder: what the model is, how good it is, how to use it."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from negint.export import tokenizer_files
from negint.pretrained.load import Pretrained
from negint.special_tokens import MASK

PAPER = "https://arxiv.org/abs/2010.03017"
FOLDER = "path/to/this/folder"  # as the snippets name it

_FILL = """```python
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

folder = "{folder}"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForMaskedLM.from_pretrained(folder).eval()
{adapters}text = "a text with {mask} in it"
inputs = tokenizer(text, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs{langs}).logits
place = inputs.input_ids[0].tolist().index(tokenizer.mask_token_id)
print(tokenizer.convert_ids_to_tokens(logits[0, place].topk(5).indices.tolist()))
```"""

_ADAPTERS = """```python
import torch
from safetensors.torch import load_file


class Adapter(torch.nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.lin1, self.lin2 = torch.nn.Linear(dim, width), torch.nn.Linear(width, dim)

    def forward(self, x):
        return x + self.lin2(torch.nn.functional.{activation}(self.lin1(x)))


def add_adapters(model, folder, language):
    weights, c = load_file(f"{{folder}}/adapters.safetensors"), model.config
    encoder = model.transformer
    hooked = hasattr(encoder, "adapter1")
    for name in ("adapter1", "adapter2"):  # after the attention, after the feed-forward layer
        layers = torch.nn.ModuleList(Adapter(c.emb_dim, c.adapter_dim) for _ in range(c.n_layers))
        start = f"{{name}}.{{language}}."
        theirs = {{k.removeprefix(start): w for k, w in weights.items() if k.startswith(start)}}
        layers.load_state_dict(theirs)
        setattr(encoder, name, layers)
    for n in range(0 if hooked else c.n_layers):
        encoder.attentions[n].register_forward_hook(
            lambda module, inputs, out, n=n: (encoder.adapter1[n](out[0]), *out[1:])
        )
        encoder.ffns[n].register_forward_hook(lambda module, inputs, out, n=n: encoder.adapter2[n](out))
    return model.eval()
```"""


def pretrained(
  model: Pretrained, languages: Sequence[str], *, adapters: bool, filled_up: bool
) -> str:
  """Returns the README.md of a pretrained model.

  Args:
    model: what is exported.
    languages: those of the folder, the first one as the default.
    adapters: whether the folder has adapters.safetensors.
    filled_up: whether zeros fill up heads or feed-forward layers.
  """
  first, names = languages[0] if languages else "", ", ".join(languages)
  lines = [*_front_matter(model, languages), f"# {pathlib.Path(model.workdir).name}", ""]
  lines += [
    f"A masked language model{f' of {names}' if names else ''} in XLM's architecture, trained by",
    f"negint, a laboratory for negative interference in multilingual models ([paper]({PAPER})).",
    "",
    *_table(("what", "value"), _facts(model)),
    "",
    *_perplexities(model, languages),
    "## Use",
  ]
  several = len(languages) > 1 and model.model.language_embedding
  if adapters:
    lines += [
      "The encoder in `model.safetensors` was trained with adapters. `adapters.safetensors` holds those",
      "of each language, and this function puts them into the model; call it again for another language.",
      _ADAPTERS.format(activation=model.model.adapter_activation),
      "",
    ]
  lines += [
    _FILL.format(
      folder=FOLDER,
      adapters=f'model = add_adapters(model, folder, "{first}")\n' if adapters else "",
      mask=tokenizer_files.NAMES[MASK],
      langs="",
    ),
    "",
  ]
  if several:
    lines += [
      f"The model has an embedding for each language. Without `langs` it computes `{first}`. For another",
      f"language, here `{languages[1]}`, the call is",
      "```python",
      f'langs = torch.full_like(inputs.input_ids, model.config.lang2id["{languages[1]}"])',
      "logits = model(**inputs, langs=langs).logits",
      "```",
      "",
    ]
  lines += ["## Notes", *_notes(model, filled_up)]
  return "\n".join(lines) + "\n"


def _front_matter(model: Pretrained, languages: Sequence[str]) -> Iterator[str]:
  """Yields the fields that the Hugging Face Hub reads; the lab's languages have no codes there."""
  yield from ("---", "library_name: transformers", "pipeline_tag: fill-mask")
  if languages and not model.lab:
    yield "language:"
    yield from (f"- {code.split('_')[0]}" for code in languages)
  yield from ("tags:", "- negint", f"- {model.system}", "---", "")


def _facts(model: Pretrained) -> Iterator[tuple[str, str]]:
  shape, known = model.model, model.identity()
  yield "system", model.system
  if model.languages:
    yield "trained on", ", ".join(model.languages)
  if model.origin:
    data = model.run.data
    yield (
      "text",
      {
        "sample": "the sample sentences that come with negint",
        "lab": f"artificial languages of similarity {data.lab.similarity:g}",
        "prepared": "corpora prepared by negint.prepare",
      }[data.source],
    )
    yield "scale, seed", f"{known['scale']}, {known['seed']}"
    yield "updates", f"{known['steps']:,}"
    yield "tokens seen", f"{known['tokens_seen']:,}"
    if held_out := model.result["held_out_tokens_seen"]:
      yield "held-out tokens seen", f"{held_out:,}"
    yield "tokens of a training sequence", f"{model.sequence_length:,}"
  yield "longest text", f"{shape.max_length:,} tokens"
  yield "vocabulary", f"{shape.vocab_size:,} pieces"
  yield (
    "layers, width, heads, feed-forward width",
    f"{shape.num_layers}, {shape.model_dim}, {shape.num_heads} of {shape.head_dim}, {shape.ffn_dim}",
  )


def _perplexities(model: Pretrained, languages: Sequence[str]) -> Iterator[str]:
  """Yields the table of the languages' text and perplexities; nothing for imported models."""
  if not model.origin:
    return
  result = model.result
  columns: dict[str, dict[str, Any]] = {
    "training sentences": {c: f"{n:,}" for c, n in result["training_sentences"].items()},
    "training tokens": {c: f"{n:,}" for c, n in result["training_tokens"].items()},
    "perplexity": {c: f"{x:.2f}" for c, x in result["perplexity"].items()},
    "unigram": {c: f"{x:.2f}" for c, x in result["unigram_perplexity"].items()},
  }
  rows = [(code, *(column[code] for column in columns.values())) for code in languages]
  yield from _table(("language", *columns), rows)
  yield ""
  yield 'Perplexity is per hidden token of held-out text, with 15 % of its tokens hidden. "unigram" is a'
  yield "model that knows word frequencies alone."
  yield ""


def _notes(model: Pretrained, filled_up: bool) -> Iterator[str]:
  mask = tokenizer_files.NAMES[MASK]
  yield f"- `{mask}` in a text is the token to fill. Text that spells `</s>`, `<pad>` or `<unk>` becomes"
  yield "  that special token; with `split_special_tokens=True` the tokenizer reads all of it as text."
  yield "- The tokenizer brings text to NFC, makes every white space a space, and drops control characters."
  if model.model.dtype == "bfloat16":
    yield "- Training multiplied matrices in bfloat16. The weights are float32."
  if filled_up:
    yield "- Heads or feed-forward layers are filled up with zeros to XLM's widths, which changes no output."


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
  yield f"| {' | '.join(head)} |"
  yield f"|{'---|' * len(head)}"
  for row in rows:
    yield f"| {' | '.join(row)} |"
