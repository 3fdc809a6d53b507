"""Pretrained models: of finished pretraining runs and of Hugging Face checkpoints."""
