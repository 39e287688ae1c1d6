"""The room that touches files: datasets in, stages in order, synthetic datasets and reports out."""

if __name__ != "postprior.pipelines":
    raise ImportError(f"{__name__} has one name: import postprior.pipelines")
