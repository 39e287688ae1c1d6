"""What a source was found to hold, before it is joined, split and converted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values, chunks
from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion
from postprior.pipelines.data.conversion.columns import check_categories

Named = tuple[str | None, pa.ChunkedArray]


@dataclass(frozen=True)
class Roles:
    """What the user says of names in the sources.

    Args:
        id: the column that rows of several sources are matched by.
        label: the classes.
        group: subjects, kept on one side of the split.
        split: a column that says train, validation or test of every row.
        targets: covariates and continuous targets.
        skip: columns and arrays to leave out.
        modalities: columns of tables by the modality that they make; those in none make one named after the file.
        kinds: kinds of columns and modalities that are recognised wrongly.
        nan_is_missing: NaN in an array stands for a missing value.
        slices: the plane of the slices that volumes are cut into, if they are.
        only: the columns of `modalities` where these are known before: others are left out, and some may lack.
    """

    id: str | None = None
    label: str | None = None
    group: str | None = None
    split: str | None = None
    targets: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    modalities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    nan_is_missing: bool = False
    slices: str | None = None
    only: frozenset[str] | None = None


@dataclass(frozen=True)
class TableView:
    """A modality that is a table: its columns (n rows) with their kinds; `originals` are as for `Found`."""

    name: str
    content: pa.Table
    kinds: Mapping[str, str]
    facts: dict[str, Any]
    originals: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return list(self.content.column_names)

    @cached_property
    def present(self) -> Values:
        """(n,) bool: rows with one cell at least."""
        seen = [column.is_valid().to_numpy() for column in self.content.columns]
        return np.asarray(np.any(seen, 0))

    def learn(self, rows: Values) -> Conversion:
        """The conversion, learned from the rows at these places."""
        for name, kind in self.kinds.items():
            if kind == "categorical":  # what is wrong with a column may stand in another row
                known = self.content[name].drop_null()
                check_categories(f"{self.facts['file']}: column {name}", name, known)
        return TableConversion.fit(self.name, self.kinds, self.content.take(pa.array(rows)), self.facts)

    def lost(self, conversion: Any, places: Values, values: Values, seen: Values, mark: str) -> Any:
        """What the file has in these rows that encoded values cannot give back; None where that is nothing."""
        columns = {name: self.originals.get(name, self.content[name]) for name in self.columns}
        return conversion.lost(columns, places, values, seen, mark)


@dataclass(frozen=True)
class ArrayView:
    """A modality that is one array (n, …), with its axes and kind; NaN is missing.

    `missing` (n,) marks the rows that the source says it lacks. `files` (n,) are the files themselves, where no other
    can be written of their values.
    """

    name: str
    content: Values
    axes: str
    kind: str
    facts: dict[str, Any]
    missing: Values | None = None
    files: pa.Array | None = None
    columns = ()

    @cached_property
    def present(self) -> Values:
        """(n,) bool: rows that are not NaN throughout, unless the source says that they are missing."""
        empty = [np.isnan(chunk.reshape(len(chunk), -1)).all(1) for chunk in chunks(self.content)]
        found = ~np.concatenate(empty)
        return found if self.missing is None else found & ~self.missing

    def learn(self, rows: Values) -> Conversion:
        """The conversion, learned from the rows at these places."""
        there = np.flatnonzero(self.present)
        return ArrayConversion.fit(self.name, self.kind, self.axes, self.content, rows, there, self.facts)

    def lost(self, conversion: Any, places: Values, values: Values, seen: Values, mark: str) -> Any:
        """As for a table, or the files."""
        if self.files is not None:
            return pa.table({"file": self.files.take(pa.array(places, mask=places < 0))})
        return conversion.lost(self.content, places, values, seen)


View = TableView | ArrayView


@dataclass(frozen=True)
class Found:
    """One source of n rows.

    Args:
        place: its file or folder, as messages name it.
        rows: n.
        views: its modalities.
        ids: name and values of what rows are matched by; None where rows are known by their order alone.
        label: name and values; so are `group` and `split`.
        targets: values by name.
        headers: of a table, in its order.
        originals: columns as the file has them, by header, where `views` and roles have them plainer.
        dialect: marks of a text file, where they are not the usual ones: `delimiter`, and `decimal` before decimals.
        types: names of Arrow's types, by header, of columns that were made plainer and are written back as they were.
        names: of columns that are no table's but may have a role.
        skipped: names of what the user left out.
    """

    place: str
    rows: int
    views: tuple[View, ...] = ()
    ids: Named | None = None
    label: Named | None = None
    group: Named | None = None
    split: Named | None = None
    targets: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)
    headers: tuple[str, ...] = ()
    originals: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)
    dialect: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
