"""From the values that decoders of a model return to values of data, and to the units of files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

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
