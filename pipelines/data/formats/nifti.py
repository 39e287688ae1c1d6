"""NIfTI volumes, as volumes or cut into slices; files are named as in BIDS, or there is one folder per modality.

sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz    sample sub-01_ses-1 of subject sub-01, modality T1w
sub-01/anat/sub-01_acq-fast_T1w.nii          other entities are part of the modality: acq-fast_T1w
T1/0001.nii.gz                               sample 0001, modality T1
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.formats.contents import ArrayView, Named, Roles, SourceContents, pixel_kind
from postprior.pipelines.data.formats.files import files_in, holds, inside, optional
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.names import composed
from postprior.pipelines.errors import UserError, as_user_error

ABOUT = "a folder of .nii or .nii.gz volumes"
FACTS: tuple[str, ...] = ("modality", "folder", "affine", "affines", "codes", "units", "volume", "axis")
OPTIONS: tuple[str, ...] = ("slices",)
SUFFIXES = (".nii", ".nii.gz")
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Planes, and the axis (right, anterior, superior) along which their slices are numbered."""
SLICE = re.compile(r"(?P<sample>.+)_slice-(?P<number>\d+)")
BIDS = re.compile(r"(?P<subject>sub-[A-Za-z0-9]+)(?P<session>_ses-[A-Za-z0-9]+)?_(?P<modality>.+)")


@dataclass(frozen=True)
class Volume:
    """One file; if its name is not a BIDS name, the `subject` is the sample and the `folder` is None."""

    path: Path
    sample: str
    modality: str
    subject: str
    folder: str | None


