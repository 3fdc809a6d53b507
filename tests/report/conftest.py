"""What the tests of the report share."""

import pytest

from negint.report import statistics


@pytest.fixture
def few_resamples(monkeypatch):
  """Less precise intervals, in a fraction of the time."""
  statistics._counts.cache_clear()
  monkeypatch.setattr(statistics, "RESAMPLES", 500)
  yield
  statistics._counts.cache_clear()
