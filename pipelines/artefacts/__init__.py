"""Artefacts of a project: their folders, and functions to save and load them."""
