"""Where data comes from: a table of sources, each a function that makes the three splits.

A source is called as `source(seed, root, **options)`, the options being those of params.yaml under its name,
and returns a dataset a split. Relative paths in options start at `root`, the project's folder.
"""

from collections.abc import Callable

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.sources.digits import make_digits
from postprior.pipelines.data.sources.folders import read_folders, read_polymnist
from postprior.pipelines.data.sources.mnist import make_mnist
from postprior.pipelines.settings.checks import check_options
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.params import Params

SOURCES: dict[str, Callable[..., dict[str, Dataset]]] = {
    "digits": make_digits,
    "folder": read_folders,
    "mnist": make_mnist,
    "polymnist": read_polymnist,
}
"""Data sources by the name that `data.source` in params.yaml gives."""


def check_source(params: Params) -> None:
    """Refuse an unknown data source and options that it does not take."""
    source = pick(SOURCES, params.data.source, "data.source", "data source")
    check_options(source, params.data.options, f"data.{params.data.source}", given={"seed", "root"})
