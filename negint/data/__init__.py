"""Text sources, corpora, tokens, and batches of token ids."""
