"""Imputation: scores of what is filled in, and other imputers."""
