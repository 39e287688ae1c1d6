"""The settings in params.yaml: their schema, and the checks that report errors in them."""
