"""Which parameters belong to one language (phi) and which to all (theta).

A system is a choice of modules that live in phi. Every leaf of phi has a leading axis
[num_languages, ...]; `phi_i` is its slice for language i, and theta and phi_i merge into the one
parameter tree that `model.py` reads. Every leaf belongs to exactly one of the two.
"""

import jax
from flax import traverse_util

from negint.method.model import init_params
from negint.options import ModelOptions

MODULES = {
  "adapter": ("attention_adapter", "ffn_adapter"),
  "attention": ("attention",),
  "ffn": ("ffn",),
}


def split_params(params, specific: tuple[str, ...]):
  """Parameter tree of one language to (theta, phi_i), by the names of the modules in phi."""
  owned = {module for name in specific for module in MODULES[name]}
  theta, phi_i = {}, {}
  for path, leaf in traverse_util.flatten_dict(params).items():
    (phi_i if owned.intersection(path) else theta)[path] = leaf
  return traverse_util.unflatten_dict(theta), traverse_util.unflatten_dict(phi_i)


def merge_params(theta, phi_i):
  """(theta, phi_i) to the parameter tree of one language; a leaf in both is an error."""
  theta, phi_i = traverse_util.flatten_dict(theta), traverse_util.flatten_dict(phi_i)
  twice = theta.keys() & phi_i.keys()
  if twice:
    raise ValueError(f"parameters in both theta and phi: {sorted('/'.join(p) for p in twice)}")
  return traverse_util.unflatten_dict({**theta, **phi_i})


def init_theta_and_phi(options: ModelOptions, key):
  """(theta, phi): theta from one key, each language's phi_i from a key of its own."""
  theta_key, phi_key = jax.random.split(key)
  theta, _ = split_params(init_params(options, theta_key), options.specific)
  keys = jax.random.split(phi_key, options.num_languages)
  phi = jax.vmap(lambda k: split_params(init_params(options, k), options.specific)[1])(keys)
  return theta, phi


def select_language(phi, language):
  """phi_i: the slice of every leaf for one (traced) language index."""
  return jax.tree.map(lambda leaf: leaf[language], phi)


def put_language(phi, language, phi_i):
  """phi with language i's slice replaced; every other slice keeps its bits."""
  return jax.tree.map(lambda leaf, new: leaf.at[language].set(new), phi, phi_i)
