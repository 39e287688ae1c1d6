"""The cells of the columns that constraints relate, in the units of the data."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ColumnConversion

Ref = tuple[str, str]
"""A column: the key of its modality, and its name."""


@dataclass
class Cells:
    """Cells of n rows.

    Attributes:
        columns: the conversion of each column.
        values: (n,) float64 by column: numbers in the units of the data, indices of categories; NaN where missing.
        free: (n,) bool by column: the cells that may be changed; the others were given by the user.
        locked: columns that may not be changed, because other columns determine them.
    """

    columns: Mapping[Ref, ColumnConversion]
    values: dict[Ref, Values]
    free: Mapping[Ref, Values]
    locked: Collection[Ref] = ()

    def movable(self, ref: Ref) -> Values:
        """(n,) bool: the cells of a column that may be changed now."""
        return np.zeros_like(self.free[ref]) if ref in self.locked else self.free[ref]

    def put(self, ref: Ref, values: Values, where: Values, limited: bool = True) -> None:
        """Replace cells of a column by values (n,), or what a synthetic row can have in their place; NaN changes none.

        Only the movable ones of the cells `where` (n,) bool are replaced. Values that are not `limited` may be beyond
        the range of the column, as given cells determine them.
        """
        where = where & self.movable(ref) & ~np.isnan(values)
        if where.any():
            column = self.columns[ref] if limited else replace(self.columns[ref], valid_range=None)
            self.values[ref] = self.values[ref].copy()
            self.values[ref][where] = column.synthesised(values[where])


def names_of(columns: Iterable[Ref]) -> dict[Ref, str]:
    """Return a name of each of all columns for users: its header, after its modality if another column has it too."""
    refs = list(columns)
    counts = Counter(header for _, header in refs)
    return {ref: ref[1] if counts[ref[1]] == 1 else ".".join(ref) for ref in refs}
