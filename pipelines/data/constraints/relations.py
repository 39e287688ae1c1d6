"""Find relations among columns of numbers: linear functions, sums and orders."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.constraints.cells import Ref
from postprior.pipelines.data.constraints.kinds import Constraint, Linear, Order
from postprior.pipelines.data.constraints.sample import Sample, is_surprising

PROBED = 12
"""Number of rows in which sums are sought before they are checked in the others."""
CORRELATED = 0.99
"""Least correlation of two columns of which one may be a linear function of the other."""
FINE = 10
"""A linear function has a standard deviation of at least so many of its tolerances; coarser ones are step functions."""
SINGULAR = 1e-8
"""Eigenvalues of a correlation matrix below it are 0: a column is a linear function of others."""
SMALL = 0.25
"""The quantile of the differences of two ordered columns to which they are moved apart at most."""
OFTEN = 0.01
"""An order is no constraint if shuffled columns would violate it in a smaller share of rows."""


def linear_functions(sample: Sample) -> Iterator[Linear]:
    """Yield columns that are linear functions of another column, b = k·a + m, with the decimals of b."""
    refs = sample.numbers
    if len(refs) < 2:
        return
    pairs = [(i, j) for i, j in np.argwhere(np.abs(_correlations(sample, refs)) > CORRELATED) if i != j]
    for i, j in pairs:
        parent, child = refs[i], refs[j]
        fine = np.nanstd(sample.values[child]) >= FINE * sample.tolerance(child)
        if fine and sample.determines(parent, child):
            for weight, offset in _lines(sample.values[parent], sample.values[child]):
                found = Linear(child, (parent,), (weight,), offset, sample.tolerance(child, [parent], [weight]))
                if sample.holds(found, len(refs) ** 2):
                    yield found
                    break


def _correlations(sample: Sample, refs: list[Ref]) -> Values:
    """Return the correlations (J, J) of columns in the rows that have both; 0 where they are undefined."""
    x = np.stack([sample.values[ref] for ref in refs], 1)
    x = (x - np.nanmean(x, 0)) / np.nanstd(x, 0)
    seen, x = (~np.isnan(x)).astype(np.float64), np.nan_to_num(x)
    n, sums, squares = seen.T @ seen, x.T @ seen, (x**2).T @ seen
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt((squares - sums**2 / n) * (squares - sums**2 / n).T)
        return np.nan_to_num((x.T @ x - sums * sums.T / n) / spread)


def _lines(x: Values, y: Values) -> Iterator[tuple[float, float]]:
    """Yield slopes and offsets of y on x by least squares, rounded to few digits first."""
    seen = ~np.isnan(x + y)
    x, y = x[seen], y[seen]
    slope = float((x - x.mean()) @ (y - y.mean()) / ((x - x.mean()) @ (x - x.mean())))
    for digits in (3, 6, 15):
        rounded = float(f"{slope:.{digits}g}")
        rest = float(np.median(y - rounded * x))
        yield rounded, float(f"{rest:.{digits}g}") if abs(rest) > 1e-9 * np.abs(y).max() else 0.0


def sums(sample: Sample, without: Collection[Ref]) -> Iterator[Linear]:
    """Yield columns that are the sum of two others; columns `without` are no sums."""
    refs = sample.numbers
    if len(refs) < 3:
        return
    seen = np.sum([~np.isnan(sample.values[ref]) for ref in refs], 0)
    rows = np.argsort(-seen, kind="stable")[:PROBED]
    x = np.stack([sample.values[ref][rows] for ref in refs])  # (J, n)
    for k, child in enumerate(refs):
        if child in without:
            continue
        tolerance = sample.tolerance(child)
        pairs = np.argwhere(np.triu(np.ones((len(refs), len(refs)), bool), 1) & (np.arange(len(refs)) != k)[:, None])
        for row in x.T:
            i, j = pairs.T
            pairs = pairs[(j != k) & ~(np.abs(row[k] - row[i] - row[j]) > tolerance)]  # true for missing cells
        for i, j in pairs:
            found = _sum(sample, child, (refs[i], refs[j]))
            if _addable(sample, refs[i], refs[j], child) and sample.holds(found, len(refs) ** 3):
                yield found
                break


def totals(sample: Sample, determined: Mapping[Ref, Constraint]) -> Iterator[Linear]:
    """Yield columns that are the sum of three or more others.

    The parts are found by least squares in rows that have all columns: their weights are 1, those of all others 0.
    Columns that are `determined` already are no sums; those without rounding errors are no parts, as others stand for
    them.
    """
    exact = {ref for ref, found in determined.items() if isinstance(found, Linear) and _noise(sample, found) < SINGULAR}
    numbers = [ref for ref in sample.numbers if sample.measure(ref) == "number" and ref not in exact]
    refs, x = _complete(sample, numbers)
    if len(refs) < 4 or np.linalg.eigvalsh(correlations := np.corrcoef(x.T))[0] > SINGULAR:
        return
    spread = x.std(0)
    for k, child in enumerate(refs):
        others = np.arange(len(refs)) != k
        solution = np.linalg.lstsq(correlations[others][:, others], correlations[others, k], rcond=SINGULAR)[0]
        weights = np.insert(solution * spread[k] / spread[others], k, 0)
        parts = np.abs(weights - 1) < 0.01
        if child not in determined and parts.sum() > 2 and np.abs(weights[~parts]).max() < 0.01:
            parents = tuple(ref for ref, part in zip(refs, parts, strict=True) if part)
            found = _sum(sample, child, parents)
            if sample.holds(found, len(refs) ** 2):
                yield found


def _noise(sample: Sample, found: Linear) -> float:
    """Return the share of the variance of a child that its parents do not determine, because of rounding."""
    child = sample.values[found.child]
    return float(np.nanvar(child - found.computed(sample.cells)) / np.nanvar(child))


def _complete(sample: Sample, refs: list[Ref]) -> tuple[list[Ref], Values]:
    """Return columns, and the rows (n, J) that have all of them; columns that too many rows lack are left out."""
    while len(refs) > 3:
        x = np.stack([sample.values[ref] for ref in refs], 1)
        x, holes = x[~np.isnan(x).any(1)], np.isnan(x).sum(0)
        if len(x) >= 2 * len(refs):
            varied = x.std(0) > 0
            return [ref for ref, varies in zip(refs, varied, strict=True) if varies], x[:, varied]
        worst = int(holes.argmax())
        refs = refs[:worst] + refs[worst + 1 :]
    return [], np.empty((0, 0))


def _sum(sample: Sample, child: Ref, parents: tuple[Ref, ...]) -> Linear:
    weights = (1.0,) * len(parents)
    return Linear(child, parents, weights, 0.0, sample.tolerance(child, parents, weights))


def _addable(sample: Sample, one: Ref, other: Ref, total: Ref) -> bool:
    """Whether numbers are added to a number, or a number to a date."""
    measures = sorted(sample.measure(ref) for ref in (one, other))
    return "number" in measures and sample.measure(total) == min(measures)


def orders(sample: Sample, accepted: Callable[[Order], bool]) -> list[Order]:
    """Return the `accepted` orders of columns of the same measure that do not follow from others or from the ranges."""
    refs = sample.numbers
    found: dict[tuple[int, int], Order] = {}
    if len(refs) < 2:
        return []
    x, measures = np.stack([sample.values[ref] for ref in refs], 1), np.array([sample.measure(ref) for ref in refs])
    apart = (np.nanmax(x, 0)[:, None] <= np.nanmin(x, 0)) & (measures[:, None] == measures)
    holds = np.stack([(~(x[:, [i]] > x)).all(0) for i in range(len(refs))])  # (J, J), true for missing cells
    holds &= ~apart & (measures[:, None] == measures) & ~np.eye(len(refs), dtype=bool)
    while True:
        known = (holds | apart).astype(np.float32)
        direct = [(i, j) for i, j in np.argwhere(holds & ~(known @ known > 0)).tolist()]
        if all(pair in found for pair in direct):
            return [found[pair] for pair in direct]
        for i, j in direct:
            if (i, j) not in found:
                order = _order(sample, refs[i], refs[j])
                if order is not None and accepted(order):
                    found[i, j] = order
                else:
                    holds[i, j] = False


def _order(sample: Sample, low: Ref, high: Ref) -> Order | None:
    """Return the order of two columns; None if it may be by chance.

    It is strict if no values are equal, though the least difference that the decimals allow is no rarity.
    """
    tests, variances = len(sample.numbers) ** 2, [float(np.nanvar(sample.values[ref])) for ref in (low, high)]
    difference = sample.values[high] - sample.values[low]
    gap, error = float(np.nanquantile(difference, SMALL)), sample.error(low) + sample.error(high)
    order = Order(low, high, False, gap, variances[0] / sum(variances), error)
    if not sample.holds(order, tests, OFTEN):
        return None
    least = 3 * max(sample.tolerance(ref) for ref in (low, high))  # one and a half units of the last decimal
    often = is_surprising(int((difference < least).sum()), tests)
    return replace(order, strict=often and not error and bool(np.nanmin(difference) > 0))
