"""The contents of a source before rows are joined, split and converted: columns and arrays, and their kinds."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from postprior.pipelines.data.arrays import Rows, Values, chunks
from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion, arrays
from postprior.pipelines.data.conversion.axes import AXES
from postprior.pipelines.data.conversion.columns import LIKELIHOODS, UNMODELLED, simplify_type
from postprior.pipelines.data.conversion.forms import Form
from postprior.pipelines.data.conversion.normalised import NORMALISED, normalised_kind
from postprior.pipelines.data.conversion.statistics import limits
from postprior.pipelines.data.conversion.zero_heavy import (
    AMOUNTS,
    HEAVY,
    MOST_LOGARITHM,
    are_logarithms,
    share_of_zeros,
)
from postprior.pipelines.data.formats.files import stored_files
from postprior.pipelines.data.names import composed
from postprior.pipelines.data.pixels.reading import Content, Reading
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import pick
from postprior.pipelines.texts import shell_quoted

LARGEST = 3_000_000  # greatest count: the negative binomial likelihood cannot represent a greater mean
EXPECTED = {
    "log": "numbers of at least 0",
    "nonnegative": "vectors of numbers of at least 0",
    "log1p": f"vectors of numbers from 0 to {MOST_LOGARITHM}",
    "count": f"whole numbers from 0 to {LARGEST}",
    "normalised_count": "rows of whole multiples of a number",
    "log_normalised_count": f"rows of log(1 + a) up to {MOST_LOGARITHM}, with whole multiples a of a number",
    "tokens": "rows of whole numbers of at least 0",
    "boolean": "zeros and ones",
}
"""Descriptions of the values that a kind allows, for messages."""
Named = tuple[str | None, pa.ChunkedArray]


@dataclass(frozen=True)
class Roles:
    """Roles that the user gives to columns and arrays of the sources, and options for reading them.

    Args:
        id: the column whose ids match the rows of several sources.
        label: the column of class labels.
        group: the column of subjects; all rows of a subject go into one split.
        split: a column that assigns each row to train, validation or test.
        targets: covariates and continuous targets.
        skip: columns and arrays to leave out.
        modalities: table columns by modality; columns that are not listed form a modality named after the file.
        kinds: kinds of columns and modalities that would be detected wrongly.
        nan_is_missing: whether NaN in an array means a missing value.
        folders: what subfolders of a folder of images are: modalities, classes or subjects; None detects it.
        size: height and width to which images are resized; None refuses images of different sizes.
        mode: the colours of images, L, LA, RGB or RGBA; None means those that most images of a folder have.
        alpha: `white` or `black` if transparent pixels of images are put over a colour; None keeps alpha as a channel.
        first_frame: whether only the first frame or page of an image is read; otherwise, several are refused.
        images: how images of a modality are read, if this is known from the training data.
        layer: layers that are read in place of X, by modality; under an empty name that of all modalities.
        obsm: matrices of obsm that are modalities.
        slices: the plane in which volumes are cut into slices; None if they are not cut.
        series: what each volume of a 4-D file is: `channels` of one row, or `rows`.
        resample: the grid that volumes are resampled to: `first`, a path, a voxel size in mm; None refuses others.
        na: texts and numbers that mean a missing cell, by column; under an empty name those of all columns.
        keep_na: columns in which marks of missing cells such as NA are values.
        keep_rare: whether values that few rows have are kept, so that synthetic rows may have them.
        rare_labels: what happens to labels that few rows have, see `with_common_labels`; None: as `keep_rare` says.
        dates: the order of ambiguous dates, dmy or mdy; None means day first.
        patterns: how dates and numbers are written, by column, if this is known from the training data (see `Form`).
        ranges: the least and the greatest synthetic value by column or vector, under an empty name of all; None does
            not limit them. The range of the training rows by default.
        decimals: the decimals of synthetic values, likewise; None does not round them.
        repeated: what to do with ids that several rows have: `first` keeps the first row, `visits` keeps all rows and
            makes the ids subjects; None refuses them.
        drop_constraint: texts of constraints that synthetic rows need not keep; `all` for all.
        only: the columns that `modalities` may contain, if these are known from the training data: other columns are
            left out, and some of these may be absent.
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
    folders: str | None = None
    size: tuple[int, int] | None = None
    mode: str | None = None
    alpha: str | None = None
    first_frame: bool = False
    images: Mapping[str, Reading] = field(default_factory=dict)
    layer: Mapping[str, str] = field(default_factory=dict)
    obsm: tuple[str, ...] = ()
    slices: str | None = None
    series: str = "channels"
    resample: str | None = None
    na: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    keep_na: tuple[str, ...] = ()
    keep_rare: bool = False
    rare_labels: str | None = None
    dates: str | None = None
    patterns: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    decimals: Mapping[str, int | None] = field(default_factory=dict)
    repeated: str | None = None
    drop_constraint: tuple[str, ...] = ()
    only: frozenset[str] | None = None

    def __post_init__(self) -> None:
        for role in fields(self):
            object.__setattr__(self, role.name, composed(getattr(self, role.name)))


