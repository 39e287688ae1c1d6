"""NIfTI volumes, whole or as slices: names as in BIDS, or one folder a modality.

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
from postprior.pipelines.data.formats.contents import ArrayView, Found, Named, Roles, pixel_kind, safe_name
from postprior.pipelines.data.formats.files import files_in, holds, inside, optional
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError, as_user_error

ABOUT = "a folder of .nii or .nii.gz volumes"
FACTS: tuple[str, ...] = ("modality", "folder", "affine", "affines", "codes", "units", "volume", "axis")
SUFFIXES = (".nii", ".nii.gz")
PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Planes and the axis of a volume, turned to right, anterior, superior, that their slices are numbered along."""
SLICE = re.compile(r"(?P<sample>.+)_slice-(?P<number>\d+)")
BIDS = re.compile(r"(?P<subject>sub-[A-Za-z0-9]+)(?P<session>_ses-[A-Za-z0-9]+)?_(?P<modality>.+)")


@dataclass(frozen=True)
class Volume:
    """One file; where names are not as in BIDS, the `subject` is the sample and the `folder` None."""

    path: Path
    sample: str
    modality: str
    subject: str
    folder: str | None


def recognises(path: Path) -> bool:
    """Whether a path is a folder that holds NIfTI files, at any depth."""
    return holds(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[Found]:
    """One modality a source, its rows volumes, or with `roles.slices` all slices of them that are not constant."""
    volumes: dict[str, list[Volume]] = {}
    for volume in map(_named, files_in(path, SUFFIXES)):
        volumes.setdefault(volume.modality, []).append(volume)
    skipped = tuple(name for name in map(safe_name, volumes) if name in roles.skip)
    volumes = {name: found for name, found in volumes.items() if safe_name(name) not in skipped}
    if not volumes:
        raise UserError(f"{path}: all modalities are left out, expected one at least; take a --skip away")
    samples = {volume.sample for found in volumes.values() for volume in found}
    subjects = {volume.subject for found in volumes.values() for volume in found}
    several = len(subjects) > 1 and (roles.slices is not None or len(samples) > len(subjects))
    read = [_modality(name, found, roles, several and roles.group is None) for name, found in volumes.items()]
    return [replace(read[0], skipped=skipped), *read[1:]]


def _named(path: Path) -> Volume:
    stem = path.name.removesuffix(_suffix(path))
    match = BIDS.fullmatch(stem)
    if match is None:
        return Volume(path, stem, path.parent.name, stem, None)
    subject, session = match["subject"], match["session"] or ""
    folder = "" if path.parent.name.startswith(("sub-", "ses-")) else path.parent.name
    return Volume(path, subject + session, match["modality"], subject, folder)


def _suffix(path: Path) -> str:
    """The end of a file's name, as it is written there."""
    return path.name[path.name.lower().rindex(".nii") :]


def _modality(name: str, volumes: list[Volume], roles: Roles, grouped: bool) -> Found:
    """The volumes of one modality, which have one shape and orientation, with their affines."""
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
        empty = np.asarray(flat.min(1) == flat.max(1))  # slices that show nothing
        if empty.any():
            facts |= _background(flat[empty, 0], [samples[row] for row in np.flatnonzero(empty)])
    safe = safe_name(name)
    view = ArrayView(safe, array, axes, pixel_kind(name, safe, array, axes, roles.kinds), facts, empty)
    group: Named | None = ("subject", pa.chunked_array([groups])) if grouped else None
    return Found(name, len(samples), (view,), ids=(None, pa.chunked_array([samples])), group=group)


def _open(path: Path) -> Any:
    nibabel = optional("nibabel", "nifti", path)
    with _readable(path):
        image = nibabel.load(path)
    if not np.isfinite(image.affine).all() or np.linalg.matrix_rank(image.affine) < 4:
        raise UserError(f"{path}: an affine that no volume can have was found; correct the header")
    return image


def _readable(path: Path) -> AbstractContextManager[None]:
    """A UserError for whatever is wrong with a file that is read inside."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    broken = OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, MemoryError
    return as_user_error(broken, f"{path}: this volume cannot be read", "replace it or leave it out")


def _values(path: Path, image: Any, first: Any, other: Path) -> np.ndarray:
    """The voxels of a volume (X, Y, Z), whole numbers as they are, others float32 if it holds them all."""
    from nibabel.orientations import aff2axcodes

    for what, of in (
        ("shape", lambda image: " × ".join(map(str, image.shape))),
        ("orientation", lambda image: "".join(aff2axcodes(image.affine))),
    ):
        if of(image) != of(first):
            expected = f"expected {of(first)} as in {other.name}; register or resample it"
            raise UserError(f"{path}: {what} {of(image)} found, {expected}")
    with _readable(path):
        voxels = np.asanyarray(image.dataobj)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3 or voxels.dtype.kind not in "fiu":
        remedy = "split a series by time, colours and complex numbers by channel"
        raise UserError(f"{path}: {voxels.dtype} {voxels.shape} found, expected numbers (X, Y, Z); {remedy}")
    if not np.isfinite(voxels).all():
        raise UserError(f"{path}: NaN or infinity found, expected finite numbers; fill the background with 0")
    if voxels.dtype.kind in "iu":
        return voxels
    with np.errstate(over="ignore"):
        single = voxels.astype(np.float32)
    return single if np.array_equal(single, voxels) else voxels


def check_orientation(name: str, affine: Any, expected: Any) -> None:
    """Refuse volumes whose axes run in other directions than those of the training data."""
    nibabel = optional("nibabel", "nifti", name)
    found, known = ("".join(nibabel.aff2axcodes(np.array(of))) for of in (affine, expected))
    if found != known:
        expected = f"expected {known} as in the training data; reorient or resample it"
        raise UserError(f"{name}: orientation {found} found, {expected}")


def _axis(affine: np.ndarray, plane: str) -> int:
    """The axis of the voxels along which slices of a plane are numbered."""
    from nibabel.orientations import io_orientation

    if plane not in PLANES:
        raise UserError(f"--slices: found '{plane}', expected one of {', '.join(PLANES)}")
    return int(np.flatnonzero(io_orientation(affine)[:, 0] == PLANES[plane])[0])


def _background(values: np.ndarray, slices: list[str]) -> dict[str, Any]:
    """The value of slices that show nothing, and those of the slices that have another."""
    found, counts = np.unique(values, return_counts=True)
    usual = found[counts.argmax()]
    others = {name: value.item() for name, value in zip(slices, values, strict=True) if value != usual}
    return {"background": usual.item(), "backgrounds": others}


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """A file for each sample that has the modality; slices of one volume go into one file, beside those left out."""
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


def _affine(sample: str, facts: dict[str, Any], conversions: Sequence[ArrayConversion]) -> Any:
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
