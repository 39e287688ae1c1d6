"""NumPy archives, as `postprior.pipelines.data.importers.npz` reads them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.conversion import ArrayConversion, Conversion
from postprior.pipelines.data.exporters.samples import Samples
from postprior.pipelines.publishing import write_bytes

Values = np.ndarray[Any, np.dtype[Any]]


def write_npz(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """One archive a file that the modalities came from, each with all that is known of the samples."""
    files = dict.fromkeys(conversion.facts["file"] for conversion in conversions)
    for file in files:
        chosen = [c for c in conversions if isinstance(c, ArrayConversion) and c.facts["file"] == file]
        arrays = {conversion.name: samples.array(conversion) for conversion in chosen}
        arrays |= _roles(samples, chosen[0].facts)
        order = [m.name for m in samples.dataset.modalities]
        if samples.dataset.mask is not None:
            arrays["mask"] = samples.dataset.mask[:, [order.index(conversion.name) for conversion in chosen]]
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        write_bytes(folder / file, content.getvalue())


def _roles(samples: Samples, facts: dict[str, Any]) -> dict[str, Values]:
    """The arrays of an archive that are no modality, under the names and in the types that they had."""
    names = {role: role for role in ("ids", "labels", "groups")} | facts.get("names", {})
    arrays = {names["ids"]: _to_numpy(samples.ids)}
    if samples.labels is not None:
        arrays |= _labels(samples, names["labels"], facts.get("coded"))
    if samples.groups is not None:
        arrays[names["groups"]] = _to_numpy(samples.groups)
    return arrays | _targets(samples, facts.get("apart", ()))


def _targets(samples: Samples, apart: Sequence[str]) -> dict[str, Values]:
    """Targets: those `apart` in arrays of their own, the others in one, where texts are the places of their values."""
    if samples.dataset.targets is None:
        return {}
    columns = {name: _to_numpy(column) for name, column in samples.targets.items()}
    arrays = {name: columns[name] for name in apart if name in columns}
    rest = [t for t, name in enumerate(columns) if name not in arrays]
    together = [columns[name] for name in columns if name not in arrays]
    if not columns:
        arrays["targets"] = np.asarray(samples.dataset.targets)
    elif rest:
        numbers = all(column.dtype.kind in "fiub" for column in together)
        arrays["targets"] = np.stack(together, 1) if numbers else samples.dataset.targets[:, rest]
        arrays["target_names"] = np.array([name for name in columns if name not in arrays])
    return arrays


def _labels(samples: Samples, name: str, coded: dict[str, Any] | None) -> dict[str, Values]:
    """Labels as they were: as such, or as places of their names."""
    names, labels = samples.dataset.label_names, samples.dataset.labels
    assert names is not None
    assert labels is not None
    if coded is None and samples.dataset.conversion is not None:
        return {name: _to_numpy(samples.labels)}
    if coded is None:
        return {name: np.asarray(labels), "label_names": np.array(names)}
    places = np.array([coded["names"].index(label) for label in names], coded["type"])
    return {name: places[labels], "label_names": np.array(coded["names"])}


def _to_numpy(column: pa.Array) -> Values:
    """Numbers as such, texts as NumPy has them."""
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist())
    return np.asarray(column.to_numpy(zero_copy_only=False))
