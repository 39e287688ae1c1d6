"""Import and export of volumes: BIDS names, slices and affines."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from support.importing import refused

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

nibabel = pytest.importorskip("nibabel")
SPLITS = ("train", "validation", "test")
N = 32
SHARES = (0.2, 0.2)
SHAPE = (5, 6, 4)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2.5, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])


def shifted(row: int) -> np.ndarray:
    """Return the affine of a subject; every third has another position."""
    affine = AFFINE.copy()
    affine[0, 3] += row % 3 == 0
    return affine


def scans(folder: Path) -> dict[str, np.ndarray]:
    """Write T1w and FLAIR of subjects with two sessions each; FLAIR has integers, and every fourth is missing."""
    rng = np.random.default_rng(0)
    found = {
        "T1w": rng.random((N, *SHAPE)).astype(np.float32) * 900,
        "acq-fast_FLAIR": rng.integers(-5, 900, (N, *SHAPE)).astype(np.int16),
    }
    for name, voxels in found.items():
        for row in range(N):
            if name == "T1w" or row % 4:
                subject, session = f"sub-{row // 2:02}", f"ses-{row % 2}"
                path = folder / subject / session / "anat" / f"{subject}_{session}_{name}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                image = nibabel.Nifti1Image(voxels[row], shifted(row))
                image.header.set_xyzt_units("mm", "sec")
                nibabel.save(image, path)
    return found


def files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.nii.gz")}


def test_volumes_are_restored_with_their_affines(tmp_path: Path) -> None:
    voxels = scans(tmp_path / "in")
    (tmp_path / "in/participants.tsv").write_text(
        "participant_id\tage\nsub-00\t3\n"
    )  # not requested, so it is not read
    text = "\n".join(import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES))
    assert "subjects (subject): 16" in text
    splits = {split: Dataset.load(tmp_path / "data" / split) for split in SPLITS}
    assert [(m.name, m.kind, m.shape) for m in splits["train"].modalities] == [
        ("T1w", "volume", (1, *SHAPE)),
        ("acq-fast_FLAIR", "volume", (1, *SHAPE)),
    ]
    assert sum(int((~dataset.observed[:, 1]).sum()) for dataset in splits.values()) == N // 4
    subjects = [{i.split("_")[0] for i in dataset.ids} for dataset in splits.values()]  # type: ignore[union-attr]
    assert sum(map(len, subjects)) == N // 2
    original, back = files(tmp_path / "in"), {}
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / "back" / split)
        back |= files(tmp_path / "back" / split)
    assert back.keys() == original.keys()
    for name, path in back.items():
        found, expected = nibabel.load(path), nibabel.load(original[name])
        np.testing.assert_array_equal(found.affine, expected.affine)
        assert found.header.get_xyzt_units() == expected.header.get_xyzt_units()
        assert found.header.get_data_dtype() == expected.header.get_data_dtype()
        for code in ("qform_code", "sform_code"):
            assert found.header[code] == expected.header[code]
        np.testing.assert_array_equal(np.asanyarray(found.dataobj), np.asanyarray(expected.dataobj))
    assert voxels["T1w"].max() > 800


@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_slices_become_volumes_again(tmp_path: Path, plane: str, axis: int) -> None:
    """Voxels are stored as (anterior, inferior, left): the affine determines the planes, not the order of axes."""
    rng = np.random.default_rng(0)
    turned = np.array([[0, 0, -2.0, 0], [2, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1]])
    stored = {0: 2, 1: 0, 2: 1}[axis]
    volumes = rng.integers(1, 99, (12, *SHAPE)).astype(np.int16)
    np.moveaxis(volumes, 1 + stored, 1)[:, 1] = 0  # constant slices
    (tmp_path / "in/T1").mkdir(parents=True)
    for row, volume in enumerate(volumes):
        nibabel.save(nibabel.Nifti1Image(volume, turned), tmp_path / f"in/T1/{row}.nii")
    import_data([tmp_path / "in"], tmp_path / "data", Roles(slices=plane), SHARES)
    seen = 0
    for split in SPLITS:
        dataset = Dataset.load(tmp_path / "data" / split)
        (modality,) = dataset.modalities
        assert (modality.kind, modality.shape[1:]) == ("image", tuple(np.delete(SHAPE, stored)))
        seen += len(dataset)
        assert export(tmp_path / "data" / split, tmp_path / "back" / split) == ["T1"]
        for path in (tmp_path / "back" / split / "T1").iterdir():
            image = nibabel.load(path)
            np.testing.assert_array_equal(np.asanyarray(image.dataobj), volumes[int(path.name.split(".")[0])])
            np.testing.assert_array_equal(image.affine, turned)
    assert seen == 12 * (SHAPE[stored] - 1)


def test_synthetic_volumes_and_slices_have_names_and_an_affine(tmp_path: Path) -> None:
    scans(tmp_path / "in")
    for name, slices, shape in (("whole", None, SHAPE), ("cut", "axial", (*SHAPE[:2], 1))):
        import_data([tmp_path / "in"], tmp_path / name, Roles(slices=slices), SHARES)
        rows = Dataset.load(tmp_path / name / "validation").select(np.arange(3))
        made = replace(rows, ids=None, groups=None, mask=None)
        made.save(tmp_path / f"{name}-made")
        export(tmp_path / f"{name}-made", tmp_path / f"{name}-back")
        image = nibabel.load(tmp_path / f"{name}-back/sub-2/anat/sub-2_T1w.nii.gz")
        assert image.shape == shape
        np.testing.assert_array_equal(image.affine, shifted(0))


def test_volumes_are_joined_with_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("T1", "CT"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for row in range(N):
            nibabel.save(nibabel.Nifti1Image(rng.random(SHAPE), AFFINE), tmp_path / f"in/{name}/{row:02}.nii.gz")
    table = pa.table({"scan": [f"{row:02}" for row in range(N)], "sex": ["f", "m"] * (N // 2)})
    csv.write_csv(table, tmp_path / "people.csv")
    import_data([tmp_path / "in", tmp_path / "people.csv"], tmp_path / "data", Roles(id="scan", label="sex"), SHARES)
    train = Dataset.load(tmp_path / "data/train")
    assert [m.name for m in train.modalities] == ["CT", "T1"]
    assert train.label_names == ("f", "m")


def test_subjects_stay_in_one_split_whichever_modality_they_lack(tmp_path: Path) -> None:
    scans(tmp_path / "in")
    (tmp_path / "in/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz").unlink()
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    sides = [set(Dataset.load(tmp_path / "data" / split).groups) for split in SPLITS]  # type: ignore[arg-type]
    assert sum(map(len, sides)) == len(set.union(*sides)) == N // 2


def save(path: Path, voxels: Any, affine: np.ndarray = AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(np.asarray(voxels), affine), path)


def oblique(degrees: float) -> np.ndarray:
    """Return an affine whose axes are turned about the third axis."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return turn @ AFFINE


