"""README.md of an exported folder: what the model is, how good it is, how to use it."""

import pathlib
import string
from collections.abc import Iterable, Iterator, Sequence

from negint.export import heads, tokenizer_files
from negint.export.encoder import Encoder
from negint.export.heads import Head
from negint.inference.model import Model
from negint.options import HALF_DTYPES
from negint.run.files import read_json

PAPER = "https://arxiv.org/abs/2010.03017"
FOLDER = "path/to/this/folder"  # as the snippets name it
ARCHITECTURES = {"xlm": "XLM", "bert": "BERT", "xlm-roberta": "XLM-R"}
ACTIVATIONS = {  # as torch computes an adapter's
  "gelu": "gelu(x)",
  "gelu_tanh": 'gelu(x, approximate="tanh")',
  "relu": "relu(x)",
  "silu": "silu(x)",
}
_SUBLAYERS = {  # of layer n: what adapter1 and adapter2 follow, and how a hook changes its output
  "xlm": ("base.attentions[n]", "(base.adapter1[n](out[0]), *out[1:])", "base.ffns[n]"),
  "bert": (
    "base.encoder.layer[n].attention.output.dense",
    "base.adapter1[n](out)",
    "base.encoder.layer[n].output.dense",
  ),
}

_ADAPTERS = """\
import torch
from safetensors.torch import load_file


class Adapter(torch.nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.lin1, self.lin2 = torch.nn.Linear(dim, width), torch.nn.Linear(width, dim)

    def forward(self, z):
        x = self.lin1(z)
        return z + self.lin2(torch.nn.functional.$activation)


def add_adapters(model, folder, language):
    weights, base, c = load_file(f"{folder}/adapters.safetensors"), model.base_model, model.config
    hooked = hasattr(base, "adapter1")
    for name in ("adapter1", "adapter2"):
        made = [Adapter(c.hidden_size, c.adapter_dim) for n in range(c.num_hidden_layers)]
        setattr(base, name, torch.nn.ModuleList(made))
        start = f"{name}.{language}."
        theirs = {k[len(start) :]: w for k, w in weights.items() if k.startswith(start)}
        getattr(base, name).load_state_dict(theirs)
    for n in range(0 if hooked else c.num_hidden_layers):
        attention, ffn = $attention, $ffn
        attention.register_forward_hook(lambda _, x, out, n=n: $adapted)
        ffn.register_forward_hook(lambda _, x, out, n=n: base.adapter2[n](out))
    return model.eval()"""

_LOADED = """\
import torch
from transformers import $auto_class, AutoTokenizer

folder = "$folder"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = $auto_class.from_pretrained(folder).eval()
"""
_FILL = """\
inputs = tokenizer("a text with $mask in it", truncation=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
place = inputs.input_ids[0].tolist().index(tokenizer.mask_token_id)
print(tokenizer.convert_ids_to_tokens(logits[0, place].topk(5).indices.tolist()))"""
_OTHER_LANGUAGE = """\
langs = torch.full_like(inputs.input_ids, model.config.lang2id["$other"])
${adding}logits = model(**inputs, langs=langs).logits"""
_TAG = """\
words = "the words of a sentence".split()
inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
with torch.no_grad():
    tags = model(**inputs).logits[0].argmax(-1).tolist()
places = inputs.word_ids()  # a word's tag is that of its first token
print([(word, model.config.id2label[tags[places.index(n)]]) for n, word in enumerate(words)])"""
_ANSWER = """\
texts = "a question", "the text that answers it"
inputs = tokenizer(*texts, truncation="only_second", return_tensors="pt")
with torch.no_grad():
    found = model(**inputs)
inside = torch.tensor([text == 1 for text in inputs.sequence_ids()])
scores = found.start_logits[0][:, None] + found.end_logits[0][None]
scores[~(inside[:, None] & inside[None]).triu()] = -torch.inf
begin, end = divmod(scores.argmax().item(), len(inside))
print(tokenizer.decode(inputs.input_ids[0, begin : end + 1]))"""
_CLASSIFY = """\
inputs = tokenizer("the first text", "the second text", truncation=True, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
print(model.config.id2label[logits.argmax(-1).item()])"""
_USES = {heads.TOKENS: _TAG, heads.ANSWERS: _ANSWER, heads.SEQUENCE: _CLASSIFY}
_PIPELINES = {heads.TOKENS: "token-classification", heads.ANSWERS: "question-answering"}
_PIPELINES |= {heads.SEQUENCE: "text-classification"}


