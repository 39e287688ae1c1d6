"""Chained equations: every variable is drawn given all others, in turn, as in mice and missForest.

A variable is one numeric feature, or all features of a category, which is drawn as one class. Training rows that lack a
variable are completed within the chain; rows to impute do not change what is learned.
"""

import warnings
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from postprior.pipelines.metrics.imputation.forest import Forest
from postprior.pipelines.metrics.imputation.imputers import NEAREST, FillBlock, Imputer
from postprior.pipelines.metrics.imputation.matching import nearest
from postprior.pipelines.metrics.imputation.reduction import Reduction
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

ROUNDS = 10  # rounds over all variables
LEARNING = 3  # rounds in which equations are learned again, while values drawn for incomplete training rows settle
VARIABLES = 128  # largest number of variables, with components in place of wide blocks
TRAINING = 2**18  # largest number of training rows times variables that the equations learn from
CONSTANT = 1e-12  # variance below which a variable counts as constant
DONORS = 5  # training rows with the nearest predictions, of which one gives its value: mice's default
RIDGE = 1e-5  # share of the diagonal that is added to it, mice's default
STEPS = 5  # steps of a logistic regression in each round, after the first round of the first chain
TREES, LEAF, FEATURES = 20, 5, 1 / 3  # of a forest: trees, rows per leaf at least, share of features per split


@dataclass(frozen=True, eq=False)
class Variable:
    """A variable of the chain: its columns, those that predict it, and its values in the training rows that have it."""

    columns: Ints
    predictors: Ints
    seen: Ints  # training rows that have it, (N,)
    values: Floats  # (N, w), one column or one for each class
    levels: Floats  # the distinct values of a class, (K, w); empty if the variable is numeric
    codes: Ints  # the class of each training row, (N,)


class Conditional(Protocol):
    """The distribution of a variable given its predictors x (n, P)."""

    def draws(self, x: Floats, rng: np.random.Generator) -> Floats:
        """Draw one value per row, (n, w)."""

    def means(self, x: Floats) -> Floats:
        """Return the mean of each row, (n, w)."""


