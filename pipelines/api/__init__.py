"""Uses of a trained model, outside the pipeline."""
