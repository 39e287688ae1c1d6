"""Write NIfTI files: slices and volumes of a series are put together again, and headers are restored."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.data.formats.nifti.grids import Grid
from postprior.pipelines.data.formats.nifti.headers import header_of, stored
from postprior.pipelines.data.formats.nifti.names import path_of
from postprior.pipelines.data.formats.samples import Samples


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """Write one file per observed sample; slices are assembled into their volume, with constant slices restored."""
    nibabel = optional("nibabel", "nifti", path)
    for conversion in conversions:
        facts = conversion.facts
        for sample, voxels in _whole(_volumes(samples, conversion), facts, path):
            file = path_of(path, sample, facts)
            file.parent.mkdir(parents=True, exist_ok=True)
            base = _base(sample, facts)
            nibabel.save(_image(voxels, base, facts, _affine(base, facts, conversions), file), file)


def _image(voxels: Values, sample: str, facts: dict[str, Any], affine: Values, path: Path) -> Any:
    """Return the image of a sample: as its file had it if its header is known, else with the affine of the grid."""
    from nibabel.orientations import apply_orientation

    kind, header = header_of(facts, sample, path)
    own, grid = Grid(tuple(header.get_data_shape()[:3]), header.get_best_affine(), ""), Grid((), affine, "")
    known = len(own.shape) == 3 and np.allclose(own.turned(own.turn_to(grid)).affine, affine, rtol=0, atol=1e-4)
    if known:
        voxels = apply_orientation(voxels, grid.turn_to(own))
    if voxels.shape[3:] and len(header.get_data_shape()) == 5:
        voxels = voxels[:, :, :, None]
    numbers, scaling = stored(voxels, header)
    image = kind(numbers, None if known else affine, header, dtype=numbers.dtype)
    if not known:
        image.set_qform(affine, facts["codes"][0])
        image.set_sform(affine, facts["codes"][1])
    image.header.set_slope_inter(*scaling)
    return image


def _volumes(samples: Samples, conversion: ArrayConversion) -> Iterator[tuple[str, Values]]:
    """Yield the name of each observed sample and its voxels (X, Y, Z) or (X, Y, Z, T)."""
    values, axis = samples.array(conversion), conversion.facts["axis"]
    rows = np.flatnonzero(samples.observed({conversion.name}))
    names = [str(samples.ids[row].as_py()) for row in rows]
    if axis is None:
        yield from ((name, values[row]) for name, row in zip(names, rows, strict=True))
        return
    slices_of: dict[str, list[tuple[int, int]]] = {}
    for name, row in zip(names, rows, strict=True):
        sample, mark, number = name.rpartition("_slice-")
        if mark and number.isdigit():
            slices_of.setdefault(sample, []).append((int(number), int(row)))
        else:  # a slice that belongs to no volume, such as a synthetic one
            yield name, np.expand_dims(values[row], axis)
    backgrounds: dict[str, dict[int, Any]] = {}
    for name, value in conversion.facts.get("backgrounds", {}).items():
        sample, _, number = name.rpartition("_slice-")
        backgrounds.setdefault(sample, {})[int(number)] = value
    for sample, slices in slices_of.items():
        volume = np.empty(conversion.facts["volume"], values.dtype)
        volume[:] = conversion.facts.get("background", 0)
        along = np.moveaxis(volume, axis, 0)
        for place, value in backgrounds.get(sample, {}).items():
            along[place] = value
        numbers, places = np.array(slices).T
        along[numbers] = values[places]
        yield sample, volume


def _base(sample: str, facts: dict[str, Any]) -> str:
    """Return the series that a volume was a part of; the sample itself if it is not a part of a series."""
    base, mark, number = sample.rpartition("_volume-")
    return base if facts.get("series") == "rows" and mark and number.isdigit() else sample


def _whole(volumes: Iterable[tuple[str, Values]], facts: dict[str, Any], path: Path) -> Iterator[tuple[str, Values]]:
    """Yield series in place of their volumes if all of them are there, and other volumes as they are."""
    series: dict[str, dict[str, Values]] = {}
    for name, voxels in volumes:
        if (base := _base(name, facts)) == name:
            yield name, voxels
        else:
            series.setdefault(base, {})[name] = voxels
    for sample, parts in series.items():
        shape = header_of(facts, sample, path)[1].get_data_shape()
        if len(parts) == (shape[-1] if len(shape) > 3 else 1):
            whole = np.stack([parts[name] for name in sorted(parts)], 3)
            yield sample, whole if len(shape) > 3 else whole[..., 0]
        else:
            yield from parts.items()


def _affine(sample: str, facts: dict[str, Any], conversions: Sequence[ArrayConversion]) -> Values:
    """Return the affine of a sample: that of its own file, or of another contrast of the sample with this shape."""
    for candidate in (facts, *(conversion.facts for conversion in conversions)):
        if sample in candidate["affines"] and candidate["volume"] == facts["volume"]:
            return np.array(candidate["affines"][sample])
    return np.array(facts["affine"])
