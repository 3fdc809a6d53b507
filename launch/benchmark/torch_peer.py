"""The same model and steps in PyTorch, as an experienced user writes them, to compare negint with.

XLM's encoder as functions of a dict of tensors under XLM's names (`xlm_weights.to_xlm`), so that the
same weights give the same loss. The meta step differentiates through the look-ahead by a double
backward pass, as the authors' release does. Imported only with --peer=torch.
"""

import contextlib
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from launch.benchmark import timed_steps
from launch.benchmark.race import Contender
from negint.method.masking import num_predicted
from negint.method.state import init_state
from negint.options import ModelOptions, RunOptions
from negint.pretrained import xlm_weights
from negint.special_tokens import MASK

Weights = dict[str, torch.Tensor]  # under XLM's names


class Masked(NamedTuple):
  """A masked batch."""

  tokens: torch.Tensor  # [B, T], as the encoder sees them
  positions: torch.Tensor  # [B, K], that are predicted
  targets: torch.Tensor  # [B, K], the tokens there


def mask_tokens(tokens: torch.Tensor, count: int, vocab_size: int) -> Masked:
  """Hides `count` positions of each row, never the first: 80 % [MASK], 10 % random, 10 % kept."""
  scores = torch.rand(tokens.shape, device=tokens.device)
  scores[:, 0] = -1.0
  positions = scores.topk(count, dim=1).indices
  targets = tokens.gather(1, positions)
  draw = torch.rand(targets.shape, device=tokens.device)
  shown = torch.where(draw < 0.9, torch.randint_like(targets, vocab_size), targets)
  shown = torch.where(draw < 0.8, torch.full_like(targets, MASK), shown)
  return Masked(tokens.scatter(1, positions, shown), positions, targets)


