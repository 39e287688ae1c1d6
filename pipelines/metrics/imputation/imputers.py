"""Baseline imputers based on scikit-learn, with several draws per row.

Rows are features (N, F), the modalities concatenated, with NaN for missing values.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.imputation.reduction import Reduction
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

FillBlock = Callable[[int, Ints], tuple[Floats, Floats]]
"""Index of a block and rows (n,) → draws (R, n, F_m) and the point estimate (n, F_m) of the block."""
NEIGHBOURS = (5, 10, 20, 40, 80)  # numbers of neighbours to choose from on held-out rows
ROWS = 1024  # training rows per block of distances
NEAREST = 32  # maximum number of features per regression, drawn by their correlation with the target
ROUNDS = 10  # rounds of regressions, scikit-learn's default
LEARNED = 2  # rounds that learn from complete rows, which do not change from round to round; they are then repeated
MARGIN = 1  # standard deviations by which imputed values may leave the range of the training rows


class Imputer(ABC):
    """Base class of imputers of rows (N, F), whose F features form one block per modality with these widths."""

    def __init__(self, widths: Sequence[int]) -> None:
        stops = np.cumsum([0, *widths])
        self.blocks = [slice(*pair) for pair in pairwise(stops)]

    @abstractmethod
    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        """Fit to training rows."""

    @abstractmethod
    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        """Return a function that imputes blocks of these rows (N, F) with R draws and a point estimate."""


class Mean(Imputer):
    """Imputes the means of the training rows."""

    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a feature that was never observed: its mean is set to 0
            self.mean = np.nan_to_num(np.nanmean(rows, 0))
        return self

    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        def fill(block: int, subset: Ints) -> tuple[Floats, Floats]:
            mean = self.mean[self.blocks[block]]
            shape = (len(subset), len(mean))
            return np.broadcast_to(mean, (R, *shape)), np.broadcast_to(mean, shape)

        return fill


class Neighbours(Imputer):
    """Imputes the values of one of the k nearest training rows with an observed block, drawn at random.

    The point estimate is the mean of the k rows, as in KNNImputer. Distances are Euclidean over the features that both
    rows have, scaled up to all features (scikit-learn's `nan_euclidean`).
    """

    def __init__(self, widths: Sequence[int], neighbours: int) -> None:
        super().__init__(widths)
        self.neighbours = neighbours

    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        self.rows = np.nan_to_num(rows)
        self.patterns, self.pattern = _patterns(np.isfinite(rows))
        return self

    def nearest(self, rows: Floats, block: int, most: int) -> Ints:
        """Return the `most` nearest training rows with an observed block, the nearest first: (n, most)."""
        donors = np.flatnonzero(self.patterns[:, self.blocks[block]].min(1)[self.pattern])
        if not len(donors):
            raise ValueError("no training row has all values of a hidden modality")
        distances = np.concatenate(
            [self._distances(rows, part) for part in np.split(donors, range(ROWS, len(donors), ROWS))], 1
        )
        places = np.argpartition(distances, min(most, len(donors)) - 1, 1)[:, :most]
        order = np.take_along_axis(distances, places, 1).argsort(1, kind="stable")
        return donors[np.take_along_axis(places, order, 1)]

    def _distances(self, rows: Floats, donors: Ints) -> Floats:
        """Return mean squared differences (n, N) over the features that rows and donors have; infinite without any.

        Sums that depend on a row only by the pattern of its observed features are computed once per pattern.
        """
        x, targets = np.nan_to_num(rows.astype(np.float64)), self.rows[donors].astype(np.float64)
        patterns, pattern = _patterns(np.isfinite(rows))
        x_squares = (x**2 @ self.patterns.T)[:, self.pattern[donors]]
        target_squares = (patterns @ (targets**2).T)[pattern]
        common = (patterns @ self.patterns.T)[pattern][:, self.pattern[donors]]
        squares = (x_squares - 2 * x @ targets.T + target_squares).clip(0)
        return np.divide(squares, common, where=common > 0, out=np.full_like(squares, np.inf))

    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        (fill,) = self.filled_by_number(rows, R, rng, [self.neighbours])
        return fill

    def filled_by_number(
        self, rows: Floats, R: int, rng: np.random.Generator, numbers: Sequence[int]
    ) -> list[FillBlock]:
        """Return one function for each number of neighbours; the search for the largest number serves all."""

        @cache
        def nearest(block: int) -> tuple[Ints, Ints]:
            incomplete = np.flatnonzero(np.isnan(rows[:, self.blocks[block]]).any(1))
            return incomplete, self.nearest(rows[incomplete], block, max(numbers))

        def fill(k: int, block: int, subset: Ints) -> tuple[Floats, Floats]:
            incomplete, donors = nearest(block)
            near = self.rows[donors[np.searchsorted(incomplete, subset), :k].T, self.blocks[block]]  # (k, n, F_m)
            return near[rng.integers(len(near), size=(R, len(subset))), np.arange(len(subset))], near.mean(0)

        return [partial(fill, k) for k in numbers]


def _patterns(observed: NDArray[np.bool_]) -> tuple[Floats, Ints]:
    """Return the distinct patterns (U, F) of observed features as zeros and ones, and the pattern (N,) of each row."""
    packed = np.packbits(observed, axis=1)
    _, first, pattern = np.unique(
        packed.view(np.dtype((np.void, packed.shape[1]))).ravel(), return_index=True, return_inverse=True
    )
    return observed[first].astype(np.float64), pattern


class Iterative(Imputer):
    """Chained Bayesian ridge regressions (IterativeImputer), with posterior draws and a point estimate without noise.

    Values stay close to the range of the training rows: otherwise chains diverge where classes are rare. Blocks
    in `reduced` are replaced by principal components.
    """

    def __init__(self, widths: Sequence[int], reduced: Collection[int] = ()) -> None:
        super().__init__(widths)
        self.reduced = reduced

    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - enables the next import
        from sklearn.impute import IterativeImputer

        self.reduction = Reduction(self.blocks, self.reduced, rows)
        reduced = self.reduction(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a feature that was never observed
            self.scale = np.nan_to_num(np.nanstd(reduced, 0)).clip(1e-6)
            low, high = (np.nan_to_num(end(reduced / self.scale, 0)) for end in (np.nanmin, np.nanmax))
        self.low, self.high = low - MARGIN, high + MARGIN
        rounds = ROUNDS if np.isnan(reduced).any() else min(LEARNED, ROUNDS)
        chain = IterativeImputer(
            max_iter=rounds,
            sample_posterior=True,
            n_nearest_features=NEAREST if reduced.shape[1] > NEAREST else None,
            min_value=self.low,
            max_value=self.high,
            random_state=int(rng.integers(2**31)),
            keep_empty_features=True,
        ).fit(reduced / self.scale)
        self.means = chain.initial_imputer_.statistics_
        self.regressions = chain.imputation_sequence_ * (ROUNDS // rounds)
        return self

    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        reduced = self.reduction(rows) / self.scale
        guess = self._chained(reduced, None) * self.scale
        draws = self._chained(np.tile(reduced, (R, 1)), rng).reshape(R, *reduced.shape) * self.scale

        def fill(block: int, subset: Ints) -> tuple[Floats, Floats]:
            columns = self.reduction.columns[block]
            drawn = self.reduction.draws(block, draws[:, subset, columns], rng)
            return drawn, self.reduction.means(block, guess[subset, columns])

        return fill

    def _chained(self, rows: Floats, rng: np.random.Generator | None) -> Floats:
        """Return rows (N, V) completed by the regressions in turn; with `rng`, values are drawn from posteriors."""
        lacking = [np.flatnonzero(gaps) for gaps in np.isnan(rows).T]
        filled = np.where(np.isnan(rows), self.means, rows)
        for feature, near, regression in self.regressions:
            if len(absent := lacking[feature]):
                value, spread = regression.predict(filled[absent][:, near], return_std=True)
                if rng is not None:
                    value = value + spread * rng.normal(size=len(absent))
                filled[absent, feature] = value.clip(self.low[feature], self.high[feature])
        return filled
