"""Artefacts of a project: what is saved and loaded, and where."""
