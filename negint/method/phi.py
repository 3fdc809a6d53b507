"""Which parameters belong to one language (phi) and which to all languages (theta).

A system names the modules that live in phi. Every leaf of phi has a leading axis
[num_languages, ...]; phi_i is the slice of language i. theta and phi_i merge into the one parameter
tree that `model.py` reads. Every leaf of that tree belongs to either theta or phi_i.
"""

from typing import Any

import jax
from flax import traverse_util

from negint.method.model import init_params
from negint.method.tree import Index, Tree
from negint.options import ModelOptions

MODULES = {
  "adapter": ("attention_adapter", "ffn_adapter"),
  "attention": ("attention",),
  "ffn": ("ffn",),
}


def split_params(params: Tree, specific: tuple[str, ...]) -> tuple[Tree, Tree]:
  """Splits the parameter tree of one language into (theta, phi_i).

  Args:
    params: tree of `model.init_params`.
    specific: modules in phi, keys of MODULES.
  """
  owned = {module for name in specific for module in MODULES[name]}
  theta: dict[tuple[str, ...], Any] = {}  # Any: an array, or its shape
  phi_i: dict[tuple[str, ...], Any] = {}
  for path, leaf in traverse_util.flatten_dict(params).items():
    (phi_i if owned.intersection(path) else theta)[path] = leaf
  return traverse_util.unflatten_dict(theta), traverse_util.unflatten_dict(phi_i)


def merge_params(theta: Tree, phi_i: Tree) -> Tree:
  """Merges theta and phi_i into the parameter tree of one language.

  Raises:
    ValueError: a leaf is in both.
  """
  theta, phi_i = traverse_util.flatten_dict(theta), traverse_util.flatten_dict(phi_i)
  twice = theta.keys() & phi_i.keys()
  if twice:
    raise ValueError(f"parameters in both theta and phi: {sorted('/'.join(p) for p in twice)}")
  return traverse_util.unflatten_dict({**theta, **phi_i})


def init_theta_and_phi(options: ModelOptions, key: jax.Array) -> tuple[Tree, Tree]:
  """Random (theta, phi): theta from one key, and phi_i from one key per language.

  Raises:
    ValueError: the model has no parameters of a module that phi should hold.
  """
  theta_key, phi_key = jax.random.split(key)
  params = init_params(options, theta_key)
  there = {module for path in traverse_util.flatten_dict(params) for module in path}
  for name in options.specific:
    if not there.issuperset(MODULES[name]):
      raise ValueError(f"the model has no parameters of {name}: {', '.join(MODULES[name])}")
  theta, _ = split_params(params, options.specific)
  keys = jax.random.split(phi_key, options.num_languages)
  phi = jax.vmap(lambda k: split_params(init_params(options, k), options.specific)[1])(keys)
  return theta, phi


def select_language(phi: Tree, language: Index) -> Tree:
  """The slice phi_i of every leaf, for the index of one language."""
  return jax.tree.map(lambda leaf: leaf[language], phi)


def put_language(phi: Tree, language: Index, phi_i: Tree) -> Tree:
  """A copy of phi with phi_i as one language's slice; the other slices stay unchanged."""
  return jax.tree.map(lambda leaf, new: leaf.at[language].set(new), phi, phi_i)
