"""Find columns that are a function of another, and combinations of categories that never occur."""

from collections.abc import Collection, Iterator
from itertools import combinations
from math import lgamma
from typing import NamedTuple

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.constraints.cells import Ref
from postprior.pipelines.data.constraints.kinds import Exclusion, Function
from postprior.pipelines.data.constraints.sample import Sample, is_surprising
from postprior.pipelines.data.conversion.categories import MOST, RARE

PROBED = 1000
"""Number of rows in which a function is sought before it is checked in the others."""
FEWEST = 5
"""Expected number of rows from which on the absence of a combination counts (Cochran 1954)."""
WIDEST = 1000
"""Greatest number of categories of all columns together among which combinations are sought."""


class Steps(NamedTuple):
    """A step function from pairs (parent, child): rows of each step (R,), ends of the parents, and the children."""

    rows: Values
    low: Values
    high: Values
    children: Values
    repeated: int  # rows with a parent that an earlier row has


def functions(sample: Sample, without: Collection[Ref]) -> Iterator[tuple[Function, Values]]:
    """Yield columns that are functions of another column, with the ends (2, K) of the gaps between the steps.

    A function of a category, or of a number with repeated values, has one child for each of these. A function of a
    number may also have one interval for each child, as an age group has. Columns `without` are no children.
    """
    children = [ref for ref in (*sample.levels, *sample.numbers) if sample.distinct[ref] <= MOST and ref not in without]
    parents = sorted((*sample.levels, *sample.numbers), key=lambda ref: sample.distinct[ref])
    tests = len(children) * len(parents)
    if not tests:
        return
    possible = {parent: _possible(sample, parent, children) for parent in parents}
    for child in children:
        for parent in parents:
            if child in possible[parent] and parent != child and sample.determines(parent, child):
                steps = _steps(sample, parent, child)
                if steps is not None and _is_surprising(sample, parent, steps, tests):
                    yield _function(sample, parent, child, steps), np.stack([steps.high[:-1], steps.low[1:]])
                    break


def _possible(sample: Sample, parent: Ref, children: list[Ref]) -> set[Ref]:
    """Return the children that some first rows do not show to be no function of a parent."""
    x = sample.values[parent][:PROBED]
    order = np.argsort(x, kind="stable")
    y = np.stack([sample.values[child][:PROBED][order] for child in children], 1)
    differs = np.abs(np.diff(y, axis=0)) > 0  # false for missing cells
    alike = np.diff(x[order]) == 0
    if sample.columns[parent].others:
        alike &= x[order][1:] != len(sample.columns[parent].values) - 1
    bad = differs[alike].any(0) | (differs.sum(0) >= 2 * MOST)
    return {child for child, excluded in zip(children, bad, strict=True) if not excluded}


def _pairs(sample: Sample, parent: Ref, child: Ref) -> tuple[Values, Values]:
    """Return the values of both columns, sorted, in rows that have both; rare parents grouped as `other` are absent."""
    x, y = sample.values[parent], sample.values[child]
    seen = ~np.isnan(x + y)
    if sample.columns[parent].others:
        seen &= x != len(sample.columns[parent].values) - 1
    order = np.lexsort((y[seen], x[seen]))
    return x[seen][order], y[seen][order]


def _steps(sample: Sample, parent: Ref, child: Ref) -> Steps | None:
    """Return the steps of child on parent; None if a parent has two children or there are too many steps."""
    x, y = _pairs(sample, parent, child)
    if not len(x):
        return None
    other, differs = np.diff(x) > 0, np.diff(y) != 0
    if (differs & ~other).any():
        return None
    new = other if parent in sample.levels else differs
    if new.sum() >= MOST:
        return None
    start = np.flatnonzero(np.r_[True, new])
    count = np.diff(np.r_[start, len(x)])
    return Steps(count, x[start], x[start + count - 1], y[start], int((~other).sum()))


