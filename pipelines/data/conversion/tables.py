"""Convert a table of typed columns into rows of numbers for a model, and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.columns import ColumnConversion, varies
from postprior.pipelines.data.conversion.texts import CELL, as_cells, formatted, is_restored, matches_numbers, restored
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted
from postprior.stage1_vae.modalities import Modality


@dataclass(frozen=True)
class TableConversion:
    """Conversions of the J columns of a table, in the order of the values; `facts` name its `source` and `file`."""

    name: str
    columns: tuple[ColumnConversion, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def modality(self) -> Modality:
        """The modality as the model sees it."""
        columns = tuple(column.column for column in self.columns)
        return Modality(self.name, "table", (len(columns),), "columns", columns=columns)

    @classmethod
    def fit(cls, name: str, kinds: Mapping[str, str], table: pa.Table, facts: dict[str, Any]) -> Self:
        """Learn the conversions of the columns from the training rows; a UserError names columns that do not vary."""
        if constant := [column for column in kinds if not varies(table[column])]:
            skips = " ".join(f"--skip {shell_quoted(column)}" for column in constant)
            raise UserError(
                f"{facts['file']}: column{'s' * (len(constant) > 1)} {', '.join(constant)}: constant or all missing "
                f"in the training rows, expected two or more different values; leave out with {skips}"
            )
        try:
            columns = tuple(ColumnConversion.fit(column, kind, table[column]) for column, kind in kinds.items())
        except UserError as error:
            raise UserError(f"{facts['file']}: {error}") from None
        return cls(name, columns, facts)

    def encode(self, table: pa.Table, places: Values) -> tuple[Values, Values]:
        """Encode the rows of a table at `places` (n,), where −1 means no row.

        Returns values (n, J) float32 and a mask of the same shape, true where a cell is observed.
        """
        values = np.tile(np.array([column.fill for column in self.columns], np.float32), (len(places), 1))
        seen = np.zeros(values.shape, bool)
        present = np.flatnonzero(places >= 0)
        rows = pa.array(places[present])
        for j, column in enumerate(self.columns):
            values[present, j], seen[present, j] = column.encode(table[column.name].take(rows))
        return values, seen

    def lost(
        self, table: Mapping[str, pa.ChunkedArray], places: Values, values: Values, seen: Values, mark: str
    ) -> pa.Table | None:
        """Return the columns of a file that `values` do not decode to exactly, at `places`; None if there are none.

        Rows without a place (−1) are null. If the file has a row without any value, one column is stored as the texts
        of its cells, which distinguish such a row from an absent one.
        """
        present = np.flatnonzero(places >= 0)
        originals = {}
        for j, column in enumerate(self.columns):
            decoded = pa.chunked_array([column.decode(values[present, j], seen[present, j])])
            if not is_restored(decoded, table[column.name].take(pa.array(places[present])), mark):
                originals[column.name] = table[column.name]
        if not seen[present].any(1).all() and not any(column.type == CELL for column in originals.values()):
            name = next((name for name in table if name not in originals), self.columns[0].name)
            originals[name] = as_cells(table[name], mark)
        rows = pa.array(places, mask=places < 0)
        return pa.table({name: column.take(rows) for name, column in originals.items()}) if originals else None

    def decode(self, values: Values, seen: Values, source: pa.Table | None = None, mark: str | None = None) -> pa.Table:
        """Return the table of rows (n, J), null where a cell was not `seen`.

        Original values of the `source` (n rows) are used wherever they still match the numbers. If a decimal `mark` is
        given, all columns are texts, as in a CSV.
        """
        arrays = []
        for j, column in enumerate(self.columns):
            decoded = column.decode(values[:, j], seen[:, j])
            if source is not None and column.name in source.column_names:
                original = source[column.name]
                matches = matches_numbers(column, original, values[:, j], seen[:, j])
                decoded = restored(decoded, original, matches, mark)
            elif mark is not None:
                decoded = formatted(decoded, mark)
            arrays.append(decoded)
        return pa.table(arrays, names=[column.name for column in self.columns])

    def describe(self) -> dict[str, Any]:
        """JSON-able description."""
        return {**self.facts, "columns": [column.describe() for column in self.columns]}

    @classmethod
    def from_description(cls, name: str, entry: dict[str, Any]) -> Self:
        """Return the conversion that `describe` described."""
        columns = tuple(ColumnConversion.from_description(column) for column in entry["columns"])
        return cls(name, columns, {key: value for key, value in entry.items() if key != "columns"})
