"""Detection: how strange rows are beside normal ones."""
