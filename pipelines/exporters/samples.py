"""Samples in the units, types and names that they were imported with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.conversion import (
    ArrayConversion,
    ColumnConversion,
    Conversion,
    TableConversion,
    from_description,
)
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from stage1_vae.modalities import COUNTS, Column, Modality

AXES = {"image": "CHW", "volume": "CDHW", "vector": "X", "sequence": "X"}
Values = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Samples:
    """A dataset with the conversion of every modality, that of its manifest or a plain one.

    `tables` has the headers of the tables to write by file, none where all columns are wanted.
    """

    dataset: Dataset
    conversions: tuple[Conversion, ...]
    tables: dict[str, list[str]]

    @classmethod
    def of(cls, dataset: Dataset) -> Samples:
        """The samples of a dataset; a conversion that is not of its modalities is refused."""
        entries = (dataset.conversion or {}).get("modalities", {})
        conversions = []
        for modality in dataset.modalities:
            if modality.name not in entries:
                conversions.append(plain(modality))
                continue
            try:
                conversion = from_description(modality.name, entries[modality.name])
                fits = conversion.modality == modality
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"conversion of {modality.name}: {error} found; import the data again"
                ) from None
            if not fits:
                raise UserError(
                    f"conversion of {modality.name}: that of other data found; import the data again"
                )
            conversions.append(conversion)
        tables: dict[str, list[str]] = {
            c.facts["file"]: [] for c in conversions if c.facts["source"] == "tables"
        }
        tables |= (dataset.conversion or {}).get("tables", {})
        places = [c.facts.get(key) for c in conversions for key in ("file", "folder", "modality")]
        for name in (*tables, *places):
            if name and (Path(name).name != name or name == ".."):
                raise UserError(f"conversion: {name!r} leads to another folder; import the data again")
        return cls(dataset, tuple(conversions), tables)

    def __len__(self) -> int:
        return len(self.dataset)

    def seen(self, name: str) -> Values:
        """(N, *shape) bool: the values of a modality that are there."""
        m = [modality.name for modality in self.dataset.modalities].index(name)
        there = self.dataset.observed[:, m].reshape(-1, *[1] * len(self.dataset.modalities[m].shape))
        return np.asarray(self.dataset.cells.get(name, np.ones(self.dataset.data[name].shape, bool)) & there)

    def array(self, conversion: ArrayConversion) -> Values:
        """The values of a modality as its source has them, (N, …)."""
        return conversion.decode(self.dataset.data[conversion.name], self.seen(conversion.name))

    def table(self, conversion: TableConversion) -> pa.Table:
        """The columns of a modality as its source has them."""
        return conversion.decode(np.asarray(self.dataset.data[conversion.name]), self.seen(conversion.name))

    def observed(self, names: set[str]) -> Values:
        """(N,) bool: rows that have one of these modalities at least."""
        columns = [m.name in names for m in self.dataset.modalities]
        return np.asarray(self.dataset.observed[:, columns].any(1))

    @cached_property
    def ids(self) -> pa.Array:
        """Ids of the samples; their numbers where they have none, as synthetic ones."""
        ids = np.arange(len(self)) if self.dataset.ids is None else self.dataset.ids
        return pa.array(ids)

    @cached_property
    def roles(self) -> dict[str, pa.Array]:
        """Ids, labels, subjects and targets by the headers that they had; null where the samples have none.

        Without ids or labels of a known name, `id` and `label` are the headers.
        """
        dataset, known = self.dataset, self.dataset.conversion or {}
        found: dict[str, pa.Array] = {}
        ids, labels, groups = (known.get(role) or {} for role in ("ids", "labels", "groups"))
        if ids.get("name") or not known:
            found[ids.get("name") or "id"] = _typed(self.ids, ids.get("type"))
        if dataset.labels is not None and dataset.label_names is not None:
            names = pa.array(dataset.label_names)
            found[labels.get("name") or "label"] = _typed(
                names.take(pa.array(dataset.labels)), labels.get("type")
            )
        if groups.get("name"):
            subjects = pa.nulls(len(self)) if dataset.groups is None else pa.array(dataset.groups)
            found[groups["name"]] = _typed(subjects, groups.get("type"))
        for t, entry in enumerate(known.get("targets", ())):
            column = ColumnConversion.from_description(entry)
            there = np.full(len(self), dataset.targets is not None)
            values = np.zeros(len(self)) if dataset.targets is None else dataset.targets[:, t]
            found[column.name] = column.decode(values, there)
        return found


def _typed(column: pa.Array, name: str | None) -> pa.Array:
    """A column in the type of that name, if there is one."""
    if name is None:
        return column
    kind = pa.type_for_alias(name)
    if pa.types.is_boolean(kind) and pa.types.is_string(column.type):
        return pc.equal(column, "True")
    return column.cast(kind)


def plain(modality: Modality) -> Conversion:
    """The conversion that changes nothing: a table of its columns in a CSV, or an array in an .npz archive."""
    if modality.columns:
        columns = tuple(_plain_column(column) for column in modality.columns)
        return TableConversion(modality.name, columns, {"source": "tables", "file": f"{modality.name}.csv"})
    kind = (
        "tokens" if modality.kind == "sequence" else "count" if modality.likelihood in COUNTS else "numeric"
    )
    return ArrayConversion(
        modality.name,
        kind,
        AXES[modality.kind],
        "float32" if kind == "numeric" else "int64",
        modality.shape,
        range=modality.range,
        classes=modality.classes,
        facts={"source": "npz", "file": "data.npz"},
    )


def _plain_column(column: Column) -> ColumnConversion:
    if column.classes is not None:
        return ColumnConversion(column.name, "categorical", "int64", values=tuple(range(column.classes)))
    kinds = {"bernoulli": "boolean", **dict.fromkeys(COUNTS, "count")}
    kind = kinds.get(column.likelihood, "numeric")
    return ColumnConversion(column.name, kind, "double" if kind == "numeric" else "int64")
