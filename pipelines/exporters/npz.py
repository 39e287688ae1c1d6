"""NumPy archives, as `pipelines.importers.npz` reads them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.conversion import ArrayConversion, Conversion
from pipelines.exporters.samples import Samples
from pipelines.storage import write_bytes


def write_npz(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """One archive a file that the modalities came from, each with all that is known of the samples."""
    files = dict.fromkeys(conversion.facts["file"] for conversion in conversions)
    for file in files:
        chosen = [c for c in conversions if isinstance(c, ArrayConversion) and c.facts["file"] == file]
        arrays = {conversion.name: samples.array(conversion) for conversion in chosen} | _roles(samples)
        order = [m.name for m in samples.dataset.modalities]
        if samples.dataset.mask is not None:
            arrays["mask"] = samples.dataset.mask[:, [order.index(conversion.name) for conversion in chosen]]
        content = io.BytesIO()
        np.savez_compressed(content, allow_pickle=False, **arrays)
        write_bytes(folder / file, content.getvalue())


def _roles(samples: Samples) -> dict[str, Any]:
    """The arrays of an archive that are no modality."""
    dataset, known = samples.dataset, samples.dataset.conversion or {}
    arrays: dict[str, Any] = {
        "ids": samples.ids.to_numpy(zero_copy_only=False).astype(_text_or_int(dataset.ids))
    }
    if dataset.labels is not None and dataset.label_names is not None:
        arrays |= {"labels": np.asarray(dataset.labels), "label_names": np.array(dataset.label_names)}
    if dataset.groups is not None:
        arrays["groups"] = np.asarray(dataset.groups)
    if dataset.targets is not None:
        arrays["targets"] = np.asarray(dataset.targets)
        if names := [entry["name"] for entry in known.get("targets", ())]:
            arrays["target_names"] = np.array(names)
    return arrays


def _text_or_int(ids: Any) -> Any:
    return np.int64 if ids is None or ids.dtype.kind in "iu" else np.str_
