"""Find the constraints that hold in all rows of a dataset and would not hold in its training rows by chance."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.constraints.cells import Cells, Ref
from postprior.pipelines.data.constraints.functions import exclusions, functions
from postprior.pipelines.data.constraints.kinds import Constraint, Exclusion
from postprior.pipelines.data.constraints.relations import linear_functions, orders, sums, totals
from postprior.pipelines.data.constraints.sample import Sample
from postprior.pipelines.data.conversion import ColumnConversion

COLUMNS = 200
"""Greatest number of columns of tables among which constraints are sought: the first ones."""
ROWS = 5000
"""Greatest number of training rows in which constraints are sought; they are checked in all rows."""


@dataclass(frozen=True)
class Learned:
    """The constraints that hold in every row, in the order in which they are kept, and those of training rows alone.

    `contradicted` has the number of held-out rows that violate each of the latter, and `dropped` those that the user
    does not want.
    """

    constraints: tuple[Constraint, ...]
    contradicted: Mapping[Constraint, int]
    dropped: Collection[Constraint]


def learn(
    columns: Mapping[Ref, ColumnConversion],
    values: Mapping[Ref, Values],
    train: Values,
    wanted: Callable[[Constraint], bool] = lambda constraint: True,
) -> Learned:
    """Find the `wanted` constraints of columns with values (n,), of which the rows `train` (n,) bool are for training.

    A constraint that follows from others is left out; it may be found if one of these is not wanted.
    """
    values = dict(list(values.items())[:COLUMNS])
    rows = np.flatnonzero(train)
    rows = rows[:: max(-(-len(rows) // ROWS), 1)]
    sample, check = (
        Sample(columns, {ref: column[rows] for ref, column in values.items()}),
        Check(columns, values, train, wanted),
    )
    determined = _determined(sample, check)
    ancestors = _ancestors(determined)

    def movable(constraint: Constraint) -> bool:
        """Whether one of two columns may be changed, and the other does not follow from it or determine it."""
        one, other = constraint.refs
        related = one in ancestors.get(other, ()) or other in ancestors.get(one, ())
        return not related and not (one in determined and other in determined)

    ordered = orders(sample, lambda order: movable(order) and check.holds(order))
    unwanted = [set(constraint.refs) for constraint in check.dropped]
    excluded = [
        check.narrowed(exclusion)
        for exclusion in exclusions(sample)
        if movable(exclusion) and set(exclusion.refs) not in unwanted
    ]
    order = TopologicalSorter({child: constraint.refs[1:] for child, constraint in determined.items()}).static_order()
    definitions = [determined[ref] for ref in order if ref in determined]
    kept = (*filter(None, excluded), *ordered, *definitions)
    return Learned(kept, check.contradicted, check.dropped)


@dataclass(frozen=True)
class Check:
    """All rows (n,), of which `train` are for training, and the constraints that are not kept; see `Learned`."""

    columns: Mapping[Ref, ColumnConversion]
    values: Mapping[Ref, Values]
    train: Values
    wanted: Callable[[Constraint], bool]
    contradicted: dict[Constraint, int] = field(default_factory=dict)
    dropped: set[Constraint] = field(default_factory=set)

    def holds(self, constraint: Constraint, gaps: Values | None = None) -> bool:
        """Whether a constraint is wanted and holds in all rows.

        `gaps` (2, K) are the ends of the intervals between parents of training rows, in which a step may lie anywhere.
        """
        if not self.wanted(constraint):
            self.dropped.add(constraint)
            return False
        wrong = constraint.violated(Cells(self.columns, dict(self.values), {}))
        if gaps is not None and gaps.size:
            parent = self.values[constraint.refs[-1]]
            place = np.clip(np.searchsorted(gaps[1], parent), 0, gaps.shape[1] - 1)
            wrong &= ~((gaps[0][place] < parent) & (parent < gaps[1][place]))
        if wrong.any() and not (wrong & self.train).any():
            self.contradicted[constraint] = int(wrong.sum())
        return not wrong.any()

    def narrowed(self, exclusion: Exclusion) -> Exclusion | None:
        """Return an exclusion without the combinations that some rows have; None if none are left or wanted."""
        if not self.wanted(exclusion):
            self.dropped.add(exclusion)
            return None
        found = exclusion.found(Cells(self.columns, dict(self.values), {}))
        left = np.setdiff1d(np.arange(len(exclusion.never)), found).tolist()
        never, instead = (tuple(entries[k] for k in left) for entries in (exclusion.never, exclusion.instead))
        return replace(exclusion, never=never, instead=instead) if left else None


def _determined(sample: Sample, check: Check) -> dict[Ref, Constraint]:
    """Return the columns that others determine, each by one constraint, without circles."""
    determined: dict[Ref, Constraint] = {}

    def add(found: Constraint, gaps: Values | None = None) -> None:
        child, *parents = found.refs
        ancestors = _ancestors(determined)
        if child in determined or any(child == ref or child in ancestors.get(ref, ()) for ref in parents):
            return
        if check.holds(found, gaps):
            determined[child] = found

    for linear in linear_functions(sample):
        add(linear)
    for total in sums(sample, determined.keys()):
        add(total)
    for total in totals(sample, determined):
        add(total)
    for function, gaps in functions(sample, determined.keys()):
        add(function, gaps)
    return determined


def _ancestors(determined: Mapping[Ref, Constraint]) -> dict[Ref, set[Ref]]:
    """Return the columns that determine each column, also through others."""

    def above(ref: Ref) -> set[Ref]:
        parents = determined[ref].refs[1:] if ref in determined else ()
        return {*parents, *(ancestor for parent in parents for ancestor in above(parent))}

    return {ref: above(ref) for ref in determined}
