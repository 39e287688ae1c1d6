"""What reads samples: classifiers and extractors of features."""
