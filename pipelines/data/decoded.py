"""From the values that decoders of a model return to values of data, and to the units of files.

What rows store where a value is missing tells nothing: scores read rows through `values_of`, which puts the same fill
value there in real and in synthetic rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.data.arrays import Rows, chunks
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.rows import Scale, ScaledIntegers
from postprior.stage1_vae.modalities import Modality

if TYPE_CHECKING:
    from postprior.pipelines.data.conversion import TableConversion


def as_data(modality: Modality, values: np.ndarray, conversion: dict[str, Any] | None) -> np.ndarray:
    """Return decoded values (…, *shape) float32 as the data of a manifest with this entry `conversion` have them."""
    entry = (conversion or {}).get("modalities", {}).get(modality.name)
    if entry is None:
        return values
    from postprior.pipelines.data.conversion import from_description, intact  # they import pyarrow

    with intact(modality.title):
        rows = values.reshape(-1, *modality.shape)
        return from_description(modality.name, entry).valid(rows).reshape(values.shape).astype(values.dtype, copy=False)


def emptied(rows: Dataset) -> Dataset:
    """Return rows with the fill value of data wherever a value is missing, so that what was stored there is gone."""
    whole = zip(rows.modalities, rows.fully_observed.T, strict=True)
    data = {m.name: rows.data[m.name] if w.all() or _is_empty(rows, m, w) else values_of(rows, m) for m, w in whole}
    return replace(rows, data=data)


def _is_empty(rows: Dataset, modality: Modality, whole: np.ndarray) -> bool:
    """Whether values that are stored in little space are the fill value in all rows that are not `whole` (N,) bool."""
    stored = rows.data[modality.name]
    if isinstance(stored, np.ndarray) or modality.name in rows.cells:
        return False
    fill, lacking = fill_values(modality, rows.conversion), np.flatnonzero(~whole)
    return all((values == fill).all() for values in chunks(stored, lacking))


def values_of(data: Dataset, modality: Modality, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Return the values (n, *shape) of a modality at `rows`, with the fill value of data where they are missing."""
    values = data.data[modality.name][rows]
    missing = data.missing(modality.name, rows)
    if not missing.any():
        return values
    fill = fill_values(modality, data.conversion).astype(values.dtype)
    return np.where(missing, fill, values)


def fill_values(modality: Modality, conversion: dict[str, Any] | None) -> np.ndarray:
    """Return what rows hold where a value is missing, in a shape that broadcasts to values (…, *shape)."""
    entry = (conversion or {}).get("modalities", {}).get(modality.name)
    if entry is None:
        return np.zeros(())
    from postprior.pipelines.data.conversion import from_description, intact  # they import pyarrow

    with intact(modality.title):
        return np.asarray(from_description(modality.name, entry).fill)


def integer_scales(
    modalities: Iterable[Modality], conversion: dict[str, Any] | None, given: Dataset | None = None
) -> dict[str, Scale]:
    """Return by modality the scales of integers as which values of `as_data` are stored, like those of the data.

    A modality of which `given` rows have observed values that are stored in another way is left out: they must stay.
    """
    entries = (conversion or {}).get("modalities", {})
    if not entries:
        return {}
    from postprior.pipelines.data.conversion import ArrayConversion, from_description, intact  # they import pyarrow

    scales = {}
    for m, modality in enumerate(modalities):
        if modality.name not in entries:
            continue
        with intact(modality.title):
            own = from_description(modality.name, entries[modality.name])
            if not isinstance(own, ArrayConversion) or (scale := own.integer_scale) is None:
                continue
        rows = None if given is None or not given.observed[:, m].any() else given.data[modality.name]
        like = isinstance(rows, ScaledIntegers) and (rows.scale, rows.integers.dtype) == (scale, np.dtype(own.dtype))
        if rows is None or like:
            scales[modality.name] = scale
    return scales


def least_bytes(modalities: Sequence[Modality], conversion: dict[str, Any] | None) -> int:
    """Return the bytes that the values of a row take at least when they are stored."""
    integers = integer_scales(modalities, conversion)
    return sum(math.prod(m.shape) * (1 if m.name in integers else np.dtype(np.float32).itemsize) for m in modalities)


