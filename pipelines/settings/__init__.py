"""Settings: params.yaml, its schema and what is said of its faults."""
