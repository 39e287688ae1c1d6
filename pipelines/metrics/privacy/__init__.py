"""Privacy: whether samples reveal rows of the training data."""
