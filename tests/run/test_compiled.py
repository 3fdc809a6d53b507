"""compiled: short programs are kept too, and the user's environment wins."""

import jax
import pytest

from negint.run import compiled

FIELDS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


@pytest.fixture
def settings():
  """Reads JAX's settings; the test's changes are undone."""
  before = {name: getattr(jax.config, name) for name in FIELDS}
  yield lambda: tuple(getattr(jax.config, name) for name in FIELDS)
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.parametrize("given", [(), VARIABLES[:1], VARIABLES[1:], VARIABLES])
def test_what_the_environment_sets_stays(given, settings, tmp_path, monkeypatch):
  for name in VARIABLES:
    monkeypatch.delenv(name, raising=False)
  for name in given:
    monkeypatch.setenv(name, "2")
  before = settings()
  compiled.keep_in(tmp_path)
  wanted = (str(tmp_path), 0)
  assert settings() == tuple(
    old if name in given else new for name, old, new in zip(VARIABLES, before, wanted, strict=True)
  )
  assert settings() != before or given == VARIABLES
