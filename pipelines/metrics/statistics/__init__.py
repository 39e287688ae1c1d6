"""Statistics that all metrics use: intervals, missing scores, nearest neighbours."""
