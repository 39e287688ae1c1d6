"""Columns and arrays in the types that are understood, and their kinds, which the user may say otherwise."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values, chunks
from postprior.pipelines.data.conversion import arrays, columns
from postprior.pipelines.data.conversion.columns import plainer
from postprior.pipelines.data.formats.found import ArrayView, Roles
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import pick
from postprior.pipelines.texts import quoted

LARGEST = 3_000_000  # beyond this mean a negative binomial likelihood has no parameters
EXPECTED = {
    "log": "numbers of at least 0",
    "count": f"whole numbers from 0 to {LARGEST}",
    "tokens": "rows of whole numbers of at least 0",
    "boolean": "zeros and ones",
}
"""Values of a kind, in words."""


def plain(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of integers, floats, booleans or plain strings where it can be one, with null for NaN."""
    column = plainer(column)
    if pa.types.is_floating(column.type) and pc.any(pc.is_inf(column)).as_py():
        raise UserError(f"{path}: column {name}: infinity found, expected finite numbers or empty cells; correct it")
    return column


def made_plain(path: Path, table: pa.Table) -> tuple[pa.Table, dict[str, pa.ChunkedArray]]:
    """Plain columns, and as they are those that may then be others: −1.50 of a decimal, or NaN."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    made = {name: plain(path, name, column) for name, column in columns.items()}
    originals = {
        name: column
        for name, column in columns.items()
        if made[name] is not column and not pa.types.is_string(made[name].type)
    }
    return pa.table(made), originals


def column_kind(place: str, name: str, column: pa.ChunkedArray, asked: Mapping[str, str]) -> str:
    """The kind of a column: what was asked for, if it can be, or what it looks like.

    Texts are categories, zeros and ones boolean, two other whole numbers categories, whole numbers from 0 upwards
    counts, and all other numbers numeric.
    """
    check_type(place, name, column)
    text, boolean = pa.types.is_string(column.type), pa.types.is_boolean(column.type)
    limits = (0, 0) if text else pc.min_max(column).as_py().values()
    low, high = (float(limit or 0) for limit in limits)
    same = pc.equal(column, pc.round(column)) if pa.types.is_floating(column.type) else None
    whole = same is None or pc.all(same, min_count=0).as_py()
    if name in asked:
        kind = asked[name]
        pick(columns.LIKELIHOODS, kind, f"--kind {name}", "kind of column")
        if text and kind != "categorical":
            raise UserError(f"{place}: column {name}: found texts, expected numbers for --kind {name}={kind}")
        if not _fits(kind, low, high, whole):
            raise UserError(
                f"{place}: column {name}: found values from {low:g} to {high:g}, expected {EXPECTED[kind]} for "
                f"--kind {name}={kind}"
            )
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
    return {
        "log": low >= 0,
        "count": whole and low >= 0 and high <= LARGEST,
        "tokens": whole and low >= 0 and high <= LARGEST,
        "boolean": whole and low >= 0 and high <= 1,
    }.get(kind, True)


def check_type(place: str, name: str, column: pa.ChunkedArray) -> None:
    """Refuse a column of dates, lists and the like."""
    known = pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating
    if not any(one(column.type) for one in known):
        raise UserError(
            f"{place}: column {name}: found {column.type}, expected numbers, texts or true and false; "
            f"convert it or leave it out (--skip {quoted(name)})"
        )


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
            f"(H, W, C) or volumes (C, D, H, W); reshape it or leave it out (--skip {quoted(name)})"
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
    whole = array.dtype.kind in "biu" or (all(np.array_equal(c, np.rint(c), equal_nan=True) for c in chunks(array)))
    if name not in asked:
        if low < high and _fits("boolean", low, high, whole) and (vector or array.dtype.kind != "f"):
            return "boolean"
        counts = _fits("count", low, high, whole) and vector and array.dtype != np.uint8
        return "count" if counts else "numeric"
    kind = asked[name]
    if kind not in arrays.KINDS:
        raise UserError(f"--kind {name}: found '{kind}', expected one of {', '.join(arrays.KINDS)}")
    if not _fits(kind, low, high, whole) or (kind == "tokens" and axes != "X"):
        raise UserError(
            f"{place}: {name}: found {array.dtype} values from {low:g} to {high:g}, expected {EXPECTED[kind]} for "
            f"--kind {name}={kind}"
        )
    return kind
