"""Tracking: runs and groups of runs in MLflow."""
