"""Anomaly detection: score how unusual rows are, compared with normal rows."""
