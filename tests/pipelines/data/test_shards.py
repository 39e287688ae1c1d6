"""Shards are read as the whole array, and a dataset in shards gives the same results as one without."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.archives import exported, saved, views
from support.project import small, write_params

from postprior.pipelines.api.impute import impute
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.manifest import Manifest
from postprior.pipelines.data.rows import SparseRows, load_rows, save_rows
from postprior.pipelines.data.shards import Shards, shard_name
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.prepare import prepare
from postprior.pipelines.stages.train import train
from postprior.pipelines.storage import MANIFEST, read_json, write_json

RNG = np.random.default_rng(0)
WHOLE = RNG.normal(size=(23, 3, 2))
SHARDS = Shards([WHOLE[start : start + 5] for start in range(0, 23, 5)])
INDICES: dict[str, Any] = {
    "one": 7,
    "the last": -1,
    "a slice of one shard": slice(5, 10),
    "a slice of several": slice(3, 17),
    "all": slice(None),
    "an empty slice": slice(11, 3),
    "beyond the end": slice(20, 99),
    "every third, backwards": slice(20, 2, -3),
    "indices": np.array([22, 4, 4, -23, 0, 10]),
    "indices of one shard": np.array([6, 5]),
    "no indices": np.zeros(0, int),
    "a list": [3, 17],
    "a mask": np.arange(23) % 4 == 1,
    "a column of all rows": (slice(None), 1),
    "a column of some rows": (np.array([9, 21]), slice(1, 2), 1),
    "a value": (8, 2, 0),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_shards_are_indexed_like_the_whole_array(index: Any) -> None:
    found = SHARDS[index]
    assert found.dtype == WHOLE.dtype
    np.testing.assert_array_equal(found, WHOLE[index])


def test_shards_have_the_shape_and_the_ends_of_the_whole_array() -> None:
    assert (SHARDS.shape, SHARDS.ndim, len(SHARDS), SHARDS.nbytes) == (WHOLE.shape, 3, 23, WHOLE.nbytes)
    assert (SHARDS.min(), SHARDS.max(), SHARDS.max(initial=9)) == (WHOLE.min(), WHOLE.max(), 9)
    np.testing.assert_array_equal(np.where(WHOLE > 0, SHARDS, 0), np.where(WHOLE > 0, WHOLE, 0))
    for row in (23, -24):
        with pytest.raises(IndexError):
            SHARDS[row]


def test_a_slice_of_one_shard_is_not_copied() -> None:
    assert np.shares_memory(SHARDS[6:9], WHOLE)


DENSE = np.where(RNG.random((50, 9)) < 0.2, RNG.integers(1, 300, (50, 9)), 0).astype(np.float32)
ROWS = {"dense": (DENSE, 24), "sparse": (SparseRows.compressed([DENSE], 9), 40)}


@pytest.mark.parametrize(("rows", "largest"), ROWS.values(), ids=ROWS)
def test_rows_come_back_from_files_of_a_limited_size(rows: Any, largest: int, tmp_path: Path) -> None:
    """A file has at most `largest` bytes besides its header, or one row."""
    shards = save_rows(tmp_path, "genes", rows, largest)
    assert len([*tmp_path.iterdir()]) == sum(shards.values()) + isinstance(rows, SparseRows)
    for name, count in shards.items():
        sizes = [np.load(tmp_path / shard_name(name, number)).nbytes for number in range(count)]
        assert max(sizes) <= max(largest, 36)
    loaded = load_rows(tmp_path, "genes", 9, np.float32, shards)
    np.testing.assert_array_equal(loaded, DENSE)
    places = RNG.permutation(50)
    np.testing.assert_array_equal(loaded[places], DENSE[places])
    again = tmp_path / "again"
    again.mkdir()
    assert save_rows(again, "genes", loaded) == shards, "rows in shards keep them"
    with pytest.raises(UserError, match=r"genes.*\.00001\.npy: this array is missing"):
        next(tmp_path.glob("genes*.00001.npy")).unlink()
        load_rows(tmp_path, "genes", 9, np.float32, shards)


def test_shards_of_other_rows_are_refused(tmp_path: Path) -> None:
    shards = save_rows(tmp_path, "genes", DENSE, 400)
    np.save(tmp_path / shard_name("genes", 1), DENSE[:3])
    with pytest.raises(
        UserError, match=r"genes\.\*\.npy: shards: found .*\(3, 9\).* as many rows in each but the last"
    ):
        load_rows(tmp_path, "genes", 9, np.float32, shards)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two imports of one archive with missing cells: as one file per array, and as shards of 100 bytes or one row."""
    root = tmp_path_factory.mktemp("shards")
    arrays = views()
    arrays["vector"][::7, 1] = np.nan
    arrays["scan"] = arrays["scan"].astype(np.float64)  # not what float32 gives back: the source is kept
    saved(root, arrays)
    roles = Roles(label="labels", nan_is_missing=True)
    import_data([root / "views.npz"], root / "whole", roles)
    import_data([root / "views.npz"], root / "shards", roles, largest=100)
    return root / "whole", root / "shards"


