"""Kinds of constraints among columns of a row: which rows violate one, and how the cells of such a row are changed."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.constraints.cells import Cells, Ref

STEPS = (0, *(4**k for k in range(11)))
"""By how many units of its last decimal a cell is moved, until it is beyond another in spite of rounding and steps."""
LEVELS = 1 << 24
"""More than the categories of any column."""


class Constraint(ABC):
    """A relation between columns that holds in every row; a missing cell violates none.

    `text` names the constraint for users; names are those of its columns.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def refs(self) -> tuple[Ref, ...]:
        """The columns; if the others determine one of them, it is the first."""

    @property
    def determined(self) -> Ref | None:
        """The column that the others determine, or None."""
        return None

    @property
    def inverted(self) -> Ref | None:
        """The column that the determined one determines in turn, or None."""
        return None

    @abstractmethod
    def text(self, names: Mapping[Ref, str]) -> str:
        """Return the constraint as text."""

    @abstractmethod
    def violated(self, cells: Cells) -> Values:
        """(n,) bool: the rows that violate the constraint."""

    @abstractmethod
    def keep(self, cells: Cells) -> None:
        """Change movable cells of the rows that violate the constraint, so that they do not, if this is possible."""


@dataclass(frozen=True)
class Order(Constraint):
    """low ≤ high, or low < high if it is `strict`.

    Where low exceeds high by d, the two are moved apart by d + d·gap / (d + gap), so that their new difference grows
    with d up to the `gap`. It is a small difference of training rows: clipping would make many values equal, and
    swapping would move them twice as far. The `share` of the low one is its part of the sum of both variances. What
    float32 cannot represent is the `tolerance`: no violation is smaller.
    """

    low: Ref
    high: Ref
    strict: bool = False
    gap: float = 0.0
    share: float = 0.5
    tolerance: float = 0.0
    kind = "order"

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Both columns."""
        return self.low, self.high

    def text(self, names: Mapping[Ref, str]) -> str:
        """Return the constraint as text."""
        return f"{names[self.low]} {'<' if self.strict else '<='} {names[self.high]}"

    def violated(self, cells: Cells) -> Values:
        """(n,) bool."""
        return self._wrong(cells, self.tolerance)

    def _wrong(self, cells: Cells, tolerance: float) -> Values:
        low, high = cells.values[self.low], cells.values[self.high]
        return low >= high if self.strict else low - high > tolerance

    def keep(self, cells: Cells) -> None:
        """Move apart, then by units of the last decimal where rounding or equality leaves a row in violation."""
        wrong, (low, high) = self._wrong(cells, 0), (cells.values[ref] for ref in self.refs)
        excess = np.maximum(low - high, 0)
        apart = excess + (excess * self.gap / (excess + self.gap) if self.gap else 0)
        can_low, can_high = cells.movable(self.low), cells.movable(self.high)
        share = np.where(can_low & can_high, self.share, can_low)
        cells.put(self.low, low - share * apart, wrong)
        cells.put(self.high, high + (1 - share) * apart, wrong)
        for moved, other, sign in ((self.high, self.low, 1), (self.low, self.high, -1)):
            column = cells.columns[moved]
            size = float(np.nanmax(np.abs(cells.values[other]), initial=0))
            unit = 1e-7 * size if column.decimals is None else 10.0**-column.decimals
            for step in STEPS:
                if not (wrong := self._wrong(cells, 0)).any():
                    return
                cells.put(moved, cells.values[other] + sign * step * unit, wrong)


@dataclass(frozen=True)
class Linear(Constraint):
    """child = offset + Σ_i weights_i · parents_i, up to a `tolerance` of half a unit of the child's last decimal.

    Drawn children are computed. If a child is given, or computed beyond its range, the difference is distributed over
    the drawn parents, in proportion to the room that each has in its own range. A child of given parents may be beyond
    its range.
    """

    child: Ref
    parents: tuple[Ref, ...]
    weights: tuple[float, ...]
    offset: float
    tolerance: float
    kind = "linear"

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The child and its parents."""
        return self.child, *self.parents

    @property
    def determined(self) -> Ref:
        """The child."""
        return self.child

    @property
    def inverted(self) -> Ref | None:
        """The parent, if there is only one."""
        return self.parents[0] if len(self.parents) == 1 else None

    def text(self, names: Mapping[Ref, str]) -> str:
        """Return the constraint as text: a + b = c, or b = 1.8 * a + 32."""
        parents = [names[parent] for parent in self.parents]
        if len(parents) > 1:
            return f"{' + '.join(parents)} = {names[self.child]}"
        scaled = parents[0] if self.weights[0] == 1 else f"{self.weights[0]:.9g} * {parents[0]}"
        shift = f" {'+' if self.offset > 0 else '-'} {abs(self.offset):.9g}" if self.offset else ""
        return f"{names[self.child]} = {scaled}{shift}"

    def computed(self, cells: Cells) -> Values:
        """Return the child (n,) that the parents determine."""
        values = np.stack([cells.values[parent] for parent in self.parents], 1)
        return np.asarray(self.offset + values @ np.array(self.weights))

    def violated(self, cells: Cells) -> Values:
        """(n,) bool."""
        return np.abs(cells.values[self.child] - self.computed(cells)) > self.tolerance

    def keep(self, cells: Cells) -> None:
        """Move the parents where they must, then compute the child."""
        wrong = self.violated(cells)
        if not wrong.any():
            return
        drawn, computed = cells.movable(self.child), self.computed(cells)
        target = np.where(drawn, cells.columns[self.child].synthesised(computed), cells.values[self.child])
        far = wrong & (np.abs(target - computed) > self.tolerance)
        for i, (parent, weight) in enumerate(zip(self.parents, self.weights, strict=True)):
            rest = target - self.computed(cells)
            rooms = np.stack([self._room(cells, j, rest) for j in range(i, len(self.parents))])
            share = rooms[0] / np.where(rooms.sum(0) > 0, rooms.sum(0), 1)
            cells.put(parent, cells.values[parent] + share * rest / weight, far)
        cells.put(self.child, self.computed(cells), wrong, limited=False)

    def _room(self, cells: Cells, i: int, rest: Values) -> Values:
        """Return by how much parent i can change the child in the direction of the `rest` (n,)."""
        parent, weight = self.parents[i], self.weights[i]
        if (ends := cells.columns[parent].valid_range) is None:
            room = np.ones(len(rest))
        else:
            value = cells.values[parent]
            room = np.maximum(np.where(rest * weight > 0, ends[1] - value, value - ends[0]), 0)
        return np.where(cells.movable(parent), abs(weight) * room, 0)