@dataclass(frozen=True)
class TableView:
    """A modality that is a table: its name as written, its columns (n rows), and the kinds of those that are modelled.

    `originals` and `forms` as in `SourceContents`. The kinds of columns in `fixed` are those that the user gives.
    """

    name: str
    content: pa.Table
    kinds: Mapping[str, str]
    facts: dict[str, Any]
    originals: Mapping[str, pa.ChunkedArray] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)
    keep_rare: bool = False
    fixed: Collection[str] = ()

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.content.column_names)

    @cached_property
    def present(self) -> Values:
        """(n,) bool: rows with at least one modelled cell that is not null."""
        return np.asarray(np.any([self.content[name].is_valid().to_numpy() for name in self.kinds], 0))

    def learn(self, rows: Values) -> Conversion:
        """Learn the conversion from the rows at these indices."""
        settings = self.facts, self.forms, self.keep_rare, self.fixed
        return TableConversion.fit(self.name, self.kinds, self.content, rows, *settings)

    def encoded(self, conversion: Any, places: Values) -> tuple[Rows, Values]:
        """Return the values at `places` (n,), −1 for no row, and which of them are observed."""
        values, seen = conversion.encode(self.content, places)
        return values, seen

    def lost(self, conversion: Any, places: Values, values: Rows, seen: Values, mark: str) -> Any:
        """Return the original columns that encoded values do not decode to exactly; None if there are none."""
        columns = {name: self.originals.get(name, self.content[name]) for name in self.columns}
        return conversion.lost(columns, places, values, seen, mark)


@dataclass(frozen=True)
class ArrayView:
    """A modality that is one array (n, …), with its axes and kind; NaN means missing.

    `missing` (n,) marks rows that the source declares missing. `files` are the original files of the n rows, or their
    contents, if the values of some do not restore them; `exact` (n,) marks those whose values do.
    """

    name: str
    content: Values
    axes: str
    kind: str
    facts: dict[str, Any]
    missing: Values | None = None
    files: tuple[Content, ...] | None = None
    exact: Values | None = None
    columns = ()

    @cached_property
    def present(self) -> Values:
        """(n,) bool: rows that are neither entirely NaN nor declared missing by the source."""
        filled = ~np.concatenate([np.isnan(chunk.reshape(len(chunk), -1)).all(1) for chunk in chunks(self.content)])
        return filled if self.missing is None else filled & ~self.missing

    def learn(self, rows: Values) -> Conversion:
        """Learn the conversion from the rows at these indices."""
        present = np.flatnonzero(self.present)
        return ArrayConversion.fit(self.name, self.kind, self.axes, self.content, rows, present, self.facts)

    def encoded(self, conversion: Any, places: Values) -> tuple[Rows, Values]:
        """Return the values at `places` (n,), −1 for no row, as they are stored, and which of them are observed."""
        values, seen = conversion.stored(self.content, places)
        return values, seen

    def lost(self, conversion: Any, places: Values, values: Rows, seen: Values, mark: str) -> Any:
        """Return the original files or values if encoded values do not decode to exactly these; else None."""
        lost = conversion.lost(self.content, places, values, seen)
        if self.files is None or self.exact is None:
            return lost
        kept = (places >= 0) & (~self.exact[places] | (lost is not None))
        if not kept.any():
            return lost
        files = [self.files[place] if keep else None for place, keep in zip(places, kept, strict=True)]
        return stored_files(files, self.facts.get("suffix", ""))


View = TableView | ArrayView