def broken(content: bytes) -> bytes:
    return content[:200] + bytes(255 - byte for byte in content[200:])


def flat(content: bytes) -> bytes:
    """Set the rows of the affine to zero: three rows of four numbers at byte 280 of the header."""
    header = bytearray(gzip.decompress(content))
    header[280:328] = bytes(48)
    return gzip.compress(bytes(header))


def giant() -> bytes:
    """Return the header of a volume of 70 terabytes: byte 40 has the number of axes and their lengths."""
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), AFFINE)
    content = bytearray(image.to_bytes())
    content[40:56] = np.array([3, 32767, 32767, 32767, 1, 1, 1, 1], "<i2").tobytes()
    return gzip.compress(bytes(content))


ODD = "sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "another shape": (
        lambda folder: save(folder / ODD, np.zeros((5, 6, 7))),
        r"sub-01_ses-1_T1w\.nii\.gz: shape 5 × 6 × 7 found, expected 5 × 6 × 4 as in sub-00_ses-0_T1w",
    ),
    "another voxel size": (
        lambda folder: save(folder / ODD, np.zeros(SHAPE), np.diag([-2, 2.5, 2, 1])),
        "sub-01_ses-1_T1w.* voxel size 2 × 2.5 × 2 mm found, expected 2 × 2.5 × 3 mm as in .*; add --resample first",
    ),
    "other directions": (
        lambda folder: save(folder / ODD, np.zeros(SHAPE), oblique(10)),
        "sub-01_ses-1_T1w.* direction axes at 10.0° to the others found, expected parallel axes",
    ),
    "colours": (
        lambda folder: save(folder / ODD, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "sub-01_ses-1_T1w.* colours of shape 5 × 6 × 4 found, expected real numbers",
    ),
    "complex numbers": (
        lambda folder: save(folder / ODD, np.zeros(SHAPE, np.complex64)),
        "sub-01_ses-1_T1w.* complex64 of shape 5 × 6 × 4 found, expected real numbers",
    ),
    "one axis": (
        lambda folder: save(folder / ODD, np.zeros(5)),
        r"shape 5 found, expected a volume \(X, Y, Z\) or a series",
    ),
    "two axes": (
        lambda folder: save(folder / ODD, np.zeros((5, 6))),
        r"shape 5 × 6 found, expected a volume \(X, Y, Z\) or a series",
    ),
    "five axes": (
        lambda folder: save(folder / ODD, np.zeros((*SHAPE, 2, 3))),
        r"shape 5 × 6 × 4 × 2 × 3 found, expected a volume \(X, Y, Z\) or a series",
    ),
    "a series among volumes": (
        lambda folder: save(folder / ODD, np.zeros((*SHAPE, 2))),
        "sub-01_ses-1_T1w.* 2 volumes found, expected 1 as in sub-00_ses-0_T1w.*; add --series rows",
    ),
    "no image beside its header": (
        lambda folder: (folder / "sub-01/ses-1/anat/sub-01_ses-1_T2w.hdr").write_bytes(b"x" * 400),
        "sub-01_ses-1_T2w.hdr: this volume cannot be read",
    ),
    "NaN": (
        lambda folder: save(folder / ODD, np.full(SHAPE, np.nan)),
        "sub-01_ses-1_T1w.*NaN found in 100.0% of all voxels, expected numbers; add --nan-is-missing",
    ),
    "infinity": (
        lambda folder: save(folder / ODD, np.full(SHAPE, np.inf)),
        "sub-01_ses-1_T1w.*infinity found, expected finite numbers",
    ),
    "no volume": (lambda folder: (folder / ODD).write_bytes(b"x" * 400), "sub-01_ses-1_T1w.* cannot be read"),
    "half a volume": (
        lambda folder: (folder / ODD).write_bytes((folder / ODD).read_bytes()[:200]) and None,
        "sub-01_ses-1_T1w.* cannot be read",
    ),
    "a broken stream": (
        lambda folder: (folder / ODD).write_bytes(broken((folder / ODD).read_bytes())) and None,
        "sub-01_ses-1_T1w.* cannot be read",
    ),
    "no affine": (
        lambda folder: (folder / ODD).write_bytes(flat((folder / ODD).read_bytes())) and None,
        "sub-01_ses-1_T1w.* an invalid affine found",
    ),
    "more voxels than the memory holds": (
        lambda folder: (folder / "sub-00/ses-0/anat/sub-00_ses-0_T1w.nii.gz").write_bytes(giant()) and None,
        "sub-00_ses-0_T1w.* cannot be read",
    ),
    "one value throughout": (
        lambda folder: [save(path, np.zeros(SHAPE)) for path in files(folder).values() if "T1w" in path.name] and None,
        r"T1w: all values are 0 in the training rows, .*\(--skip T1w\)",
    ),
    "a link that leads out": (
        lambda folder: (folder / "sub-99_T1w.nii.gz").symlink_to("/etc/hostname"),
        "sub-99_T1w.* leads out of",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_invalid_volumes_are_refused(tmp_path: Path, case: str) -> None:
    scans(tmp_path / "in")
    spoil, sentence = SPOILED[case]
    spoil(tmp_path / "in")
    refused(tmp_path / "in", tmp_path / "data", sentence, Roles())


def test_stored_types_and_names_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in/T1").mkdir(parents=True)
    (tmp_path / "in/CT").mkdir()
    for row in range(N):
        save(tmp_path / f"in/T1/{row}.nii", rng.normal(size=SHAPE))
        save(tmp_path / f"in/CT/{row}.nii.gz", rng.integers(0, 99, SHAPE).astype(np.int16))
    (tmp_path / "in/T1/._0.nii").write_bytes(b"Mac OS")
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    export(tmp_path / "data/test", tmp_path / "back")
    for name, stored, suffix in (("T1", np.float64, ".nii"), ("CT", np.int16, ".nii.gz")):
        paths = list((tmp_path / "back" / name).iterdir())
        assert len(paths) == len(Dataset.load(tmp_path / "data/test"))
        for path in paths:
            assert path.name == path.name.split(".")[0] + suffix
            assert nibabel.load(path).get_data_dtype() == stored
    import_data([tmp_path / "in"], tmp_path / "one", Roles(skip=("CT",)), SHARES)
    assert [m.name for m in Dataset.load(tmp_path / "one/test").modalities] == ["T1"]
    refused(tmp_path / "in", tmp_path / "none", "all modalities are left out", Roles(skip=("CT", "T1")))


def test_slopes_doubles_and_large_numbers_are_restored(tmp_path: Path) -> None:
    rng, before = np.random.default_rng(0), {}
    for row in range(N):
        for name, voxels, kind in (
            ("slope", rng.normal(300, 90, SHAPE), "int16"),
            ("doubles", rng.normal(size=SHAPE), "float64"),
            ("large", rng.integers(0, 2**31, SHAPE).astype(np.int32), "int32"),
            ("unit", rng.random(SHAPE).astype(np.float32), "float32"),
        ):
            image = nibabel.Nifti1Image(voxels, AFFINE)
            image.set_data_dtype(kind)
            path = tmp_path / f"in/{name}/{row:02}.nii"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(image, path)
            before[name, path.name] = np.asanyarray(nibabel.load(path).dataobj)
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    kept = {path.name for path in (tmp_path / "data/train").glob("*.source.*")}
    assert kept == {"slope.source.npy", "doubles.source.npy", "large.source.npy"}
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / "out" / split)
    after = {(path.parent.name, path.name): path for path in (tmp_path / "out").rglob("*.nii")}
    assert after.keys() == before.keys()
    for key, path in after.items():
        found = np.asanyarray(nibabel.load(path).dataobj)
        assert found.dtype == before[key].dtype
        assert found.tobytes() == before[key].tobytes(), key


def test_constant_slices_are_restored_with_their_value(tmp_path: Path) -> None:
    """Air has −1024 in a CT scan, not 0; constant slices with other values are restored too."""
    rng, before = np.random.default_rng(0), {}
    (tmp_path / "in/CT").mkdir(parents=True)
    for row in range(N):
        voxels = rng.integers(-1024, 900, SHAPE).astype(np.int16)
        voxels[..., :2], voxels[..., 3] = -1024, row
        before[f"{row:02}.nii"] = voxels
        save(tmp_path / f"in/CT/{row:02}.nii", voxels)
    import_data([tmp_path / "in"], tmp_path / "data", Roles(slices="axial"), SHARES)
    rows = 0
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / "out" / split)
        for path in (tmp_path / "out" / split).rglob("*.nii"):
            np.testing.assert_array_equal(np.asanyarray(nibabel.load(path).dataobj), before[path.name])
            rows += 1
    assert rows == N


def test_an_unknown_plane_is_refused(tmp_path: Path) -> None:
    scans(tmp_path / "in")
    with pytest.raises(UserError, match="--slices: 'flat' found, expected one of sagittal, coronal, axial"):
        import_data([tmp_path / "in"], tmp_path / "data", Roles(slices="flat"))


def test_a_missing_package_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    scans(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        UserError, match=r"needs nibabel, which is not installed; install it with: pip install 'postprior\[nifti\]'"
    ):
        import_data([tmp_path / "in"], tmp_path / "data", Roles())
