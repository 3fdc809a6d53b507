"""Models that exist: finished pretraining runs and Hugging Face checkpoints."""
