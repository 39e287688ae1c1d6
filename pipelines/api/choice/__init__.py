"""What suits the data: rules for the settings, each with its reason and what was measured."""
