"""Commands outside the DVC pipeline, one module per command; each takes paths, writes files and reports what it did.

init       create a project for imported data
fit        fit a density to custom codes
draw       draw codes from a fitted density
impute     fill in missing values of a dataset
detect     score how unusual rows are, compared with normal rows
represent  encode rows as codes
register   register a generator in MLflow's model registry
track      log existing results to MLflow again
"""
