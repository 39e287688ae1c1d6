"""Uses outside the pipeline, one file a use: each takes paths, writes files and says what it did.

init       a project around imported data
fit        a density to codes of one's own
draw       codes of a fitted density alone
impute     what the rows of a dataset lack
detect     how strange rows are beside normal ones
represent  the codes of any rows
register   a generator as a model in MLflow's registry
track      existing results, logged to MLflow again
"""
