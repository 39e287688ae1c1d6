"""Grids of voxels: their orientation, size and position, and volumes that are brought onto one grid."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.data.formats.nifti.volumes import opened
from postprior.pipelines.errors import UserError

SAME = 1e-3
"""Directions (of unit length) and relative voxel sizes that differ by less are the same."""
NEAREST = ("mask", "dseg", "seg", "label", "labels", "roi")
"""Last parts of the names of modalities whose values are not interpolated when they are resampled."""


@dataclass(frozen=True)
class Grid:
    """A grid of voxels: its shape (X, Y, Z) and its affine (4, 4); `name` is the file that it was taken from."""

    shape: tuple[int, ...]
    affine: Values
    name: str

    @property
    def sizes(self) -> Values:
        """(3,), the lengths of the edges of a voxel in mm."""
        return np.asarray(np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def directions(self) -> Values:
        """(3, 3), the directions of the axes of the grid as columns of length 1."""
        return np.asarray(self.affine[:3, :3] / self.sizes)

    @property
    def orientation(self) -> str:
        """Where the axes point, such as RAS."""
        from nibabel.orientations import aff2axcodes

        return "".join(aff2axcodes(self.affine))

    @property
    def tilt(self) -> float:
        """The greatest angle, in degrees, between an axis of the grid and the nearest axis of the scanner."""
        return float(np.degrees(np.arccos(np.clip(np.abs(self.directions).max(0).min(), 0, 1))))

    def turn_to(self, other: "Grid") -> Values:
        """Return the exchange and reversal of axes that gives this grid the orientation of another, (3, 2)."""
        from nibabel.orientations import io_orientation, ornt_transform

        return np.asarray(ornt_transform(io_orientation(self.affine), io_orientation(other.affine)))

    def turned(self, turn: Values) -> "Grid":
        """Return the grid after an exchange and reversal of axes."""
        from nibabel.orientations import inv_ornt_aff

        shape = np.empty(3, int)
        shape[turn[:, 0].astype(int)] = self.shape
        return Grid(tuple(shape.tolist()), self.affine @ inv_ornt_aff(turn, self.shape), self.name)

    def difference(self, other: "Grid") -> tuple[str, str, str] | None:
        """Return in what this grid is not another one, and both values, apart from its position; None if nothing is."""
        for what, shown in (("shape", _product(self.shape)), ("voxel size", _product(self.sizes, " mm"))):
            expected = _product(other.shape) if what == "shape" else _product(other.sizes, " mm")
            same = self.shape == other.shape if what == "shape" else np.allclose(self.sizes, other.sizes, rtol=SAME)
            if not same:
                return what, shown, expected
        if not np.allclose(self.directions, other.directions, atol=SAME):
            turn = self.directions.T @ other.directions
            angle = np.degrees(np.arccos(np.clip(np.diag(turn).min(), -1, 1)))
            return "direction", f"axes at {angle:.1f}° to the others", "parallel axes"
        return None


def _product(lengths: Iterable[float], unit: str = "") -> str:
    return " × ".join(f"{length:.4g}" for length in lengths) + unit


def grid_of(image: Any, path: Path) -> Grid:
    """Return the grid of an image."""
    return Grid(tuple(image.shape[:3]), np.asarray(image.affine, np.float64), path.name)


def check_same(path: Path, grid: Grid, first: Grid) -> None:
    """Refuse a volume whose grid differs in more than its position from that of the first volume."""
    if (found := grid.difference(first)) is not None:
        what, value, expected = found
        remedy = "add --resample first, or resample or register the volume"
        raise UserError(f"{path}: {what} {value} found, expected {expected} as in {first.name}; {remedy}")


def check_grid(name: str, affine: Any, expected: Any) -> None:
    """Refuse volumes whose orientation or voxel size differs from that of the training data."""
    optional("nibabel", "nifti", name)
    found, trained = (Grid((), np.array(matrix), "") for matrix in (affine, expected))
    if found.orientation != trained.orientation:
        pair = f"orientation {found.orientation} found, expected {trained.orientation}"
    elif (difference := found.difference(trained)) is not None:
        pair = f"{difference[0]} {difference[1]} found, expected {difference[2]}"
    else:
        return
    raise UserError(f"{name}: {pair} as in the training data; add --resample with the path of a training volume")


def stated_grid(option: str, first: Grid) -> Grid:
    """Return the grid that --resample states: `first`, a file, or the length in mm of the edges of a voxel."""
    if option == "first":
        return first
    if option.replace(".", "", 1).isdigit() and float(option) > 0:
        from nibabel.spaces import vox2out_vox

        shape, affine = vox2out_vox((first.shape, first.affine), (float(option),) * 3)
        return Grid(tuple(int(length) for length in shape), affine, f"voxels of {option} mm")
    path = Path(option)
    if not path.is_file():
        expected = "expected first, the path of a NIfTI volume or a voxel size in mm such as 2"
        raise UserError(f"--resample: '{option}' found, {expected}; correct the option")
    return grid_of(opened(path), path)


def order_for(name: str, kind: str | None) -> int:
    """Return the order of interpolation of a modality: 0, the nearest voxel, for masks and labels; else 1, linear."""
    return 0 if kind in ("boolean", "count") or name.lower().split("_")[-1] in NEAREST else 1


def resampled(voxels: Values, grid: Grid, target: Grid, order: int) -> Values:
    """Interpolate voxels (X, Y, Z, …) on another grid; voxels outside of their own have the value of the first."""
    from nibabel import Nifti1Image
    from nibabel.processing import resample_from_to

    image = Nifti1Image(voxels, grid.affine, dtype=voxels.dtype)
    places = (*target.shape, *voxels.shape[3:]), target.affine
    return np.asarray(resample_from_to(image, places, order, cval=voxels.flat[0]).dataobj)