def linear(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
  """Applies a linear layer."""
  return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def layer_norm(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
  """Applies a LayerNorm."""
  weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
  return F.layer_norm(x, weight.shape, weight, bias, eps=1e-12)


def adapter(weights: Weights, name: str, z: torch.Tensor) -> torch.Tensor:
  """Applies an adapter (Eqs. 6-7)."""
  return z + linear(weights, f"{name}.lin2", F.gelu(linear(weights, f"{name}.lin1", z)))


def attention(
  model: ModelOptions,
  weights: Weights,
  name: str,
  query: torch.Tensor,
  x: torch.Tensor,
  twice: bool,
) -> torch.Tensor:
  """Applies multi-head attention.

  PyTorch's fused kernels have no second derivative, so `twice` takes plain matrix products.
  """

  def heads(inputs: torch.Tensor, part: str) -> torch.Tensor:
    rows = linear(weights, f"{name}.{part}", inputs)
    return rows.unflatten(-1, (model.num_heads, model.head_dim)).transpose(1, 2)

  q, k, v = heads(query, "q_lin"), heads(x, "k_lin"), heads(x, "v_lin")
  if twice:
    scores = (q * model.head_dim**-0.5) @ k.transpose(-1, -2)
    probabilities = F.dropout(scores.softmax(-1), model.attention_dropout)
    context = probabilities.to(v.dtype) @ v
  else:
    context = F.scaled_dot_product_attention(q, k, v, dropout_p=model.attention_dropout)
  return linear(weights, f"{name}.out_lin", context.transpose(1, 2).flatten(2))


def mlm_loss(
  model: ModelOptions,
  weights: Weights,
  masked: Masked,
  language: int,
  codes: Sequence[str],
  twice: bool = False,
) -> torch.Tensor:
  """Returns the mean cross-entropy in nats at the predicted positions of a batch in one language.

  Args:
    model: the encoder's shape.
    weights: of the encoder, with the adapters of all languages.
    masked: the batch.
    language: its index.
    codes: of the languages; the names of the adapters hold them.
    twice: whether the loss will be differentiated twice.
  """
  x = F.embedding(masked.tokens, weights["embeddings.weight"])
  x = x + weights["position_embeddings.weight"][: x.shape[1]]
  x = x + weights["lang_embeddings.weight"][language]
  x = F.dropout(layer_norm(weights, "layer_norm_emb", x), model.dropout)
  for n in range(model.num_layers):
    query = x
    if n == model.num_layers - 1:
      query = x.gather(1, masked.positions[..., None].expand(-1, -1, x.shape[-1]))
    out = attention(model, weights, f"attentions.{n}", query, x, twice)
    out = F.dropout(out, model.dropout)
    if model.has_adapters:
      out = adapter(weights, f"adapter1.{codes[language]}.{n}", out)
    h = layer_norm(weights, f"layer_norm1.{n}", query + out)
    out = linear(weights, f"ffns.{n}.lin2", F.gelu(linear(weights, f"ffns.{n}.lin1", h)))
    out = F.dropout(out, model.dropout)
    if model.has_adapters:
      out = adapter(weights, f"adapter2.{codes[language]}.{n}", out)
    x = layer_norm(weights, f"layer_norm2.{n}", h + out)
  logits = F.linear(x, weights["embeddings.weight"], weights["pred_layer.proj.bias"])
  return F.cross_entropy(logits.flatten(0, 1), masked.targets.flatten())


def meta_gradient(
  model: ModelOptions,
  theta: Weights,
  phi: Weights,
  train: Masked,
  held_out: Sequence[Masked],
  language: int,
  codes: Sequence[str],
  beta: float,
) -> Weights:
  """Returns the gradient of phi_i through theta - beta * g, by a double backward pass (Eq. 4).

  Args:
    model: the encoder's shape.
    theta: the weights that all languages share.
    phi: the adapters of every language.
    train: the training batch, whose gradient by theta is g.
    held_out: one masked batch per language.
    language: i, the index of the training batch's language.
    codes: of the languages.
    beta: the learning rate of the look-ahead.
  """
  own = {name: w for name, w in phi.items() if name.split(".")[1] == codes[language]}
  loss = mlm_loss(model, {**theta, **phi}, train, language, codes, twice=True)
  inner = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
  ahead = {name: w - beta * g for (name, w), g in zip(theta.items(), inner, strict=True)}
  losses = [
    mlm_loss(model, {**ahead, **phi}, masked, j, codes) for j, masked in enumerate(held_out)
  ]
  gradients = torch.autograd.grad(sum(losses) / len(losses), list(own.values()))
  return dict(zip(own, gradients, strict=True))


def meta_gradient_by_func(
  model: ModelOptions,
  theta: Weights,
  phi: Weights,
  train: Masked,
  held_out: Sequence[Masked],
  language: int,
  codes: Sequence[str],
  beta: float,
) -> Weights:
  """Returns the same as `meta_gradient`, by torch.func's grad of grad.

  torch.compile accepts this one; it refuses a double backward pass.
  """
  own = {name: w for name, w in phi.items() if name.split(".")[1] == codes[language]}
  weights = {name: w.detach() for name, w in {**theta, **phi}.items()}

  def train_loss(theta: Weights, own: Weights) -> torch.Tensor:
    return mlm_loss(model, {**weights, **theta, **own}, train, language, codes, twice=True)

  def held_out_loss(own: Weights) -> torch.Tensor:
    inner = torch.func.grad(train_loss)({name: weights[name] for name in theta}, own)
    ahead = {**weights, **{name: weights[name] - beta * g for name, g in inner.items()}, **own}
    losses = [mlm_loss(model, ahead, masked, j, codes) for j, masked in enumerate(held_out)]
    return sum(losses) / len(losses)

  return torch.func.grad(held_out_loss)({name: weights[name] for name in own})


def device() -> torch.device:
  """Returns the GPU if JAX and PyTorch both have one, else the CPU."""
  on_gpu = torch.cuda.is_available() and timed_steps.platform() == "gpu"
  return torch.device("cuda" if on_gpu else "cpu")


def load(weights: dict) -> Weights:
  """Returns arrays as trainable tensors on the device."""
  return {
    name: torch.tensor(np.asarray(array), device=device(), requires_grad=True)
    for name, array in weights.items()
  }


def set_up() -> None:
  """Gives PyTorch all cores, and on a GPU the TF32 products that XLA takes by default."""
  torch.set_num_threads(timed_steps.cores())
  torch.set_float32_matmul_precision("high" if device().type == "cuda" else "highest")


def wait() -> None:
  """Waits for the device."""
  if device().type == "cuda":
    torch.cuda.synchronize()


class TorchStep(Contender):
  """A training step in PyTorch with weights and Adam slots of its own; no rematerialisation.

  Args:
    case: the step of negint that it is compared with.
    by: "torch", "torch.compile" or "transformers".
  """

  def __init__(self, case: timed_steps.Case, by: str = "torch"):
    self.run = run = timed_steps.options_of(case._replace(remat="none"))
    self.row = timed_steps.describe(case, run, by)
    self._model, self._codes = run.model, run.languages
    self._make_weights()
    sampler = timed_steps.synthetic_sampler(run)
    self._batches = itertools.cycle(
      [(sampler.batch(n), sampler.language(n)) for n in range(timed_steps.BATCHES)]
    )
    self._count = num_predicted(run.mask_rate, run.data.sequence_length)
    self._step = self._plain_step if case.step == "plain" else self._meta_step
    self._loss, self._meta_gradient = mlm_loss, meta_gradient
    if by == "torch.compile":
      self._loss = torch.compile(mlm_loss)
      self._meta_gradient = torch.compile(meta_gradient_by_func)

  def _make_weights(self) -> None:
    state = init_state(self._model, self.run.optimiser, self.run.seed)
    weights = load(xlm_weights.to_xlm(self._model, state.theta, state.phi, self._codes))
    self._phi = {name: w for name, w in weights.items() if name.startswith("adapter")}
    self._theta = {name: w for name, w in weights.items() if name not in self._phi}
    self._adam = adam(self.run, weights.values())

  def compile(self) -> None:
    """Takes every batch once: Adam makes its slots, and torch.compile one program per language."""
    start = time.perf_counter()
    self.take(timed_steps.BATCHES)
    self.row["compile_seconds"] = time.perf_counter() - start

  def first_step(self) -> None:
    """Takes the first step, and on a GPU measures the bytes that this step alone takes."""
    if device().type != "cuda":
      self.take(1)
      return
    torch.cuda.reset_peak_memory_stats()
    others = torch.cuda.memory_allocated() - self._bytes()
    self.take(1)
    self.row["memory"] = {"peak": torch.cuda.max_memory_allocated() - others}

  def _bytes(self) -> int:
    """Returns the size of the weights and Adam's two slots."""
    return 3 * sum(w.nbytes for w in self._weights())

  def _weights(self) -> list[torch.Tensor]:
    return [*self._theta.values(), *self._phi.values()]

  def take(self, count: int) -> None:
    """Takes steps and waits for the last one."""
    for _ in range(count):
      batch, language = next(self._batches)
      batch = {name: torch.from_numpy(x).to(device()).long() for name, x in batch.items()}
      loss = self._step(batch, language)
    wait()
    self.row["loss"] = float(loss.detach())

  def _precision(self) -> contextlib.AbstractContextManager:
    """Returns a context for forward passes only: autocast keeps copies of the weights in it."""
    if self._model.dtype == "float32":
      return contextlib.nullcontext()
    return torch.autocast(device().type, getattr(torch, self._model.dtype))

  def _mask(self, tokens: torch.Tensor) -> Masked:
    return mask_tokens(tokens, self._count, self._model.vocab_size)

  def _plain_step(self, batch: dict, language: int) -> torch.Tensor:
    return self._descend(self._mask(batch["tokens"]), language)

  def _descend(self, masked: Masked, language: int) -> torch.Tensor:
    """Updates theta by the gradient of the training loss; returns the loss."""
    weights = {**self._theta, **self._phi}
    with self._precision():
      loss = self._loss(self._model, weights, masked, language, self._codes)
    theta = list(self._theta.values())
    self._update(theta, torch.autograd.grad(loss, theta))
    return loss

  def _meta_step(self, batch: dict, language: int) -> torch.Tensor:
    """Updates phi_i by the meta-gradient, then theta at the new phi_i (Algorithm 1)."""
    train = self._mask(batch["tokens"])
    held_out = [self._mask(tokens) for tokens in batch["held_out"].unbind(1)]
    with self._precision():
      gradients = self._meta_gradient(
        self._model,
        self._theta,
        self._phi,
        train,
        held_out,
        language,
        self._codes,
        self.run.schedule.learning_rate,
      )
    self._update([self._phi[name] for name in gradients], gradients.values())
    return self._descend(train, language)

  def _update(self, weights: list[torch.Tensor], gradients: Iterable[torch.Tensor]) -> None:
    for weight, gradient in zip(weights, gradients, strict=True):
      weight.grad = gradient
    torch.nn.utils.clip_grad_norm_(weights, self.run.optimiser.clip_norm)
    self._adam.step()  # skips weights without a gradient
    self._adam.zero_grad(set_to_none=True)


def adam(run: RunOptions, weights: Iterable[torch.Tensor]) -> torch.optim.Adam:
  """Returns the optimiser of a run."""
  o, rate = run.optimiser, run.schedule.learning_rate
  return torch.optim.Adam(list(weights), lr=rate, betas=(o.b1, o.b2), eps=o.eps, fused=True)


class HuggingFaceStep(TorchStep):
  """The plain step with the XLM of `transformers`, which predicts at every position."""

  def __init__(self, case: timed_steps.Case):
    super().__init__(case, "transformers")

  def _make_weights(self) -> None:
    from transformers import XLMConfig, XLMWithLMHeadModel

    m = self._model
    config = XLMConfig(
      vocab_size=m.vocab_size,
      emb_dim=m.model_dim,
      n_layers=m.num_layers,
      n_heads=m.num_heads,
      dropout=m.dropout,
      attention_dropout=m.attention_dropout,
      gelu_activation=True,
      n_langs=m.num_languages,
      max_position_embeddings=m.max_length,
    )
    self._network = XLMWithLMHeadModel(config).to(device()).train()
    state = init_state(m, self.run.optimiser, self.run.seed)
    weights = xlm_weights.to_xlm(m, state.theta, {})
    named = {
      name if name.startswith("pred_layer") else xlm_weights.HF_PREFIX + name: torch.tensor(w)
      for name, w in weights.items()
    }
    self._network.load_state_dict(named, strict=False)
    self._theta, self._phi = dict(self._network.named_parameters()), {}
    self._adam = adam(self.run, self._theta.values())

  def loss(self, masked: Masked, language: int) -> torch.Tensor:
    """Returns the mean cross-entropy in nats at the predicted positions."""
    labels = torch.full_like(masked.tokens, -100).scatter(1, masked.positions, masked.targets)
    langs = torch.full_like(masked.tokens, language)
    return self._network(masked.tokens, langs=langs, labels=labels).loss

  def _descend(self, masked: Masked, language: int) -> torch.Tensor:
    with self._precision():
      loss = self.loss(masked, language)
    theta = list(self._theta.values())
    self._update(theta, torch.autograd.grad(loss, theta))
    return loss


class TorchMatmul(Contender):
  """The same product as timed_steps.Matmul; the rate of the device is that of the faster one."""

  def __init__(self, size: str, dtype: str):
    dim, self.row = timed_steps.describe_matmul(size, dtype, "torch")
    self._operands = torch.randn(2, dim, dim, device=device(), dtype=getattr(torch, dtype))

  def take(self, count: int) -> None:
    """Takes products and waits for the last one."""
    for _ in range(count):
      torch.matmul(*self._operands)
    wait()


def transformers_has_shape(model: ModelOptions) -> bool:
  """Returns whether transformers' XLM can have the shape; its widths follow from D."""
  return (
    model.num_heads * model.head_dim == model.model_dim and model.ffn_dim == 4 * model.model_dim
  )


def contenders(cases: Sequence[timed_steps.Case], say: Callable[[str], None]) -> list[Contender]:
  """Returns PyTorch's plain step and exact meta step for negint's cases, and matrix products.

  Args:
    cases: negint's steps.
    say: is told what is left out.
  """
  set_up()
  found: list[Contender] = []
  has_transformers = importlib.util.find_spec("transformers") is not None
  if not has_transformers:
    say("transformers is not installed: no row of Hugging Face's XLM.")
  for case in dict.fromkeys(case._replace(remat="") for case in cases):
    if case.step not in ("plain", "grad_of_grad"):
      continue
    step = TorchStep(case)
    found.append(step)
    if device().type == "cuda":
      found.append(TorchStep(case, "torch.compile"))
    if case.step == "plain" and has_transformers and transformers_has_shape(step.run.model):
      found.append(HuggingFaceStep(case))
  for size, dtype in dict.fromkeys((case.size, case.dtype) for case in cases):
    # On a CPU without bfloat16 instructions PyTorch takes minutes for one large product.
    if dtype == "float32" or device().type == "cuda":
      found.append(TorchMatmul(size, dtype))
  return found


def versions() -> dict:
  """Returns the versions of the libraries, and the number of PyTorch's threads."""
  found = {"torch": torch.__version__, "torch_threads": torch.get_num_threads()}
  if importlib.util.find_spec("transformers"):
    import transformers

    found["transformers"] = transformers.__version__
  return found
