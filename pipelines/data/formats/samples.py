"""Samples of a dataset in the units, types and names of their source files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values, expand_like
from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion, from_description, intact
from postprior.pipelines.data.conversion.categories import OTHER
from postprior.pipelines.data.conversion.columns import ColumnConversion, named_type
from postprior.pipelines.data.conversion.forms import CELL, PLAIN
from postprior.pipelines.data.conversion.identity import identity_conversion
from postprior.pipelines.data.conversion.texts import matches_values, restored
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.names import column_name
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality

DIALECTS: dict[str, Sequence[str]] = {
    "delimiter": (",", ";", "\t", "|", " "),
    "decimal": (".", ","),
    "encoding": ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"),
}
"""Column delimiters, decimal marks and encodings that text files may have."""


@dataclass(frozen=True)
class Samples:
    """A dataset with one conversion per modality: that of its manifest, or one that changes nothing.

    Attributes:
        dataset: the samples.
        conversions: in the order of the modalities.
        tables: the headers of the tables to write, by file; an empty list means all columns.
        excel_safe: whether text files put an apostrophe before generated texts that look like spreadsheet formulas.
    """

    dataset: Dataset
    conversions: tuple[Conversion, ...]
    tables: dict[str, list[str]]
    excel_safe: bool = False

    @classmethod
    def of(cls, dataset: Dataset, facts: Mapping[str, tuple[str, ...]]) -> Self:
        """Return the samples of a dataset; a UserError if a conversion is damaged or does not fit its modality.

        `facts` are the keys that the writer of each format needs.
        """
        description = dataset.conversion or {}
        conversions = tuple(_conversion(m, description.get("modalities", {}), facts) for m in dataset.modalities)
        tables: dict[str, list[str]] = {c.facts["file"]: [] for c in conversions if c.facts["source"] == "tables"}
        try:
            tables |= {file: list(headers) for file, headers in description.get("tables", {}).items()}
            for file, dialect in description.get("dialects", {}).items():
                if not dialect or any(value not in DIALECTS.get(key, ()) for key, value in dialect.items()):
                    raise ValueError(f"{dialect} of {file}")
            samples = cls(dataset, conversions, tables)
            samples.roles()  # raises damaged roles before anything is written
        except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise UserError(f"conversion: the entry is damaged ({error} found); import the data again") from None
        names = [c.facts.get(key) for c in conversions for key in ("file", "folder", "modality")]
        for name in (*tables, *names):
            if name and (Path(name).name != name or name == ".." or "\0" in name):
                raise UserError(f"conversion: the name {name!r} leads to another folder; import the data again")
        return samples

    def __len__(self) -> int:
        return len(self.dataset)

    def array(self, conversion: ArrayConversion) -> Values:
        """Return the values of a modality (N, …) in the form of its source."""
        values, seen = self.dataset.data[conversion.name], ~self.dataset.missing(conversion.name)
        source = self.dataset.source_values.get(conversion.name)
        if source is not None and hasattr(source, "dtype"):
            return conversion.restored(values, seen, source)
        return conversion.decode(values, seen)

    def table(self, conversion: TableConversion, mark: str | None = None) -> pa.Table:
        """Return the columns of a modality in the form of its source, or as texts if a decimal `mark` is given."""
        values, source = self.dataset.data[conversion.name], self.dataset.source_values.get(conversion.name)
        return conversion.decode(np.asarray(values), ~self.dataset.missing(conversion.name), source, mark)

    def in_file(self, conversion: TableConversion) -> Values:
        """(N,) bool: rows that the source file had, with or without values, as stored texts of cells show."""
        present, source = np.zeros(len(self), bool), self.dataset.source_values.get(conversion.name)
        for column in () if source is None else source.columns:
            if column.type == CELL:
                present |= column.is_valid().to_numpy()
        return present

    def labelled_in(self, file: str) -> Values:
        """(N,) bool: generated rows with a label, if this file is the first one with the column of labels.

        Training rows whose cells are all blank have a line there too, with their label alone.
        """
        named = ((each, [*map(column_name, texts)]) for each, texts in self.tables.items())
        holds = (each for each, names in named if not names or self.label_name in names)
        if not self.synthetic or self.dataset.labels is None or next(holds, None) != file:
            return np.zeros(len(self), bool)
        return np.asarray(self.dataset.labels) >= 0

    def generated_values(self, name: str) -> Values:
        """(N, *shape) bool: the values of a modality that were imputed or generated."""
        values = self.dataset.data[name]
        if name in self.dataset.filled_cells:
            return np.asarray(self.dataset.filled_cells[name])
        if self.dataset.filled is None:
            return np.full(values.shape, self.synthetic)
        m = [modality.name for modality in self.dataset.modalities].index(name)
        return np.broadcast_to(expand_like(self.dataset.filled[:, m], values), values.shape)

    @property
    def synthetic(self) -> bool:
        """Whether all rows were generated, and none was imputed."""
        return self.dataset.filled is None and "sampler" in self.dataset.provenance

    def observed(self, names: set[str]) -> Values:
        """(N,) bool: rows that have at least one of these modalities."""
        columns = [m.name in names for m in self.dataset.modalities]
        return np.asarray(self.dataset.observed[:, columns].any(1))

    @property
    def filled(self) -> pa.Table:
        """The table of imputed values, one line per sample and modality.

        Its column `filled` says `all`, or names the columns of a table, or counts the values of an array.
        """
        assert self.dataset.filled is not None
        texts = np.full(self.dataset.filled.shape, "all", dtype=object)
        for m, conversion in enumerate(self.conversions):
            if (cells := self.dataset.filled_cells.get(conversion.name)) is not None:
                flat = np.asarray(cells).reshape(len(self), -1)
                for row in np.flatnonzero(flat.any(1) & ~flat.all(1)):
                    texts[row, m] = _describe_cells(conversion, cells[row])
        rows, columns = np.nonzero(self.dataset.filled)
        names = np.array([modality.title for modality in self.dataset.modalities], dtype=object)
        entries = [pa.array(values, pa.string()) for values in (names[columns], texts[rows, columns])]
        header = [self._source_role("ids").get("name") or "id", "modality", "filled"]
        return pa.table([self.ids.take(pa.array(rows)), *entries], names=header)

    @cached_property
    def ids(self) -> pa.Array:
        """Ids of the samples in their original type; row numbers if there are none, as in synthetic data."""
        ids = np.arange(len(self)) if self.dataset.ids is None else self.dataset.ids
        return _typed(pa.array(ids), self._source_role("ids").get("type"))

    @property
    def id_headers(self) -> dict[str, str]:
        """The headers of ids, by file, where they are not those of the first file."""
        return dict(self._source_role("ids").get("headers", {}))

    @property
    def groups(self) -> pa.Array:
        """Subjects in their original type; null if the samples have none."""
        column = pa.nulls(len(self)) if self.dataset.groups is None else pa.array(self.dataset.groups)
        return _typed(column, self._source_role("groups").get("type"))

    @property
    def label_name(self) -> str | None:
        """The header of the labels; None if there are no labels."""
        return None if self.dataset.labels is None else self._source_role("labels").get("name") or "label"

    def labels(self, mark: str | None = None) -> pa.Array | None:
        """Return labels in their original type, or as texts if a decimal `mark` is given; null for rows without one.

        None if there are no labels at all.
        """
        if self.dataset.labels is None or self.dataset.label_names is None:
            return None
        names = _typed(pa.array(self.dataset.label_names), self._source_role("labels").get("type"))
        labels = names.take(pa.array(self.dataset.labels, mask=~self.dataset.labelled))
        if (source := self.dataset.source_values.get("labels")) is not None:
            column = source.column(0)
            kept = matches_values(column, labels) | self._is_rare(column, labels) | ~self.dataset.labelled
            return restored(labels, column, kept, mark)
        return labels if mark is None else PLAIN.written(labels, mark)

    def _is_rare(self, source: pa.ChunkedArray, labels: pa.Array) -> Values:
        """(N,) bool: rows whose class was merged with other rare ones."""
        if not self._source_role("labels").get("others"):
            return np.zeros(len(self), bool)
        listed = pc.is_in(source.cast(pa.string()), value_set=pa.array(self.dataset.label_names))
        return np.asarray(pc.and_(pc.equal(labels, OTHER), pc.invert(listed)).fill_null(False).to_numpy())

    def targets(self, mark: str | None = None) -> dict[str, pa.Array]:
        """Return targets by name, as texts if a decimal `mark` is given; null if the samples have none."""
        entries = (self.dataset.conversion or {}).get("targets", ())
        columns = TableConversion("targets", tuple(map(ColumnConversion.from_description, entries)))
        values = np.zeros((len(self), len(entries))) if self.dataset.targets is None else self.dataset.targets
        observed = np.full(values.shape, self.dataset.targets is not None)
        table = columns.decode(values, observed, self.dataset.source_values.get("targets"), mark)
        return dict(zip(table.column_names, table.columns, strict=True))

    def roles(self, mark: str | None = None) -> dict[str, pa.Array]:
        """Return ids, labels, subjects and targets by their original headers; null if the samples have none.

        The headers are `id` and `label` if the original ones are unknown. If a decimal `mark` is given, all columns are
        texts.
        """
        columns: dict[str, pa.Array] = {}
        if name := self._source_role("ids").get("name") or (None if self.dataset.conversion else "id"):
            columns[name] = self.ids
        if name := self._source_role("groups").get("name"):
            columns[name] = self.groups
        if mark is not None:
            columns = {name: PLAIN.written(column, mark) for name, column in columns.items()}
        if (column := self.labels(mark)) is not None:
            columns[self.label_name or ""] = column
        return columns | self.targets(mark)

    def _source_role(self, role: str) -> dict[str, Any]:
        """Name and type of a role in the source; empty if unknown."""
        return (self.dataset.conversion or {}).get(role) or {}


def _conversion(modality: Modality, entries: Any, facts: Mapping[str, tuple[str, ...]]) -> Conversion:
    """Return the conversion of the manifest, or one that changes nothing if the manifest has none."""
    with intact(modality.title):
        if modality.name not in entries:
            return identity_conversion(modality)
        conversion = from_description(modality.name, entries[modality.name], modality.title)
        if isinstance(conversion, ArrayConversion):
            conversion = conversion.with_likelihood(modality.likelihood)
        fits = conversion.modality == modality
        for column in conversion.columns if isinstance(conversion, TableConversion) else ():
            named_type(column.type)
        absent = [fact for fact in facts[conversion.facts["source"]] if fact not in conversion.facts]
    if absent or not fits:
        problem = f"the key {absent[0]} is missing" if fits else "it belongs to other data"
        raise UserError(f"conversion of {modality.title}: {problem}; import the data again")
    return conversion


def _describe_cells(conversion: Conversion, cells: Values) -> str:
    """Name the marked columns (J,) of a table, or count the marked values (*shape) of an array."""
    if isinstance(conversion, TableConversion):
        return "; ".join(conversion.columns[j].name for j in np.flatnonzero(cells))
    return f"{cells.sum()} of {cells.size} values"


def _typed(column: pa.Array, name: str | None) -> pa.Array:
    """Cast a column to the Arrow type of that name, if a name is given."""
    if name is None:
        return column
    kind = named_type(name)
    if pa.types.is_boolean(kind) and pa.types.is_string(column.type):
        return pc.equal(column, "True")
    return column.cast(kind)
