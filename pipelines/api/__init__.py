"""The whole product outside of the DVC pipeline: on data in memory, and one module for each other command.

synthesise learn data frames, AnnData, MuData or arrays, and return a generator
adapt      the same for an autoencoder that is trained already
generator  sample, impute, detect, compare, report and save in memory
fitting    fit a density to the codes of a project
synthetic  drawn rows as data frames, arrays, AnnData or MuData
scoring    all stages that score one density, for the report; samples of several, to compare them
objects    rows in memory for a trained generator

A command takes paths, writes files and reports what it did:

init       create a project for imported data
fit        fit a density to custom codes
draw       draw codes from a fitted density
impute     fill in missing values of a dataset
detect     score how unusual rows are, compared with normal rows
represent  encode rows as codes
register   register a generator in MLflow's model registry
track      log existing results to MLflow again
"""
