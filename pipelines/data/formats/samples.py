"""Samples in the units, types and names that they were imported with."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values, expand_like
from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion, from_description
from postprior.pipelines.data.conversion.columns import ColumnConversion, named_type
from postprior.pipelines.data.conversion.texts import CELL, formatted, matches_values, restored
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import COUNTS, Column, Modality

DIALECTS = [{"delimiter": mark, "decimal": point} for mark in ",;\t" for point in ".,"]
"""Marks that text files may have."""
AXES = {"image": "CHW", "volume": "CDHW", "vector": "X", "sequence": "X"}


@dataclass(frozen=True)
class Samples:
    """A dataset with the conversion of every modality, that of its manifest or a plain one.

    `tables` has the headers of the tables to write by file, none where all columns are wanted. If `excel_safe`, text
    files guard generated texts that a spreadsheet would compute.
    """

    dataset: Dataset
    conversions: tuple[Conversion, ...]
    tables: dict[str, list[str]]
    excel_safe: bool = False

    @classmethod
    def of(cls, dataset: Dataset, facts: Mapping[str, tuple[str, ...]]) -> Self:
        """The samples of a dataset; a conversion that is damaged or not of its modalities is refused.

        `facts` are what the writer of every source needs to know of a modality.
        """
        known = dataset.conversion or {}
        conversions = tuple(_conversion(m, known.get("modalities", {}), facts) for m in dataset.modalities)
        tables: dict[str, list[str]] = {c.facts["file"]: [] for c in conversions if c.facts["source"] == "tables"}
        try:
            tables |= {file: list(headers) for file, headers in known.get("tables", {}).items()}
            for file, dialect in known.get("dialects", {}).items():
                if dialect not in DIALECTS:
                    raise ValueError(f"{dialect} of {file}")
            samples = cls(dataset, conversions, tables)
            samples.roles()  # what cannot be read of them is told before anything is written
        except (KeyError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
            raise UserError(f"conversion: damaged ({error} found); import the data again") from None
        places = [c.facts.get(key) for c in conversions for key in ("file", "folder", "modality")]
        for name in (*tables, *places):
            if name and (Path(name).name != name or name == ".." or "\0" in name):
                raise UserError(f"conversion: {name!r} leads to another folder; import the data again")
        return samples

    def __len__(self) -> int:
        return len(self.dataset)

    def array(self, conversion: ArrayConversion) -> Values:
        """The values of a modality as its source has them, (N, …)."""
        values, seen = self.dataset.data[conversion.name], ~self.dataset.missing(conversion.name)
        source = self.dataset.source_values.get(conversion.name)
        if isinstance(source, np.ndarray):
            return conversion.restored(values, seen, source)
        return conversion.decode(values, seen)

    def table(self, conversion: TableConversion, mark: str | None = None) -> pa.Table:
        """The columns of a modality as its source has them; as texts with a `mark` before decimals."""
        values, source = self.dataset.data[conversion.name], self.dataset.source_values.get(conversion.name)
        return conversion.decode(np.asarray(values), ~self.dataset.missing(conversion.name), source, mark)

    def in_file(self, conversion: TableConversion) -> Values:
        """(N,) bool: rows of which the texts say that their file had them, with values or without any."""
        found, source = np.zeros(len(self), bool), self.dataset.source_values.get(conversion.name)
        for column in () if source is None else source.columns:
            if column.type == CELL:
                found |= column.is_valid().to_numpy()
        return found

    def generated_values(self, name: str) -> Values:
        """(N, *shape) bool: the values of a modality that were filled in or generated."""
        values = self.dataset.data[name]
        if name in self.dataset.filled_cells:
            return np.asarray(self.dataset.filled_cells[name])
        if self.dataset.filled is None:
            return np.full(values.shape, self.synthetic)
        m = [modality.name for modality in self.dataset.modalities].index(name)
        return np.broadcast_to(expand_like(self.dataset.filled[:, m], values), values.shape)

    @property
    def synthetic(self) -> bool:
        """Whether all rows were drawn, and none of them filled in."""
        return self.dataset.filled is None and "sampler" in self.dataset.provenance

    def observed(self, names: set[str]) -> Values:
        """(N,) bool: rows that have one of these modalities at least."""
        columns = [m.name in names for m in self.dataset.modalities]
        return np.asarray(self.dataset.observed[:, columns].any(1))

    @property
    def filled(self) -> pa.Table:
        """What was imputed, a line a sample and modality: `all` of it, columns of a table, or how many values."""
        assert self.dataset.filled is not None
        texts = np.full(self.dataset.filled.shape, "all", dtype=object)
        for m, conversion in enumerate(self.conversions):
            if (cells := self.dataset.filled_cells.get(conversion.name)) is not None:
                flat = cells.reshape(len(self), -1)
                for row in np.flatnonzero(flat.any(1) & ~flat.all(1)):
                    texts[row, m] = _named(conversion, cells[row])
        rows, columns = np.nonzero(self.dataset.filled)
        names = np.array([conversion.name for conversion in self.conversions], dtype=object)
        told = [pa.array(of, pa.string()) for of in (names[columns], texts[rows, columns])]
        header = [self._known("ids").get("name") or "id", "modality", "filled"]
        return pa.table([self.ids.take(pa.array(rows)), *told], names=header)

    @cached_property
    def ids(self) -> pa.Array:
        """Ids of the samples; their numbers where they have none, as synthetic ones."""
        ids = np.arange(len(self)) if self.dataset.ids is None else self.dataset.ids
        return _typed(pa.array(ids), self._known("ids").get("type"))

    @property
    def groups(self) -> pa.Array:
        """Subjects in the type that they had, null where the samples have none."""
        column = pa.nulls(len(self)) if self.dataset.groups is None else pa.array(self.dataset.groups)
        return _typed(column, self._known("groups").get("type"))

    @property
    def label_name(self) -> str | None:
        """The header of the labels, None without any."""
        return None if self.dataset.labels is None else self._known("labels").get("name") or "label"

    def labels(self, mark: str | None = None) -> pa.Array | None:
        """Labels in the type that they had, or as texts with a `mark` before decimals; None without any."""
        if self.dataset.labels is None or self.dataset.label_names is None:
            return None
        names = _typed(pa.array(self.dataset.label_names), self._known("labels").get("type"))
        labels = names.take(pa.array(self.dataset.labels))
        if (source := self.dataset.source_values.get("labels")) is not None:
            column = source.column(0)
            return restored(labels, column, matches_values(column, labels), mark)
        return labels if mark is None else formatted(labels, mark)

    def targets(self, mark: str | None = None) -> dict[str, pa.Array]:
        """Targets by name, with a `mark` as texts; null where the samples have none."""
        entries = (self.dataset.conversion or {}).get("targets", ())
        columns = TableConversion("targets", tuple(map(ColumnConversion.from_description, entries)))
        values = np.zeros((len(self), len(entries))) if self.dataset.targets is None else self.dataset.targets
        there = np.full(values.shape, self.dataset.targets is not None)
        table = columns.decode(values, there, self.dataset.source_values.get("targets"), mark)
        return dict(zip(table.column_names, table.columns, strict=True))

    def roles(self, mark: str | None = None) -> dict[str, pa.Array]:
        """Ids, labels, subjects and targets by the headers that they had; null where the samples have none.

        Without ids or labels of a known name, `id` and `label` are the headers. With a `mark` before decimals all are
        texts.
        """
        found: dict[str, pa.Array] = {}
        if name := self._known("ids").get("name") or (None if self.dataset.conversion else "id"):
            found[name] = self.ids
        if name := self._known("groups").get("name"):
            found[name] = self.groups
        if mark is not None:
            found = {name: formatted(column, mark) for name, column in found.items()}
        if (column := self.labels(mark)) is not None:
            found[self.label_name or ""] = column
        return found | self.targets(mark)

    def _known(self, role: str) -> dict[str, Any]:
        """Name and type of a role in the source, none where nothing is known."""
        return (self.dataset.conversion or {}).get(role) or {}


def _conversion(modality: Modality, entries: Any, facts: Mapping[str, tuple[str, ...]]) -> Conversion:
    """That of the manifest, or a plain one where the manifest has none."""
    try:
        if modality.name not in entries:
            return identity_conversion(modality)
        conversion = from_description(modality.name, entries[modality.name])
        fits = conversion.modality == modality
        for column in conversion.columns if isinstance(conversion, TableConversion) else ():
            named_type(column.type)
        lacking = [fact for fact in facts[conversion.facts["source"]] if fact not in conversion.facts]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"conversion of {modality.name}: {error} found; import the data again") from None
    if lacking or not fits:
        found = f"no {lacking[0]}" if fits else "that of other data"
        raise UserError(f"conversion of {modality.name}: {found} found; import the data again")
    return conversion


def _named(conversion: Conversion, cells: Values) -> str:
    """Columns that are marked (J,), or the number of values (*shape) that are."""
    if isinstance(conversion, TableConversion):
        return "; ".join(conversion.columns[j].name for j in np.flatnonzero(cells))
    return f"{cells.sum()} of {cells.size} values"


def _typed(column: pa.Array, name: str | None) -> pa.Array:
    """A column in the type of that name, if there is one."""
    if name is None:
        return column
    kind = named_type(name)
    if pa.types.is_boolean(kind) and pa.types.is_string(column.type):
        return pc.equal(column, "True")
    return column.cast(kind)


def identity_conversion(modality: Modality) -> Conversion:
    """The conversion that changes nothing: a table of its columns in a CSV, or an array in an .npz archive."""
    if modality.columns:
        columns = tuple(_plain_column(column) for column in modality.columns)
        return TableConversion(modality.name, columns, {"source": "tables", "file": f"{modality.name}.csv"})
    kind = "count" if modality.likelihood in COUNTS else "numeric"
    kind = "tokens" if modality.kind == "sequence" else kind
    dtype, facts = "float32" if kind == "numeric" else "int64", {"source": "npz", "file": "data.npz"}
    known = partial(ArrayConversion, range=modality.range, classes=modality.classes, facts=facts)
    return known(modality.name, kind, AXES[modality.kind], dtype, modality.shape)


def _plain_column(column: Column) -> ColumnConversion:
    if column.classes is not None:
        return ColumnConversion(column.name, "categorical", "int64", values=tuple(range(column.classes)))
    kind = {"bernoulli": "boolean", **dict.fromkeys(COUNTS, "count")}.get(column.likelihood, "numeric")
    return ColumnConversion(column.name, kind, "double" if kind == "numeric" else "int64")
