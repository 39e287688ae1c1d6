"""Principal components in place of wide blocks of features, for regressions."""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from postprior.pipelines.metrics.statistics.intervals import Floats

SMALLEST = 1e-6  # variance that counts as 0 in features whose variances sum to 1
COMPONENTS = 16  # number of principal components that replace a wider block


class Reduction:
    """Maps rows (N, F) to rows (N, V) in which principal components replace the features of some blocks, and back.

    The components of a row that lacks single values of a block are their expectation under probabilistic PCA
    (Tipping & Bishop 1999, https://doi.org/10.1111/1467-9868.00196), given its observed values.

    Raises:
        ValueError: no training row has a value of a block.
    """

    def __init__(self, blocks: Sequence[slice], reduced: Collection[int], rows: Floats) -> None:
        self.blocks = blocks
        self.components: dict[int, Any] = {}
        self.residuals: dict[int, Floats] = {}  # what the components leave out of each training row
        for number in reduced:
            self._fit(number, rows[:, blocks[number]])
        widths = [block.stop - block.start for block in blocks]
        for number, pca in self.components.items():
            widths[number] = len(pca.components_)
        stops = np.cumsum([0, *widths]).tolist()
        self.columns = [slice(*pair) for pair in pairwise(stops)]  # of rows (N, V)

    def _fit(self, number: int, x: Floats) -> None:
        from sklearn.decomposition import PCA

        x = x[np.isfinite(x).any(1)]
        if not len(x):
            raise ValueError("no training row has a value of a hidden modality")
        lacking = np.isnan(x)
        if lacking.any():
            mean = np.where(lacking, 0, x).sum(0) / (~lacking).sum(0).clip(1)
            x = np.where(lacking, mean, x)
        pca = self.components[number] = PCA(min(COMPONENTS, *x.shape), random_state=0).fit(x)
        self.residuals[number] = x - pca.inverse_transform(pca.transform(x))

    def __call__(self, rows: Floats, rng: np.random.Generator | None = None) -> Floats:
        """Return rows (N, V); the components of a block that a row lacks are NaN.

        With `rng`, those of a row that lacks single values of a block are drawn from their posterior.
        """
        parts = [rows[:, block] for block in self.blocks]
        for number, pca in self.components.items():
            parts[number] = _scores(pca, parts[number], rng)
        return np.concatenate(parts, 1)

    def means(self, block: int, values: Floats) -> Floats:
        """Return the features (…, F_m) of a block that its columns (…, V_m) of reduced rows stand for."""
        if (pca := self.components.get(block)) is None:
            return values
        restored: Floats = values @ pca.components_ + pca.mean_
        return restored

    def draws(self, block: int, values: Floats, rng: np.random.Generator) -> Floats:
        """Like `means`; each row gets what the components leave out of a random training row."""
        restored = self.means(block, values)
        if (residuals := self.residuals.get(block)) is not None:
            restored = restored + residuals[rng.integers(len(residuals), size=values.shape[:-1])]
        return restored


def _scores(pca: Any, x: Floats, rng: np.random.Generator | None) -> Floats:
    """Return the components (N, K) of rows (N, F)."""
    loadings, observed = pca.components_, np.isfinite(x)
    scores: Floats = (x - pca.mean_) @ loadings.T
    some = observed.any(1) & ~observed.all(1)
    if some.any():
        noise = pca.noise_variance_ + SMALLEST
        products = (loadings[:, None] * loadings).reshape(-1, x.shape[1])  # (K², F)
        prior = np.diag(noise / pca.explained_variance_.clip(SMALLEST))
        precision = (observed[some] @ products.T).reshape(-1, *prior.shape) + prior  # times the variance of the noise
        scores[some] = _solved(precision, np.nan_to_num(x[some] - pca.mean_) @ loadings.T)
        if rng is not None:
            root = np.linalg.cholesky(precision).swapaxes(1, 2)
            scores[some] += noise**0.5 * _solved(root, rng.normal(size=scores[some].shape))
    return scores


def _solved(matrices: Floats, x: Floats) -> Floats:
    """Solve one system of equations per row: matrices (n, K, K), x (n, K)."""
    return np.linalg.solve(matrices, x[..., None])[..., 0]