@dataclass(frozen=True)
class SourceContents:
    """The contents of one source: its modalities, and the columns that have a role.

    Attributes:
        place: the name of the source in messages.
        rows: the number n of rows.
        views: the modalities.
        ids: the name and values by which rows are matched; None if rows are matched by their order.
        label: the name and values of the class labels.
        group: the name and values of the subjects.
        split: the name and values of the split.
        targets: values of covariates and targets, by name.
        headers: the headers of a table, in its order.
        originals: columns with their original values, by header, if `views` and roles have them in a simpler type.
        dialect: `delimiter` and `decimal` mark of a text file, if they are not the usual ones.
        types: names of the Arrow types of columns that import simplified and export restores.
        names: names of columns or arrays outside of tables that may have a role.
        skipped: names of columns, arrays or folders that the user left out.
        spellings: headers as the file writes them, by header, where these differ (see `names.composed`).
        forms: how the file writes the cells of columns, where this is unusual.
        notes: lines that tell the user how the source was read.
        kept: columns (n rows) that come back on export, whether they have a role or not; their names are paths.
        matrices: the names of matrices that --layer and --obsm can read.
        frame: of a data frame in memory, the types of its columns and index (see `memory.frames`).
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
    spellings: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    kept: pa.Table | None = None
    matrices: tuple[str, ...] = ()
    frame: Mapping[str, Any] = field(default_factory=dict)

    def taken(self, rows: pa.Array) -> "SourceContents":
        """Return the rows at these indices of a source whose modalities are arrays."""

        def take(named: Named | None) -> Any:
            return None if named is None else (named[0], named[1].take(rows))

        places = rows.to_numpy()
        views = [
            replace(view, content=view.content[places], missing=None if view.missing is None else view.missing[places])
            for view in self.views
            if isinstance(view, ArrayView)
        ]
        return replace(
            self,
            rows=len(rows),
            views=tuple(views),
            targets={name: column.take(rows) for name, column in self.targets.items()},
            kept=None if self.kept is None else self.kept.take(rows),
            ids=take(self.ids),
            label=take(self.label),
            group=take(self.group),
            split=take(self.split),
        )


def simplify_column(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to integers, floats, booleans or plain strings if possible, NaN to null; refuse infinity."""
    column = simplify_type(column)
    if types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
        raise UserError(f"{path}: column {name}: infinity found, expected finite numbers or empty cells; correct it")
    return column


def simplify_table(path: Path, table: pa.Table) -> tuple[pa.Table, dict[str, pa.ChunkedArray]]:
    """Simplify all columns; also return the originals that may differ, such as −1.50 of a decimal type, or NaN."""
    pairs = {
        n: (column, simplify_column(path, n, column))
        for n, column in zip(table.column_names, table.columns, strict=True)
    }
    changed = {n: old for n, (old, new) in pairs.items() if new is not old and not types.is_string(new.type)}
    return pa.table({name: new for name, (_, new) in pairs.items()}), changed


def column_kind(place: str, name: str, column: pa.ChunkedArray, requested: Mapping[str, str]) -> str:
    """Return the kind of a column: the requested one, after a check that it fits, or a detected one.

    Dates are numeric, texts are categorical, zeros and ones boolean, two other whole numbers categorical, whole numbers
    that start at 0 counts, and all other numbers numeric.
    """
    check_type(place, name, column)
    if requested.get(name) == UNMODELLED:
        return UNMODELLED
    if types.is_temporal(column.type):
        if requested.get(name, "numeric") != "numeric":
            expected = f"expected --kind {name}=numeric"
            raise UserError(f"{place}: column {name}: dates found, {expected}; correct the kind")
        return "numeric"
    text, boolean = types.is_string(column.type), types.is_boolean(column.type)
    low, high = (float(limit or 0) for limit in ((0, 0) if text else pc.min_max(column).as_py().values()))
    rounded = pc.equal(column, pc.round(column)) if types.is_floating(column.type) else None
    whole = rounded is None or pc.all(rounded, min_count=0).as_py()
    if name in requested:
        kind = requested[name]
        pick(LIKELIHOODS, kind, f"--kind {name}", "kind of column")
        remedy = "correct the values or the kind"
        if text and kind != "categorical":
            expected = f"expected numbers for --kind {name}={kind}"
            raise UserError(f"{place}: column {name}: texts found, {expected}; {remedy}")
        if not _fits(kind, low, high, whole):
            expected = f"expected {EXPECTED[kind]} for --kind {name}={kind}"
            raise UserError(f"{place}: column {name}: values from {low:g} to {high:g} found, {expected}; {remedy}")
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
    logarithms = kind in ("log1p", "log_normalised_count")
    return kind not in ("log", *AMOUNTS, *NORMALISED) or (low >= 0 and (not logarithms or high <= MOST_LOGARITHM))


def check_type(place: str, name: str, column: pa.ChunkedArray) -> None:
    """Refuse a column of lists and other types that are not supported."""
    dates = types.is_date, types.is_timestamp, types.is_time
    supported = types.is_string, types.is_boolean, types.is_integer, types.is_floating, *dates
    if not any(is_type(column.type) for is_type in supported):
        expected = (
            f"expected numbers, texts, dates or booleans; convert it or leave it out (--skip {shell_quoted(name)})"
        )
        raise UserError(f"{place}: column {name}: type {column.type} found, {expected}")


