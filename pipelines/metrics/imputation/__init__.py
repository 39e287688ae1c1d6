"""Imputation: scores of imputed values, and baseline imputers."""
