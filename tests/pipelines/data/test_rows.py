"""Rows that are stored in little space are read as the dense rows, bit for bit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array

from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.decoded import emptied
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.rows import PARTS, Scale, ScaledIntegers, SparseRows, load_rows, save_rows
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality

RNG = np.random.default_rng(0)
DENSE = np.where(RNG.random((50, 9)) < 0.2, RNG.integers(1, 300, (50, 9)), 0).astype(np.float32)
SPARSE = SparseRows.compressed([DENSE[:20], DENSE[20:]], 9)
INDICES: dict[str, Any] = {
    "one": 7,
    "the last": -1,
    "a slice": slice(3, 11),
    "an empty slice": slice(11, 3),
    "every third": slice(40, 2, -3),
    "beyond the end": slice(45, 99),
    "indices": np.array([4, 4, -2, 0]),
    "no indices": np.zeros(0, int),
    "a mask": np.arange(50) % 3 == 0,
    "columns": (np.array([5, 2]), slice(1, 4)),
    "one column": (slice(None), 3),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_sparse_rows_are_indexed_like_the_dense_ones(index: Any) -> None:
    found = SPARSE[index]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, DENSE[index])


def test_sparse_rows_take_the_smallest_type() -> None:
    assert SPARSE.data.dtype == np.uint16
    assert SparseRows.compressed([DENSE / 2], 9).data.dtype == np.float32
    np.testing.assert_array_equal(SparseRows.compressed([DENSE[:20], DENSE[20:] / 2], 9)[20:], DENSE[20:] / 2)


def test_entries_of_a_matrix_that_are_stored_twice_are_added() -> None:
    matrix = csr_array((np.array([1.0, 2, 5]), np.array([3, 3, 0]), np.array([0, 2, 3])), shape=(2, 4))
    np.testing.assert_array_equal(SparseRows.of(matrix)[:], coo_array(matrix).toarray())
    assert matrix.nnz == 3


SCALES = {
    "bytes": (np.uint8, Scale(scale=255)),
    "words": (np.uint16, Scale(offset=37, scale=41007)),
    "signed words with outliers": (np.int16, Scale(offset=-1024, scale=3071, bound=2)),
}


@pytest.mark.parametrize(("dtype", "scale"), SCALES.values(), ids=SCALES)
def test_integers_are_scaled_in_double_precision(dtype: Any, scale: Scale) -> None:
    """Every integer of the type becomes x = (v − offset) / scale, rounded once."""
    every = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 2)
    expected = np.clip((every.astype(float) - scale.offset) / scale.scale, -scale.bound, scale.bound)
    rows = ScaledIntegers(every, scale)
    for index in (slice(None), np.array([5, 0, -1]), 3):
        assert rows[index].tobytes() == expected[index].astype(np.float32).tobytes()
    assert rows.ends == (np.float32(expected.min()), np.float32(expected.max()))
    assert Scale.from_description(scale.describe()) == scale


BROKEN: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "a column beyond the last": (".indices", lambda array: array + 1, "a column beyond 8 found, expected 0 to 8"),
    "columns out of order": (".indices", lambda array: np.zeros_like(array), "columns out of order found"),
    "fewer values": (".data", lambda array: array[:-1], "found other ends of rows than those of"),
    "rows that end before they begin": (".indptr", lambda array: array[[0, 2, 1, *range(3, 51)]], "compressed rows"),
    "a matrix of values": (".data", lambda array: array[:, None], r"type uint16 of shape \(\d+, 1\) found"),
}


@pytest.mark.parametrize(("part", "change", "sentence"), BROKEN.values(), ids=BROKEN)
def test_broken_sparse_rows_are_refused(
    part: str, change: Callable[[np.ndarray], np.ndarray], sentence: str, tmp_path: Path
) -> None:
    save_rows(tmp_path, "genes", SPARSE)
    np.testing.assert_array_equal(load_rows(tmp_path, "genes", 9, np.float32), DENSE)
    path = tmp_path / f"genes{part}.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(UserError, match=rf"genes\.\w+\.npy: .*{sentence}"):
        load_rows(tmp_path, "genes", 9)


def counts(rows: int = 80, columns: int = 120) -> np.ndarray:
    """Rare counts, at least one in each row and in each column."""
    rng = np.random.default_rng(1)
    some = rng.poisson(2, (rows, columns)) * (rng.random((rows, columns)) < 0.03)
    return (some + np.eye(rows, columns) + np.eye(rows, columns, rows)).astype(np.float32)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    """Bytes, words and counts: a folder that import wrote, and the arrays of its sources, by name."""
    h5py = pytest.importorskip("h5py")
    root, rng = tmp_path_factory.mktemp("stored"), np.random.default_rng(2)
    arrays = {
        "photo": rng.integers(0, 256, (80, 5, 6, 3)).astype(np.uint8),
        "scan": rng.integers(90, 4000, (80, 4, 4)).astype(np.uint16),
        "cells": counts(),
    }
    arrays["photo"][0, 0] = [[0, 255, 7]] * 6
    with h5py.File(root / "cells.h5ad", "w") as file:
        matrix = csr_array(arrays["cells"])
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": matrix.shape})
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        for name, size in zip(("obs", "var"), matrix.shape, strict=True):
            frame = file.create_group(name)
            frame.attrs.update({"_index": "index", "column-order": []})
            frame["index"] = np.array([f"{number:03}" for number in range(size)], "S3")
    ids = np.array([f"{number:03}" for number in range(80)])
    present = np.arange(80) % 10 > 0
    np.savez(root / "pictures.npz", ids=ids[present], photo=arrays["photo"][present], scan=arrays["scan"][present])
    sources = [root / "cells.h5ad", root / "pictures.npz"]
    import_data(sources, root / "data", Roles(id="ids"))
    return root / "data", arrays


def test_a_folder_keeps_integers_and_sparse_counts(imported: tuple[Path, dict[str, np.ndarray]]) -> None:
    folder, arrays = imported
    files = {file.name for file in (folder / "train").glob("*.npy")}
    assert files == {"photo.npy", "scan.npy", *(f"cells{part}.npy" for part in PARTS), "mask.npy", "ids.npy"}
    for name in ("photo", "scan"):
        assert np.load(folder / f"train/{name}.npy").dtype == arrays[name].dtype
    for split in SPLITS:
        data = Dataset.load(folder / split)
        places = data.ids.astype(int)  # type: ignore[union-attr]
        present = (places % 10 > 0).reshape(-1, 1, 1, 1)
        photo = np.where(present, arrays["photo"][places].transpose(0, 3, 1, 2) / 255, 0).astype(np.float32)
        assert np.asarray(data.data["photo"]).tobytes() == photo.tobytes()
        entry = data.conversion["modalities"]["scan"]  # type: ignore[index]
        scan = np.where(present[..., 0], (arrays["scan"][places] - entry["offset"]) / entry["scale"], 0)
        assert np.asarray(data.data["scan"]).tobytes() == scan.astype(np.float32).tobytes()
        assert np.asarray(data.data["cells"]).tobytes() == arrays["cells"][places].tobytes()
        rows = RNG.permutation(len(data))[:5]
        batch, some = data.batch(rows), data.select(rows)
        for name, values in batch.data.items():
            np.testing.assert_array_equal(values.numpy(), np.asarray(data.data[name])[rows])
            np.testing.assert_array_equal(values.numpy(), some.data[name])


def test_a_selection_is_saved_as_it_is_stored(imported: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    data = Dataset.load(imported[0] / "train")
    data.select(np.arange(20)).save(tmp_path / "few")
    few = Dataset.load(tmp_path / "few")
    assert {name: type(rows) for name, rows in few.data.items()} == {n: type(rows) for n, rows in data.data.items()}
    for name, rows in few.data.items():
        np.testing.assert_array_equal(rows, data.data[name][:20])
    replace(few, data={name: np.asarray(rows) for name, rows in few.data.items()}).save(tmp_path / "few")
    assert not list((tmp_path / "few").glob("*.indptr.npy"))  # the files of the earlier form are gone
    dense = Dataset.load(tmp_path / "few")
    for name, rows in few.data.items():
        assert isinstance(dense.data[name], np.ndarray)
        np.testing.assert_array_equal(rows, dense.data[name])


def test_a_folder_comes_back_as_its_files(imported: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    folder, arrays = imported
    places = np.load(folder / "test/ids.npy").astype(int)
    export(folder / "test", tmp_path / "out")
    with np.load(tmp_path / "out/pictures.npz") as written:
        there = written["mask"].all(1)
        present = written["ids"][there].astype(int)
        for name in ("photo", "scan"):
            assert written[name].dtype == arrays[name].dtype
            np.testing.assert_array_equal(written[name][there], arrays[name][present])
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "out/cells.h5ad") as file:
        parts = tuple(file["X"][name][()] for name in ("data", "indices", "indptr"))
    back = csr_array(parts, shape=(len(places), 120))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back.toarray(), arrays["cells"][places])


def test_what_missing_rows_hold_does_not_tell(imported: tuple[Path, dict[str, np.ndarray]]) -> None:
    """Rows stay as they are stored if missing ones hold the fill value already, as after an import."""
    data = Dataset.load(imported[0] / "train")
    absent = ~data.observed[:, [m.name for m in data.modalities].index("photo")]
    assert absent.any()
    assert emptied(data).data == data.data
    photo = data.data["photo"]
    assert isinstance(photo, ScaledIntegers)
    integers = np.where(absent.reshape(-1, 1, 1, 1), 9, photo.integers).astype(np.uint8)
    other = replace(data, data={**data.data, "photo": ScaledIntegers(integers, photo.scale)})
    np.testing.assert_array_equal(emptied(other).data["photo"], photo)


WRONG: dict[str, tuple[Any, str]] = {
    "no scale above 0": ({"photo": {"scale": 0}}, "expected finite numbers and a scale above 0"),
    "an unknown key": ({"photo": {"factor": 2}}, "scales: .*factor"),
    "a list": ([255], "scales: .*correct the manifest"),
}


@pytest.mark.parametrize(("scales", "sentence"), WRONG.values(), ids=WRONG)
def test_a_damaged_scale_is_refused(scales: Any, sentence: str, tmp_path: Path) -> None:
    from postprior.pipelines.storage import read_json, write_json

    photo = ScaledIntegers(np.zeros((2, 1, 2, 2), np.uint8), Scale(scale=255))
    modality = Modality("photo", "image", (1, 2, 2), "laplace", (0, 1))
    Dataset((modality,), {"photo": photo}).save(tmp_path / "data")
    path = tmp_path / "data/manifest.json"
    write_json(path, read_json(path) | {"scales": scales})
    with pytest.raises(UserError, match=sentence):
        Dataset.load(tmp_path / "data")


def test_values_out_of_range_are_found_in_every_form(tmp_path: Path) -> None:
    integers = np.full((3, 1, 2, 2), 255, np.uint8)
    photo = Modality("photo", "image", (1, 2, 2), "laplace", (0, 1))
    with pytest.raises(UserError, match=r"value 1\.27.* in row 0 is outside the declared range 0 to 1"):
        Dataset((photo,), {"photo": ScaledIntegers(integers, Scale(scale=200))}).save(tmp_path / "data")
    genes = Modality("genes", "vector", (9,), "negative_binomial")
    wrong = SparseRows.compressed([np.where(np.arange(50)[:, None] == 7, DENSE / 2 + 0.25, DENSE)], 9)
    with pytest.raises(UserError, match="in row 7 found, expected whole numbers of at least 0"):
        Dataset((genes,), {"genes": wrong}).save(tmp_path / "data")
