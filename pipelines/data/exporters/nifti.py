"""NIfTI volumes under the names that they came with, affines kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.conversion import ArrayConversion, Conversion
from postprior.pipelines.data.exporters.images import inside
from postprior.pipelines.data.exporters.samples import Samples
from postprior.pipelines.data.importers.extras import optional

SLICE = re.compile(r"(?P<sample>.+)_slice-(?P<number>\d+)")


def write_nifti(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """A file for each sample that has the modality; slices of one volume go into one file, beside those left out."""
    nibabel = optional("nibabel", "nifti", folder)
    for conversion in conversions:
        assert isinstance(conversion, ArrayConversion)
        facts = conversion.facts
        for sample, voxels in _volumes(samples, conversion):
            affine = _affine(sample, facts, conversions)
            image = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
            for form, code in zip((image.set_qform, image.set_sform), facts["codes"], strict=True):
                form(affine, code)
            image.header.set_xyzt_units(*facts["units"])
            stored = np.dtype(facts.get("stored", voxels.dtype))
            if stored.kind == "f" and np.can_cast(voxels.dtype, stored):
                image.set_data_dtype(stored)
            path = _path(folder, sample, facts)
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(image, path)


def _volumes(samples: Samples, conversion: ArrayConversion) -> Iterator[tuple[str, Any]]:
    """The samples of a modality with their voxels (X, Y, Z)."""
    values, axis = samples.array(conversion), conversion.facts["axis"]
    rows = np.flatnonzero(samples.observed({conversion.name}))
    names = [str(samples.ids[row].as_py()) for row in rows]
    if axis is None:
        yield from ((name, values[row]) for name, row in zip(names, rows, strict=True))
        return
    parts: dict[str, list[tuple[int, int]]] = {}
    for name, row in zip(names, rows, strict=True):
        match = SLICE.fullmatch(name)
        if match is None:  # a slice that was never part of a volume
            yield name, np.expand_dims(values[row], axis)
        else:
            parts.setdefault(match["sample"], []).append((int(match["number"]), int(row)))
    for sample, slices in parts.items():
        volume = np.full(conversion.facts["volume"], conversion.facts.get("background", 0), values.dtype)
        along = np.moveaxis(volume, axis, 0)
        for name, value in conversion.facts.get("backgrounds", {}).items():
            if (match := SLICE.fullmatch(name)) and match["sample"] == sample:
                along[int(match["number"])] = value
        numbers, places = np.array(slices).T
        along[numbers] = values[places]
        yield sample, volume


def _affine(sample: str, facts: dict[str, Any], conversions: Sequence[Conversion]) -> Any:
    """Where a sample lies: as its own file says, or as its other contrasts of this shape do."""
    for of in (facts, *(conversion.facts for conversion in conversions)):
        if sample in of["affines"] and of["volume"] == facts["volume"]:
            return np.array(of["affines"][sample])
    return np.array(facts["affine"])


def _path(folder: Path, sample: str, facts: dict[str, Any]) -> Path:
    """The file of a sample, named as those that were imported."""
    suffix = facts.get("suffix", ".nii.gz")
    if facts["folder"] is None:
        return inside(folder / facts["modality"], f"{sample}{suffix}")
    name = sample if sample.startswith("sub-") else f"sub-{sample}"
    parts = [part for part in re.split("_(?=ses-)", name) if part]
    home = folder.joinpath(*(inside(folder, part).name for part in parts), facts["folder"])
    return inside(home, f"{name}_{facts['modality']}{suffix}")
