"""Training rows in which constraints are sought, and how surprising it is that a constraint holds in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.constraints.cells import Cells, Ref
from postprior.pipelines.data.constraints.kinds import Constraint
from postprior.pipelines.data.conversion import ColumnConversion
from postprior.pipelines.data.conversion.columns import named_type

EXPECTED = 10
"""A constraint that holds is no chance if shuffled columns would violate it in so many rows: P < e⁻¹⁰ by Poisson's law.

If m constraints are tried, it is EXPECTED + log m rows, which multiplies P by 1/m (Bonferroni).
"""

LARGEST, SMALLEST = 1e15, 1e-12
"""Greatest size of numbers that are compared, and the least range in relation to their size, or to 1."""


@dataclass(frozen=True)
class Sample:
    """Columns of training rows (n,), NaN where missing, in the units of `Cells`."""

    columns: Mapping[Ref, ColumnConversion]
    values: Mapping[Ref, Values]
    _errors: dict[Ref, float] = field(default_factory=dict)

    @cached_property
    def distinct(self) -> dict[Ref, int]:
        """The number of different values of each column."""
        return {ref: len(np.unique(values[~np.isnan(values)])) for ref, values in self.values.items()}

    @cached_property
    def levels(self) -> list[Ref]:
        """Columns of categories."""
        return [ref for ref in self.values if self._is_level(ref) and self.distinct[ref] > 1]

    @cached_property
    def numbers(self) -> list[Ref]:
        """Columns of numbers and dates that are large and different enough to compute with."""
        return [
            ref for ref in self.values if not self._is_level(ref) and self.distinct[ref] > 1 and self._is_exact(ref)
        ]

    def _is_exact(self, ref: Ref) -> bool:
        low, high = float(np.nanmin(self.values[ref])), float(np.nanmax(self.values[ref]))
        size = max(-low, high, 1)
        return size < LARGEST and high - low > SMALLEST * size

    def _is_level(self, ref: Ref) -> bool:
        return self.columns[ref].kind in ("categorical", "boolean")

    def measure(self, ref: Ref) -> str:
        """Return what the numbers of a column count: columns of different measures are not compared."""
        kind = named_type(self.columns[ref].type)
        return str(kind) if pa.types.is_temporal(kind) else "number"

    def tolerance(self, child: Ref, parents: Sequence[Ref] = (), weights: Sequence[float] = ()) -> float:
        """Return by how much a child may differ from what its parents determine.

        It is half a unit of the last decimal of the child, and what float32 in the units of models cannot represent.
        """
        decimals, most = self.columns[child].decimals, float(np.nanmax(np.abs(self.values[child])))
        written = 1e-6 * most if decimals is None else 0.5 * 10.0**-decimals * (1 + 1e-6) + 1e-12 * most
        parts = zip((child, *parents), (1.0, *weights), strict=True)
        return written + sum(abs(weight) * self.error(ref) for ref, weight in parts)

    def error(self, ref: Ref) -> float:
        """Return twice the greatest difference between a value and what a synthetic row can have in its place."""
        if ref not in self._errors:
            column, values = replace(self.columns[ref], valid_range=None), self.values[ref]
            self._errors[ref] = 2 * float(np.nanmax(np.abs(column.synthesised(values) - values)))
        return self._errors[ref]

    @cached_property
    def _rank(self) -> dict[Ref, int]:
        return {ref: i for i, ref in enumerate(sorted(self.values, key=lambda ref: -self.distinct[ref]))}

    def determines(self, parent: Ref, child: Ref) -> bool:
        """Whether a column is to be the parent if each determines the other: it has more values, or is the first."""
        return self._rank[parent] < self._rank[child]

    def holds(self, constraint: Constraint, tests: int, share: float = 0) -> bool:
        """Whether a constraint holds, and is a surprise among so many `tests`.

        It is one if enough rows, and at least this `share`, would violate it if columns were shuffled.
        """
        if constraint.violated(self.cells).any():
            return False
        expected = self.expected(constraint)
        return is_surprising(expected, tests) and expected >= share * self._complete(constraint).sum()

    def expected(self, constraint: Constraint) -> int:
        """Return how many rows violate a constraint after one of its columns was shuffled, whichever the fewest."""
        rng, counts = np.random.default_rng(0), []
        complete = self._complete(constraint)
        values = {ref: self.values[ref][complete] for ref in constraint.refs}
        for ref in constraint.refs:
            shuffled = Cells(self.columns, {**values, ref: rng.permutation(values[ref])}, {})
            counts.append(int(constraint.violated(shuffled).sum()))
        return min(counts)

    @cached_property
    def cells(self) -> Cells:
        """All cells."""
        return Cells(self.columns, dict(self.values), {})

    def _complete(self, constraint: Constraint) -> Values:
        """(n,) bool: the rows that have all columns of a constraint."""
        return np.asarray(np.all([~np.isnan(self.values[ref]) for ref in constraint.refs], 0))


def is_surprising(expected: float, tests: int) -> bool:
    """Whether no violation in any row is a surprise if so many were expected in each of so many tests."""
    return expected >= EXPECTED + np.log(max(tests, 1))
