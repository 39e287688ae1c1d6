"""Utility: what models trained on samples are worth."""
