"""What a source was found to hold, before it is joined, split and converted: columns and arrays, and their kinds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from postprior.pipelines.data.arrays import Values, chunks
from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion, arrays
from postprior.pipelines.data.conversion.columns import LIKELIHOODS, check_categories, plainer
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import pick
from postprior.pipelines.texts import shell_quoted

LARGEST = 3_000_000  # beyond this mean a negative binomial likelihood has no parameters
EXPECTED = {
    "log": "numbers of at least 0",
    "count": f"whole numbers from 0 to {LARGEST}",
    "tokens": "rows of whole numbers of at least 0",
    "boolean": "zeros and ones",
}
"""Values of a kind, in words."""
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
        return np.asarray(np.any([column.is_valid().to_numpy() for column in self.content.columns], 0))

    def learn(self, rows: Values) -> Conversion:
        """The conversion, learned from the rows at these places."""
        for name, kind in self.kinds.items():
            if kind == "categorical":  # what is wrong with a column may stand in another row
                check_categories(f"{self.facts['file']}: column {name}", name, self.content[name].drop_null())
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
        found = ~np.concatenate([np.isnan(chunk.reshape(len(chunk), -1)).all(1) for chunk in chunks(self.content)])
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
    """One source, which messages call `place`, of n `rows`, with its modalities and roles.

    `ids` are name and values of what rows are matched by, None where rows are known by their order alone; `label`,
    `group` and `split` are name and values likewise, `targets` values by name. `headers` are a table's, in its order,
    `names` those of other columns that may have a role, and `skipped` what the user left out. `originals` are columns
    as the file has them, by header, where `views` and roles have them plainer, and `types` the names of Arrow's types
    of those that are written back so. `dialect` are the marks of a text file, where they are not the usual ones:
    `delimiter`, and `decimal` before decimals.
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