def text(model: Model, found: Encoder, languages: Sequence[str], head: Head | None) -> str:
  """Returns the README.md of a folder.

  Args:
    model: what is exported.
    found: its encoder as exported.
    languages: those of the folder, the first one as the default; () if they are not known.
    head: of a fine-tuned model; None: of a masked language model.
  """
  tuned, pretrained = model.finetuned, model.pretrained
  what = f"model of the task `{model.task}`" if tuned else "masked language model"
  of = f" for {', '.join(languages)}" if languages else ""
  special = model.tokenizer.special
  mask, end = (
    tokenizer_files.spelling(model.tokenizer, token) for token in (special.mask, special.end[-1])
  )
  lines = [
    *_front_matter(model, languages, head),
    f"# {pathlib.Path(model.path).absolute().name}",
    "",
    f"A {what}{of} with {ARCHITECTURES[found.family]}'s architecture. It comes from negint, a",
    f"laboratory for negative interference in multilingual models ([paper]({PAPER})).",
    "",
    *_table(("what", "value"), _facts(model)),
    "",
    *(_scores(model) if tuned else _perplexities(model, languages)),
    "## Use",
    *_use(found, languages, head, mask),
    "",
    "## Notes",
  ]
  if not tuned:
    lines.append(f"- `{mask}` in a text is a token to fill.")
  lines += [
    f"- A text that spells a special token, such as `{end}`, becomes that token. With",
    "  `split_special_tokens=True` the tokenizer reads it as text.",
  ]
  if pretrained.model.dtype in HALF_DTYPES:
    dtype = pretrained.model.dtype
    lines.append(f"- Training multiplied matrices in {dtype}. The weights are float32.")
  if (found.options.head_dim, found.options.ffn_dim) != (
    pretrained.model.head_dim,
    pretrained.model.ffn_dim,
  ):
    lines.append(
      "- Zeros fill up attention heads or feed-forward layers to the architecture's widths. They change\n"
      "  no output."
    )
  return "\n".join(lines) + "\n"


def _front_matter(model: Model, languages: Sequence[str], head: Head | None) -> Iterator[str]:
  """Yields the fields that the Hugging Face Hub reads; it knows no codes of the lab's languages."""
  pipeline = _PIPELINES[head.kind] if head else "fill-mask"
  yield from ("---", "library_name: transformers", f"pipeline_tag: {pipeline}")
  if languages and not model.pretrained.lab:
    yield "language:"
    yield from dict.fromkeys(f"- {code.split('_')[0]}" for code in languages)
  yield from ("tags:", "- negint", f"- {model.system}", "---", "")


