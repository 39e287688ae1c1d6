"""Change drawn cells of rows so that they keep the constraints of the data."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Rows, Values
from postprior.pipelines.data.constraints.cells import Cells, names_of
from postprior.pipelines.data.constraints.kinds import Constraint, from_description
from postprior.pipelines.data.conversion import TableConversion, intact
from postprior.pipelines.data.conversion import from_description as conversion_of
from postprior.pipelines.data.dataset import Dataset

PASSES = 20
"""Greatest number of times that all constraints are kept in turn: what one changes may violate another."""


def constraints_of(conversion: Mapping[str, Any]) -> tuple[Constraint, ...]:
    """Return the constraints of imported data; none if there are none, or an earlier version imported the data."""
    return tuple(map(from_description, conversion.get("constraints", ())))


def cells_of(
    constraints: Sequence[Constraint],
    conversion: Mapping[str, Any],
    data: Mapping[str, Rows],
    free: Mapping[str, Values],
) -> Cells:
    """Return the cells of rows, data[m] (n, J), that constraints relate; free[m] (n, J) bool may be changed."""
    refs = {ref for constraint in constraints for ref in constraint.refs}
    columns, values, movable = {}, {}, {}
    for name in sorted({modality for modality, _ in refs}):
        table = conversion_of(name, conversion["modalities"][name])
        assert isinstance(table, TableConversion)
        for j, column in enumerate(table.columns):
            if (ref := (name, column.name)) in refs:
                columns[ref], values[ref], movable[ref] = column, column.raw(data[name][:, j]), free[name][:, j]
    return Cells(columns, values, movable)


def keep(constraints: Sequence[Constraint], cells: Cells) -> None:
    """Change movable cells until no row violates a constraint, as far as this is possible.

    A column that others determine changes by that constraint alone; the other constraints move the other columns. A
    given child comes before what would move its parents: an only parent counts as given as well, and where parents
    that are determined themselves must follow the child, so do they.
    """
    definitions = {constraint.determined: constraint for constraint in constraints if constraint.determined}
    free = dict(cells.free)

    def keep_each(some: Iterable[Constraint]) -> None:
        for constraint in some:
            constraint.keep(replace(cells, free=free, locked=definitions.keys() - {constraint.determined}))

    for child, constraint in definitions.items():
        keep_each([constraint])
        if constraint.inverted and constraint.inverted not in definitions:
            free[constraint.inverted] = free[constraint.inverted] & free[child]
    for child, constraint in reversed(definitions.items()):
        if (given := constraint.violated(cells) & ~free[child]).any():
            constraint.keep(replace(cells, free=free))
            free |= {parent: free[parent] & ~given for parent in constraint.refs[1:] if parent in definitions}
    for _ in range(PASSES):
        keep_each(constraints)
        if not any(constraint.violated(cells).any() for constraint in constraints):
            return


def kept(
    data: Mapping[str, Values], conversion: Mapping[str, Any], free: Mapping[str, Values] | None = None
) -> dict[str, Values]:
    """Return rows, data[m] (n, *shape) float32, that keep the constraints of their conversion.

    Only the cells free[m] (n, *shape) bool change, by default all; those that need no change keep their bits.
    """
    free, changed = free or {name: np.ones(x.shape, bool) for name, x in data.items()}, dict(data)
    with intact("constraints"):
        constraints = constraints_of(conversion)
        cells = cells_of(constraints, conversion, data, free)
        before = dict(cells.values)
        keep(constraints, cells)
        for (name, header), values in cells.values.items():
            if (moved := values != before[name, header]).any():
                headers = [column["name"] for column in conversion["modalities"][name]["columns"]]
                changed[name] = changed[name].copy() if changed[name] is data[name] else changed[name]
                x = cells.columns[name, header].standardised(values[moved])
                changed[name][moved, headers.index(header)] = x
    return changed


def violations(data: Dataset) -> dict[str, Values]:
    """Return by text of a constraint the rows (N,) bool that violate it."""
    conversion, free = data.conversion or {}, {m.name: data.missing(m.name) for m in data.modalities}
    with intact("constraints"):
        constraints = constraints_of(conversion)
        cells = cells_of(constraints, conversion, data.data, free)
        values = {ref: np.where(cells.free[ref], np.nan, column) for ref, column in cells.values.items()}
        entries = conversion.get("modalities", {}).items()
        names = names_of((name, column["name"]) for name, entry in entries for column in entry.get("columns", ()))
        return {
            constraint.text(names): constraint.violated(replace(cells, values=values)) for constraint in constraints
        }
