"""Trained models as Hugging Face folders, which transformers loads without this project."""
