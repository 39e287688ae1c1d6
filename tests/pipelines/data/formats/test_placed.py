"""Scans for a trained model keep their affines."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

SHAPE = (5, 6, 4)
SHARES = (0.2, 0.2)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)


def scans(folder: Path, names: list[str], rows: int, affine: np.ndarray, depth: int = 4) -> None:
    rng = np.random.default_rng(rows)
    for name in names:
        for row in range(rows):
            shifted = affine + np.array([[0, 0, 0, row], [0] * 4, [0] * 4, [0] * 4])
            save(
                folder / name / f"{row:02}.nii.gz",
                rng.integers(1, 99, (5, 6, depth)).astype(np.uint8),
                shifted,
            )


@pytest.mark.parametrize("slices", [None, "axial"])
def test_scans_for_a_trained_model_keep_their_affines(tmp_path: Path, slices: str | None) -> None:
    """A missing contrast gets the affine of the observed contrasts, regardless of the training data's affine."""
    roles = Roles(slices=slices)
    scans(tmp_path / "in", ["T1", "T2"], 30, np.eye(4))
    import_data([tmp_path / "in"], tmp_path / "data", roles, SHARES)
    trained = Dataset.load(tmp_path / "data/train")
    moved = np.eye(4)
    moved[:2, 3] = 9, -5
    scans(tmp_path / "new", ["T1"], 3, moved, 4 if slices is None else 7)
    import_rows([tmp_path / "new"], tmp_path / "rows", roles, tmp_path / "data")
    rows = conformed(Dataset.load(tmp_path / "rows"), trained.modalities, trained.conversion)
    replace(rows, mask=None, folder=None).save(tmp_path / "filled")  # as if T2 had been imputed
    export(tmp_path / "filled", tmp_path / "back")
    for name in ("T1", "T2"):
        for row in range(3):
            expected = nibabel.load(tmp_path / f"new/T1/{row:02}.nii.gz")
            found = nibabel.load(tmp_path / f"back/{name}/{row:02}.nii.gz")
            np.testing.assert_array_equal(found.affine, expected.affine)
            assert found.shape == expected.shape
            if name == "T1":
                np.testing.assert_array_equal(np.asanyarray(found.dataobj), np.asanyarray(expected.dataobj))


def test_a_missing_contrast_gets_the_affine_of_the_other_contrasts(tmp_path: Path) -> None:
    scans(tmp_path / "in", ["T1", "T2"], 30, np.eye(4))
    for row in range(0, 30, 3):
        (tmp_path / f"in/T2/{row:02}.nii.gz").unlink()
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    train = Dataset.load(tmp_path / "data/train")
    replace(train, mask=None, folder=None).save(tmp_path / "filled")
    export(tmp_path / "filled", tmp_path / "back")
    for name in ("T1", "T2"):
        for path in (tmp_path / "back" / name).iterdir():
            assert nibabel.load(path).affine[0, 3] == int(path.name[:2])


def test_scans_of_another_orientation_are_refused(tmp_path: Path) -> None:
    scans(tmp_path / "in", ["T1"], 30, np.eye(4))
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    scans(tmp_path / "new", ["T1"], 3, np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(UserError, match="T1: orientation LAS found, expected RAS as in the training data"):
        import_rows([tmp_path / "new"], tmp_path / "rows", Roles(), tmp_path / "data")


def test_scans_with_other_voxels_are_refused_or_resampled(tmp_path: Path) -> None:
    scans(tmp_path / "in", ["T1"], 30, np.eye(4))
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    scans(tmp_path / "new", ["T1"], 3, np.diag([2.0, 2, 2, 1]))
    with pytest.raises(UserError, match="T1: voxel size 2 × 2 × 2 mm found, expected 1 × 1 × 1 mm as in the training"):
        import_rows([tmp_path / "new"], tmp_path / "rows", Roles(), tmp_path / "data")
    onto = Roles(resample=str(tmp_path / "in/T1/00.nii.gz"))
    import_rows([tmp_path / "new"], tmp_path / "rows", onto, tmp_path / "data")
    export(tmp_path / "rows", tmp_path / "back")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "back/T1/01.nii.gz").affine, np.eye(4))
