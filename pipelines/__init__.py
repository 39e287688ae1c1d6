"""The room that touches files: datasets in, stages in order, synthetic datasets and reports out."""