def _facts(model: Model) -> Iterator[tuple[str, str]]:
  """Yields what is known of the model's training and shape."""
  pretrained, tuned = model.pretrained, model.finetuned
  shape, known = pretrained.model, pretrained.identity()
  if tuned:
    run = tuned.run
    yield "fine-tuned on", f"{run.task.name} in {run.source_language}, seed {tuned.seed}"
    yield "labels", ", ".join(tuned.labels)
  yield "system", pretrained.system
  if pretrained.languages:
    yield "pretrained on", ", ".join(pretrained.languages)
  if pretrained.origin:
    data = pretrained.run.data
    sources = {
      "sample": "the sentences that come with negint",
      "lab": f"artificial languages of similarity {data.lab.similarity:g}",
      "prepared": "corpora that negint.prepare made",
    }
    yield "text", sources[data.source]
    yield "scale, seed", f"{known['scale']}, {known['seed']}"
    yield "updates", f"{known['steps']:,}"
    yield "tokens seen", f"{known['tokens_seen']:,}"
    if held_out := pretrained.result["held_out_tokens_seen"]:
      yield "held-out tokens seen", f"{held_out:,}"
    yield "tokens of a training sequence", f"{pretrained.sequence_length:,}"
  yield "longest text", f"{shape.max_length:,} tokens"
  yield "vocabulary", f"{shape.vocab_size:,} pieces"
  yield "layers, width", f"{shape.num_layers}, {shape.model_dim}"
  yield "heads, feed-forward width", f"{shape.num_heads} of {shape.head_dim}, {shape.ffn_dim}"


def _perplexities(model: Model, languages: Sequence[str]) -> Iterator[str]:
  """Yields the table of the languages' text and perplexities; nothing for imported models."""
  if not model.pretrained.origin:
    return
  result = model.pretrained.result
  head = ("language", "training sentences", "training tokens", "perplexity", "unigram")
  counts = [result["training_sentences"], result["training_tokens"]]
  values = [result["perplexity"], result["unigram_perplexity"]]
  yield from _table(
    head,
    (
      (code, *(f"{c[code]:,}" for c in counts), *(f"{v[code]:.2f}" for v in values))
      for code in languages
    ),
  )
  yield ""
  yield "Perplexity is per hidden token of held-out text, of which 15 % of the tokens are hidden."
  yield '"unigram" is a model that knows word frequencies alone.'
  yield ""


def _scores(model: Model) -> Iterator[str]:
  """Yields the table of a fine-tuned model's test scores."""
  path = pathlib.Path(model.path) / "result.json"
  test = read_json(path, f"the run in {model.path}; start its command again")["test"]
  names = list(next(iter(test.values())))
  rows = ((code, *(f"{scores[n]:.1f}" for n in names)) for code, scores in test.items())
  yield from _table(("test language", *names), rows)
  yield ""
  yield "Scores are in per cent, the mean over the seeds of the run."
  yield ""


def _use(found: Encoder, languages: Sequence[str], head: Head | None, mask: str) -> Iterator[str]:
  """Yields how to load the model and what to do with it."""
  if found.phi:
    attention, adapted, ffn = _SUBLAYERS["xlm" if found.family == "xlm" else "bert"]
    yield "The encoder in `model.safetensors` was trained with adapters, which are in"
    yield "`adapters.safetensors`. This function puts those of a language into the model; a second call"
    yield "replaces them:"
    yield from _python(
      string.Template(_ADAPTERS).substitute(
        activation=ACTIVATIONS[found.options.adapter_activation],
        attention=attention,
        adapted=adapted,
        ffn=ffn,
      )
    )
    yield ""

  def adding(language: str) -> str:
    return f'model = add_adapters(model, folder, "{language}")\n' if found.phi else ""

  template = (
    _LOADED + adding(languages[0] if languages else "") + (_USES[head.kind] if head else _FILL)
  )
  auto_class = head.auto_class if head else "AutoModelForMaskedLM"
  code = string.Template(template).substitute(auto_class=auto_class, folder=FOLDER, mask=mask)
  yield from _python(code)
  if found.options.language_embedding:
    yield ""
    yield f"The model has an embedding of each language. Without `langs` it computes {languages[0]}."
    yield f"For another language, here {languages[1]}, the call is"
    yield from _python(
      string.Template(_OTHER_LANGUAGE).substitute(other=languages[1], adding=adding(languages[1]))
    )


def _python(code: str) -> Iterator[str]:
  yield from ("```python", code, "```")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
  yield f"| {' | '.join(head)} |"
  yield f"|{'---|' * len(head)}"
  for row in rows:
    yield f"| {' | '.join(row)} |"
