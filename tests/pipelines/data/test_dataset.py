"""The dataset folder: saving and loading, and one sentence about each violation of the format."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from postprior.pipelines.data import arrays
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.manifest import Manifest
from postprior.pipelines.data.writing import writing
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality

# Not in alphabetical order: the mask's columns follow the manifest, not the names.
MODALITIES = (
    Modality("photo", "image", (3, 4, 5), "laplace", (0, 1)),
    Modality("age", "vector", (2,), "normal"),
)


def example(samples: int = 9) -> Dataset:
    rng = np.random.default_rng(0)
    mask = np.ones((samples, 2), bool)
    mask[1, 0] = mask[2, 1] = False
    cells = np.ones((samples, 2), bool)
    cells[0, 1] = False
    return Dataset(
        MODALITIES,
        {
            "photo": rng.random((samples, 3, 4, 5), dtype=np.float32),
            "age": rng.normal(size=(samples, 2)).astype(np.float32),
        },
        mask=mask,
        cells={"age": cells},
        labels=np.arange(samples) % 3,
        targets=rng.normal(size=(samples, 2)),
        groups=np.arange(samples) // 2,
        ids=np.array([f"subject-{row}" for row in range(samples)]),
        label_names=("cat", "dog", "owl"),
        provenance={"source": "a test"},
    )


def bare(dataset: Dataset) -> Dataset:
    """Remove everything that is optional."""
    return Dataset(dataset.modalities, dataset.data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    example().save(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.parametrize("make", [example, lambda: bare(example())], ids=["everything", "bare"])
def test_a_dataset_is_restored(tmp_path: Path, make: Callable[[], Dataset]) -> None:
    made = make()
    made.save(tmp_path / "data")
    loaded = Dataset.load(tmp_path / "data")
    assert (loaded.modalities, loaded.label_names) == (made.modalities, made.label_names)
    assert loaded.provenance == made.provenance
    assert len(loaded) == 9
    for name, array in made.data.items():
        assert isinstance(loaded.data[name], np.memmap)
        np.testing.assert_array_equal(loaded.data[name], array)
    assert loaded.cells.keys() == made.cells.keys()
    for name in ("mask", "labels", "targets", "groups", "ids"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name))


def test_the_manifest_is_the_documented_one(tmp_path: Path) -> None:
    bare(example()).save(tmp_path / "data")
    assert json.loads((tmp_path / "data/manifest.json").read_text()) == {
        "format": 1,
        "samples": 9,
        "modalities": {
            "photo": {"kind": "image", "shape": [3, 4, 5], "likelihood": "laplace", "range": [0, 1]},
            "age": {"kind": "vector", "shape": [2], "likelihood": "normal", "range": None},
        },
        "labels": None,
        "provenance": {},
    }
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == ["age.npy", "manifest.json", "photo.npy"]


def test_the_bytes_and_the_hash_follow_the_content(tmp_path: Path) -> None:
    for name, dataset in (("a", example()), ("b", example()), ("c", replace(example(), ids=None))):
        dataset.save(tmp_path / name)
    hashes = [Dataset.load(tmp_path / name).hash for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
    assert example().hash is None


def test_selected_rows_are_a_dataset(folder: Path, tmp_path: Path) -> None:
    rows = np.array([7, 2, 2])
    chosen = Dataset.load(folder).select(rows)
    assert chosen.hash is None
    chosen.save(tmp_path / "chosen")
    loaded = Dataset.load(tmp_path / "chosen")
    assert loaded.ids is not None
    assert loaded.ids.tolist() == ["subject-7", "subject-2", "subject-2"]
    np.testing.assert_array_equal(loaded.observed, [[True, True], [True, False], [True, False]])
    np.testing.assert_array_equal(loaded.data["photo"], example().data["photo"][rows])


@pytest.mark.parametrize("rows", [slice(1, 4), np.array([8, 0])])
def test_batches_are_writable_tensors(folder: Path, rows: slice | np.ndarray) -> None:
    batch = Dataset.load(folder).batch(rows)
    expected = example()
    assert list(batch.data) == ["photo", "age"]
    assert batch.data["age"].dtype == torch.float32
    torch.testing.assert_close(batch.data["photo"], torch.from_numpy(expected.data["photo"][rows]))
    assert expected.mask is not None
    assert batch.observed.tolist() == expected.mask[rows].tolist()
    batch.data["photo"].add_(1)


def test_without_a_mask_everything_is_observed() -> None:
    assert bare(example()).observed.all()


def rewrite(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Return a function that changes one array of a folder, with NumPy only."""

    def spoil(folder: Path) -> None:
        path = folder / f"{name}.npy"
        np.save(path, change(np.load(path)))

    return spoil


