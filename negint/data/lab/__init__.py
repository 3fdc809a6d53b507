"""Artificial languages whose relatedness is known."""
