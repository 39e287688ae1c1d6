"""A table of typed columns as rows of numbers, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.columns import ColumnConversion, varies
from postprior.pipelines.data.conversion.texts import CELL, agrees, as_cells, comes_back, formatted, restored
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted
from postprior.stage1_vae.modalities import Modality


@dataclass(frozen=True)
class TableConversion:
    """The J columns of a table, in the order of the values; `facts` say where it came from: `source` and `file`."""

    name: str
    columns: tuple[ColumnConversion, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def modality(self) -> Modality:
        """What the model is told of it."""
        columns = tuple(column.column for column in self.columns)
        return Modality(self.name, "table", (len(columns),), "columns", columns=columns)

    @classmethod
    def fit(cls, name: str, kinds: Mapping[str, str], table: pa.Table, facts: dict[str, Any]) -> Self:
        """Learn the columns' conversions from the training rows; a UserError names columns that do not vary."""
        if still := [column for column in kinds if not varies(table[column])]:
            skips = " ".join(f"--skip {shell_quoted(column)}" for column in still)
            raise UserError(
                f"{facts['file']}: column{'s' * (len(still) > 1)} {', '.join(still)}: constant or all missing among "
                f"the training rows, expected two values or more; leave out with {skips}"
            )
        try:
            columns = tuple(ColumnConversion.fit(column, kind, table[column]) for column, kind in kinds.items())
        except UserError as error:
            raise UserError(f"{facts['file']}: {error}") from None
        return cls(name, columns, facts)

    def encode(self, table: pa.Table, places: Values) -> tuple[Values, Values]:
        """Rows (n, J) float32 and which cells were there, from the rows of a table at `places` (n,), −1 for none."""
        values = np.tile(np.array([column.fill for column in self.columns], np.float32), (len(places), 1))
        seen = np.zeros(values.shape, bool)
        found = np.flatnonzero(places >= 0)
        rows = pa.array(places[found])
        for j, column in enumerate(self.columns):
            values[found, j], seen[found, j] = column.encode(table[column.name].take(rows))
        return values, seen

    def lost(
        self, table: Mapping[str, pa.ChunkedArray], places: Values, values: Values, seen: Values, mark: str
    ) -> pa.Table | None:
        """Columns of a file, at `places`, null for none, that `values` cannot give back; None without such.

        Where a row of the file has no value at all, one column is there as texts, which tell it from no row.
        """
        found = np.flatnonzero(places >= 0)
        kept = {}
        for j, column in enumerate(self.columns):
            made = pa.chunked_array([column.decode(values[found, j], seen[found, j])])
            if not comes_back(made, table[column.name].take(pa.array(places[found])), mark):
                kept[column.name] = table[column.name]
        if not seen[found].any(1).all() and not any(column.type == CELL for column in kept.values()):
            name = next((name for name in table if name not in kept), self.columns[0].name)
            kept[name] = as_cells(table[name], mark)
        rows = pa.array(places, mask=places < 0)
        return pa.table({name: column.take(rows) for name, column in kept.items()}) if kept else None

    def decode(self, values: Values, seen: Values, source: pa.Table | None = None, mark: str | None = None) -> pa.Table:
        """The table of rows (n, J), null where a cell was not `seen`.

        Columns of the `source` (n rows) give what the numbers stand for but have not kept. With a `mark` before
        decimals, all are texts, as CSVs have them.
        """
        arrays = []
        for j, column in enumerate(self.columns):
            made = column.decode(values[:, j], seen[:, j])
            if source is not None and column.name in source.column_names:
                original = source[column.name]
                made = restored(made, original, agrees(column, original, values[:, j], seen[:, j]), mark)
            elif mark is not None:
                made = formatted(made, mark)
            arrays.append(made)
        return pa.table(arrays, names=[column.name for column in self.columns])

    def describe(self) -> dict[str, Any]:
        """JSON-able description."""
        return {**self.facts, "columns": [column.describe() for column in self.columns]}

    @classmethod
    def from_description(cls, name: str, entry: dict[str, Any]) -> Self:
        """The conversion that gave this description."""
        columns = tuple(ColumnConversion.from_description(column) for column in entry["columns"])
        return cls(name, columns, {key: value for key, value in entry.items() if key != "columns"})
