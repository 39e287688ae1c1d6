"""From the values that decoders of a model return to values of data, and to the units of files.

What rows store where a value is missing tells nothing: scores read rows through `values_of`, which puts the same fill
value there in real and in synthetic rows.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.modalities import Modality


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
    return replace(rows, data={m.name: rows.data[m.name] if w.all() else values_of(rows, m) for m, w in whole})


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


def in_units(table: Modality, values: np.ndarray, missing: np.ndarray, conversion: dict[str, Any] | None) -> np.ndarray:
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