@dataclass(frozen=True)
class Function(Constraint):
    """child = f(parent), a step function: values_k from breaks_{k−1} on and below breaks_k.

    The values of categories are their indices, so that the function of a categorical parent is a table. A value of
    None allows any child. If the child is given and the parent drawn, the parent becomes that of the child's value in
    `inverse`, pairs (child, parent): the commonest one, or the median.
    """

    child: Ref
    parent: Ref
    breaks: tuple[float, ...]
    values: tuple[float | None, ...]
    inverse: tuple[tuple[float, float], ...]
    kind = "function"

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The child and its parent."""
        return self.child, self.parent

    @property
    def determined(self) -> Ref:
        """The child."""
        return self.child

    def text(self, names: Mapping[Ref, str]) -> str:
        """Return the constraint as text."""
        return f"{names[self.parent]} -> {names[self.child]}"

    def computed(self, cells: Cells) -> Values:
        """Return the child (n,) that the parent determines, NaN where it determines none."""
        parent = cells.values[self.parent]
        step = np.searchsorted(np.array(self.breaks), parent, side="right")
        return np.where(np.isnan(parent), np.nan, np.array(self.values, np.float64)[step])

    def violated(self, cells: Cells) -> Values:
        """(n,) bool."""
        return ~same(cells.values[self.child], self.computed(cells))

    def keep(self, cells: Cells) -> None:
        """Compute drawn children, and find drawn parents of given children."""
        wrong = self.violated(cells)
        cells.put(self.child, self.computed(cells), wrong)
        given = wrong & ~cells.movable(self.child)
        children, parents = np.array(self.inverse).T
        place = np.clip(np.searchsorted(children, cells.values[self.child]), 0, len(children) - 1)
        known = same(children[place], cells.values[self.child])
        cells.put(self.parent, parents[place], given & known)


@dataclass(frozen=True)
class Exclusion(Constraint):
    """Combinations of categories of two columns that never occur, in ascending order of their indices.

    In a row that has the combination `never_k`, one cell changes, so that the row has a combination of `instead_k`:
    the first, or the second if the cell that differs is given. The more frequent one is the first.
    """

    columns: tuple[Ref, Ref]
    never: tuple[tuple[int, int], ...]
    instead: tuple[tuple[tuple[int, int], ...], ...]
    kind = "exclusion"

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Both columns."""
        return self.columns

    def text(self, names: Mapping[Ref, str]) -> str:
        """Return the constraint as text."""
        return " x ".join(names[ref] for ref in self.columns)

    def found(self, cells: Cells) -> Values:
        """Return the excluded combination k (n,) that each row has, −1 if none."""
        one, other = (cells.values[ref] for ref in self.columns)
        never, found = np.array(self.never, np.float64) @ (LEVELS, 1), LEVELS * one + other
        place = np.clip(np.searchsorted(never, found), 0, len(never) - 1)
        return np.where(never[place] == found, place, -1)

    def violated(self, cells: Cells) -> Values:
        """(n,) bool."""
        return np.asarray(self.found(cells) >= 0)

    def keep(self, cells: Cells) -> None:
        """Change the one cell or the other."""
        for choice in (0, 1):
            found = self.found(cells)
            options = np.array([pairs[min(choice, len(pairs) - 1)] for pairs in self.instead], np.float64)
            for ref, values in zip(self.columns, options[found].T, strict=True):
                cells.put(ref, values, found >= 0)


def described(constraint: Constraint) -> dict[str, Any]:
    """JSON-able description."""
    return {"kind": constraint.kind, **vars(constraint)}


def from_description(entry: Mapping[str, Any]) -> Constraint:
    """Return the constraint that `described` described; KeyError or TypeError if the entry is damaged."""
    return KINDS[entry["kind"]](**{key: _tuples(value) for key, value in entry.items() if key != "kind"})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def same(values: Values, expected: Values) -> Values:
    """Whether values (n,) are those expected, but for the last bits; true where one of them is NaN."""
    return ~(np.abs(values - expected) > 1e-6 * np.maximum(1, np.abs(expected)))


KINDS: dict[str, type[Constraint]] = {kind.kind: kind for kind in (Order, Linear, Function, Exclusion)}
"""Kinds of constraints by their name in manifests."""
