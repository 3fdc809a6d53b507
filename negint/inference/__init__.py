"""Finished runs as Python objects: what `negint.load`, `negint.runs` and `negint.metrics` return."""