def put(place: Any, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


def declare(*keys: str, value: Any) -> Callable[[Path], None]:
    """Return a function that changes one entry of the manifest."""

    def spoil(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        entry = manifest
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return spoil


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def a_pickle(folder: Path) -> None:
    (folder / "photo.npy").write_bytes(pickle.dumps(np.load(folder / "photo.npy")))


def truncated(folder: Path) -> None:
    path = folder / "photo.npy"
    path.write_bytes(path.read_bytes()[:-4])


def nameless(folder: Path) -> None:
    declare("labels", value=None)(folder)


IMAGE = {"kind": "image", "shape": [3, 4, 5], "likelihood": "laplace", "range": [0, 1]}
SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (remove("manifest.json"), r"manifest\.json: no such file"),
    "no folder": (lambda folder: folder.rename(folder.with_name("gone")), r"manifest\.json: no such file"),
    "another format": (declare("format", value=2), r"manifest\.json: found format 2"),
    "no modalities": (declare("modalities", value={}), r"manifest\.json: modalities: none found"),
    "modalities of a wrong type": (declare("modalities", value=[]), r"modalities: list found, expected dict"),
    "an unknown kind": (
        declare("modalities", "photo", "kind", value="smell"),
        "photo.*'smell'.*expected one of",
    ),
    "a shape that is none": (declare("modalities", "photo", "shape", value="3"), r"manifest\.json: .*photo"),
    "an impossible range": (declare("modalities", "photo", "range", value=[1, 0]), "range of modality photo"),
    "half a range": (declare("modalities", "photo", "range", value=[1]), r"manifest\.json: .*photo"),
    "a missing key": (
        declare("modalities", "photo", value={"kind": "image"}),
        "photo: the key 'shape' is missing",
    ),
    "a modality that is none": (
        declare("modalities", "photo", value=3),
        r"manifest\.json: modalities: photo",
    ),
    "a reserved name": (
        declare("modalities", "mask", value=IMAGE),
        "'mask' is reserved for an array of the dataset format",
    ),
    "a name with a slash": (declare("modalities", "../x", value=IMAGE), r"modality name: found '\.\./x'"),
    "labels of a wrong type": (declare("labels", value=["cat"]), r"manifest\.json: labels: \['cat'\] found"),
    "no label names": (declare("labels", "names", value=[]), r"manifest\.json: labels"),
    "no samples": (declare("samples", value=0), r"manifest\.json: samples: 0 found, expected at least 1"),
    "samples of a wrong type": (declare("samples", value="9"), "samples: str found, expected int"),
    "a missing array": (remove("age.npy"), r"age\.npy: this array is missing"),
    "missing labels": (remove("labels.npy"), r"labels\.npy: this file is missing, but the manifest names labels"),
    "labels without names": (nameless, r"manifest\.json: labels: null found, but labels\.npy exists"),
    "a short array": (rewrite("age", lambda a: a[:-1]), r"age\.npy: shape \(8, 2\) found, expected \(9, 2\)"),
    "short labels": (rewrite("labels", lambda a: a[:-1]), r"labels\.npy: shape \(8,\) found, expected \(9\)"),
    "short ids": (rewrite("ids", lambda a: a[:-1]), r"ids\.npy: shape"),
    "short groups": (rewrite("groups", lambda a: a[:-1]), r"groups\.npy: shape"),
    "flat targets": (rewrite("targets", lambda a: a[:, 0]), r"targets\.npy: .* expected \(9, any\)"),
    "NaN": (rewrite("photo", put((4, 0, 0, 0), np.nan)), r"photo\.npy: NaN or infinity in row 4"),
    "infinity": (rewrite("age", put((8, 1), -np.inf)), r"age\.npy: NaN or infinity in row 8"),
    "NaN among the missing": (
        rewrite("photo", put((1, 0, 0, 0), np.nan)),
        r"photo\.npy: NaN or infinity in row 1",
    ),
    "NaN among targets": (rewrite("targets", put((0, 0), np.nan)), r"targets\.npy: NaN"),
    "out of range": (rewrite("photo", put((5, 2, 3, 4), 1.5)), r"photo\.npy: value 1\.5 in row 5 .* 0 to 1"),
    "text": (rewrite("age", lambda a: a.astype(str)), r"age\.npy: type .* found, expected float"),
    "a mask of the wrong shape": (
        rewrite("mask", lambda a: a[:, :1]),
        r"mask\.npy: shape \(9, 1\) .* \(9, 2\)",
    ),
    "a mask of numbers": (rewrite("mask", lambda a: a.astype(float)), r"mask\.npy: type float64 .* bool"),
    "a row with no modality": (rewrite("mask", put(3, False)), r"mask\.npy: row 3 has no observed modality"),
    "cells of the wrong shape": (rewrite("age.observed", lambda a: a[:, 0]), r"age\.observed\.npy: shape"),
    "a label too high": (
        rewrite("labels", put(6, 3)),
        r"labels\.npy: label 3 in row 6 is out of range.* 0 to 2",
    ),
    "a label below zero": (rewrite("labels", put(6, -2)), r"labels\.npy: label -2 in row 6 .* 0 to .*, or -1 for no"),
    "labels that are fractions": (rewrite("labels", lambda a: a / 2), r"labels\.npy: type float64"),
    "a pickle": (a_pickle, r"photo\.npy: not a complete \.npy array .*pickle"),
    "a truncated array": (truncated, r"photo\.npy: not a complete \.npy array"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_broken_folder_is_refused_in_one_sentence(folder: Path, case: str) -> None:
    spoil, sentence = SPOILED[case]
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as error:
        Dataset.load(folder)
    assert "\n" not in str(error.value)


def test_missing_entries_may_be_out_of_range(tmp_path: Path) -> None:
    dataset = example()
    dataset.data["photo"][1] = -1  # the mask says that this row has no photo
    dataset.save(tmp_path / "data")
    cells = np.ones((9, 3, 4, 5), bool)
    cells[4, 0] = False
    dataset.data["photo"][4, 0] = 7
    replace(dataset, cells={"photo": cells}).save(tmp_path / "data")
    with pytest.raises(UserError, match=r"photo\.npy: value 7 in row 4"):
        replace(dataset, cells={}).save(tmp_path / "data")


def test_chunks_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK", 130)  # two rows of photos
    Dataset.load(folder)
    for row in (0, 5, 8):
        rewrite("photo", put((row, 0, 0, 0), 2))(folder)
        with pytest.raises(UserError, match=f"in row {row} "):
            Dataset.load(folder)
        rewrite("photo", put((row, 0, 0, 0), 0))(folder)


def test_a_broken_dataset_is_not_saved(folder: Path) -> None:
    before = Dataset.load(folder).hash
    dataset = example()
    for broken in (
        replace(dataset, data={"photo": dataset.data["photo"]}),
        replace(dataset, data={**dataset.data, "smell": dataset.data["age"]}),
        replace(dataset, labels=dataset.labels + 1 if dataset.labels is not None else None),
        dataset.select(np.array([], int)),
    ):
        with pytest.raises(UserError):
            broken.save(folder)
    assert Dataset.load(folder).hash == before


def blocks(dataset: Dataset, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, len(dataset), size)]


@pytest.mark.parametrize("size", [1, 4, 9])
@pytest.mark.parametrize("fields", [(), ("labels",), ("labels", "mask", "cells")])
def test_a_writer_writes_the_same_bytes_as_save(tmp_path: Path, size: int, fields: tuple[str, ...]) -> None:
    made = replace(bare(example()), provenance={"seed": 3}, **{name: getattr(example(), name) for name in fields})
    if "labels" in fields:
        made = replace(made, label_names=example().label_names)
    made.save(tmp_path / "saved")
    manifest = Manifest(MODALITIES, 9, ("cat", "dog", "owl"), {"seed": 3})
    written = made.arrays.keys() - made.data.keys()
    assert ("mask" in written and any(name.endswith(".observed") for name in written)) == ("cells" in fields)
    with writing(tmp_path / "written", manifest, written) as write:
        for rows in reversed(blocks(made, size)):
            write(rows.start, {name: array[rows] for name, array in made.arrays.items()})
    assert Dataset.load(tmp_path / "written").hash == Dataset.load(tmp_path / "saved").hash


def test_a_writer_checks_every_block_and_leaves_no_incomplete_folder(folder: Path) -> None:
    before = Dataset.load(folder).hash
    data = example().data
    spoiled = {**data, "photo": data["photo"] + 1}
    with (
        pytest.raises(UserError, match=r"photo\.npy: value"),
        writing(folder, Manifest(MODALITIES, 18, None, {})) as write,
    ):
        write(0, data)
        write(9, spoiled)
    with (
        pytest.raises(ValueError, match="9 of 18 rows were never written"),
        writing(folder, Manifest(MODALITIES, 18, None, {})) as write,
    ):
        write(0, data)
    assert Dataset.load(folder).hash == before
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


@pytest.mark.parametrize("samples", [0, -3])
def test_a_writer_needs_a_positive_number_of_samples(tmp_path: Path, samples: int) -> None:
    with pytest.raises(UserError, match=f"{samples} samples requested"):
        writing(tmp_path / "data", Manifest(MODALITIES, samples, None, {}))


def test_a_writer_of_labels_needs_their_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label_names"):
        writing(tmp_path / "data", Manifest(MODALITIES, 3, None, {}), ["labels"])


def test_a_writer_needs_the_memory_of_a_block(tmp_path: Path) -> None:
    modality = Modality("photo", "image", (3, 32, 32), "laplace", (0, 1))
    block = np.zeros((256, 3, 32, 32), np.float32)  # 3 MB
    tracemalloc.start()
    with writing(tmp_path / "data", Manifest((modality,), 256 * 12, None, {})) as write:
        for start in range(0, 256 * 12, 256):
            write(start, {"photo": block})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * block.nbytes
