"""Convert a table of typed columns into rows of numbers for a model, and back."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.categories import common_values, constant_value
from postprior.pipelines.data.conversion.columns import UNMODELLED, ColumnConversion, decimals_of, half_unit, to_numpy
from postprior.pipelines.data.conversion.forms import CELL, PLAIN, Form
from postprior.pipelines.data.conversion.marginals import MARGINALS, suited_kind
from postprior.pipelines.data.conversion.texts import as_cells, is_restored, matches_numbers, restored
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality


@dataclass(frozen=True)
class TableConversion:
    """Conversions of the J columns of a table, in the order of the values; `facts` name its `source` and `file`.

    `unmodelled` are columns that are no values of the model; they are written back where rows have original values.
    `name` and `title` are those of the modality.
    """

    name: str
    columns: tuple[ColumnConversion, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    unmodelled: tuple[ColumnConversion, ...] = ()
    title: str = ""

    @property
    def modality(self) -> Modality:
        """The modality as the model sees it."""
        columns = tuple(column.column for column in self.columns)
        return Modality(self.name, "table", (len(columns),), "columns", columns=columns, title=self.title)

    @classmethod
    def fit(
        cls,
        name: str,
        kinds: Mapping[str, str],
        table: pa.Table,
        rows: Values,
        facts: dict[str, Any],
        forms: Mapping[str, Form] | None = None,
        keep_rare: bool = False,
        fixed: Container[str] = (),
    ) -> Self:
        """Learn the conversions of the columns that have a kind; the others are not modelled, but written back.

        Numbers get the kind that suits the training rows (`suited_kind`), unless their kind is `fixed`. Scales are
        learned from the training `rows` of the table; categories and constants from all rows, so that they do not
        depend on the split.
        """
        forms, train, columns, unmodelled = forms or {}, table.take(pa.array(rows)), [], []
        for header, column in zip(table.column_names, table.columns, strict=True):
            form = forms.get(header, PLAIN)
            if header not in kinds:
                value = () if pa.types.is_temporal(column.type) else constant_value(column, keep_rare) or ()
                unmodelled.append(ColumnConversion(header, UNMODELLED, str(column.type), values=value, form=form))
                continue
            categories = common_values(column, keep_rare) if kinds[header] == "categorical" else None
            kind = kinds[header] if header in fixed else _suited(kinds[header], train[header])
            try:
                columns.append(ColumnConversion.fit(header, kind, train[header], categories, form))
            except UserError as error:
                raise UserError(f"{facts['file']}: {error}") from None
        return cls(name, tuple(columns), facts, tuple(unmodelled))

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

    def valid(self, values: Values) -> Values:
        """Return decoded rows (n, J) as the data have them: see `ColumnConversion.valid`."""
        return np.stack([column.valid(x) for column, x in zip(self.columns, values.T, strict=True)], 1)

    def numbers(self, values: Values, seen: Values) -> Values:
        """Return rows (n, J) as float64 in the units of the file, NaN where not `seen`; a class is its index."""
        parts = zip(self.columns, values.T, seen.T, strict=True)
        return np.stack(
            [
                np.where(observed, x, np.nan)
                if column.kind == "categorical"
                else to_numpy(pa.chunked_array([column.decode(x, observed)]))
                for column, x, observed in parts
            ],
            axis=1,
        )

    def lost(
        self, table: Mapping[str, pa.ChunkedArray], places: Values, values: Values, seen: Values, mark: str
    ) -> pa.Table | None:
        """Return the columns of a file that `values` do not decode to exactly, at `places`; None if there are none.

        Rows without a place (−1) are null. If the file has a row without any value, one column is stored as the texts
        of its cells, which distinguish such a row from an absent one.
        """
        present = np.flatnonzero(places >= 0)
        originals = {}
        for column, x, observed in self._parts(values[present], seen[present]):
            decoded = pa.chunked_array([column.decode(x, observed)])
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
        for column, x, observed in self._parts(values, seen):
            original = None if source is None or column.name not in source.column_names else source[column.name]
            if original is not None:
                decoded = column.decode(x, observed if column.kind != UNMODELLED else np.zeros_like(observed))
                matches = matches_numbers(column, original, x, observed)
                decoded = restored(decoded, original, matches, mark, column.form)
            else:
                decoded = column.decode(x, observed)
                decoded = decoded if mark is None else column.form.written(decoded, mark)
            arrays.append(decoded)
        return pa.table(arrays, names=[column.name for column in (*self.columns, *self.unmodelled)])

    def _parts(self, values: Values, seen: Values) -> Iterator[tuple[ColumnConversion, Values, Values]]:
        """Yield each column with its values (n,) and which cells are observed (n,)."""
        for j, column in enumerate(self.columns):
            yield column, values[:, j], seen[:, j]
        for column in self.unmodelled:
            yield column, np.zeros(len(values)), np.ones(len(values), bool)

    def describe(self) -> dict[str, Any]:
        """JSON-able description."""
        others = {"unmodelled": [column.describe() for column in self.unmodelled]} if self.unmodelled else {}
        return {**self.facts, "columns": [column.describe() for column in self.columns], **others}

    @classmethod
    def from_description(cls, name: str, entry: dict[str, Any], title: str = "") -> Self:
        """Return the conversion that `describe` described."""
        columns, unmodelled = (
            tuple(map(ColumnConversion.from_description, entry.get(key, ()))) for key in ("columns", "unmodelled")
        )
        facts = {key: value for key, value in entry.items() if key not in ("columns", "unmodelled")}
        return cls(name, columns, facts, unmodelled, title)


def _suited(detected: str, column: pa.ChunkedArray) -> str:
    """Return the kind that suits a column of training rows; only numbers and counts have several."""
    values = to_numpy(column.drop_null()) if detected in MARGINALS else np.empty(0)
    return suited_kind(detected, values, half_unit(decimals_of(values, column.type))) if len(values) else detected
