"""Fidelity: how close the distribution of samples is to that of real data."""
