"""Evaluators: feature extractors and label classifiers, trained on real data."""
