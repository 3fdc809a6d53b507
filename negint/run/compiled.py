"""Compiled programs, kept on disk."""

import os
import pathlib

import jax


def keep_in(folder: pathlib.Path) -> None:
  """Makes JAX keep compiled programs in a folder, and read those that are there.

  The user's JAX_COMPILATION_CACHE_DIR and JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS stay. By default JAX
  keeps no program that compiled in less than a second, and small runs have dozens of these.
  """
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(folder))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
