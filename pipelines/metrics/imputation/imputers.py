"""What imputation is measured against: scikit-learn's imputers, with several draws of each row.

All see rows as features (N, F), the modalities side by side, NaN where a value is missing.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np

from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

FillBlock = Callable[[int, Ints], tuple[Floats, Floats]]
"""Number of a block, and some rows (n,) → draws (R, n, F_m) and the single best guess (n, F_m)."""
NEIGHBOURS = (5, 10, 20, 40, 80)  # numbers of neighbours among which held-out rows choose
COMPONENTS = 16  # principal components that stand for a modality of more features in regressions
NEAREST = 32  # features that a regression reads at most, drawn by their correlation with what it is for
ROUNDS = 10  # rounds of regressions, scikit-learn's default
BEYOND = 10
"""Times as far from 0 as every value that is known: what regressions fill in beyond has grown from round to round."""


class Imputer(ABC):
    """An imputer of rows (N, F), F features in blocks of these widths, one a modality."""

    def __init__(self, widths: Sequence[int]) -> None:
        stops = np.cumsum([0, *widths])
        self.blocks = [slice(*pair) for pair in pairwise(stops)]

    @abstractmethod
    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        """Learn from training rows."""

    @abstractmethod
    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        """R draws of the blocks of rows (N, F), and the best guess, whatever is missing there."""


class Mean(Imputer):
    """The means of the training rows, for every row and draw."""

    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a feature that was never observed: its mean is then 0, that of all
            self.mean = np.nan_to_num(np.nanmean(rows, 0))
        return self

    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        def of(block: int, some: Ints) -> tuple[Floats, Floats]:
            mean = self.mean[self.blocks[block]]
            shape = (len(some), len(mean))
            return np.broadcast_to(mean, (R, *shape)), np.broadcast_to(mean, shape)

        return of


class Neighbours(Imputer):
    """The values of one of the k nearest training rows that have the block; their mean is what KNNImputer gives.

    Distances are Euclidean over what both rows have, scaled up to all features (scikit-learn's `nan_euclidean`).
    """

    def __init__(self, widths: Sequence[int], neighbours: int) -> None:
        super().__init__(widths)
        self.neighbours = neighbours

    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        self.rows = rows
        return self

    def nearest(self, rows: Floats, block: int) -> Floats:
        """The block of each row's neighbours, (k, n, F_m)."""
        from sklearn.metrics.pairwise import nan_euclidean_distances

        values = self.rows[:, self.blocks[block]]
        donors = np.flatnonzero(np.isfinite(values).all(1))
        if not len(donors):
            raise ValueError("no training row has every value of a modality that was hidden")
        distances = np.nan_to_num(nan_euclidean_distances(rows, self.rows[donors]), nan=np.inf)
        k = min(self.neighbours, len(donors))
        return values[donors[np.argpartition(distances, k - 1, 1)[:, :k]]].swapaxes(0, 1)

    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        def of(block: int, some: Ints) -> tuple[Floats, Floats]:
            near = self.nearest(rows[some], block)
            return near[rng.integers(len(near), size=(R, len(some))), np.arange(len(some))], near.mean(0)

        return of


class Iterative(Imputer):
    """Chained Bayesian ridge regressions (IterativeImputer): draws from their posteriors, and a guess without noise.

    On columns of many rare classes they may diverge, which `filled` refuses with a ValueError. Of the blocks `reduced`,
    which a row has whole or not at all, principal components take part, learned from the training rows that have them.
    """

    def __init__(self, widths: Sequence[int], reduced: Collection[int] = ()) -> None:
        super().__init__(widths)
        self.reduced = reduced

    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        from sklearn.decomposition import PCA
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - it makes the next import possible
        from sklearn.impute import IterativeImputer

        self.components: dict[int, Any] = {}
        for number in self.reduced:
            block = self.blocks[number]
            whole = rows[np.isfinite(rows[:, block]).all(1), block]
            self.components[number] = PCA(min(COMPONENTS, *whole.shape), random_state=0).fit(whole)
        reduced = self._reduced(rows)
        self.scale = np.nanstd(reduced, 0).clip(1e-6)
        self.farthest = float(np.nanmax(np.abs(reduced / self.scale)))
        state = int(rng.integers(2**31))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that chains have not converged after their rounds
            self.chains = {
                sampled: IterativeImputer(
                    max_iter=ROUNDS,
                    sample_posterior=sampled,
                    n_nearest_features=NEAREST if reduced.shape[1] > NEAREST else None,
                    random_state=state,
                    keep_empty_features=True,
                ).fit(reduced / self.scale)
                for sampled in (False, True)
            }
        return self

    def _reduced(self, rows: Floats) -> Floats:
        parts = [rows[:, block] for block in self.blocks]
        for number, basis in self.components.items():
            parts[number] = (parts[number] - basis.mean_) @ basis.components_.T
        return np.concatenate(parts, 1)

    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        reduced = self._reduced(rows) / self.scale
        repeated = np.tile(reduced, (R, 1))  # a call costs more than its rows
        filled = [self.chains[sampled].transform(x) for sampled, x in ((False, reduced), (True, repeated))]
        known = max(self.farthest, float(np.nanmax(np.abs(reduced))))
        if not all(np.abs(x).max() <= BEYOND * known for x in filled):
            raise ValueError("its values grew without bound")
        guess, draws = filled[0] * self.scale, (filled[1] * self.scale).reshape(R, *reduced.shape)
        widths = [b.stop - b.start for b in self.blocks]
        for number, basis in self.components.items():
            widths[number] = len(basis.components_)

        def of(block: int, some: Ints) -> tuple[Floats, Floats]:
            place = slice(sum(widths[:block]), sum(widths[: block + 1]))
            found = draws[:, some, place], guess[some, place]
            if block not in self.components:
                return found
            basis = self.components[block]
            drawn, guessed = (x @ basis.components_ + basis.mean_ for x in found)
            return drawn, guessed

        return of
