"""Coherence: whether the modalities of a sample belong together."""