def _is_surprising(sample: Sample, parent: Ref, steps: Steps, tests: int) -> bool:
    """Whether steps are no chance: repeated parents agree in their child, or each child has one interval."""
    children, places = np.unique(steps.children, return_inverse=True)
    counts = np.bincount(places, steps.rows)
    rows = counts.sum()
    if is_surprising(steps.repeated * float(1 - ((counts / rows) ** 2).sum()), tests):
        return True
    if parent in sample.levels or len(steps.rows) > len(children):
        return False
    orders = lgamma(rows + 1) - sum(lgamma(count + 1) for count in counts)  # log of the number of equally likely ones
    return is_surprising(orders - lgamma(len(children) + 1), tests)


def _function(sample: Sample, parent: Ref, child: Ref, steps: Steps) -> Function:
    """Return the function with these steps; a step that fewer than `RARE` rows have determines nothing."""
    values = [float(y) if rows >= RARE else None for y, rows in zip(steps.children, steps.rows, strict=True)]
    if parent in sample.levels:
        by_level = dict(zip(steps.low.astype(int).tolist(), values, strict=True))
        values = [by_level.get(level) for level in range(max(len(sample.columns[parent].values), 2))]
        breaks = [level + 0.5 for level in range(len(values) - 1)]
    else:
        breaks = [_between(*ends) for ends in zip(steps.high[:-1].tolist(), steps.low[1:].tolist(), strict=True)]
    inverse = []
    x, y = _pairs(sample, parent, child)
    for value in np.unique(y):
        if len(found := x[y == value]) >= RARE:
            different, counts = np.unique(found, return_counts=True)
            typical = different[counts.argmax()] if parent in sample.levels else found[len(found) // 2]
            inverse.append((float(value), float(typical)))
    return Function(child, parent, tuple(breaks), tuple(values), tuple(inverse))


def _between(low: float, high: float) -> float:
    """Return the number above low and at most high, near their middle, that has the fewest digits.

    >>> _between(64.81, 65.3), _between(64.0, 65.0)
    (65.0, 64.5)
    """
    middle = (low + high) / 2
    for digits in range(int(np.floor(-np.log10(high - low))), 16):
        if low < (rounded := float(np.round(middle, digits))) <= high:
            return rounded
    return high


def exclusions(sample: Sample) -> Iterator[Exclusion]:
    """Yield pairs of columns of categories with combinations that never occur, though more rows were expected.

    Combinations count if `FEWEST` rows or more were expected of independent columns, and two categories of which one
    determines the other are left to `functions`.
    """
    refs, total = [], 0
    for ref in sample.levels:
        if (total := total + sample.distinct[ref]) <= WIDEST:
            refs.append(ref)
    for one, other in combinations(refs, 2):
        counts = _table(sample, one, other)
        rows = counts.sum()
        expected = counts.sum(1, keepdims=True) * counts.sum(0) / max(rows, 1)
        never = (counts == 0) & (expected >= FEWEST)
        if not is_surprising(float(expected[never].sum()), len(refs) ** 2):
            continue
        pairs, instead = [], []
        for a, b in np.argwhere(never).tolist():
            choices = [(int(counts[:, b].argmax()), b), (a, int(counts[a].argmax()))]
            choices = sorted((pair for pair in choices if counts[pair] >= RARE), key=lambda pair: -counts[pair])
            if choices:
                pairs.append((a, b))
                instead.append(tuple(choices))
        if pairs:
            yield Exclusion((one, other), tuple(pairs), tuple(instead))


def _table(sample: Sample, one: Ref, other: Ref) -> Values:
    """Return the number of rows with each combination of categories (K, K')."""
    x, y = sample.values[one], sample.values[other]
    seen = ~np.isnan(x + y)
    sizes = [max(len(sample.columns[ref].values), 2) for ref in (one, other)]
    codes = x[seen].astype(np.int64) * sizes[1] + y[seen].astype(np.int64)
    return np.bincount(codes, minlength=sizes[0] * sizes[1]).reshape(sizes)
