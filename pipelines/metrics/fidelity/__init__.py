"""Fidelity: distances between samples and real data."""