class Chained(Imputer):
    """Base class of chained equations.

    The point estimate of a value is the mean over the draws of its conditional mean in the last round. Blocks in
    `reduced` are replaced by principal components.

    Args:
        units: per block the unit (F_m,) of each feature; features of one unit are the classes of a category.
        reduced: numbers of the blocks that principal components replace.
    """

    def __init__(self, units: Sequence[Ints], reduced: Collection[int] = ()) -> None:
        super().__init__([len(unit) for unit in units])
        self.units, self.reduced = units, reduced

    @abstractmethod
    def copies(self, R: int) -> int:
        """Return the number of draws that share what one chain learns."""

    @abstractmethod
    def learn(
        self, variable: Variable, x: Floats, rng: np.random.Generator, previous: Conditional | None
    ) -> Conditional:
        """Learn a variable from its predictors x (N, P) in the training rows that have it; start at `previous`."""

    def fit(self, rows: Floats, rng: np.random.Generator) -> Self:
        self.reduction = Reduction(self.blocks, self.reduced, rows)
        columns = self._columns()
        if len(columns) > VARIABLES:
            raise ValueError(f"found {len(columns)} variables, expected at most {VARIABLES}")
        kept = np.sort(rng.permutation(len(rows))[: TRAINING // len(columns)])
        train = self.reduction(rows[kept], rng)
        observed = [unit for unit in columns if _has(train, unit).any()]
        self.scale = np.ones(train.shape[1])
        for unit in observed:
            variance = np.nanvar(train[:, unit], 0).sum()
            self.scale[unit] = variance**0.5 if variance > CONSTANT else 1
        self.train = train / self.scale
        with np.errstate(invalid="ignore", divide="ignore"):
            near = np.nan_to_num(np.abs(np.corrcoef(np.nan_to_num(self.train), rowvar=False)))
        self.variables = [self._variable(unit, np.atleast_2d(near)) for unit in observed]
        return self

    def _columns(self) -> list[Ints]:
        """Return the columns of each variable in reduced rows."""
        columns = []
        for number, (unit, place) in enumerate(zip(self.units, self.reduction.columns, strict=True)):
            if number in self.reduction.components:
                unit = np.arange(place.stop - place.start)
            columns += [place.start + np.flatnonzero(unit == one) for one in np.unique(unit)]
        return columns

    def _variable(self, columns: Ints, near: Floats) -> Variable:
        """Describe a variable; the columns that predict it are those with the largest correlations (V, V)."""
        others = np.setdiff1d(np.arange(len(near)), columns)
        order = np.argsort(-near[columns].max(0)[others], kind="stable")
        seen = np.flatnonzero(_has(self.train, columns))
        values = self.train[seen][:, columns]
        levels, codes = np.unique(values, axis=0, return_inverse=True)
        numeric = len(levels) < 2 or (len(columns) == 1 and len(levels) > 2)
        return Variable(
            columns, np.sort(others[order[:NEAREST]]), seen, values, levels[: 0 if numeric else None], codes
        )

    def filled(self, rows: Floats, R: int, rng: np.random.Generator) -> FillBlock:
        from sklearn import config_context

        copies, shape = self.copies(R), (R, len(rows), len(self.scale))
        with warnings.catch_warnings(), config_context(skip_parameter_validation=True):
            warnings.simplefilter("ignore")  # regressions that have not converged yet continue in the next round
            found: dict[int, Conditional] = {}
            chains = [self._chain(self._repeated(rows, copies, rng), found, rng) for _ in range(R // copies)]
        draws, means = (np.concatenate(part).reshape(shape) * self.scale for part in zip(*chains, strict=True))

        def fill(block: int, subset: Ints) -> tuple[Floats, Floats]:
            columns = self.reduction.columns[block]
            drawn = self.reduction.draws(block, draws[:, subset, columns], rng)
            return drawn, self.reduction.means(block, means[:, subset, columns].mean(0))

        return fill

    def _repeated(self, rows: Floats, copies: int, rng: np.random.Generator) -> Floats:
        """Return copies of rows, one below the other, reduced and scaled."""
        return self.reduction(np.tile(rows, (copies, 1)), rng) / self.scale

    def _chain(self, rows: Floats, found: dict[int, Conditional], rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return drawn rows (N, V), and the same rows with means in place of the last draws.

        `found` holds the conditionals of the previous chain by number of the variable, and then those of this one.
        """
        lacking, gaps = np.isnan(rows), np.isnan(self.train)
        rows, train = self._started(rows, rng), self._started(self.train, rng)
        means = rows.copy()
        for number in range(ROUNDS):
            again = number < LEARNING and bool(gaps.any())
            for place, variable in enumerate(self.variables):
                columns, predictors = variable.columns, variable.predictors
                absent, gap = (np.flatnonzero(x[:, columns[0]]) for x in (lacking, gaps))
                if not len(absent) and not len(gap):
                    continue
                if again or number == 0:
                    x = train[variable.seen][:, predictors]
                    found[place] = self.learn(variable, x, rng, found.get(place))
                if again and len(gap):
                    train[np.ix_(gap, columns)] = found[place].draws(train[gap][:, predictors], rng)
                if len(absent):
                    x = rows[absent][:, predictors]
                    rows[np.ix_(absent, columns)] = found[place].draws(x, rng)
                    if number == ROUNDS - 1:
                        means[np.ix_(absent, columns)] = found[place].means(x)
        return rows, means

    def _started(self, rows: Floats, rng: np.random.Generator) -> Floats:
        """Return rows with random training values in place of missing ones; 0, the mean, if no training row has one."""
        started = np.nan_to_num(rows)
        for variable in self.variables:
            absent = np.flatnonzero(np.isnan(rows[:, variable.columns[0]]))
            donors = rng.integers(len(variable.seen), size=len(absent))
            started[np.ix_(absent, variable.columns)] = variable.values[donors]
        return started


def _has(rows: Floats, columns: Ints) -> Any:
    """Return which rows (N,) have a variable."""
    return np.isfinite(rows[:, columns[0]])


class MeanMatching(Chained):
    """Chained equations of mice: predictive mean matching for numbers, multinomial logistic regression for classes.

    van Buuren & Groothuis-Oudshoorn 2011, https://doi.org/10.18637/jss.v045.i03. Each draw has a chain of its own.
    """

    def copies(self, R: int) -> int:
        return 1

    def learn(
        self, variable: Variable, x: Floats, rng: np.random.Generator, previous: Conditional | None
    ) -> Conditional:
        if not len(variable.levels):
            return Matches(variable, x, rng)
        return Classes(variable, x, previous if isinstance(previous, Classes) else None)


class Matches:
    """Predictive mean matching: the value of one of the training rows with the nearest predictions.

    Predictions of training rows use the estimated coefficients of a linear regression, those of rows to impute use a
    draw from their posterior (type 1 matching, mice's default).
    """

    def __init__(self, variable: Variable, x: Floats, rng: np.random.Generator) -> None:
        x, y = _with_intercept(x), variable.values[:, 0]
        gram = x.T @ x
        covariance = np.linalg.inv(gram + np.diag(RIDGE * np.diag(gram) + 1e-9))
        coefficients = covariance @ (x.T @ y)
        predicted = x @ coefficients
        variance = np.square(y - predicted).sum() / rng.chisquare(max(len(x) - x.shape[1], 1))
        root = np.linalg.cholesky((covariance + covariance.T) / 2)
        self.coefficients = coefficients + variance**0.5 * root @ rng.normal(size=len(root))
        order = rng.permutation(len(x))  # ties are in random order
        order = order[np.argsort(predicted[order], kind="stable")]
        self.predicted, self.values = predicted[order], y[order]

    def donors(self, x: Floats) -> Ints:
        """Return the nearest training rows (n, k)."""
        return nearest(self.predicted, _with_intercept(x) @ self.coefficients, DONORS)

    def draws(self, x: Floats, rng: np.random.Generator) -> Floats:
        donors = self.donors(x)
        return self.values[donors[np.arange(len(x)), rng.integers(donors.shape[1], size=len(x))]][:, None]

    def means(self, x: Floats) -> Floats:
        return self.values[self.donors(x)].mean(1, keepdims=True)


class Classes:
    """Multinomial logistic regression of a class; it continues from a previous one."""

    def __init__(self, variable: Variable, x: Floats, previous: Self | None) -> None:
        from sklearn.linear_model import LogisticRegression

        self.levels = variable.levels
        first = LogisticRegression(warm_start=True)
        regression = previous.regression.set_params(max_iter=STEPS) if previous else first
        self.regression: Any = regression.fit(x, variable.codes)

    def draws(self, x: Floats, rng: np.random.Generator) -> Floats:
        below = self.regression.predict_proba(x).cumsum(1)[:, :-1]
        return self.levels[(rng.random((len(x), 1)) > below).sum(1)]

    def means(self, x: Floats) -> Floats:
        mean: Floats = self.regression.predict_proba(x) @ self.levels
        return mean


def _with_intercept(x: Floats) -> Floats:
    return np.concatenate([x, np.ones((len(x), 1))], 1)


class Forests(Chained):
    """Chained random forests: missForest (Stekhoven & Bühlmann 2012, https://doi.org/10.1093/bioinformatics/btr597).

    A draw is the value of a random training row in the leaf of a random tree, as in mice (Doove et al. 2014,
    https://doi.org/10.1016/j.csda.2013.10.025).
    """

    def copies(self, R: int) -> int:
        return R

    def learn(
        self, variable: Variable, x: Floats, rng: np.random.Generator, previous: Conditional | None
    ) -> Conditional:
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(
            TREES, min_samples_leaf=LEAF, max_features=FEATURES, random_state=int(rng.integers(2**31))
        )
        return Forest(variable.values, x, [forest])
