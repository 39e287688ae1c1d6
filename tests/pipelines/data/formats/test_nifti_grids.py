"""Volumes on several grids, series of volumes, and headers that come back; nibabel itself is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data

nibabel = pytest.importorskip("nibabel")
SPLITS = ("train", "validation", "test")
N, SHAPE, SHARES = 18, (5, 6, 4), (0.2, 0.2)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2.5, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]])
TURNED = np.array([[0, 0, 2.0, -7], [0, -2.5, 0, 3], [3, 0, 0, 8], [0, 0, 0, 1]])
RNG = np.random.default_rng(0)


def write(path: Path, voxels: Any, affine: np.ndarray = AFFINE, kind: Any = nibabel.Nifti1Image, **fields: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(voxels, affine, dtype=voxels.dtype)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    """Return the values of the first modality in all splits by id."""
    datasets = [Dataset.load(folder / split) for split in SPLITS]
    return {i: x for d in datasets for i, x in zip(d.ids, d.data[d.modalities[0].name], strict=True)}  # type: ignore[arg-type]


def exported(folder: Path, out: Path, pattern: str) -> dict[str, Path]:
    for split in SPLITS:
        export(folder / split, out / split)
    return {path.name: path for path in out.rglob(pattern)}


def test_volumes_in_another_orientation_are_turned_exactly_and_back(tmp_path: Path) -> None:
    for row in range(N):
        shape, affine = (SHAPE[::-1], TURNED) if row % 3 == 1 else (SHAPE, AFFINE)
        write(tmp_path / f"in/T1/{row:02}.nii.gz", RNG.integers(0, 256, shape).astype(np.uint8), affine)
    lines = import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    assert "T1: 6 of 18 files turned from SPR to LAS as in 00.nii.gz, and back on export" in lines
    for name, values in rows_of(tmp_path / "data").items():
        image = nibabel.load(tmp_path / f"in/T1/{name}.nii.gz")
        canonical = np.asanyarray(nibabel.as_closest_canonical(image).dataobj)  # RAS, which is LAS with x reversed
        np.testing.assert_array_equal(values[0] * 255, canonical[::-1])
    for name, path in exported(tmp_path / "data", tmp_path / "out", "*.nii.gz").items():
        assert nibabel.load(path).header.binaryblock == nibabel.load(tmp_path / "in/T1" / name).header.binaryblock
        np.testing.assert_array_equal(
            np.asanyarray(nibabel.load(path).dataobj), np.asanyarray(nibabel.load(tmp_path / "in/T1" / name).dataobj)
        )


@pytest.mark.parametrize("where", ["first", "file", "4"])
def test_volumes_are_resampled_to_one_grid(tmp_path: Path, where: str) -> None:
    from nibabel.processing import resample_from_to, resample_to_output

    for row in range(N):
        moved = np.diag([-2.0, 2.5, 3 - (row % 2), 1])
        write(tmp_path / f"in/T1/{row:02}.nii.gz", 5 + RNG.random((5, 6, 4 + row % 3)).astype(np.float32), moved)
    write(tmp_path / "grid.nii", np.zeros((3, 4, 5)), np.diag([-3.0, 3, 3, 1]))
    option = str(tmp_path / "grid.nii") if where == "file" else where
    lines = import_data([tmp_path / "in"], tmp_path / "data", Roles(resample=option), SHARES)
    grid = {"first": "00.nii.gz", "file": "grid.nii", "4": "voxels of 4 mm"}[where]
    count = {"first": 15, "file": 18, "4": 18}[where]
    assert f"T1: {count} of 18 files resampled to the grid of {grid} (linear interpolation)" in lines
    first = nibabel.load(tmp_path / "in/T1/00.nii.gz")
    back = exported(tmp_path / "data", tmp_path / "out", "*.nii.gz")
    assert len(back) == N
    for name, path in back.items():
        original, found = nibabel.load(tmp_path / "in/T1" / name), nibabel.load(path)
        target = {"first": first, "file": nibabel.load(tmp_path / "grid.nii")}.get(where)
        if target is None:
            target = resample_to_output(first, 4)
            np.testing.assert_allclose(found.header.get_zooms(), 4)
        else:
            assert found.shape == target.shape
            np.testing.assert_allclose(found.affine, target.affine)
        target = found.shape, found.affine
        outside = float(np.asanyarray(original.dataobj).flat[0])
        expected = np.asanyarray(resample_from_to(original, target, 1, cval=outside).dataobj)
        np.testing.assert_array_equal(np.asanyarray(found.dataobj), expected)


@pytest.mark.parametrize(
    ("series", "shape", "vector"),
    [("channels", (7, *SHAPE), False), ("rows", (1, *SHAPE), False), ("channels", (7, *SHAPE), True)],
)
def test_volumes_of_a_series_are_channels_or_rows(
    tmp_path: Path, series: str, shape: tuple[int, ...], vector: bool
) -> None:
    """The fifth axis of NIfTI has the parts of a vector; its fourth axis then has length 1."""
    voxels = RNG.integers(0, 99, (N, *SHAPE, 7)).astype(np.int16)
    for row in range(N):
        write(
            tmp_path / f"in/sub-{row:02}_bold.nii.gz",
            voxels[row, :, :, :, None] if vector else voxels[row],
            xyzt_units=10,
        )
    lines = import_data([tmp_path / "in"], tmp_path / "data", Roles(series=series), SHARES)
    train = Dataset.load(tmp_path / "data/train")
    assert (train.modalities[0].kind, train.modalities[0].shape) == ("volume", shape)
    if series == "channels":
        assert "bold: files of 7 volumes are read as 7 channels; --series rows makes each volume a row" in lines
    else:
        assert "subjects (subject): 18; each synthetic row is a subject of its own, drawn independently" in lines
        assert set(train.groups) == {i.split("_")[0] for i in train.ids}  # type: ignore[arg-type, union-attr]
        assert len(rows_of(tmp_path / "data")) == N * 7
    back = exported(tmp_path / "data", tmp_path / "out", "*.nii.gz")
    assert len(back) == N
    for name, path in back.items():
        found, row = nibabel.load(path), int(name[4:6])
        assert found.header.get_xyzt_units() == ("mm", "sec")
        np.testing.assert_array_equal(np.asanyarray(found.dataobj).reshape(*SHAPE, 7), voxels[row])
        assert found.header.binaryblock == nibabel.load(tmp_path / "in" / name).header.binaryblock


def test_slices_of_a_series_become_series_again(tmp_path: Path) -> None:
    voxels = RNG.integers(1, 99, (N, *SHAPE, 3)).astype(np.int16)
    voxels[:, :, 0] = 0
    for row in range(N):
        write(tmp_path / f"in/dwi/{row:02}.nii", voxels[row])
    for series, shape in (("rows", (1, 5, 4)), ("channels", (3, 5, 4))):
        folder = tmp_path / f"data-{series}"
        import_data([tmp_path / "in"], folder, Roles(slices="coronal", series=series), SHARES)
        assert Dataset.load(folder / "train").modalities[0].shape == shape
        back = exported(folder, tmp_path / f"out-{series}", "*.nii")
        assert len(back) == N
        for name, path in back.items():
            np.testing.assert_array_equal(np.asanyarray(nibabel.load(path).dataobj), voxels[int(name[:2])])


def test_voxels_that_are_nan_are_missing_on_request(tmp_path: Path) -> None:
    voxels = RNG.random((N, *SHAPE)).astype(np.float32)
    voxels[:, 0], voxels[:, :, 1, 2] = np.nan, np.nan
    for row in range(N):
        write(tmp_path / f"in/T1/{row:02}.nii", voxels[row])
    for plane in (None, "sagittal"):
        folder = tmp_path / f"data-{plane}"
        lines = import_data([tmp_path / "in"], folder, Roles(nan_is_missing=True, slices=plane), SHARES)
        assert "T1: NaN, read as missing: 23.3% of all voxels" in lines  # 24 and 4 of 120
        for name, path in exported(folder, tmp_path / f"out-{plane}", "*.nii").items():
            np.testing.assert_array_equal(np.asanyarray(nibabel.load(path).dataobj), voxels[int(name[:2])])
    observed = Dataset.load(tmp_path / "data-None/train").cells["T1"][0, 0]
    np.testing.assert_array_equal(observed, ~np.isnan(voxels[0]))


def test_stored_numbers_and_headers_come_back(tmp_path: Path) -> None:
    """Slopes that differ between files, both forms of an affine, pairs of files, big-endian files and NIfTI-2."""
    q, s = np.diag([2.0, 2.5, 3, 1]), AFFINE @ np.diag([1, 1, 1.0001, 1])
    for row in range(N):
        numbers = RNG.integers(-999, 999, SHAPE).astype(np.int16)
        header = nibabel.Nifti1Header(endianness=">")
        header.set_data_dtype(np.int16)
        big = nibabel.Nifti1Image(numbers, AFFINE, header)
        pair, two = nibabel.Nifti1Pair(numbers, AFFINE), nibabel.Nifti2Image(numbers, AFFINE)
        one = nibabel.Nifti1Image(numbers, AFFINE)
        one.set_qform(q @ np.diag([-1, 1, 1, 1]), 1)
        one.set_sform(s, 4)
        one.header["descrip"] = b"Jane Doe"
        one.header["intent_code"], one.header["cal_max"] = 5, 7
        for name, image in (("one", one), ("big", big), ("pair", pair), ("two", two)):
            image.header.set_slope_inter(0.1 + row, -row) if name != "two" else None
            path = tmp_path / f"in/{name}/{row:02}{'.img' if name == 'pair' else '.nii'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            nibabel.save(image, path)
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / "out" / split)
    found = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(found) == 5 * N
    for path in found:
        original = (tmp_path / "in" / path.parent.name / path.name).read_bytes()
        assert path.read_bytes() == original.replace(b"Jane Doe", bytes(8)), path


def test_one_folder_per_subject_gives_modalities_by_file_name(tmp_path: Path) -> None:
    before = {}
    for row in range(N):
        for name in (f"BraTS-{row:03}-t1n.nii.gz", f"BraTS-{row:03}-seg.nii.gz"):
            before[name] = RNG.integers(0, 4, SHAPE).astype(np.uint8)
            write(tmp_path / f"in/BraTS-{row:03}/{name}", before[name])
    lines = import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    assert "in: one folder per sample found; the names of its files are the modalities" in lines
    train = Dataset.load(tmp_path / "data/train")
    assert [m.name for m in train.modalities] == ["seg", "t1n"]
    assert train.observed.all()
    back = exported(tmp_path / "data", tmp_path / "out", "*.nii.gz")
    assert back.keys() == before.keys()
    for name, path in back.items():
        assert path.parent.name == name[:9]
        np.testing.assert_array_equal(np.asanyarray(nibabel.load(path).dataobj), before[name])


@pytest.mark.parametrize("name", ["example_nifti2.nii.gz", "anatomical.nii", "functional.nii"])
def test_published_files_come_back(tmp_path: Path, name: str) -> None:
    """Files that come with nibabel; each is one sample of many, for lack of more."""
    source = Path(nibabel.__file__).parent / "tests/data" / name
    suffix = name[name.index(".") :]
    for row in range(16):
        path = tmp_path / f"in/mr/{row:02}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read_bytes())
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), SHARES)
    original = nibabel.load(source)
    for path in exported(tmp_path / "data", tmp_path / "out", f"*{suffix}").values():
        found = nibabel.load(path)
        np.testing.assert_array_equal(np.asanyarray(found.dataobj), np.asanyarray(original.dataobj))
        for field in ("dim", "pixdim", "datatype", "srow_x", "quatern_b", "qform_code", "sform_code", "xyzt_units"):
            np.testing.assert_array_equal(found.header[field], original.header[field])
        assert found.dataobj.slope == original.dataobj.slope
        assert type(found) is type(original)
