"""Log the stages as runs in MLflow, grouped by experiment."""
