"""Open NIfTI files and read their voxels."""

import zlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.errors import UserError, as_user_error


def opened(path: Path) -> Any:
    """Open a volume (X, Y, Z) or series of volumes (X, Y, Z, T) of real numbers; its voxels are not read yet."""
    nibabel = optional("nibabel", "nifti", path)
    with _readable(path):
        image = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Pair):
        expected = "expected NIfTI-1 or NIfTI-2 with voxels; convert the file"
        raise UserError(f"{path}: {type(image).__name__.removesuffix('Image')} found, {expected}")
    if not np.isfinite(image.affine).all() or np.linalg.matrix_rank(image.affine) < 4:
        expected = "expected a finite affine that is invertible; correct the header"
        raise UserError(f"{path}: an invalid affine found, {expected}")
    kind, shape = image.get_data_dtype(), image.shape
    if kind.kind not in "fiu" or kind.itemsize > 8:
        what = "colours" if kind.names else str(kind)
        expected = "expected real numbers of up to 64 bits; write one file per channel or part"
        raise UserError(f"{path}: {what} of shape {_product(shape)} found, {expected}")
    if len(shape) < 3 or len(space_shape(image)) > 4 or 0 in shape:
        expected = "expected a volume (X, Y, Z) or a series of volumes (X, Y, Z, T)"
        raise UserError(f"{path}: shape {_product(shape)} found, {expected}; split the file, or add or remove axes")
    return image


def _product(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def space_shape(image: Any) -> tuple[int, ...]:
    """Return the shape (X, Y, Z) or (X, Y, Z, T) of an image, without axes of length 1 after Z."""
    return tuple(image.shape[:3]) + tuple(length for length in image.shape[3:] if length > 1)


def voxels_of(path: Path, image: Any, missing: bool) -> Values:
    """Return the voxels (X, Y, Z) or (X, Y, Z, T); floats become float32 if this loses no precision.

    A UserError is raised if there is infinity, or NaN unless it means `missing`.
    """
    with _readable(path):
        voxels = np.asanyarray(image.dataobj).reshape(space_shape(image))
        voxels = voxels.astype(voxels.dtype.newbyteorder("="), copy=False)
    if voxels.dtype.kind in "iu":
        return voxels
    if np.isinf(voxels).any():
        raise UserError(f"{path}: infinity found, expected finite numbers; correct the voxels")
    if not missing and (share := np.isnan(voxels).mean()):
        expected = "expected numbers; add --nan-is-missing if these voxels are missing, or fill them with 0"
        raise UserError(f"{path}: NaN found in {share:.1%} of all voxels, {expected}")
    with np.errstate(over="ignore"):
        single = voxels.astype(np.float32)
    return single if np.array_equal(single, voxels, equal_nan=True) else voxels


def _readable(path: Path) -> AbstractContextManager[None]:
    """Turn an error of reading a broken file into a UserError."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    broken = OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, MemoryError
    return as_user_error(broken, f"{path}: this volume cannot be read", "replace the file or leave it out")