def pixel_kind(place: str, name: str, array: Values, axes: str, requested: Mapping[str, str]) -> str:
    """Return the kind of the values of images or volumes: the requested one if it fits, else numeric or boolean."""
    detected = name in requested or array.dtype == bool
    return array_kind(place, name, array, axes, requested) if detected else "numeric"


def array_axes(place: str, name: str, shape: tuple[int, ...]) -> str:
    """Guess the axes of one value from its shape: a vector, an image (channels first or last) or a volume."""
    last = len(shape) == 3 and shape[-1] in (1, 2, 3, 4) and shape[0] not in (1, 2, 3, 4)
    guesses = {0: "", 1: "X", 2: "HW", 3: "HWC" if last else "CHW", 4: "CDHW"}
    if len(shape) not in guesses or 0 in shape:
        raise UserError(
            f"{place}: {name}: values of shape {shape} found, expected vectors (X), images (H, W), (C, H, W) or "
            f"(H, W, C) or volumes (C, D, H, W); reshape it or leave it out (--skip {shell_quoted(name)})"
        )
    return guesses[len(shape)]


def array_view(path: Path, name: str, array: Values, missing: Values, roles: Roles, facts: dict[str, Any]) -> ArrayView:
    """Return the view of an array (n, …), with its kind detected from the rows that are not `missing` (n,)."""
    check_finite(f"{path}: {name}", array, missing, roles)
    axes = array_axes(path.name, name, array.shape[1:])
    present = np.flatnonzero(~missing) if missing.any() else None
    kind = array_kind(path.name, name, array, axes, roles.kinds, present)
    return ArrayView(name, array, axes, kind, facts, missing)


def check_finite(place: str, array: Values, missing: Values, roles: Roles) -> None:
    """Refuse infinities, and NaN unless it means missing, in the rows of an array (n, …) that are not `missing`."""
    if array.dtype.kind != "f":
        return
    wrong = np.isinf if roles.nan_is_missing else lambda values: ~np.isfinite(values)
    bad = np.concatenate([wrong(chunk).reshape(len(chunk), -1).any(1) for chunk in chunks(array)]) & ~missing
    if bad.any():
        remedy = "correct the values" if roles.nan_is_missing else "add --nan-is-missing if NaN means a missing value"
        raise UserError(f"{place}: NaN or infinity found in row {np.argmax(bad)}, expected finite numbers; {remedy}")


def array_kind(
    place: str, name: str, array: Values, axes: str, requested: Mapping[str, str], rows: Values | None = None
) -> str:
    """Return the kind of the values of an array: the requested one, after a check that it fits, or a detected one.

    Only the rows at the indices `rows` count, or all if there are none.

    Zeros and ones are boolean in a vector, or in any array that is not of a float type; whole numbers of at least 0 in
    a vector are counts; other values of at least 0 in a vector of which many are 0 are normalised counts or their
    logarithms if they are multiples of a unit of their row, else log1p if they look like logarithms log(1 + a), else
    nonnegative; all other values are numeric.
    """
    vector = AXES[axes] == "vector"
    low, high = limits(array, rows)
    whole = array.dtype.kind in "biu" or all(np.array_equal(c, np.rint(c), equal_nan=True) for c in chunks(array, rows))
    if name not in requested:
        if low < high and _fits("boolean", low, high, whole) and (vector or array.dtype.kind != "f"):
            return "boolean"
        if not vector or array.dtype == np.uint8:
            return "numeric"
        if _fits("count", low, high, whole):
            return "count"
        if low != 0 or share_of_zeros(array, rows) < HEAVY:
            return "numeric"
        present = np.arange(len(array)) if rows is None else rows
        return normalised_kind(array, present) or ("log1p" if are_logarithms(array, present) else "nonnegative")
    kind = requested[name]
    if kind not in arrays.KINDS:
        raise UserError(f"--kind {name}: '{kind}' found, expected one of {', '.join(arrays.KINDS)}; correct the kind")
    allowed = _fits(kind, low, high, whole) and (axes == "X" or kind not in ("tokens", *AMOUNTS, *NORMALISED))
    if allowed and kind in NORMALISED:
        allowed = normalised_kind(array, np.arange(len(array)) if rows is None else rows) == kind
    if not allowed:
        found = f"{array.dtype} values from {low:g} to {high:g} found"
        expected = f"expected {EXPECTED[kind]} for --kind {name}={kind}"
        raise UserError(f"{place}: {name}: {found}, {expected}; correct the values or the kind")
    return kind
