"""Compare like with like: samples that lack the modalities that the rows of a reference set lack."""

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset


def patterned_as(samples: Dataset, observed: NDArray[np.bool_]) -> Dataset:
    """Return R of at least R samples, with the patterns of observed modalities (R, M) if there are enough such samples.

    For the rows of each pattern, the first samples with this pattern are taken, and then the first other ones, because
    the order of samples is random.
    """
    patterns, of_row = np.unique(np.concatenate([observed, samples.observed]), axis=0, return_inverse=True)
    wanted = np.bincount(of_row[: len(observed)], minlength=len(patterns))
    found = of_row[len(observed) :]
    order = found.argsort(kind="stable")
    before = np.arange(len(found)) - np.searchsorted(found[order], found[order])  # samples of the pattern before each
    other = np.empty(len(found), bool)
    other[order] = before >= wanted[found[order]]
    return samples.select(np.sort(other.argsort(kind="stable")[: len(observed)]))
