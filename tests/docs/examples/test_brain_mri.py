"""The worked example of brain MRI, with larger voxels and less training."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import nibabel
import numpy as np
import pytest
from support.project import REPOSITORY

SCRIPT = REPOSITORY / "docs/examples/brain_mri.py"
PREDICTORS = ["MHVAE", "mean slice", "nearest slice", "interpolation", "voxelwise"]


def scores(printed: str) -> dict[str, dict[str, list[float]]]:
    """Parse the table: task → method → PSNR, SSIM, L1."""
    found: dict[str, dict[str, list[float]]] = {}
    last = ""
    for line in printed.splitlines():
        if line.startswith("| ") and not line.startswith("| task"):
            task, name, *values = (cell.strip() for cell in line.strip("|").split("|"))
            last = task or last
            found.setdefault(last, {})[name] = [float(value) for value in values]
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("nilearn") is None, reason="nilearn, which carries the volumes, is not installed")
def test_held_out_slices_are_synthesised_and_scans_are_restored(tmp_path: Path) -> None:
    page = SCRIPT.with_suffix(".md").read_bytes()
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--epochs", "120", "--voxel", "6"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = scores(run.stdout)
    assert len(found) == 4
    for task, of in found.items():
        assert list(of) == PREDICTORS
        ours, mean = of["MHVAE"], of["mean slice"]
        assert ours[0] > mean[0] + 1, task  # decibels
        assert ours[1] > mean[1] + 0.1, task
        assert ours[2] < 0.8 * mean[2], task
    assert "Affines, units, types and all observed voxels: unchanged." in run.stdout
    for name in ("T1", "grey", "white"):
        before = nibabel.load(tmp_path / f"scans/sub-mni152/sub-mni152_{name}.nii.gz")
        after = nibabel.load(tmp_path / f"T1-from-grey/filled/sub-mni152/sub-mni152_{name}.nii.gz")
        np.testing.assert_array_equal(after.affine, before.affine)
        assert after.shape == before.shape
    blank = np.asanyarray(nibabel.load(tmp_path / "T1-from-grey/scans/sub-mni152/sub-mni152_T1.nii.gz").dataobj)
    filled = np.asanyarray(nibabel.load(tmp_path / "T1-from-grey/filled/sub-mni152/sub-mni152_T1.nii.gz").dataobj)
    place = np.arange(blank.shape[2]) % 31  # 15 slices for training, 3 for validation, 10 for test, 3 for validation
    slab = (place >= 18) & (place < 28)
    assert not blank[..., slab].any()
    given = np.asanyarray(nibabel.load(tmp_path / "scans/sub-mni152/sub-mni152_grey.nii.gz").dataobj)
    shows = given.any(axis=(0, 1))  # slices above the head show nothing
    assert (slab & shows).sum() > 40
    assert filled[..., slab & shows].any(axis=(0, 1)).all()
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"slices.png", "volume.png"}
    assert SCRIPT.with_suffix(".md").read_bytes() == page
