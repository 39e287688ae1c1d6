"""Compare densities: read results from files and write a table, plots and one page."""
