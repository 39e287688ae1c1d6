"""Generation: unconditional and conditional samples, imputation, calibration, and a model for MLflow."""
