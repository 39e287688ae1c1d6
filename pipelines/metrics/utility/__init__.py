"""Utility: how well models trained on samples perform on real data."""
