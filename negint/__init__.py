"""A laboratory for negative interference in multilingual language models (arXiv 2010.03017)."""
