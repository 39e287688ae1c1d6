"""Relabelling: labels of synthetic rows that are drawn given their values."""
