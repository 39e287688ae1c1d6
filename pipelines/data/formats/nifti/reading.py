"""Read NIfTI files as volumes, series of volumes or slices."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.formats.contents import ArrayView, Named, Roles, SourceContents, pixel_kind
from postprior.pipelines.data.formats.nifti.grids import (
    Grid,
    check_same,
    grid_of,
    order_for,
    resampled,
    stated_grid,
)
from postprior.pipelines.data.formats.nifti.headers import packed
from postprior.pipelines.data.formats.nifti.names import Volume, suffix_of, volumes_in
from postprior.pipelines.data.formats.nifti.volumes import opened, space_shape, voxels_of
from postprior.pipelines.data.names import composed
from postprior.pipelines.errors import UserError

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Planes, and the axis (right, anterior, superior) along which their slices are numbered."""
POSITION = 1e-3
"""Positions in mm that differ by less are the same."""


@dataclass(frozen=True)
class Scan:
    """One file on the grid of its modality: its voxels (X, Y, Z) or (X, Y, Z, T), and its header as text."""

    volume: Volume
    voxels: Values
    grid: Grid
    header: str
    how: str | None
    """How the voxels were brought onto the grid; None if they are as in the file."""


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read one source per modality; its rows are volumes, or their slices if `roles.slices` names a plane.

    A slice with one constant value is missing.
    """
    files, volumes = volumes_in(path), dict[str, list[Volume]]()
    for volume in files:
        volumes.setdefault(volume.modality, []).append(volume)
    skipped = tuple(name for name in map(composed, volumes) if name in roles.skip)
    volumes = {name: files for name, files in volumes.items() if composed(name) not in skipped}
    if not volumes:
        raise UserError(f"{path}: all modalities are left out, expected at least one; remove a --skip")
    samples = {volume.sample for files in volumes.values() for volume in files}
    subjects = {volume.subject for files in volumes.values() for volume in files}
    cut = roles.slices is not None or roles.series == "rows"
    several = len(subjects) > 1 and (cut or len(samples) > len(subjects))
    contents = [_modality(name, files, roles, several and roles.group is None) for name, files in volumes.items()]
    notes = contents[0].notes
    if any(volume.pattern for volume in files):
        notes = (f"{path.name}: one folder per sample found; the names of its files are the modalities", *notes)
    return [replace(contents[0], skipped=skipped, notes=notes), *contents[1:]]


def _modality(name: str, volumes: list[Volume], roles: Roles, grouped: bool) -> SourceContents:
    """Read the volumes of one modality, which are on one grid apart from their position, and their headers."""
    shown, first = composed(name), opened(volumes[0].path)
    scans = list(_on_one_grid(volumes, first, roles, order_for(name, roles.kinds.get(shown))))
    notes = [f"{name}: {note}" for note in _notes(scans, roles)]
    headers = {scan.volume.sample: scan.header for scan in scans}
    affines = {scan.volume.sample: scan.grid.affine.tolist() for scan in scans}
    samples, groups = [v.sample for v in volumes], [v.subject for v in volumes]
    rows = roles.series == "rows" and any(scan.voxels.ndim == 4 for scan in scans)
    if rows:
        samples, groups, array = _as_rows(scans)
    else:
        array = np.stack([scan.voxels for scan in scans])
    affine = affines[volumes[0].sample]
    facts: dict[str, Any] = {
        "source": "nifti",
        "modality": name,
        "folder": volumes[0].folder,
        "affine": affine,
        "affines": affines if any(other != affine for other in affines.values()) else {},
        "codes": [int(first.header["qform_code"]), int(first.header["sform_code"])],
        "units": list(first.header.get_xyzt_units()),
        "volume": list(array.shape[1:]),
        "axis": None,
        "suffix": suffix_of(volumes[0].path),
        "header": scans[0].header,
        "headers": {sample: header for sample, header in headers.items() if header != scans[0].header},
        **({"pattern": volumes[0].pattern} if volumes[0].pattern else {}),
        **({"series": "rows"} if rows else {}),
    }
    axes, empty = "DHW", None
    if roles.slices is not None:
        axes, axis = "HW", _axis(scans[0].grid.affine, roles.slices)
        facts["axis"], count = axis, array.shape[1 + axis]
        array = np.moveaxis(array, 1 + axis, 1).reshape(-1, *np.delete(array.shape[1:], axis))
        samples = [f"{sample}_slice-{number:03}" for sample in samples for number in range(count)]
        groups = [group for group in groups for _ in range(count)]
        empty, background = _constant(array)
        if empty.any():
            facts |= _background(background[empty], [samples[row] for row in np.flatnonzero(empty)])
    axes += "C" * (array.ndim - 1 - len(axes))
    view = ArrayView(shown, array, axes, pixel_kind(name, shown, array, axes, roles.kinds), facts, empty)
    group: Named | None = ("subject", pa.chunked_array([groups])) if grouped else None
    ids = None, pa.chunked_array([samples])
    return SourceContents(name, len(samples), (view,), ids=ids, group=group, notes=tuple(notes))


def _on_one_grid(volumes: list[Volume], first: Any, roles: Roles, order: int) -> Iterable[Scan]:
    """Yield the scans of a modality on the grid of the first one, or on the grid that --resample states.

    Another order or direction of axes is turned without a change of values. Any other difference except in position is
    refused, unless volumes are resampled.
    """
    own = grid_of(first, volumes[0].path)
    target = own if roles.resample is None else stated_grid(roles.resample, own)
    length = space_shape(first)[3:]
    for volume in volumes:
        image = opened(volume.path)
        found, voxels, how = grid_of(image, volume.path), voxels_of(volume.path, image, roles.nan_is_missing), None
        if voxels.shape[3:] != length and roles.series != "rows":
            lengths = [shape[0] if shape else 1 for shape in (voxels.shape[3:], length)]
            expected = f"expected {lengths[1]} as in {volumes[0].path.name}"
            raise UserError(f"{volume.path}: {lengths[0]} volumes found, {expected}; add --series rows")
        grid, header = found, packed(image)
        if roles.resample is not None and not _identical(found, target):
            voxels, grid = resampled(voxels, found, target, order), target
            how = f"resampled to the grid of {target.name} ({('nearest voxel', 'linear interpolation')[order]})"
            header = packed(image, target.affine)
        elif found.orientation != target.orientation:
            from nibabel.orientations import apply_orientation

            turn = found.turn_to(target)
            voxels, grid = np.ascontiguousarray(apply_orientation(voxels, turn)), found.turned(turn)
            how = f"turned from {found.orientation} to {target.orientation} as in {target.name}, and back on export"
        check_same(volume.path, grid, target)
        yield Scan(volume, voxels, grid, header, how)


def _identical(grid: Grid, other: Grid) -> bool:
    return grid.shape == other.shape and np.allclose(grid.affine, other.affine, rtol=0, atol=POSITION)


def _notes(scans: list[Scan], roles: Roles) -> Iterable[str]:
    """Yield what a user should know about the grids and axes of a modality."""
    for how in dict.fromkeys(scan.how for scan in scans if scan.how):
        yield f"{sum(scan.how == how for scan in scans)} of {len(scans)} files {how}"
    places = np.array([scan.grid.affine[:3, 3] for scan in scans])
    if (apart := np.ptp(places, axis=0).max()) > POSITION:
        yield f"positions differ by up to {apart:.3g} mm, which is kept; --resample first puts all on one grid"
    if (tilt := scans[0].grid.tilt) > np.degrees(POSITION):
        cut = "; slices follow the axes of the voxels" if roles.slices is not None else ""
        yield f"oblique, {tilt:.2g}° from the axes of the scanner{cut}"
    if (length := scans[0].voxels.shape[3:]) and roles.series != "rows":
        yield f"files of {length[0]} volumes are read as {length[0]} channels; --series rows makes each volume a row"
    if roles.nan_is_missing and (share := np.mean([np.isnan(scan.voxels).mean() for scan in scans])):
        yield f"NaN, read as missing: {share:.1%} of all voxels"


def _as_rows(scans: list[Scan]) -> tuple[list[str], list[str], Values]:
    """Return the names, subjects and voxels (n, X, Y, Z) of all volumes of all series."""
    series = [np.moveaxis(scan.voxels.reshape(*scan.voxels.shape[:3], -1), 3, 0) for scan in scans]
    pairs = [(scan.volume, t) for scan, volumes in zip(scans, series, strict=True) for t in range(len(volumes))]
    names = [f"{volume.sample}_volume-{t:04}" for volume, t in pairs]
    return names, [volume.subject for volume, _ in pairs], np.concatenate(series)


def _axis(affine: Values, plane: str) -> int:
    """Return the voxel axis along which the slices of a plane are numbered."""
    from nibabel.orientations import io_orientation

    if plane not in PLANES:
        raise UserError(f"--slices: '{plane}' found, expected one of {', '.join(PLANES)}; correct the plane")
    return int(np.flatnonzero(io_orientation(affine)[:, 0] == PLANES[plane])[0])


def _constant(slices: Values) -> tuple[Values, Values]:
    """Return which slices (n, …) have one value throughout, and so show nothing, and the first value of each."""
    flat = slices.reshape(len(slices), -1)
    same = np.asarray(flat.min(1) == flat.max(1))
    return (same | np.isnan(flat).all(1) if flat.dtype.kind == "f" else same), flat[:, 0]


def _background(values: Values, slices: list[str]) -> dict[str, Any]:
    """Return the most frequent value of constant slices, and by slice the values that differ from it; NaN as text."""
    distinct, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    listed = [value.item() if value == value else "nan" for value in distinct]
    most = counts.argmax()
    others = {name: listed[place] for name, place in zip(slices, places, strict=True) if place != most}
    return {"background": listed[most], "backgrounds": others}