def test_a_dataset_in_shards_is_the_same_dataset(folders: tuple[Path, Path]) -> None:
    for split in SPLITS:
        whole, shards = (Dataset.load(folder / split) for folder in folders)
        assert (
            split != "train"
            or {"grey", "scan", "vector", "vector.observed"} <= Manifest.read(folders[1] / split).shards.keys()
        )
        assert whole.arrays.keys() == shards.arrays.keys()
        for name, array in whole.arrays.items():
            np.testing.assert_array_equal(shards.arrays[name], array)
        np.testing.assert_array_equal(shards.fully_observed, whole.fully_observed)
        rows = RNG.permutation(len(whole))[:5]
        some = shards.select(rows)
        for name, values in whole.batch(rows).data.items():
            np.testing.assert_array_equal(shards.batch(rows).data[name], values)
            np.testing.assert_array_equal(some.data[name], values)


def test_folders_with_and_without_shards_replace_each_other(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in (*folders, folders[0]):
        Dataset.load(folder / "train").save(tmp_path / "data")
        assert {path.name for path in (tmp_path / "data").iterdir()} == {
            path.name for path in (folder / "train").iterdir()
        }


def test_shards_come_back_as_their_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    whole, shards = (exported(folder, tmp_path / folder.name) for folder in folders)
    assert whole.keys() == shards.keys()
    for name, array in whole.items():
        assert array.dtype == shards[name].dtype
        np.testing.assert_array_equal(shards[name], array)


@pytest.fixture(scope="module")
def projects(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A project of each of the folders, with samples."""
    home = tmp_path_factory.mktemp("projects")
    for folder in folders:
        root, source = home / folder.name, {"source": "folder", "folder": {"path": str(folder)}}
        options = {"densities": ["vamp"], "density__vamp__steps": 5, "generate__samples": 30}
        params = write_params(root, small(data=source, train__epochs=1, **options))
        prepare(params, root)
        train(params, root)
        encode(params, root)
        fit("vamp", params, root)
        generate("vamp", params, root)
    return home / "whole", home / "shards"


def test_a_pipeline_gives_the_same_bytes_with_shards(projects: tuple[Path, Path]) -> None:
    """Weights, codes and samples; manifests differ, because they name the hash of the data."""
    found = []
    for root in projects:
        parts = (root / "artefacts" / name for name in ("autoencoder", "codes", "synthetic"))
        paths = [path for part in parts for path in part.rglob("*") if path.suffix in (".npy", ".safetensors")]
        found.append({str(path.relative_to(root)): path.read_bytes() for path in paths})
    assert [*(projects[1] / "artefacts/data/train").glob("grey.*.npy")]
    assert found[0] == found[1]
    assert any("synthetic" in name for name in found[0])


def test_samples_are_stored_in_the_type_of_the_data(projects: tuple[Path, Path], monkeypatch: Any) -> None:
    """Bytes stay bytes, and are read as the values that are drawn in memory; large files of samples are shards."""
    root = projects[0]
    generator = Generator.load(root / "artefacts/densities/vamp")
    drawn = generator.sample(30, seed=0, values="mean")
    stored = Dataset.load(root / "artefacts/synthetic/vamp")
    assert np.load(root / "artefacts/synthetic/vamp/grey.npy").dtype == np.uint8
    assert isinstance(stored.data["colour"], np.memmap)
    monkeypatch.setattr("postprior.pipelines.data.writing.LARGEST", 500)
    generate("vamp", load_params(root / "params.yaml"), root, out=root / "again")
    again = Dataset.load(root / "again")
    assert Manifest.read(root / "again").shards["grey"] == 2  # 16 images of 30 bytes fill a file
    for name, values in drawn.arrays.items():
        np.testing.assert_array_equal(np.asarray(stored.arrays[name]), values)
        np.testing.assert_array_equal(np.asarray(again.arrays[name]), values)


def test_imputed_rows_are_stored_in_the_type_of_the_data(projects: tuple[Path, Path], tmp_path: Path) -> None:
    """Observed values are the ones of the file, also if they are no integers: then all are stored as floats."""
    root = projects[1]
    test = Dataset.load(root / "artefacts/data/test")
    mask = np.ones((len(test), len(test.modalities)), bool)
    grey = [m.name for m in test.modalities].index("grey")
    mask[::2, grey] = False
    lacking = replace(test, mask=mask, folder=None)
    lacking.save(tmp_path / "lacking")
    replace(lacking, data={**test.data, "grey": np.asarray(test.data["grey"]) / 2}).save(tmp_path / "floats")
    for name, dtype in (("lacking", np.uint8), ("floats", np.float32)):
        impute("vamp", tmp_path / name, load_params(root / "params.yaml"), root, tmp_path / f"{name} filled")
        before, after = (Dataset.load(tmp_path / folder) for folder in (name, f"{name} filled"))
        assert np.load(tmp_path / f"{name} filled/grey.npy").dtype == dtype
        np.testing.assert_array_equal(after.data["grey"][1::2], before.data["grey"][1::2])
        assert after.data["grey"][::2].std() > 0


@pytest.mark.parametrize("shards", [{"grey": 0}, {"grey": "3"}, [3]], ids=str)
def test_damaged_numbers_of_shards_are_refused(shards: Any, folders: tuple[Path, Path], tmp_path: Path) -> None:
    Dataset.load(folders[1] / "test").save(tmp_path / "data")
    path = tmp_path / "data" / MANIFEST
    write_json(path, read_json(path) | {"shards": shards})
    with pytest.raises(UserError, match=r"shards: .*found, expected numbers of files by array"):
        Dataset.load(tmp_path / "data")
