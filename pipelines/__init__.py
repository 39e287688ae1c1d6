"""The pipeline: reads datasets, runs the stages in order, and writes synthetic datasets and reports."""

if __name__ != "postprior.pipelines":
    raise ImportError(f"{__name__} cannot be imported by this name: import postprior.pipelines")
