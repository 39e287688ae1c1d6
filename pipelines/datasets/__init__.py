"""Where data comes from: a table of sources, each a function that makes the three splits.

A source is called as `source(seed, root, **options)`, the options being those of params.yaml under its name,
and returns a dataset a split. Relative paths in options start at `root`, the project's folder.
"""

from collections.abc import Callable

from pipelines.dataset import Dataset
from pipelines.datasets.digits import make_digits
from pipelines.datasets.folder import read_folders
from pipelines.datasets.mnist import make_mnist
from pipelines.datasets.polymnist import read_polymnist

SOURCES: dict[str, Callable[..., dict[str, Dataset]]] = {
    "digits": make_digits,
    "folder": read_folders,
    "mnist": make_mnist,
    "polymnist": read_polymnist,
}
"""Data sources by the name that `data.source` in params.yaml gives."""
