"""From text sources to batches of token ids."""
