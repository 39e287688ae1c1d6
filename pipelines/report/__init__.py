"""The comparison of samplers: results read from files, shown as a table, plots and one page."""
