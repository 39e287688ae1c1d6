"""Data sources: a table of functions, each of which makes the three splits.

A source is called as `source(seed, root, **options)` and returns one dataset per split. The options are those of
params.yaml under the name of the source. Relative paths in options start at `root`, the folder of the project.
"""

from collections.abc import Callable

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.sources.digits import make_digits
from postprior.pipelines.data.sources.folders import read_folders, read_polymnist
from postprior.pipelines.data.sources.mnist import make_mnist
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.options import check_options
from postprior.pipelines.settings.params import Params

SOURCES: dict[str, Callable[..., dict[str, Dataset]]] = {
    "digits": make_digits,
    "folder": read_folders,
    "mnist": make_mnist,
    "polymnist": read_polymnist,
}
"""Data sources by name, for `data.source` in params.yaml."""


def check_source(params: Params) -> None:
    """Refuse an unknown data source, and options that it does not have."""
    source = pick(SOURCES, params.data.source, "data.source", "data source")
    check_options(source, params.data.options, f"data.{params.data.source}", given={"seed", "root"})
