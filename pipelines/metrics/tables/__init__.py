"""Scores of tables and vectors in the units of the data: columns, pairs of columns, valid values, two-sample test."""