def rows_as_data(
    values: Mapping[str, np.ndarray], conversion: dict[str, Any] | None, free: Mapping[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Return whole rows, values[m] (n, *shape) of `as_data`, that keep the constraints among columns of the data.

    Only the cells free[m] (n, *shape) bool may change; by default all.
    """
    if not (conversion or {}).get("constraints"):
        return dict(values)
    from postprior.pipelines.data.constraints.keeping import kept

    return kept(values, conversion or {}, free)


def in_units(table: Modality, values: Rows, missing: np.ndarray, conversion: dict[str, Any] | None) -> np.ndarray:
    """Return rows (N, J) of a table as float64 in the units of its file, NaN in `missing` cells; a class is its index.

    They are the numbers that export writes; a date counts its days or the unit of its time. Without an entry in the
    `conversion` of the manifest, the numbers are those of the data.
    """
    entry = (conversion or {}).get("modalities", {}).get(table.name)
    if entry is None:
        return np.where(missing, np.nan, np.asarray(values, np.float64))
    from postprior.pipelines.data.conversion import TableConversion, intact  # they import pyarrow

    with intact(table.title):
        return TableConversion.from_description(table.name, entry).numbers(np.asarray(values), ~missing)


def vectors_in_units(vector: Modality, rows: Dataset) -> np.ndarray:
    """Return the values (N, X) of a vector of rows as export writes them, as float64; NaN where missing."""
    conversion = _conversion_of(vector, rows.conversion)
    with _intact(vector):
        missing = rows.missing(vector.name)
        values, source = rows.data[vector.name], rows.source_values.get(vector.name)
        if hasattr(source, "dtype"):
            raw = conversion.restored(values, ~missing, source)
        else:
            raw = conversion.decode(values, ~missing)
    return np.where(missing, np.nan, raw.reshape(missing.shape).astype(np.float64))


def feature_names(vector: Modality, conversion: dict[str, Any] | None) -> list[str]:
    """Return the names of the features of a vector, or their numbers if the file had none."""
    width = vector.shape[0]
    names = list(map(str, _conversion_of(vector, conversion).facts.get("features") or ()))
    return names if len(names) == width else [f"feature {number}" for number in range(1, width + 1)]


def cells_as_texts(table: Modality, rows: Dataset) -> dict[str, list[str | None]]:
    """Return by column the cells of a table of rows as export writes them into a CSV; None where a cell is missing."""
    conversion: TableConversion = _conversion_of(table, rows.conversion)
    with _intact(table):
        dialects = (rows.conversion or {}).get("dialects", {})
        mark = dialects.get(conversion.facts.get("file"), {}).get("decimal", ".")
        values, source = np.asarray(rows.data[table.name]), rows.source_values.get(table.name)
        missing = rows.missing(table.name)
        written = conversion.decode(values, ~missing, source, mark)
    texts = {name: column.to_pylist() for name, column in zip(written.column_names, written.columns, strict=True)}
    for column, holes in zip(table.columns, missing.T, strict=True):
        texts[column.name] = [None if hole else text for text, hole in zip(texts[column.name], holes, strict=True)]
    return texts


def values_as_texts(table: Modality, column: int, values: np.ndarray, conversion: dict[str, Any] | None) -> list[str]:
    """Return values (n,) of a column in the units of `in_units` as export writes them: of classes, their texts."""
    own = _conversion_of(table, conversion).columns[column]
    with _intact(table):
        x = values if own.kind == "categorical" else own.standardised(values)
        texts = own.form.written(own.decode(x, np.ones(len(x), bool)), ".").to_pylist()
    return list(map(str, texts))


def is_temporal(table: Modality, column: int, conversion: dict[str, Any] | None) -> bool:
    """Whether a column has dates or times."""
    name = _conversion_of(table, conversion).columns[column].type
    return str(name).startswith(("date", "timestamp", "time"))


def _conversion_of(modality: Modality, conversion: dict[str, Any] | None) -> Any:
    """Return the conversion of a modality, or one that changes nothing if the manifest has none."""
    from postprior.pipelines.data.conversion import from_description  # they import pyarrow
    from postprior.pipelines.data.conversion.identity import identity_conversion

    entry = (conversion or {}).get("modalities", {}).get(modality.name)
    with _intact(modality):
        return identity_conversion(modality) if entry is None else from_description(modality.name, entry)


def _intact(modality: Modality) -> Any:
    from postprior.pipelines.data.conversion import intact

    return intact(modality.title)