def plain(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of integers, floats, booleans or plain strings where it can be one, with null for NaN."""
    column = plainer(column)
    if types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
        raise UserError(f"{path}: column {name}: infinity found, expected finite numbers or empty cells; correct it")
    return column


def made_plain(path: Path, table: pa.Table) -> tuple[pa.Table, dict[str, pa.ChunkedArray]]:
    """Plain columns, and as they are those that may then be others: −1.50 of a decimal, or NaN."""
    pairs = {n: (column, plain(path, n, column)) for n, column in zip(table.column_names, table.columns, strict=True)}
    changed = {n: old for n, (old, new) in pairs.items() if new is not old and not types.is_string(new.type)}
    return pa.table({name: new for name, (_, new) in pairs.items()}), changed


def column_kind(place: str, name: str, column: pa.ChunkedArray, asked: Mapping[str, str]) -> str:
    """The kind of a column: what was asked for, if it can be, or what it looks like.

    Texts are categories, zeros and ones boolean, two other whole numbers categories, whole numbers from 0 upwards
    counts, and all other numbers numeric.
    """
    check_type(place, name, column)
    text, boolean = types.is_string(column.type), types.is_boolean(column.type)
    low, high = (float(limit or 0) for limit in ((0, 0) if text else pc.min_max(column).as_py().values()))
    same = pc.equal(column, pc.round(column)) if types.is_floating(column.type) else None
    whole = same is None or pc.all(same, min_count=0).as_py()
    if name in asked:
        kind = asked[name]
        pick(LIKELIHOODS, kind, f"--kind {name}", "kind of column")
        if text and kind != "categorical":
            raise UserError(f"{place}: column {name}: found texts, expected numbers for --kind {name}={kind}")
        if not _fits(kind, low, high, whole):
            found = f"found values from {low:g} to {high:g}"
            raise UserError(f"{place}: column {name}: {found}, expected {EXPECTED[kind]} for --kind {name}={kind}")
        return kind
    if text or boolean:
        return "categorical" if text else "boolean"
    if not whole:
        return "numeric"
    if (low, high) == (0, 1):
        return "boolean"
    if pc.count_distinct(column).as_py() == 2:
        return "categorical"
    return "count" if low == 0 and high <= LARGEST else "numeric"


def _fits(kind: str, low: float, high: float, whole: bool) -> bool:
    """Whether values from `low` to `high` can be of a kind."""
    if kind in ("count", "tokens", "boolean"):
        return whole and low >= 0 and high <= (1 if kind == "boolean" else LARGEST)
    return kind != "log" or low >= 0


def check_type(place: str, name: str, column: pa.ChunkedArray) -> None:
    """Refuse a column of dates, lists and the like."""
    if not any(of(column.type) for of in (types.is_string, types.is_boolean, types.is_integer, types.is_floating)):
        expected = (
            f"expected numbers, texts or true and false; convert it or leave it out (--skip {shell_quoted(name)})"
        )
        raise UserError(f"{place}: column {name}: found {column.type}, {expected}")


def safe_name(name: str) -> str:
    """A name that a modality can have."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def pixel_kind(place: str, name: str, array: Values, axes: str, asked: Mapping[str, str]) -> str:
    """The kind of images' and volumes' values: what was asked for, if it can be, or numeric."""
    return array_kind(place, name, array, axes, asked) if name in asked else "numeric"


def array_axes(place: str, name: str, shape: tuple[int, ...]) -> str:
    """Axes of one value: a vector, an image (channels first or last) or a volume, from its shape alone."""
    last = len(shape) == 3 and shape[-1] in (1, 2, 3, 4) and shape[0] not in (1, 2, 3, 4)
    guesses = {0: "", 1: "X", 2: "HW", 3: "HWC" if last else "CHW", 4: "CDHW"}
    if len(shape) not in guesses or 0 in shape:
        raise UserError(
            f"{place}: {name}: values of shape {shape} found, expected vectors (X), images (H, W), (C, H, W) or "
            f"(H, W, C) or volumes (C, D, H, W); reshape it or leave it out (--skip {shell_quoted(name)})"
        )
    return guesses[len(shape)]


def array_view(path: Path, name: str, array: Values, missing: Values, roles: Roles, facts: dict[str, Any]) -> ArrayView:
    """A modality of one array (n, …), recognised by the rows that are not `missing` (n,)."""
    check_finite(f"{path}: {name}", array, missing, roles)
    axes = array_axes(path.name, name, array.shape[1:])
    there = array[~missing] if missing.any() else array
    return ArrayView(name, array, axes, array_kind(path.name, name, there, axes, roles.kinds), facts, missing)


def check_finite(place: str, array: Values, missing: Values, roles: Roles) -> None:
    """Refuse infinities, and NaN unless it stands for a missing value, in rows (n, …) that are not `missing` (n,)."""
    if array.dtype.kind != "f":
        return
    flat = array.reshape(len(array), -1)
    bad = ~np.isfinite(flat).all(1) & ~missing
    if roles.nan_is_missing:
        bad &= np.isinf(flat).any(1)
    if bad.any():
        remedy = "give finite numbers" if roles.nan_is_missing else "--nan-is-missing takes NaN as missing"
        raise UserError(f"{place}: NaN or infinity in row {np.argmax(bad)}, expected finite numbers; {remedy}")


def array_kind(place: str, name: str, array: Values, axes: str, asked: Mapping[str, str]) -> str:
    """The kind of an array's values: what was asked for, if it can be, or what they look like.

    Zeros and ones of a vector, or of any array that is no float, are boolean; whole numbers from 0 upwards in a vector
    counts; all others numeric.
    """
    vector = arrays.AXES[axes] == "vector"
    low, high = arrays.limits(array)
    whole = array.dtype.kind in "biu" or all(np.array_equal(c, np.rint(c), equal_nan=True) for c in chunks(array))
    if name not in asked:
        if low < high and _fits("boolean", low, high, whole) and (vector or array.dtype.kind != "f"):
            return "boolean"
        return "count" if vector and array.dtype != np.uint8 and _fits("count", low, high, whole) else "numeric"
    kind = asked[name]
    if kind not in arrays.KINDS:
        raise UserError(f"--kind {name}: found '{kind}', expected one of {', '.join(arrays.KINDS)}")
    if not _fits(kind, low, high, whole) or (kind == "tokens" and axes != "X"):
        found = f"found {array.dtype} values from {low:g} to {high:g}"
        raise UserError(f"{place}: {name}: {found}, expected {EXPECTED[kind]} for --kind {name}={kind}")
    return kind
