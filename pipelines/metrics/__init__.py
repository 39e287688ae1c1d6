"""Scores of samples against real data, one family a file; none of them knows a file or a stage."""