def recognises(path: Path) -> bool:
    """Whether a path is a folder that contains NIfTI files, at any depth."""
    return holds(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read one source per modality; its rows are volumes, or their slices if `roles.slices` names a plane.

    A slice with one constant value is missing.
    """
    volumes: dict[str, list[Volume]] = {}
    for volume in map(_named, files_in(path, SUFFIXES)):
        volumes.setdefault(volume.modality, []).append(volume)
    skipped = tuple(name for name in map(composed, volumes) if name in roles.skip)
    volumes = {name: files for name, files in volumes.items() if composed(name) not in skipped}
    if not volumes:
        raise UserError(f"{path}: all modalities are left out, expected at least one; remove a --skip")
    samples = {volume.sample for files in volumes.values() for volume in files}
    subjects = {volume.subject for files in volumes.values() for volume in files}
    several = len(subjects) > 1 and (roles.slices is not None or len(samples) > len(subjects))
    contents = [_modality(name, files, roles, several and roles.group is None) for name, files in volumes.items()]
    return [replace(contents[0], skipped=skipped), *contents[1:]]


def _named(path: Path) -> Volume:
    stem = path.name.removesuffix(_suffix(path))
    match = BIDS.fullmatch(stem)
    if match is None:
        return Volume(path, stem, path.parent.name, stem, None)
    subject, session = match["subject"], match["session"] or ""
    folder = "" if path.parent.name.startswith(("sub-", "ses-")) else path.parent.name
    return Volume(path, subject + session, match["modality"], subject, folder)


def _suffix(path: Path) -> str:
    """Return the suffix of a file name, in its original case."""
    return path.name[path.name.lower().rindex(".nii") :]


def _modality(name: str, volumes: list[Volume], roles: Roles, grouped: bool) -> SourceContents:
    """Read the volumes of one modality, which must have one shape and orientation, and their affines."""
    pairs = [(volume, _open(volume.path)) for volume in volumes]
    first = pairs[0][1]
    array = np.stack([_values(volume.path, image, first, volumes[0].path) for volume, image in pairs])
    affines = {volume.sample: image.affine.tolist() for volume, image in pairs}
    affine = first.affine.tolist()
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
        "suffix": _suffix(volumes[0].path),
        "stored": str(first.get_data_dtype().newbyteorder("=")),
    }
    samples = [volume.sample for volume in volumes]
    groups = [volume.subject for volume in volumes]
    axes, empty = "DHW", None
    if roles.slices is not None:
        axes, axis = "HW", _axis(first.affine, roles.slices)
        facts["axis"], count = axis, array.shape[1 + axis]
        array = np.moveaxis(array, 1 + axis, 1).reshape(-1, *np.delete(array.shape[1:], axis))
        samples = [f"{sample}_slice-{number:03}" for sample in samples for number in range(count)]
        groups = [group for group in groups for _ in range(count)]
        flat = array.reshape(len(array), -1)
        empty = np.asarray(flat.min(1) == flat.max(1))  # constant slices show nothing
        if empty.any():
            facts |= _background(flat[empty, 0], [samples[row] for row in np.flatnonzero(empty)])
    shown = composed(name)
    view = ArrayView(shown, array, axes, pixel_kind(name, shown, array, axes, roles.kinds), facts, empty)
    group: Named | None = ("subject", pa.chunked_array([groups])) if grouped else None
    return SourceContents(name, len(samples), (view,), ids=(None, pa.chunked_array([samples])), group=group)


def _open(path: Path) -> Any:
    nibabel = optional("nibabel", "nifti", path)
    with _readable(path):
        image = nibabel.load(path)
    if not np.isfinite(image.affine).all() or np.linalg.matrix_rank(image.affine) < 4:
        expected = "expected a finite affine that is invertible; correct the header"
        raise UserError(f"{path}: an invalid affine found, {expected}")
    return image


def _readable(path: Path) -> AbstractContextManager[None]:
    """Turn an error of reading a broken file into a UserError."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    broken = OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, MemoryError
    return as_user_error(broken, f"{path}: this volume cannot be read", "replace the file or leave it out")


def _values(path: Path, image: Any, first: Any, other: Path) -> np.ndarray:
    """Return the voxels of a volume (X, Y, Z); floats become float32 if this loses no precision.

    A UserError is raised if shape or orientation differ from the `first` image, which was read from the file `other`.
    """
    from nibabel.orientations import aff2axcodes

    for what, describe in (
        ("shape", lambda image: " × ".join(map(str, image.shape))),
        ("orientation", lambda image: "".join(aff2axcodes(image.affine))),
    ):
        if describe(image) != describe(first):
            expected = f"expected {describe(first)} as in {other.name}; register or resample the volume"
            raise UserError(f"{path}: {what} {describe(image)} found, {expected}")
    with _readable(path):
        voxels = np.asanyarray(image.dataobj)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or voxels.dtype.kind not in "fiu":
        remedy = "split a time series into volumes, and colours or complex numbers into channels"
        found = f"{voxels.dtype} of shape {voxels.shape} found"
        raise UserError(f"{path}: {found}, expected real numbers of shape (X, Y, Z); {remedy}")
    if not np.isfinite(voxels).all():
        raise UserError(f"{path}: NaN or infinity found, expected finite numbers; fill the background with 0")
    if voxels.dtype.kind in "iu":
        return voxels
    with np.errstate(over="ignore"):
        single = voxels.astype(np.float32)
    return single if np.array_equal(single, voxels) else voxels


def check_orientation(name: str, affine: Any, expected: Any) -> None:
    """Refuse volumes whose orientation differs from that of the training data."""
    nibabel = optional("nibabel", "nifti", name)
    found, trained = ("".join(nibabel.aff2axcodes(np.array(matrix))) for matrix in (affine, expected))
    if found != trained:
        expected = f"expected {trained} as in the training data; reorient or resample the volumes"
        raise UserError(f"{name}: orientation {found} found, {expected}")


def _axis(affine: np.ndarray, plane: str) -> int:
    """Return the voxel axis along which the slices of a plane are numbered."""
    from nibabel.orientations import io_orientation

    if plane not in PLANES:
        raise UserError(f"--slices: '{plane}' found, expected one of {', '.join(PLANES)}; correct the plane")
    return int(np.flatnonzero(io_orientation(affine)[:, 0] == PLANES[plane])[0])


def _background(values: np.ndarray, slices: list[str]) -> dict[str, Any]:
    """Return the most frequent value of constant slices, and by slice the values that differ from it."""
    distinct, counts = np.unique(values, return_counts=True)
    most_frequent = distinct[counts.argmax()]
    others = {name: value.item() for name, value in zip(slices, values, strict=True) if value != most_frequent}
    return {"background": most_frequent.item(), "backgrounds": others}


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """Write one file per observed sample; slices are assembled into their volume, with constant slices restored."""
    nibabel = optional("nibabel", "nifti", path)
    for conversion in conversions:
        facts = conversion.facts
        for sample, voxels in _volumes(samples, conversion):
            affine = _affine(sample, facts, conversions)
            image = nibabel.Nifti1Image(voxels, affine, dtype=voxels.dtype)
            image.set_qform(affine, facts["codes"][0])
            image.set_sform(affine, facts["codes"][1])
            image.header.set_xyzt_units(*facts["units"])
            stored = np.dtype(facts.get("stored", voxels.dtype))
            if stored.kind == "f" and np.can_cast(voxels.dtype, stored):
                image.set_data_dtype(stored)
            file = _path(path, sample, facts)
            file.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(image, file)


def _volumes(samples: Samples, conversion: ArrayConversion) -> Iterator[tuple[str, Any]]:
    """Yield the name of each observed sample and its voxels (X, Y, Z)."""
    values, axis = samples.array(conversion), conversion.facts["axis"]
    rows = np.flatnonzero(samples.observed({conversion.name}))
    names = [str(samples.ids[row].as_py()) for row in rows]
    if axis is None:
        yield from ((name, values[row]) for name, row in zip(names, rows, strict=True))
        return
    slices_of: dict[str, list[tuple[int, int]]] = {}
    for name, row in zip(names, rows, strict=True):
        match = SLICE.fullmatch(name)
        if match is None:  # a slice that belongs to no volume, such as a synthetic one
            yield name, np.expand_dims(values[row], axis)
        else:
            slices_of.setdefault(match["sample"], []).append((int(match["number"]), int(row)))
    for sample, slices in slices_of.items():
        volume = np.full(conversion.facts["volume"], conversion.facts.get("background", 0), values.dtype)
        along = np.moveaxis(volume, axis, 0)
        for name, value in conversion.facts.get("backgrounds", {}).items():
            if (match := SLICE.fullmatch(name)) and match["sample"] == sample:
                along[int(match["number"])] = value
        numbers, places = np.array(slices).T
        along[numbers] = values[places]
        yield sample, volume


def _affine(sample: str, facts: dict[str, Any], conversions: Sequence[ArrayConversion]) -> Any:
    """Return the affine of a sample: that of its own file, or of another contrast of the sample with this shape."""
    for candidate in (facts, *(conversion.facts for conversion in conversions)):
        if sample in candidate["affines"] and candidate["volume"] == facts["volume"]:
            return np.array(candidate["affines"][sample])
    return np.array(facts["affine"])


def _path(folder: Path, sample: str, facts: dict[str, Any]) -> Path:
    """Return the path of a sample's file, named in the style of the imported files."""
    suffix = facts.get("suffix", ".nii.gz")
    if facts["folder"] is None:
        return inside(folder / facts["modality"], f"{sample}{suffix}")
    name = sample if sample.startswith("sub-") else f"sub-{sample}"
    parts = [part for part in re.split("_(?=ses-)", name) if part]
    home = folder.joinpath(*(inside(folder, part).name for part in parts), facts["folder"])
    return inside(home, f"{name}_{facts['modality']}{suffix}")
