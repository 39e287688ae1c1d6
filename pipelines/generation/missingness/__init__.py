"""Missingness: which modalities and cells of synthetic rows are missing."""
