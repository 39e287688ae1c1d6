"""Find the constraints among the columns of joined tables, and say which ones are kept."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.constraints.cells import Ref, names_of
from postprior.pipelines.data.constraints.kinds import Constraint
from postprior.pipelines.data.constraints.learning import learn
from postprior.pipelines.data.conversion import ColumnConversion, Conversion, TableConversion
from postprior.pipelines.data.conversion.columns import SCALED, to_numpy
from postprior.pipelines.data.importing.joining import Joined
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import hint, listed
from postprior.pipelines.texts import Listing

ALL = "all"
"""What --drop-constraint names to drop all constraints."""


def found_constraints(
    joined: Joined, learned: Sequence[Conversion], train: Values, dropped: Sequence[str]
) -> tuple[tuple[Constraint, ...], list[str]]:
    """Return the constraints that hold in all rows, without the `dropped` ones, and lines that tell of them.

    `train` are the training rows. A UserError is raised if no constraint has a dropped text.
    """
    if ALL in dropped:
        return (), []
    columns: dict[Ref, ColumnConversion] = {}
    values: dict[Ref, Values] = {}
    for m, conversion in enumerate(learned):
        if isinstance(conversion, TableConversion):
            places = joined.places[:, m]
            rows = pa.array(places, mask=places < 0)
            for column in conversion.columns:
                ref = conversion.name, column.name
                cells = joined.views[m].content[column.name].take(rows)
                columns[ref], values[ref] = column, in_units(column, cells)
    names, unwanted = names_of(columns), set(map(plain, dropped))
    train = np.isin(np.arange(len(joined)), train)
    found = learn(columns, values, train, lambda constraint: plain(constraint.text(names)) not in unwanted)
    texts = [constraint.text(names) for constraint in found.constraints]
    for text in dropped:
        if plain(text) not in {plain(constraint.text(names)) for constraint in found.dropped}:
            expected = f"expected one of {listed(texts)}, or {ALL}; correct it"
            raise UserError(f"--drop-constraint: no constraint '{text}' found{hint(text, texts)}, {expected}")
    lines: list[str] = []
    if texts:
        lines.append(Listing.of("constraints of all rows, kept by synthetic rows: {}", texts))
    if found.contradicted:
        few = [f"{constraint.text(names)} ({count})" for constraint, count in found.contradicted.items()]
        lines.append(Listing.of("not kept, because held-out rows violate them: {}", few))
    return found.constraints, lines


def plain(text: str) -> str:
    """Return a text without blanks."""
    return "".join(text.split())


def in_units(column: ColumnConversion, cells: pa.ChunkedArray) -> Values:
    """Return cells (n,) as numbers in the units of the data or indices of categories, NaN if missing or an outlier."""
    if column.kind in SCALED:
        numbers = to_numpy(cells)
        return np.where(np.abs(column.standardised(numbers)) <= column.bound, numbers, np.nan)
    places, seen = column.encode(cells)
    return np.where(seen, places, np.nan)
