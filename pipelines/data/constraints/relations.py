"""Find relations among columns of numbers: linear functions, sums and orders."""

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.constraints.cells import Ref
from postprior.pipelines.data.constraints.kinds import Linear, Order
from postprior.pipelines.data.constraints.sample import Sample, is_surprising

PROBED = 12
"""Number of rows in which sums are sought before they are checked in the others."""
CORRELATED = 0.99
"""Least correlation of two columns of which one may be a linear function of the other."""
FINE = 10
"""A linear function has a standard deviation of at least so many of its tolerances; coarser ones are step functions."""
SINGULAR = 1e-8
"""Eigenvalues of a correlation matrix below it are 0: a column is a linear function of others."""
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
                found = Linear(child, (parent,), (weight,), offset, sample.tolerance(child))
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
        fits = (~(np.abs(x[k] - x[:, None] - x[None]) > tolerance)).all(2)  # (J, J), true for missing cells
        for i, j in combinations(range(len(refs)), 2):
            if fits[i, j] and k not in (i, j) and _addable(sample, refs[i], refs[j], child):
                found = Linear(child, (refs[i], refs[j]), (1.0, 1.0), 0.0, tolerance)
                if sample.holds(found, len(refs) ** 3):
                    yield found
                    break


def totals(sample: Sample, determined: Collection[Ref]) -> Iterator[Linear]:
    """Yield columns that are the sum of three or more others.

    The parts are found by least squares in rows that have all columns: their weights are 1, those of all others 0.
    Columns that are `determined` already are no sums. They are parts if their weights are not ambiguous.
    """
    numbers = [ref for ref in sample.numbers if sample.measure(ref) == "number"]
    for refs in (numbers, [ref for ref in numbers if ref not in determined]):
        refs, x = _complete(sample, refs)
        if len(refs) < 4 or np.linalg.eigvalsh(correlations := np.corrcoef(x.T))[0] > SINGULAR:
            continue
        spread = x.std(0)
        for k, child in enumerate(refs):
            others = np.arange(len(refs)) != k
            solution = np.linalg.lstsq(correlations[others][:, others], correlations[others, k], rcond=SINGULAR)[0]
            weights = np.insert(solution * spread[k] / spread[others], k, 0)
            parts = np.abs(weights - 1) < 0.01
            if child not in determined and parts.sum() > 2 and np.abs(weights[~parts]).max() < 0.01:
                parents = tuple(ref for ref, part in zip(refs, parts, strict=True) if part)
                found = Linear(child, parents, (1.0,) * len(parents), 0.0, sample.tolerance(child))
                if sample.holds(found, len(refs) ** 2):
                    yield found


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


def _addable(sample: Sample, one: Ref, other: Ref, total: Ref) -> bool:
    """Whether numbers are added to a number, or a number to a date."""
    measures = sorted(sample.measure(ref) for ref in (one, other))
    return "number" in measures and sample.measure(total) == min(measures)


def orders(sample: Sample) -> Iterator[Order]:
    """Yield the orders of columns of the same measure that do not follow from the ranges of the columns."""
    refs = sample.numbers
    if len(refs) < 2:
        return
    x = np.stack([sample.values[ref] for ref in refs], 1)
    holds = np.stack([(~(x[:, [i]] > x)).all(0) for i in range(len(refs))])  # (J, J), true for missing cells
    apart = np.nanmax(x, 0)[:, None] <= np.nanmin(x, 0)
    tests = len(refs) ** 2
    for i, j in np.argwhere(holds & ~apart & ~np.eye(len(refs), dtype=bool)):
        order, strict = Order(refs[i], refs[j]), Order(refs[i], refs[j], strict=True)
        if sample.measure(refs[i]) == sample.measure(refs[j]) and sample.holds(order, tests, OFTEN):
            ties = sample.expected(strict) - sample.expected(order)
            yield strict if is_surprising(ties, tests) and sample.holds(strict, tests) else order


def without_implied(sample: Sample, found: Sequence[Order]) -> list[Order]:
    """Return the orders that do not follow from two others, or from one and the ranges of columns."""
    refs = sample.numbers
    low, high = (np.array([end(sample.values[ref]) for ref in refs]) for end in (np.nanmin, np.nanmax))
    known = high[:, None] <= low  # (J, J)
    place = {ref: i for i, ref in enumerate(refs)}
    pairs = [(place[order.low], place[order.high]) for order in found]
    for pair in pairs:
        known[pair] = True
    np.fill_diagonal(known, False)
    implied = known.astype(np.float32) @ known.astype(np.float32) > 0
    return [order for order, pair in zip(found, pairs, strict=True) if not implied[pair]]
