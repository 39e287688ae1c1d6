"""Statistics that metrics share."""
